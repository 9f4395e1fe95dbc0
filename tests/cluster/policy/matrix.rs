//! Who may change what: every role tries every change, as a dry run on the real API server, and all answers stand in
//! `snapshots/authority.snap`.

use std::collections::BTreeMap;
use std::fmt::Write;

use kube::Client;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::roles::{Role, roles};
use super::stage::{HOOK, Stage, api, backup, claim, lease, mark, pod, restore, snapshot, with};
use super::{byway, timing};
use crate::api::assert_snapshot;
use crate::harness::{Scene, scene, until};

const GROUP: &str = "backup.sts-backup.io";

/// What is done with it.
pub enum Act {
    Create(Value),
    /// A merge patch.
    Patch(Value),
    /// A merge patch of a subresource.
    Sub(&'static str, Value),
    /// Server-side apply of the object as it was made, as a GitOps controller sends it all the time.
    Apply,
    Delete,
}

/// One change of one object, as a sentence and as a request.
pub struct Deed {
    pub text: &'static str,
    pub object: Value,
    pub act: Act,
}

/// As if `client` did it; nothing changes.
async fn attempt(client: &Client, deed: &Deed) -> kube::Result<()> {
    let (api, name) = (api(client, &deed.object), deed.object["metadata"]["name"].as_str().unwrap());
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    match &deed.act {
        Act::Create(object) => {
            let params = PostParams { dry_run: true, ..PostParams::default() };
            let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
            api.create(&params, &object).await.map(drop)
        }
        Act::Patch(patch) => api.patch(name, &dry, &Patch::Merge(patch)).await.map(drop),
        Act::Sub(sub, patch) => api.patch_subresource(sub, name, &dry, &Patch::Merge(patch)).await.map(drop),
        Act::Apply => {
            let apply = PatchParams { dry_run: true, ..PatchParams::apply("gitops").force() };
            api.patch(name, &apply, &Patch::Apply(&deed.object)).await.map(drop)
        }
        Act::Delete => api.delete(name, &DeleteParams { dry_run: true, ..DeleteParams::default() }).await.map(drop),
    }
}

/// What came of it: done, a sentence, or that the role has no right to such requests at all.
async fn outcome(role: &Role, deed: &Deed, s: &Scene) -> String {
    let said = match attempt(&role.client, deed).await {
        Ok(()) => return "allowed".into(),
        Err(kube::Error::Api(status)) => status.message.clone(),
        Err(error) => panic!("{}: {error}", deed.text),
    };
    let Some((_, sentence)) = said.split_once("denied request: ") else {
        assert!(said.contains("cannot"), "{} by {}: {said}", deed.text, role.name);
        return "no right of its own".into();
    };
    sentence.replace(&role.user, "USER").replace(&s.namespace, "NS")
}

fn deeds(s: &Scene, other: &str, on: &Stage) -> Vec<Deed> {
    let mut all = backups(s, other, on);
    all.extend(restores(s, other, on));
    all.extend(leases(s, on));
    all.extend(marks(s, on));
    all.extend(byway::deeds(s, other, on));
    all.extend(timing::deeds(on));
    all
}

pub fn create(text: &'static str, object: Value) -> Deed {
    Deed { text, act: Act::Create(object.clone()), object }
}

pub fn patch(text: &'static str, object: &Value, patch: Value) -> Deed {
    Deed { text, object: object.clone(), act: Act::Patch(patch) }
}

fn note(key: &str, value: impl Into<Value>) -> Value {
    json!({ "metadata": { "annotations": { format!("{GROUP}/{key}"): value.into() } } })
}

pub fn delete(text: &'static str, object: &Value) -> Deed {
    Deed { text, object: object.clone(), act: Act::Delete }
}

pub fn tag(key: &str, value: impl Into<Value>) -> Value {
    json!({ "metadata": { "labels": { format!("{GROUP}/{key}"): value.into() } } })
}

fn owned() -> Value {
    let owner = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "dead" });
    json!({ "metadata": { "ownerReferences": [owner] } })
}

