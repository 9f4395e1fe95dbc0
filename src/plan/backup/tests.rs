//! What a run says of a pod that it cannot enter; and when its slot is over.

use jiff::{SignedDuration, Timestamp};

use super::{Backup, next};
use crate::api::backup::LastRun;
use crate::api::condition::Reason;
use crate::api::shared::{Outcome, Trigger};
use crate::plan::flow::{Exit, Next, When};
use crate::plan::hook::{End, Exec, HookSpec, Place, Tried, Which};
use crate::plan::journal::{Journal, Record, Void};
use crate::plan::noun::{BackupWant, Claim, Class, Holder, Lease, Pod, Target, Volume, Want};
use crate::plan::view::{Fact, Seen, View};

const ID: &str = "20260101-000000";

fn hook() -> HookSpec {
    HookSpec { argv: vec!["freeze".into()], container: None, timeout: SignedDuration::from_secs(5) }
}

/// A run that holds the lock, with all there that it needs but its pod, as `next` is asked.
fn view(journal: Journal) -> View {
    let me = Holder("backup/shop/nightly/1".into());
    let backup = BackupWant { pre: Some(hook()), post: Some(hook()), ..BackupWant::default() };
    let (statefulset, namespace) = ("web".to_owned(), "shop".to_owned());
    let want = Want { me: me.clone(), namespace: namespace.clone(), statefulset, backup, ..Want::default() };
    let mut v = View::new(Want { statefulset_namespace: namespace, uid: "policy".into(), ..want });
    v.fold(Fact::Lease(Seen::Known(Some(Lease { holder: Some(me), epoch: 1, ..Lease::default() }))));
    let record = Record {
        version: "1".into(),
        uid: "policy".into(),
        leaving: false,
        finalizers: vec![],
        open: None,
        journal,
        status: crate::api::backup::StatefulSetBackupStatus::default(),
    };
    v.fold(Fact::Record(Box::new(Seen::Known(record))));
    let target = Target { uid: "sts".into(), replicas: 1, templates: vec!["data".into()], ..Target::default() };
    v.fold(Fact::Target(Some(target)));
    let claim = Claim { uid: "claim".into(), volume: Some("pv".into()), ..Claim::default() };
    v.fold(Fact::Claims([("data-web-0".to_owned(), claim)].into()));
    v.fold(Fact::Volume("pv".into(), Some(Volume { driver: Some("csi".into()), ..Volume::default() })));
    let (name, driver) = ("class".to_owned(), "csi".to_owned());
    v.fold(Fact::Classes(vec![Class { name, driver, is_default: true, thaw_at_ready: false, retains: false }]));
    v.fold(Fact::Snaps(Seen::Known([].into())));
    v
}

/// Its pod has been frozen and thawed by this process.
fn froze(v: &mut View) {
    let run = ID.parse().unwrap();
    let (pod, uid, container, container_id) = ("web-0".into(), "pod".into(), "app".into(), "1".into());
    let place = Place { ordinal: 0, pod, uid, container, container_id, restarts: 0 };
    let when = When { begun: Timestamp::UNIX_EPOCH, ended: Timestamp::UNIX_EPOCH };
    for which in [Which::Pre, Which::Post] {
        let exec = Exec { run, place: place.clone(), which, argv: vec![], until: when.ended };
        v.fold(Fact::Hook(Box::new(exec), Tried { when, end: End::Exit(0, String::new()) }));
    }
    v.fold(Fact::Lease(Seen::Known(Some(Lease { holder: Some(v.want.me.clone()), epoch: 1, ..Lease::default() }))));
}

/// The refusal with which it is closed.
fn closed(v: &View, now: &str) -> (Option<Reason>, String) {
    let Next::Do { batch, .. } = next(v, now.parse().unwrap()).unwrap() else { panic!("it is not closed") };
    let [Backup::Write(write)] = &batch[..] else { panic!("{batch:?}") };
    (write.status.last_run.as_ref().unwrap().reason, write.status.message.clone().unwrap())
}

