//! Parameters of a StorageClass from which a driver makes something of the claim's name: under a staging name it would
//! be something else. Drivers write `${pvc.name}`, `${pvc.metadata.name}`, `${.PVC.name}`, `{{ .PVC.Name }}` or
//! `{{ .PVCName }}`, and annotations and labels of the claim in as many ways.

use std::collections::BTreeMap;

use crate::api::recorded::RecordedClaim;
use crate::plan::restore::sight::StorageClass;

/// What drivers call a claim.
const CLAIM: [&str; 3] = ["pvc", "persistentvolumeclaim", "claim"];

/// The first parameter that means something else under a staging name.
pub fn named<'a>(class: &'a StorageClass, manifest: &RecordedClaim) -> Vec<&'a str> {
    let depends = |value: &str| expressions(value).into_iter().any(|inner| is_of_name(inner, manifest));
    class.parameters.iter().filter(|(_, value)| depends(value)).map(|(key, _)| key.as_str()).collect()
}

/// It only says what the volume is called at the provider.
pub fn is_tag(parameter: &str) -> bool {
    let parameter = parameter.to_lowercase();
    ["tag", "label", "resource-tags"].iter().any(|word| parameter.starts_with(word))
}

/// What stands between `${` and `}`, and between `{{` and `}}`.
fn expressions(value: &str) -> Vec<&str> {
    let between = |open: &'static str, close: &'static str| {
        value.split(open).skip(1).filter_map(move |rest| rest.split_once(close).map(|(inner, _)| inner))
    };
    between("${", "}").chain(between("{{", "}}")).collect()
}

fn is_of_name(inner: &str, manifest: &RecordedClaim) -> bool {
    let lower = inner.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let is_name = |word: &str| CLAIM.iter().any(|claim| word.strip_prefix(claim) == Some("name"));
    if words.iter().any(|word| is_name(word)) {
        return true;
    }
    let Some(at) = words.iter().position(|word| CLAIM.contains(word)) else { return false };
    let field = words[at + 1..].iter().find(|word| **word != "metadata");
    match field {
        Some(&"name") => true,
        // They are carried over; what the claim does not have now it cannot have under the other name either.
        Some(&("annotations" | "annotation")) => !has(&manifest.annotations, inner),
        Some(&("labels" | "label")) => !has(&manifest.labels, inner),
        _ => false,
    }
}

/// It names one of these keys.
fn has(all: &BTreeMap<String, String>, inner: &str) -> bool {
    all.keys().any(|key| inner.contains(key.as_str()))
}
