//! `sts-backup retention` from files: what it answers, and what it says to input that is wrong. No cluster is there.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, Output};

const POLICY: &str = "apiVersion: backup.sts-backup.io/v1alpha1
kind: StatefulSetBackup
metadata: {name: nightly}
spec:
  statefulSetRef: {name: web}
  timeZone: Europe/Berlin
  retentionPolicy: {keepLast: 2, keepDays: 2, keepWeekly: 2}
";

/// web-1 was scaled away after the second run; the fifth is not complete.
const RUNS: &str = r#"[
  {"id": "20260301-020000", "cutTime": "2026-03-01T02:00:00Z", "complete": true, "claims": ["data-web-0", "data-web-1"]},
  {"id": "20260302-020000", "cutTime": "2026-03-02T02:00:00Z", "complete": true, "claims": ["data-web-0", "data-web-1"]},
  {"id": "20260313-020000", "cutTime": "2026-03-13T02:00:00Z", "complete": true, "claims": ["data-web-0"]},
  {"id": "20260314-020000", "cutTime": "2026-03-14T02:00:00Z", "complete": true, "claims": ["data-web-0"]},
  {"id": "20260314-120000", "cutTime": "2026-03-14T12:00:00Z", "complete": false, "claims": ["data-web-0"]},
  {"id": "20260316-020000", "cutTime": "2026-03-16T02:00:00Z", "complete": true, "claims": ["data-web-0"]}
]"#;

fn file(name: &str, text: &str) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("retention-{name}"));
    std::fs::write(&file, text).unwrap();
    file
}

fn ask(name: &str, policy: &str, runs: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sts-backup"));
    command.arg("retention").arg("-f").arg(file(&format!("{name}.yaml"), policy));
    command.arg("--runs").arg(file(&format!("{name}.json"), runs)).args(more);
    // Whoever looks for a cluster all the same finds none.
    command.env("KUBECONFIG", "/nonexistent").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn answer(name: &str, policy: &str, more: &[&str]) -> String {
    let output = ask(name, policy, RUNS, more);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn assert_snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn people_see_which_rules_keep_each_run() {
    assert_snapshot("retention_table", &answer("table", POLICY, &[]));
}

#[test]
fn programs_get_what_is_specified() {
    let json: serde_json::Value = serde_json::from_str(&answer("json", POLICY, &["-o", "json"])).unwrap();
    let expected = serde_json::json!([
        { "id": "20260316-020000", "keep": true, "rules": ["keepLast", "keepDays", "keepWeekly", "floor"] },
        { "id": "20260314-120000", "keep": true, "rules": ["incomplete"] },
        { "id": "20260314-020000", "keep": true, "rules": ["keepLast", "keepWeekly"] },
        { "id": "20260313-020000", "keep": false, "rules": [] },
        { "id": "20260302-020000", "keep": true, "rules": ["keepLast", "keepWeekly", "floor"] },
        { "id": "20260301-020000", "keep": true, "rules": ["keepLast", "keepWeekly"] },
    ]);
    assert_eq!(json, expected);
    let later = answer("later", POLICY, &["-o", "json", "--now", "2026-03-30T02:00:00.5Z"]);
    assert!(!later.contains("keepDays"), "ages count back from --now: {later}");
    assert_eq!(answer("name", POLICY, &["-o", "name"]).lines().count(), 5, "the names of what is kept");
    let none = POLICY.replace("  retentionPolicy: {keepLast: 2, keepDays: 2, keepWeekly: 2}\n", "");
    let json: serde_json::Value = serde_json::from_str(&answer("none", &none, &["-o", "json"])).unwrap();
    let all = json.as_array().unwrap();
    assert_eq!(all.len(), 6);
    assert!(all.iter().all(|run| run["keep"] == true && run["rules"] == serde_json::json!([])), "{json}");
}

#[test]
fn what_is_wrong_is_named_and_exits_64() {
    let policy = |with: &str| POLICY.replace("keepLast: 2", with);
    let cases = [
        ("no number", policy("keepLast: 0"), RUNS.to_owned(), &[][..]),
        ("a slip of the pen", policy("keepLats: 2"), RUNS.to_owned(), &[]),
        (
            "an empty policy",
            POLICY.replace("{keepLast: 2, keepDays: 2, keepWeekly: 2}", "{purgeRetained: true}"),
            RUNS.to_owned(),
            &[],
        ),
        ("no such zone", POLICY.replace("Europe/Berlin", "Mars/Olympus"), RUNS.to_owned(), &[]),
        ("another kind", POLICY.replace("kind: StatefulSetBackup", "kind: CronJob"), RUNS.to_owned(), &[]),
        ("no YAML", "spec: [".to_owned(), RUNS.to_owned(), &[]),
        ("no JSON", POLICY.to_owned(), "[{]".to_owned(), &[]),
        ("a run without a time", POLICY.to_owned(), r#"[{"id": "a", "complete": true}]"#.to_owned(), &[]),
        ("a run twice", POLICY.to_owned(), RUNS.replace("20260301", "20260302"), &[]),
        ("no claims", POLICY.to_owned(), RUNS.replace(r#"["data-web-0"]"#, "[]"), &[]),
        ("no time", POLICY.to_owned(), RUNS.to_owned(), &["--now", "yesterday"]),
    ];
    let mut said = String::new();
    for (n, (case, policy, runs, more)) in cases.into_iter().enumerate() {
        let output = ask(&format!("wrong-{n}"), &policy, &runs, more);
        assert_eq!(output.status.code(), Some(64), "{case}: {output:?}");
        assert!(output.stdout.is_empty(), "{case}: {output:?}");
        let folder = format!("{}/", env!("CARGO_TARGET_TMPDIR"));
        let sentence = text(&output.stderr).replace(&folder, "").replace(&format!("retention-wrong-{n}."), "FILE.");
        write!(said, "{case}\n    {}\n", sentence.trim().replace('\n', "\n    ")).unwrap();
    }
    assert_snapshot("retention_refusals", &said);
}
