//! A StatefulSetBackup from a file: as strict as the API server, which never sees it.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::api::API_VERSION;
use crate::api::backup::StatefulSetBackup;
use crate::error::{Error, Result};

const KIND: &str = "StatefulSetBackup";

/// The text of a file; `-` is standard input.
pub fn text(path: &Path) -> Result<String> {
    let read = || {
        if path == Path::new("-") {
            let mut text = String::new();
            return std::io::stdin().read_to_string(&mut text).map(|_| text);
        }
        std::fs::read_to_string(path)
    };
    read().map_err(|error| Error::Usage(format!("cannot read {}: {error}", path.display())))
}

/// The object in the file. What it asks for is not judged here.
pub fn backup(path: &Path) -> Result<StatefulSetBackup> {
    parse(&text(path)?).map_err(|why| Error::Usage(format!("{}: {why}", path.display())))
}

fn parse(text: &str) -> std::result::Result<StatefulSetBackup, String> {
    let mut value: Value = serde_saphyr::from_str(text).map_err(|error| {
        let error = error.to_string();
        format!("not one YAML document: {}", error.lines().next().unwrap_or_default())
    })?;
    let word = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    if word("kind") != KIND || word("apiVersion") != API_VERSION {
        let (version, kind) = (word("apiVersion"), word("kind"));
        return Err(format!("expected kind {KIND} of {API_VERSION}, found {kind:?} of {version:?}"));
    }
    // Without a name it is still a policy: who needs the name asks for it.
    if let Some(object) = value.as_object_mut() {
        object.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    let object: StatefulSetBackup = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    let known = serde_json::to_value(&object).unwrap_or_default();
    match stranger(&value["spec"], &known["spec"]) {
        Some(path) => Err(format!("spec.{path} is no field of a {KIND}")),
        None => Ok(object),
    }
}

/// A field that was not understood: a slip of the pen in a rule of retention must not pass for no rule.
fn stranger(given: &Value, known: &Value) -> Option<String> {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    given.as_object()?.iter().find_map(|(key, value)| match known.get(key) {
        None if is_empty(value) => None,
        None => Some(key.clone()),
        Some(known) => stranger(value, known).map(|path| format!("{key}.{path}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: backup.sts-backup.io/v1alpha1\nkind: StatefulSetBackup\n";

    fn said(text: &str) -> String {
        parse(text)
            .map_or_else(|why| why, |object| format!("{:?}", object.spec.retention_policy.and_then(|p| p.keep_last)))
    }

    #[test]
    fn a_manifest_is_read_and_a_slip_of_the_pen_is_named() {
        let spec = |spec: &str| said(&format!("{HEAD}spec: {spec}"));
        assert_eq!(spec("{retentionPolicy: {keepLast: 3}}"), "Some(3)");
        assert_eq!(spec("{schedule: \"\", claimTemplates: [], retentionPolicy: null}"), "None");
        let wrong = spec("{retentionPolicy: {keepDays: 7, keepLats: 3}}");
        assert_eq!(wrong, "spec.retentionPolicy.keepLats is no field of a StatefulSetBackup");
        assert!(spec("{retentionPolicy: {keepLast: three}}").contains("invalid type"));
        assert!(
            said("kind: Pod")
                .starts_with("expected kind StatefulSetBackup of backup.sts-backup.io/v1alpha1, found \"Pod\"")
        );
        assert!(said("a: [").starts_with("not one YAML document"));
    }
}