fn backups(s: &Scene, other: &str, on: &Stage) -> Vec<Deed> {
    let (plain, full) = (&on.plain, &on.full);
    let there = json!({ "name": "web", "namespace": other });
    let hooked = json!({ "statefulSetRef": there, "preBackupHook": HOOK("a") });
    let label = json!({ "metadata": { "labels": { "team": "a" }, "annotations": { "team": "b" } } });
    let finalizers = json!({ "metadata": { "finalizers": null } });
    vec![
        create("backup: created", backup(s, "new", json!({}))),
        create("backup: created with a hook", backup(s, "new", json!({ "preBackupHook": HOOK("a") }))),
        create("backup: created with retention", backup(s, "new", json!({ "retentionPolicy": { "keepLast": 1 } }))),
        create("backup: created for another namespace", backup(s, "new", json!({ "statefulSetRef": there }))),
        create("backup: created with a hook for another namespace", backup(s, "new", hooked)),
        Deed { text: "backup: applied again as it is", object: full.clone(), act: Act::Apply },
        patch("backup: labelled and annotated by somebody else", full, label),
        patch("backup: with hooks and retention, schedule changed", full, json!({ "spec": { "schedule": "@daily" } })),
        patch("backup: plain one, schedule added", plain, json!({ "spec": { "schedule": "* * * * *" } })),
        patch("backup: suspended", full, json!({ "spec": { "suspend": true } })),
        patch(
            "backup: with hooks and retention, no longer suspended",
            &on.resting,
            json!({ "spec": { "suspend": false } }),
        ),
        patch("backup: the same by removing the field", &on.resting, json!({ "spec": { "suspend": null } })),
        patch(
            "backup: with hooks, retention and a schedule, no longer suspended",
            &on.dozing,
            json!({ "spec": { "suspend": false } }),
        ),
        patch("backup: hook added", plain, json!({ "spec": { "postBackupHook": HOOK("a") } })),
        patch("backup: hook removed", full, json!({ "spec": { "preBackupHook": null } })),
        patch(
            "backup: hook of one that is being deleted changed",
            &on.going,
            json!({ "spec": { "postBackupHook": HOOK("x") } }),
        ),
        patch("backup: with hooks, turned to another namespace", full, json!({ "spec": { "statefulSetRef": there } })),
        patch("backup: keepLast 30 made 1", full, json!({ "spec": { "retentionPolicy": { "keepLast": 1 } } })),
        patch("backup: retention removed", full, json!({ "spec": { "retentionPolicy": null } })),
        patch("backup: purgeRetained set", full, json!({ "spec": { "retentionPolicy": { "purgeRetained": true } } })),
        patch("backup: deletionPolicy made Delete", plain, json!({ "spec": { "deletionPolicy": "Delete" } })),
        patch("backup: another's runs adopted", plain, note("adopt", "u")),
        patch("backup: plain one, run asked for", plain, note("requested-at", "now")),
        patch("backup: with hooks and retention, run asked for", full, note("requested-at", "now")),
        patch("backup: finalizer taken off during a freeze", &on.going, finalizers),
        patch("backup: given an owner", plain, owned()),
        patch("backup: with deletionPolicy Delete, given an owner", &on.owning, owned()),
        delete("backup: deleted", plain),
        delete("backup: with deletionPolicy Delete, deleted", &on.owning),
    ]
}

fn restores(s: &Scene, other: &str, on: &Stage) -> Vec<Deed> {
    let label = json!({ "metadata": { "labels": { "team": "a" }, "annotations": { "team": "b" } } });
    vec![
        create("restore: created", restore(s, "new", &s.namespace)),
        create("restore: created for another namespace", restore(s, "new", other)),
        Deed { text: "restore: applied again as it is", object: on.held.clone(), act: Act::Apply },
        patch("restore: labelled and annotated by somebody else", &on.held, label),
        patch("restore: undo asked for", &on.held, note("undo", "now")),
        patch("restore: finalizer taken off", &on.held, json!({ "metadata": { "finalizers": null } })),
        patch("restore: given an owner", &on.held, owned()),
        delete("restore: deleted while it keeps volumes", &on.held),
        delete("restore: deleted before it began", &on.fresh),
    ]
}

fn leases(s: &Scene, on: &Stage) -> Vec<Deed> {
    let (fenced, recorded) = (&on.fenced, &on.recorded);
    let spec = |key: &str, value: Value| json!({ "spec": { key: value } });
    let free = lease(s, "sts-backup-new", json!({}), json!({}));
    let marked = lease(s, "sts-backup-new", json!({}), mark("StatefulSetBackup"));
    let forged = lease(s, "sts-backup-new", json!({}), note("runs", "x")["metadata"]["annotations"].clone());
    let stranger = lease(s, "leader-of-another", json!({}), json!({}));
    let unmarked = json!({ "metadata": { "annotations": { "backup.sts-backup.io/open": null } } });
    vec![
        create("lock: made", free),
        create("lock: made with the mark of a backup", marked),
        create("lock: made with a record of runs", forged),
        create("Lease of somebody else: made", stranger),
        patch("lock: renewed", recorded, spec("renewTime", json!("2026-01-01T00:00:00.000000Z"))),
        patch("lock: holder changed", recorded, spec("holderIdentity", json!("me"))),
        patch("lock: transitions at their maximum", recorded, spec("leaseTransitions", json!(i32::MAX))),
        patch("lock: labelled by somebody else", recorded, json!({ "metadata": { "labels": { "team": "a" } } })),
        patch("lock: mark of a backup taken off", recorded, unmarked.clone()),
        patch(
            "lock: mark of a backup turned into a restore's",
            recorded,
            json!({ "metadata": { "annotations": mark("StatefulSetRestore") } }),
        ),
        patch("lock: mark of a restore taken off", fenced, unmarked),
        patch("lock: mark that nobody can read set", recorded, note("open", "x")),
        patch("lock: record of runs changed", recorded, note("runs", "another")),
        patch("lock: fence lowered", fenced, tag("fence", Value::Null)),
        patch("lock: fence-user changed", fenced, note("fence-user", "me")),
        patch("lock: memory of restores wiped", fenced, note("restored-by", Value::Null)),
        patch("lock: given an owner", fenced, owned()),
        delete("lock: deleted behind the fence", fenced),
        delete("lock: with a record of runs, deleted", recorded),
    ]
}

