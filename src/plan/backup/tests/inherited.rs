//! What a run does with a freeze that another process has begun, whatever its spec, its status and the Lease say by
//! then; and with a StatefulSet of a namespace that has not consented.

use serde_json::{Value, json};

use super::*;
use crate::api::FILE_UID;
use crate::api::backup::StatefulSetBackupStatus;
use crate::api::shared::{IntentPhase, RunStatus};
use crate::plan::flow::Plan;
use crate::plan::journal;
use crate::plan::known::Snapshots;
use crate::plan::noun::{Container, Open};
use crate::plan::roll::Roll;
use crate::plan::view::Read;

const NOW: &str = "2026-01-01T00:01:00Z";

fn run(place: &str, hooks: &Value) -> RunStatus {
    let mut intent = json!({ "phase": "Frozen", "epoch": 1, "since": "2026-01-01T00:00:00Z", "size": 1,
        "pods": [{ "name": place, "uid": "pod", "ordinal": 0, "container": "app", "containerID": "1", "restartCount": 0 }] });
    for (hook, command) in hooks.as_object().unwrap() {
        intent[hook] = json!({ "command": command, "timeoutSeconds": 7 });
    }
    let run = json!({ "id": ID, "slot": "slot", "attempt": 1, "holder": "backup/shop/nightly/0", "intent": intent });
    serde_json::from_value(run).unwrap()
}