#[test]
fn a_pod_that_does_not_run_after_its_freeze_is_asked_for_its_liveness_probe() {
    let probe = "does its liveness probe outlast the freeze?";
    let mut v = view(Journal::Void(ID.parse().unwrap(), Void::Interrupted));
    froze(&mut v);
    v.fold(Fact::Pod("web-0".into(), Some(Pod { uid: "pod".into(), ..Pod::default() })));
    let (reason, message) = closed(&v, "2026-01-01T00:00:00Z");
    assert_eq!(reason, Some(Reason::PodNotRunning));
    assert!(message.contains("pod shop/web-0 is not Running"), "{message}");
    assert!(message.contains(probe) && !message.contains("nothing was frozen"), "{message}");

    let mut v = view(Journal::Idle);
    v.fold(Fact::Pod("web-0".into(), None));
    let (reason, message) = closed(&v, "2026-01-01T00:00:00Z");
    assert_eq!(reason, Some(Reason::PodNotRunning));
    assert!(message.contains("nothing was frozen") && !message.contains(probe), "{message}");
}

fn record(open: Option<&str>) -> Fact {
    Fact::Record(Box::new(Seen::Known(Record {
        version: "1".into(),
        uid: "uid".into(),
        leaving: false,
        finalizers: vec![],
        status: crate::api::backup::StatefulSetBackupStatus::default(),
        open: open.map(|slot| (slot.to_owned(), 1)),
        journal: Journal::Idle,
    })))
}

/// Ours has ended by another's hand, and a later one after it, while we waited for the lock.
#[test]
fn a_slot_that_was_open_and_is_open_no_more_is_over() {
    let over = |slot: &str| {
        let mut view = View::new(Want { slot: "one".into(), ..Want::default() });
        view.fold_all([record(Some(slot)), record(None), Fact::Lease(Seen::Known(None))]);
        matches!(next(&view, Timestamp::UNIX_EPOCH), Ok(Next::End(Exit::Superseded(_))))
    };
    assert!(over("one"));
    assert!(!over("two"));
}

/// A later slot of the schedule has had its run meanwhile; a person's slot is an instant by chance.
#[test]
fn a_slot_of_the_schedule_is_over_once_a_later_one_has_had_its_run() {
    let slots = ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z"];
    let over = |ours: &str, trigger: Trigger, last: Trigger, outcome: Option<Outcome>| {
        let backup = BackupWant { trigger, ..BackupWant::default() };
        let mut view = View::new(Want { slot: ours.into(), backup, ..Want::default() });
        let Fact::Record(mut seen) = record(None) else { panic!("no record") };
        if let Seen::Known(record) = &mut *seen {
            let (slot, trigger) = (Some(slots[1].into()), Some(last));
            record.status.last_run = Some(LastRun { slot, trigger, outcome, ..LastRun::default() });
        }
        view.fold_all([Fact::Record(seen), Fact::Lease(Seen::Known(None))]);
        matches!(next(&view, Timestamp::UNIX_EPOCH), Ok(Next::End(Exit::Superseded(_))))
    };
    let ended = Some(Outcome::Failed);
    for planned in [Trigger::Schedule, Trigger::First, Trigger::Catchup] {
        assert!(over(slots[0], planned, Trigger::Schedule, ended), "{planned}: ours is earlier");
    }
    assert!(!over(slots[1], Trigger::Schedule, Trigger::Schedule, None), "nobody has ended it");
    assert!(!over(slots[2], Trigger::Schedule, Trigger::Schedule, ended), "ours is later");
    assert!(!over(slots[0], Trigger::Schedule, Trigger::Schedule, None), "the later one has not ended");
    for asked in [Trigger::Manual, Trigger::Command] {
        assert!(!over(slots[0], asked, Trigger::Schedule, ended), "{asked}: ours was asked for");
        assert!(!over(slots[0], Trigger::Schedule, asked, ended), "{asked}: theirs was asked for");
    }
}
