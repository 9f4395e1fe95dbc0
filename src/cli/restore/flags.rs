//! What the flags of `restore` come to in the object.

use std::collections::BTreeSet;

use clap::Parser;
use kube::CustomResourceExt;
use serde_json::json;

use super::Restore;
use crate::api::restore::StatefulSetRestore;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    restore: Restore,
}

fn parse(line: &str) -> Result<Restore, String> {
    let words = ["restore"].into_iter().chain(line.split_whitespace());
    Line::try_parse_from(words).map(|line| line.restore).map_err(|error| error.to_string())
}

/// As `list runs` prints a run that was made from another namespace.
#[test]
fn the_runs_of_a_backup_of_another_namespace_are_restored_beside_it() {
    let asked = parse("--statefulset shop/pg --backup ops/nightly").unwrap();
    let object = asked.object("shop", "pg".into());
    let expected = json!({ "statefulSetRef": { "name": "pg", "namespace": "shop" }, "backupName": "nightly" });
    assert_eq!(serde_json::to_value(&object.spec).unwrap(), expected);
    assert_eq!(object.metadata.namespace.as_deref(), Some("ops"));
    let same = parse("--statefulset pg --backup shop/nightly").unwrap().object("shop", "pg".into());
    assert_eq!((same.metadata.namespace.as_deref(), same.spec.stateful_set_ref.namespace), (Some("shop"), None));
    assert!(parse("--statefulset pg --backup a/b/c").is_err());
}

/// What can be written can be typed.
#[test]
fn every_field_of_the_spec_is_a_flag() {
    let spec = ["--backup b --run 20260101-000000", "--backup b --at 2026-01-01T00:00:00Z", "--snapshots a"];
    let rest = "--source-statefulset o --strategy InPlace --scale-down false --pvc-deletion-timeout 1s --uncovered Keep \
                --stop-timeout 1s --stage-timeout 1s --ready-timeout 1s --on-failure Hold --undo-window 1s \
                --release-old-volumes AtDeadline";
    let mut typed = BTreeSet::new();
    for which in spec {
        let object = parse(&format!("--statefulset s {which} {rest}")).unwrap().object("shop", "s".into());
        let all = serde_json::to_value(&object.spec).unwrap();
        typed.extend(all.as_object().unwrap().keys().cloned());
    }
    let crd = serde_json::to_value(StatefulSetRestore::crd()).unwrap();
    let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap();
    let written: BTreeSet<String> = schema.as_object().unwrap().keys().cloned().collect();
    assert!(written.len() > 10);
    assert_eq!(typed, written);
}