fn status(place: &str, hooks: &Value, observed: i64) -> StatefulSetBackupStatus {
    let begun = json!({ "type": "Reconciling", "status": "True", "reason": "BackupStarted", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": observed });
    let run = Some(run(place, hooks));
    StatefulSetBackupStatus { run, conditions: vec![serde_json::from_value(begun).unwrap()], ..Default::default() }
}

fn seen(status: StatefulSetBackupStatus, leaving: bool) -> Fact {
    let journal = journal::read(&status, "slot");
    let (open, finalizers) = (Some(("slot".to_owned(), 1)), vec![crate::api::FINALIZER.to_owned()]);
    let (version, uid) = ("1".to_owned(), "policy".to_owned());
    Fact::Record(Box::new(Seen::Known(Record { version, uid, leaving, finalizers, status, open, journal })))
}

fn running(owner: Option<&str>) -> Pod {
    let container = Container { name: "app".into(), id: Some("1".into()), restarts: 0 };
    let owner = owner.map(ToOwned::to_owned);
    Pod { uid: "pod".into(), running: true, containers: vec![container], owner, ..Pod::default() }
}

/// What the mark says of these hooks.
fn digest(hooks: &Value) -> String {
    let spec = |hook: &str| {
        let argv = hooks.get(hook)?.as_array()?.iter().map(|word| word.as_str().unwrap().to_owned()).collect();
        Some(HookSpec { argv, container: None, timeout: SignedDuration::from_secs(7) })
    };
    Pair { pre: spec("preHook"), post: spec("postHook") }.digest()
}

/// With the mark that the dead one has left, if it has.
fn bearing(mut v: View, mark: Option<(&str, Option<String>)>) -> View {
    let known = v.lease().unwrap().cloned().unwrap_or_default();
    let open = mark.map(|(run, hooks)| Open {
        kind: "StatefulSetBackup".into(),
        namespace: v.want.namespace.clone(),
        name: v.want.name.clone(),
        uid: v.want.uid.clone(),
        run: run.into(),
        hooks,
        ..Open::default()
    });
    v.fold(Fact::Lease(Seen::Known(Some(Lease { open, ..known }))));
    v
}

/// A process that has taken the lock of a dead one, with an object whose hooks are others by now.
fn heir(status: StatefulSetBackupStatus, leaving: bool) -> View {
    let mut v = view(Journal::Idle);
    v.want.slot = "slot".into();
    v.want.attempt = 1;
    v.want.generation = 3;
    v.want.backup.hooks.post = Some(HookSpec { argv: vec!["other".into()], ..hook() });
    v.fold(seen(status, leaving));
    v.fold(Fact::Pod("web-0".into(), Some(running(Some("sts")))));
    v.fold(Fact::Pod("db-0".into(), Some(running(Some("sts")))));
    v
}

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// The command that is run now in the pod; none: what is said instead.
fn thaws(v: &View) -> Result<(Vec<String>, i64), String> {
    let Next::Do { batch, .. } = next(v, now()).unwrap() else { panic!("it waits") };
    match &batch[..] {
        [Backup::Mark(None)] => thaws(&bearing(v.clone(), None)),
        [Backup::Post(exec)] => Ok((exec.argv.clone(), exec.until.duration_since(now()).as_secs())),
        [Backup::Write(write)] => {
            let intent = write.status.run.as_ref().unwrap().intent.clone().unwrap();
            Err(format!("{}: {}", intent.reason.unwrap(), intent.message.unwrap()))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_freeze_is_thawed_with_the_command_that_it_recorded() {
    let hooks = json!({ "preHook": ["freeze"], "postHook": ["thaw", "-v"] });
    for leaving in [false, true] {
        let v = bearing(heir(status("web-0", &hooks, 1), leaving), Some((ID, Some(digest(&hooks)))));
        assert_eq!(thaws(&v), Ok((vec!["thaw".into(), "-v".into()], 7)), "leaving: {leaving}");
    }
}

/// Whoever may write a status is not for that reason let into pods: the Lease or the spec must agree with it.
#[test]
fn hooks_that_only_the_status_tells_of_are_not_run() {
    let (forged, spec) = (json!({ "postHook": ["cat", "token"] }), json!({ "postHook": ["other"] }));
    let honest = json!({ "preHook": ["freeze"], "postHook": ["thaw"] });
    for mark in [None, Some((ID, Some(digest(&honest)))), Some(("20251231-000000", Some(digest(&forged))))] {
        for leaving in [false, true] {
            let said = thaws(&bearing(heir(status("web-0", &forged, 3), leaving), mark.clone())).unwrap_err();
            assert!(said.starts_with("ThawUnproven: pod web-0 is recorded as frozen, with hooks that"), "{said}");
        }
    }
    // What spec says was asked of its author; a mark of an earlier version says nothing of hooks.
    let mut same = heir(status("web-0", &spec, 3), false);
    same.want.backup.hooks.pre = None;
    same.want.backup.hooks.post.as_mut().unwrap().timeout = SignedDuration::from_secs(7);
    assert_eq!(thaws(&bearing(same, None)).unwrap().0, ["other"]);
    let earlier = bearing(heir(status("web-0", &honest, 3), false), Some((ID, None)));
    assert_eq!(thaws(&earlier).unwrap().0, ["thaw"]);
}

#[test]
fn one_that_recorded_none_is_thawed_by_the_spec_only_if_that_is_the_same_still() {
    let v = heir(status("web-0", &json!({}), 3), false);
    assert_eq!(thaws(&v).unwrap().0, ["other"]);
    for (observed, leaving) in [(2, false), (3, true)] {
        let v = heir(status("web-0", &json!({}), observed), leaving);
        let said = thaws(&v).unwrap_err();
        assert!(said.starts_with("ThawUnproven: pod web-0 was frozen by an earlier version"), "{said}");
    }
    let mut gone = heir(status("web-0", &json!({}), 2), false);
    gone.fold(Fact::Pod("web-0".into(), None));
    gone.fold(Fact::Proof("web-0".into(), None));
    let Next::Do { batch, .. } = next(&gone, now()).unwrap() else { panic!("it waits") };
    let [Backup::Write(write)] = &batch[..] else { panic!("{batch:?}") };
    let intent = write.status.run.clone().unwrap().intent.unwrap();
    assert_eq!(intent.reason, None, "nothing of it is left: {:?}", intent.message);
}

#[test]
fn no_hook_enters_what_is_no_pod_of_the_stateful_set() {
    let hooks = json!({ "preHook": ["freeze"], "postHook": ["thaw"] });
    let said = thaws(&heir(status("db-0", &hooks, 1), false)).unwrap_err();
    assert!(
        said.starts_with("ThawUnproven: pod db-0 ") && said.contains("name of a pod of StatefulSet shop/web"),
        "{said}"
    );
    for owner in [None, Some("another")] {
        let mut v = heir(status("web-0", &hooks, 1), false);
        v.fold(Fact::Pod("web-0".into(), Some(running(owner))));
        let said = thaws(&v).unwrap_err();
        assert!(said.contains("is not controlled by StatefulSet shop/web: nothing was run"), "{said}");
    }
    let mut v = heir(status("web-0", &hooks, 1), false);
    v.fold(Fact::Target(None));
    assert!(thaws(&v).is_err(), "its StatefulSet is gone");
}

#[test]
fn an_object_that_is_being_deleted_freezes_nothing_any_more() {
    let mut status = status("web-0", &json!({}), 3);
    status.run.as_mut().unwrap().intent.as_mut().unwrap().phase = IntentPhase::Void;
    let begins = |leaving| {
        let mut heir = heir(status.clone(), leaving);
        heir.fold(Fact::Quotas(now(), vec![]));
        let Next::Do { batch, .. } = next(&heir, now()).unwrap() else { panic!("it waits") };
        let [Backup::Write(write)] = &batch[..] else { panic!("{batch:?}") };
        write.status.run.is_some()
    };
    assert!(begins(false) && !begins(true));
}

/// A mark on a Lease may be anybody's.
#[test]
fn a_mark_tells_of_a_freeze_and_of_nothing_else() {
    let hooks = json!({ "postHook": ["of the mark"] });
    let want = Want { uid: FILE_UID.into(), slot: "slot".into(), attempt: 1, ..Want::default() };
    let open = |run: RunStatus| Open { uid: FILE_UID.into(), journal: Some(Box::new(run)), ..Open::default() };
    let recovered = |run| journal::recover(Some(&open(run)), &Snapshots::default(), &Roll::default(), &want, now()).run;
    let frozen = recovered(run("web-0", &hooks)).unwrap();
    let Journal::Frozen(freeze) =
        journal::read(&StatefulSetBackupStatus { run: Some(frozen), ..Default::default() }, "slot")
    else {
        panic!("it is frozen")
    };
    assert_eq!((freeze.pods.len(), freeze.hooks), (1, None));
    let mut cut = run("web-0", &hooks);
    cut.intent.as_mut().unwrap().phase = IntentPhase::Cut;
    assert_eq!(recovered(cut), None);
}

#[test]
fn at_no_replicas_only_pods_of_the_stateful_set_are_entered() {
    let entered = |replicas, owner: Option<&str>| {
        let mut v = view(Journal::Idle);
        let target = Target { uid: "sts".into(), replicas, templates: vec!["data".into()], ..Target::default() };
        v.fold(Fact::Target(Some(target)));
        v.fold(Fact::Pod("web-0".into(), Some(running(owner))));
        let covered = crate::plan::resolve::resolve(&v).unwrap().unwrap();
        crate::plan::resolve::places(&v, &covered).unwrap().map(|places| places.len())
    };
    assert_eq!(entered(0, Some("sts")), Ok(1), "it has not stopped yet");
    assert_eq!(entered(0, None), Ok(0));
    assert_eq!(entered(0, Some("another")), Ok(0));
    assert_eq!(entered(1, Some("sts")), Ok(1));
    assert!(entered(1, None).unwrap_err().message.contains("is not controlled by it"));
}

/// Of the namespace `theirs`, which has let in nobody unless said otherwise.
fn abroad(journal: Option<StatefulSetBackupStatus>, grant: &[&str], open: Option<&str>) -> View {
    let mut v = match journal {
        Some(status) => heir(status, false),
        None => view(Journal::Idle),
    };
    v.want.statefulset_namespace = "theirs".into();
    v.want.name = "nightly".into();
    v.want.lock_by = now();
    v.fold(Fact::Lease(Seen::Known(Some(Lease {
        epoch: 1,
        open: open.map(|run| Open {
            namespace: "shop".into(),
            name: "nightly".into(),
            uid: "policy".into(),
            run: run.into(),
            ..Open::default()
        }),
        ..Lease::default()
    }))));
    v.fold(Fact::Grant(grant.iter().map(ToString::to_string).collect()));
    v
}

fn step(plan: Plan<Backup>) -> String {
    match plan {
        Ok(Next::Do { batch, .. }) => match &batch[..] {
            [Backup::Write(write)] => {
                let last = write.status.last_run.as_ref().and_then(|last| last.reason);
                let void = write.status.run.as_ref().and_then(|run| run.intent.as_ref()?.reason);
                format!("{:?}", last.or(void))
            }
            [Backup::Lock(_)] => "lock".into(),
            other => format!("{other:?}"),
        },
        other => format!("{other:?}"),
    }
}

#[test]
fn nothing_is_written_in_a_namespace_that_has_not_consented() {
    let hooks = json!({ "preHook": ["freeze"], "postHook": ["thaw"] });
    let frozen = || status("web-0", &hooks, 1);
    let with = |phase| {
        let mut status = frozen();
        status.run.as_mut().unwrap().intent.as_mut().unwrap().phase = phase;
        status
    };
    for journal in [None, Some(with(IntentPhase::Void)), Some(with(IntentPhase::Cut)), Some(frozen())] {
        assert_eq!(step(next(&abroad(journal.clone(), &[], None), now())), "Some(NotGranted)", "{journal:?}");
    }
    assert_eq!(step(next(&abroad(None, &["shop"], None), now())), "lock");
    assert_eq!(step(next(&abroad(Some(frozen()), &[], Some(ID)), now())), "lock", "its freeze is open there");
    let mut unread = view(Journal::Idle);
    unread.want.statefulset_namespace = "theirs".into();
    unread.fold(Fact::Stale(Read::Grant));
    assert!(matches!(next(&unread, now()), Err(Read::Grant)));
}
