//! Label and field selectors, as far as anybody here uses them.

use serde_json::Value;

use super::answer::No;

/// Of every kind the first two, of events the others.
const FIELDS: [&str; 6] =
    ["metadata.name", "metadata.namespace", "involvedObject.kind", "involvedObject.name", "reason", "type"];

#[derive(Debug, Clone, Default)]
pub struct Selector {
    labels: Vec<Term>,
    fields: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
enum Term {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
    In(String, Vec<String>),
}

impl Selector {
    pub fn parse(labels: &str, fields: &str) -> Result<Selector, No> {
        let labels = split(labels).iter().map(|text| term(text)).collect::<Result<_, _>>()?;
        let field = |text: &String| match text.split_once('=') {
            Some((path, value)) if FIELDS.contains(&path) => Ok((path.to_owned(), value.to_owned())),
            _ => Err(No::unknown(format!("field selector {text}"))),
        };
        let fields = split(fields).iter().map(field).collect::<Result<_, _>>()?;
        Ok(Selector { labels, fields })
    }

    pub fn holds(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let label = |key: &String| labels.get(key).and_then(Value::as_str);
        let term = |term: &Term| match term {
            Term::Is(key, value) => label(key) == Some(value),
            Term::IsNot(key, value) => label(key) != Some(value),
            Term::Has(key) => label(key).is_some(),
            Term::HasNot(key) => label(key).is_none(),
            Term::In(key, values) => label(key).is_some_and(|is| values.iter().any(|value| value == is)),
        };
        let field = |(path, value): &(String, String)| {
            super::store::text(object, &format!("/{}", path.replace('.', "/"))) == value
        };
        self.labels.iter().all(term) && self.fields.iter().all(field)
    }
}

/// At the commas outside parentheses.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in text.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        match c {
            ',' if depth == 0 => parts.push(String::new()),
            c => parts.last_mut().unwrap().push(c),
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn term(text: &str) -> Result<Term, No> {
    let text = text.trim();
    let own = |text: &str| text.trim().to_owned();
    if let Some((key, values)) = text.split_once(" in ") {
        let values = values.trim().trim_matches(['(', ')']).split(',').map(own).collect();
        return Ok(Term::In(own(key), values));
    }
    if text.contains(" notin ") {
        return Err(No::unknown("notin"));
    }
    Ok(match (text.split_once("!="), text.split_once("=="), text.split_once('='), text.strip_prefix('!')) {
        (Some((key, value)), ..) => Term::IsNot(own(key), own(value)),
        (_, Some((key, value)), ..) | (_, _, Some((key, value)), _) => Term::Is(own(key), own(value)),
        (.., Some(key)) => Term::HasNot(own(key)),
        _ => Term::Has(own(text)),
    })
}