fn marks(s: &Scene, on: &Stage) -> Vec<Deed> {
    let pod = pod(s, "new");
    let run = json!({ "labels": { "backup.sts-backup.io/run": "20260101-000000" } });
    let restored = json!({ "labels": { "backup.sts-backup.io/restore": "u" } });
    let velero = json!({ "labels": { "velero.io/backup-name": "x" }, "annotations": { "a": "b" } });
    let many: serde_json::Map<_, _> = (0..600).map(|n| (format!("a/{n}"), "".into())).collect();
    let mut among = json!({ "metadata": { "annotations": many } });
    among["metadata"]["labels"] = json!({ "backup.sts-backup.io/restore": "u" });
    vec![
        create("snapshot: made", snapshot(s, "new")),
        create("snapshot: made with labels of a run", with(snapshot(s, "new"), run)),
        create("snapshot: made with labels of others", with(snapshot(s, "new"), velero)),
        patch("snapshot: labelled as of a run", &on.bare, tag("run", "20260101-000000")),
        patch("snapshot: labelled as of another run", &on.cut, tag("run", "20300101-000000")),
        patch("snapshot: label of a run taken off", &on.cut, tag("run", Value::Null)),
        patch("snapshot: sealed", &on.cut, note("consistency", "Frozen")),
        patch("snapshot: pinned", &on.cut, note("pinned-by", "u")),
        patch("snapshot: with a key that is not known yet", &on.bare, note("verified", "x")),
        patch("snapshot: labelled by somebody else", &on.cut, json!({ "metadata": { "labels": { "team": "a" } } })),
        delete("snapshot: deleted", &on.cut),
        create("claim: made", claim(s, "new")),
        create("claim: made with the label of a restore", with(claim(s, "new"), restored)),
        patch("claim: labelled as of a restore", &on.claim, tag("restore", "u")),
        patch("claim: the same among 600 other keys", &on.claim, among),
        patch("claim: labelled by somebody else", &on.claim, json!({ "metadata": { "labels": { "team": "a" } } })),
        patch("volume: labelled as of a restore", &on.volume, tag("role", "old")),
        patch("volume: labelled by somebody else", &on.volume, json!({ "metadata": { "labels": { "team": "a" } } })),
        create("pod: made", pod.clone()),
        create(
            "pod: made with the labels of a Job of ours",
            with(pod.clone(), tag("kind", "backup")["metadata"].clone()),
        ),
        create("pod: made with the label of a verification", with(pod, tag("verify", "u")["metadata"].clone())),
    ]
}

/// Policies that are new, or just changed, take a moment to be looked at: each is asked something that it denies.
async fn effective(s: &Scene, weakest: &Role, deeds: &[Deed]) {
    let probes = [
        "backup: keepLast 30 made 1",
        "restore: given an owner",
        "lock: renewed",
        "claim: labelled as of a restore",
        "StatefulSet behind the fence: scaled up",
    ];
    for probe in deeds.iter().filter(|deed| probes.contains(&deed.text)) {
        let denies = async || match outcome(weakest, probe, s).await.as_str() {
            said @ ("allowed" | "no right of its own") => Err(said.to_owned()),
            _ => Ok(()),
        };
        until(&format!("{} to be denied", probe.text), 30, denies).await;
    }
}

#[tokio::test]
async fn every_role_tries_every_change() {
    scene("matrix", &[], async |s| {
        let other = s.another_namespace("other", &[]).await;
        let stage = Stage::set(s, &other).await;
        let roles = roles(s, &other).await;
        let deeds = deeds(s, &other, &stage);
        let weakest = roles.iter().find(|role| role.name == "writer").unwrap();
        effective(s, weakest, &deeds).await;
        let mut text = String::new();
        for role in &roles {
            writeln!(text, "{:<14} {}", role.name, role.has.replace(&other, "OTHER")).unwrap();
        }
        for deed in &deeds {
            let mut said: BTreeMap<String, Vec<&str>> = BTreeMap::new();
            for role in &roles {
                said.entry(outcome(role, deed, s).await).or_default().push(role.name);
            }
            writeln!(text, "\n{}", deed.text).unwrap();
            let mut said: Vec<_> = said.into_iter().collect();
            said.sort_by_key(|(what, _)| (what != "allowed", what == "no right of its own"));
            for (what, who) in said {
                writeln!(text, "    {what}\n        {}", who.join(", ")).unwrap();
            }
        }
        stage.clear(s).await;
        assert!(roles.len() >= 12 && deeds.len() >= 14);
        assert_snapshot("authority", &text);
    })
    .await;
}
