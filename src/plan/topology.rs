//! Which nodes can use a volume: the node affinity of a PersistentVolume against a node's labels. The rules are
//! Kubernetes' own: terms are alternatives, the requirements of one term must all hold.

use std::collections::BTreeMap;

/// One alternative of `spec.nodeAffinity.required`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Term(pub Vec<Requirement>);

/// `key operator values` of a node's label. `metadata.name`, the one field that may be asked for, is a key as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: String,
    pub values: Vec<String>,
}

/// The key under which a node's name is looked up.
pub const NAME: &str = "metadata.name";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub ready: bool,
    /// Not cordoned.
    pub schedulable: bool,
    pub labels: BTreeMap<String, String>,
    /// The CSI drivers that are registered on it.
    pub drivers: Vec<String>,
}

impl Node {
    /// Whether a volume of that affinity can be used here; no terms: anywhere.
    pub fn serves(&self, affinity: &[Term]) -> bool {
        affinity.is_empty() || affinity.iter().any(|term| self.fits(term))
    }

    /// A term without requirements matches nothing.
    fn fits(&self, Term(requirements): &Term) -> bool {
        !requirements.is_empty() && requirements.iter().all(|requirement| self.holds(requirement))
    }

    fn holds(&self, requirement: &Requirement) -> bool {
        let Requirement { key, operator, values } = requirement;
        let value = if key == NAME { Some(&self.name) } else { self.labels.get(key) };
        let number = |text: &String| text.parse::<i64>().ok();
        let compare = || value.and_then(number).zip(values.first().and_then(number));
        match operator.as_str() {
            "In" => value.is_some_and(|value| values.contains(value)),
            "NotIn" => value.is_none_or(|value| !values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => compare().is_some_and(|(own, bound)| own > bound),
            "Lt" => compare().is_some_and(|(own, bound)| own < bound),
            _ => false,
        }
    }

    /// Whether pods with this nodeSelector may come here at all.
    pub fn is_open_to(&self, selector: &BTreeMap<String, String>) -> bool {
        self.ready && self.schedulable && selector.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(key: &str, operator: &str, values: &[&str]) -> Requirement {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        Requirement { key: key.into(), operator: operator.into(), values }
    }

    #[test]
    fn terms_are_alternatives_of_requirements_that_must_all_hold() {
        let labels = BTreeMap::from([("zone".to_owned(), "b".to_owned()), ("disks".to_owned(), "4".to_owned())]);
        let node = Node { name: "n1".into(), labels, ..Node::default() };
        let term = |all: &[Requirement]| Term(all.to_vec());
        let zone = |value| requirement("zone", "In", &[value]);
        assert!(node.serves(&[]));
        assert!(node.serves(&[term(&[zone("a")]), term(&[zone("b")])]));
        assert!(!node.serves(&[term(&[zone("b"), requirement("disks", "Gt", &["4"])])]));
        assert!(node.serves(&[term(&[zone("b"), requirement("disks", "Lt", &["5"])])]));
        assert!(node.serves(&[term(&[requirement(NAME, "In", &["n1"])])]));
        assert!(node.serves(&[term(&[requirement("gpu", "NotIn", &["x"]), requirement("gpu", "DoesNotExist", &[])])]));
        assert!(!node.serves(&[term(&[])]), "an empty term matches no node");
        assert!(!node.serves(&[term(&[requirement("zone", "Fits", &["b"])])]), "what is not understood does not hold");
    }
}
