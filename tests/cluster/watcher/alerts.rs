//! The chart's alerts, by Prometheus' own tool and by helm.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

use crate::harness::install::{CHART, helm, run_helm, tool};
use crate::harness::skipped;

const RULES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/charts/sts-backup/files/alerts.yaml"));
const TESTS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/alerts.yaml"));

#[tokio::test]
async fn every_alert_is_on_when_it_should_be() {
    let Some(promtool) = tool("promtool") else {
        return skipped("there is no promtool: the alerts are not tried");
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("alerts");
    std::fs::create_dir_all(&folder).unwrap();
    for (file, text) in [("rules.yaml", RULES), ("tests.yaml", TESTS)] {
        std::fs::write(folder.join(file), text).unwrap();
    }
    let mut command = Command::new(promtool);
    let said = command.current_dir(&folder).args(["test", "rules", "tests.yaml"]).output().await.unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

/// Promtool says nothing of an alert that no test expects to be on.
#[test]
fn every_alert_is_expected_to_be_on_by_a_test() {
    let [rules, tests]: [Value; 2] = [RULES, TESTS].map(|text| serde_saphyr::from_str(text).unwrap());
    let all = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let name = |value: &Value| value.as_str().unwrap().to_owned();
    let alerts: BTreeSet<_> = all(&rules["groups"][0]["rules"]).iter().map(|rule| name(&rule["alert"])).collect();
    let cases = all(&tests["tests"]).into_iter().flat_map(|test| all(&test["alert_rule_test"]));
    let on = cases.filter(|case| !all(&case["exp_alerts"]).is_empty()).map(|case| name(&case["alertname"]));
    assert!(alerts.len() > 10);
    assert_eq!(alerts, on.collect());
}

#[tokio::test]
async fn the_chart_makes_a_rule_of_them_where_it_is_asked_to() {
    let Some(helm) = helm() else { return };
    let with = ["template", "x", CHART, "--set", "prometheusRule.enabled=true,prometheusRule.labels.release=mine"];
    let text = run_helm(&helm, &[&with[..], &["--show-only", "templates/prometheusrule.yaml"]].concat()).await;
    let rule: Value = serde_saphyr::from_str(text.trim_start_matches("---\n")).unwrap();
    let all: Value = serde_saphyr::from_str(RULES).unwrap();
    assert_eq!((&rule["kind"], &rule["spec"]), (&Value::from("PrometheusRule"), &all));
    assert_eq!(rule["metadata"]["labels"]["release"], "mine");
    assert!(!run_helm(&helm, &["template", "x", CHART]).await.contains("PrometheusRule"), "nobody has asked for it");
}
