use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::*;

const UID: &str = "6a1f0c9e-2f43-4b8e-9d7e-0c51d3e5a7b1";

fn run(kind: Kind) -> Run {
    let backup = kind == Kind::Backup;
    Run {
        kind,
        namespace: "shop".into(),
        name: "nightly.eu".into(),
        uid: UID.into(),
        statefulset: "pg".into(),
        slot: if kind == Kind::Restore { String::new() } else { "2026-03-29T01:30:00Z".into() },
        attempt: 1,
        trigger: Trigger::Schedule,
        grace_seconds: if backup { 330 } else { 30 },
        deadline_seconds: backup.then_some(90_960),
    }
}

fn template() -> Template {
    Template {
        namespace: "sts-backup-system".into(),
        image: "localhost/sts-backup:dev".into(),
        pull_policy: "IfNotPresent".into(),
        pull_secrets: vec!["registry".into()],
        service_account: "sts-backup-runner".into(),
        resources: serde_json::from_value(json!({ "limits": { "memory": "64Mi" }, "requests": { "cpu": "10m" } }))
            .unwrap(),
        node_selector: BTreeMap::from([("kubernetes.io/os".into(), "linux".into())]),
        tolerations: serde_json::from_value(json!([{ "key": "spot", "operator": "Exists" }])).unwrap(),
        priority_class: Some("backups".into()),
        pod_labels: BTreeMap::from([("team".into(), "db".into()), ("app.kubernetes.io/name".into(), "other".into())]),
        pod_annotations: BTreeMap::from([("sidecar.istio.io/inject".into(), "false".into())]),
        allow_without_policy: true,
    }
}

fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn the_whole_job_of_a_backup() {
    snapshot("job_backup", &serde_saphyr::to_string(&run(Kind::Backup).job(&template())).unwrap());
}

#[test]
fn a_restore_has_no_deadline_and_no_slot() {
    let job = run(Kind::Restore).job(&Template::default());
    let spec = job.spec.unwrap();
    assert_eq!(spec.active_deadline_seconds, None);
    let container = &spec.template.spec.unwrap().containers[0];
    assert_eq!(container.args.as_ref().unwrap().join(" "), "run-once restore shop/nightly.eu --attempt 1");
    assert_eq!(job.metadata.annotations.unwrap()[annotation::SLOT], "");
    assert!(container.env.iter().flatten().all(|var| var.name != "SSB_ALLOW_WITHOUT_POLICY"));
}

/// What the kubelet makes of an argument or a value: `$(NAME)` is the variable if there is one, `$$` is `$`, and a byte
/// behind a `$` becomes a character of its own.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let (text, mut at, mut out) = (text.as_bytes(), 0, vec![]);
    while let Some(byte) = text.get(at) {
        match (byte, text.get(at + 1)) {
            (b'$', Some(b'$')) => {
                out.push(b'$');
                at += 2;
            }
            (b'$', Some(b'(')) => {
                let end = text[at..].iter().position(|byte| *byte == b')');
                let name = end.map(|end| std::str::from_utf8(&text[at + 2..at + end]).unwrap());
                let value = name.map(|name| variables.get(name).cloned().unwrap_or_else(|| format!("$({name})")));
                out.extend(value.unwrap_or_else(|| "$(".into()).into_bytes());
                at += end.map_or(2, |end| end + 1);
            }
            (b'$', Some(next)) => {
                out.extend(format!("${}", char::from(*next)).into_bytes());
                at += 2;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn the_judge_expands_as_kubernetes_documents_it() {
    let variables = BTreeMap::from([("A".to_owned(), "a".to_owned())]);
    for (text, expanded) in [
        ("$(A)", "a"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$a"),
        ("$$$$(A)", "$$(A)"),
        ("$(B)", "$(B)"),
        ("x$(A)y$", "xay$"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("$$", "$"),
    ] {
        assert_eq!(expand(text, &variables), expanded, "{text}");
    }
}

/// Also the text that somebody has written into an annotation.
#[test]
fn the_process_gets_what_was_meant_whatever_the_kubelet_makes_of_it() {
    let mut slots: Vec<String> =
        ["$(SSB_POD_UID)", "$$(SSB_POD_UID)", "$$$(SSB_JOB_NAME)", "$", "$$", "a$", "$(", "$()", "$)"]
            .into_iter()
            .chain([
                "$(NO_SUCH)",
                "$(SSB_POD_UID",
                "$\u{fc}",
                "\u{fc}$(SSB_NAMESPACE)$",
                "$($(SSB_POD_UID))",
                "${HOME}",
                "`x`",
            ])
            .map(Into::into)
            .collect();
    let mut chance = 20_260_329_u64;
    for _ in 0..2_000 {
        let parts = ["$", "$", "(", ")", "SSB_POD_UID", "SSB_JOB_NAME", "\u{fc}", " "];
        let draw = |_| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            parts[usize::try_from(chance >> 33).unwrap() % parts.len()]
        };
        slots.push((0..12).map(draw).collect());
    }
    for slot in slots {
        let run = Run { slot: slot.clone(), ..run(Kind::Backup) };
        let job = run.job(&template());
        let container = &job.spec.unwrap().template.spec.unwrap().containers[0];
        let variables: BTreeMap<String, String> =
            container.env.iter().flatten().map(|var| (var.name.clone(), format!("value of {}", var.name))).collect();
        assert!(variables.contains_key("SSB_POD_UID"));
        let args: Vec<_> = container.args.iter().flatten().map(|arg| expand(arg, &variables)).collect();
        let meant =
            ["run-once", "backup", "shop/nightly.eu", "--slot", &slot, "--trigger", "schedule", "--attempt", "1"];
        assert_eq!(args, meant);
        for var in container.env.iter().flatten().filter_map(|var| var.value.as_ref()) {
            assert_eq!(expand(var, &variables), *var, "a value of ours has nothing to expand");
        }
    }
}

#[test]
fn undo_and_release_are_told_their_attempt_only() {
    for kind in [Kind::Undo, Kind::Release] {
        let args = Run { attempt: 12, ..run(kind) }.args().join(" ");
        assert_eq!(args, format!("run-once {kind} shop/nightly.eu --attempt 12"));
    }
}

/// Every combination of a few of each, with the traps among them: parts that could run into each other.
#[test]
fn names_are_injective_short_and_valid() {
    let slots = (0..400).map(|minute| format!("2026-03-{:02}T{:02}:00:00Z", 1 + minute % 28, minute / 28));
    let slots: Vec<_> = slots.chain(["", "1", "11", "now", "\u{fc}ber", "--slot"].map(Into::into)).collect();
    let objects = ["a", "nightly.eu", "nightly-eu", &"x".repeat(52), "abcdefghijklmnopqrstuvwxyz-123-4567", "a.b.c.d"];
    let uids = [UID, "6a1f0c9e-2f43-4b8e-9d7e-0c51d3e5a7b2", "x", "x1"];
    let (mut seen, mut asked) = (BTreeSet::new(), 0);
    for (kind, object) in Kind::ALL.into_iter().zip(objects.iter().cycle()).chain([(Kind::Backup, &objects[4])]) {
        for (uid, slot) in uids.iter().flat_map(|uid| slots.iter().map(move |slot| (uid, slot))) {
            for attempt in [1, 2, 3, 11, 12, u32::MAX] {
                let name = job_name(kind, object, uid, slot, attempt);
                asked += 1;
                assert!(name.len() <= 63, "{name}");
                let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                assert!(name.chars().all(inner) && name.ends_with(|c: char| c.is_ascii_alphanumeric()), "{name}");
                seen.insert(name);
            }
        }
    }
    assert_eq!(seen.len(), asked);
}

#[test]
fn two_objects_of_one_name_never_share_a_job() {
    let of = |uid| job_name(Kind::Backup, "nightly", uid, "2026-03-29T01:30:00Z", 1);
    assert_ne!(of(UID), of("6a1f0c9e-2f43-4b8e-9d7e-0c51d3e5a7b2"));
    assert_eq!(of(UID), of(UID));
}

#[test]
fn labels_have_room_for_the_longest_names() {
    let job = Run { name: "n".repeat(52), namespace: "s".repeat(63), statefulset: "t".repeat(63), ..run(Kind::Undo) }
        .job(&Template::default());
    assert!(job.metadata.labels.unwrap().values().all(|value| value.len() <= 63));
}
