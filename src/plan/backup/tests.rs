//! What a run says of a pod that it cannot enter; when its slot is over; and when what was cut is sealed.

mod inherited;
mod voids;

use jiff::{SignedDuration, Timestamp};

use super::{Backup, REBORN, next};
use crate::api::backup::LastRun;
use crate::api::condition::Reason;
use crate::api::shared::{Consistency, Outcome, Trigger};
use crate::plan::flow::{Exit, Feed, Next, When};
use crate::plan::hook::{End, Exec, HookSpec, Pair, Place, Tried, Which};
use crate::plan::journal::{Cut, Journal, Record, Void, Voided};
use crate::plan::known::SnapshotClass;
use crate::plan::name::ClaimKey;
use crate::plan::noun::{BackupWant, Claim, Holder, Lease, Open, Pod, Snap, Target, Volume, Want};
use crate::plan::roll::{Entry, Roll};
use crate::plan::view::{Fact, Seen, View};

const ID: &str = "20260101-000000";

fn hook() -> HookSpec {
    HookSpec { argv: vec!["freeze".into()], container: None, timeout: SignedDuration::from_secs(5) }
}

/// A run that holds the lock, with all there that it needs but its pod, as `next` is asked.
fn view(journal: Journal) -> View {
    let me = Holder("backup/shop/nightly/1".into());
    let backup = BackupWant { hooks: Pair { pre: Some(hook()), post: Some(hook()) }, ..BackupWant::default() };
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
    v.fold(Fact::Classes(vec![SnapshotClass { name, driver, is_default: true, ..SnapshotClass::default() }]));
    v.fold(Fact::Snaps(Seen::Known([].into())));
    v.fold(Fact::Quotas(Timestamp::UNIX_EPOCH, vec![]));
    v
}

/// The pod, which does not run.
fn pod() -> Pod {
    Pod { uid: "pod".into(), owner: Some("sts".into()), ..Pod::default() }
}

/// So many freezes of the run came to nothing, the last one then.
fn void(count: usize, epoch: i64, since: Timestamp) -> Journal {
    let why = Void::Interrupted("the first cause".into());
    Journal::Void(Voided { id: ID.parse().unwrap(), epoch, since, count, why })
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
    let mut v = view(void(1, 1, Timestamp::UNIX_EPOCH));
    froze(&mut v);
    v.fold(Fact::Pod("web-0".into(), Some(pod())));
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

/// What a backup says that meets a run of this kind which was left open.
fn met(kind: &str) -> String {
    let mut v = view(Journal::Idle);
    let (kind, namespace, name) = (kind.to_owned(), "shop".to_owned(), "other".to_owned());
    let open = Open {
        kind,
        namespace,
        name,
        uid: "other".into(),
        run: ID.into(),
        pods: vec!["web-0".into()],
        ..Open::default()
    };
    v.fold(Fact::Lease(Seen::Known(Some(Lease { open: Some(open), ..Lease::default() }))));
    closed(&v, "2026-01-01T00:00:00Z").1
}

#[test]
fn a_backup_that_is_barred_says_how_the_run_of_an_installation_that_is_gone_is_carried_on() {
    for kind in ["StatefulSetBackup", "StatefulSetRestore"] {
        let said = met(kind);
        assert!(said.contains("sts-backup doctor --take-over shop/other"), "{said}");
    }
    assert!(met("StatefulSetBackup").contains("pods that may be frozen: web-0"));
    assert!(met("StatefulSetRestore").contains("doctor --lift-fence shop/web"));
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

#[test]
fn a_container_that_went_in_the_freeze_is_waited_for_a_minute() {
    let mut v = view(void(1, 1, Timestamp::UNIX_EPOCH));
    froze(&mut v);
    v.fold(Fact::Pod("web-0".into(), Some(pod())));
    let until = Timestamp::UNIX_EPOCH + REBORN;
    for seconds in [10, 59] {
        let at = Timestamp::from_second(seconds).unwrap();
        assert!(matches!(next(&v, at), Ok(Next::Wait { until: to, .. }) if to == until), "{seconds} s");
    }
    assert_eq!(closed(&v, "1970-01-01T00:01:00Z").0, Some(Reason::PodNotRunning));
}

/// Seconds that snapshots have to become ready.
const READY: i64 = 600;

fn snap(name: &str) -> Snap {
    Snap {
        token: Some(crate::plan::name::token("", name)),
        uid: format!("uid of {name}"),
        policy_uid: "policy".into(),
        run: ID.parse().unwrap(),
        claim: ClaimKey { template: "data".into(), ordinal: 0 },
        epoch: 1,
        size: 2,
        sealed: true,
        created: Timestamp::UNIX_EPOCH,
        cut: None,
        ready: true,
        restore_size: None,
        leaving: false,
        error: None,
    }
}

fn free() -> Fact {
    let mut roll = Roll::default();
    let uids = ["uid of a", "uid of b"];
    roll.put("policy", ID.parse().unwrap(), Entry::new(&[snap("a").claim], uids));
    Fact::Lease(Seen::Known(Some(Lease { epoch: 1, roll: Some(roll), ..Lease::default() })))
}

/// A run of two volumes that is cut, with these snapshots left of it, its lock given back.
fn cut(snaps: [Snap; 2]) -> View {
    let (id, since) = (ID.parse().unwrap(), Timestamp::UNIX_EPOCH);
    let mut v = view(Journal::Cut(Cut { id, epoch: 1, since, size: 2, consistency: Consistency::Frozen, entry: None }));
    v.want.backup.ready_timeout = SignedDuration::from_secs(READY);
    let [a, b] = snaps;
    v.fold(Fact::Snaps(Seen::Known([("a".to_owned(), a), ("b".to_owned(), b)].into())));
    v.fold(free());
    v
}

/// What is waited for, and for how long.
fn waits(v: &View, seconds: i64) -> (Vec<Feed>, i64) {
    match next(v, Timestamp::from_second(seconds).unwrap()).unwrap() {
        Next::Wait { on, until, .. } => (on, until.as_second()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_snapshots_that_are_not_sealed_are_asked_for_their_cut() {
    let v = cut([Snap { ready: false, ..snap("a") }, snap("b")]);
    assert_eq!(waits(&v, 1), (vec![Feed::Snaps], READY));
    let v = cut([Snap { sealed: false, ..snap("a") }, snap("b")]);
    assert_eq!(waits(&v, READY - 1), (vec![Feed::Cut("uid of a".into()), Feed::Snaps], READY));
    for bad in [Snap { sealed: false, ..snap("a") }, Snap { ready: false, ..snap("a") }] {
        let (reason, message) = closed(&cut([bad, snap("b")]), "1970-01-01T00:10:00Z");
        assert_eq!(reason, Some(Reason::SnapshotTimeout), "{message}");
    }
    let whole = cut([snap("a"), snap("b")]);
    let Ok(Next::Do { batch, .. }) = next(&whole, Timestamp::from_second(READY).unwrap()) else { panic!("it waits") };
    let [Backup::Write(write)] = &batch[..] else { panic!("{batch:?}") };
    assert_eq!(write.status.last_run.as_ref().unwrap().outcome, Some(Outcome::Succeeded));
}

#[test]
fn a_snapshot_is_sealed_once_its_cut_is_known_if_all_of_the_run_are_there() {
    let told = |snaps: [Snap; 2]| {
        let mut v = cut(snaps);
        v.fold(Fact::Cut("uid of a".into(), Timestamp::UNIX_EPOCH));
        v.fold(free());
        match next(&v, Timestamp::UNIX_EPOCH) {
            Ok(Next::Do { batch, .. }) => batch,
            other => panic!("{other:?} of {:?}", v.snaps()),
        }
    };
    let fresh = || Snap { sealed: false, ..snap("a") };
    let batch = told([fresh(), snap("b")]);
    assert!(matches!(&batch[..], [Backup::Seal(seal)] if seal.name == "a"), "{batch:?}");
    // One that is going is none: what is partial goes.
    let batch = told([fresh(), Snap { leaving: true, ..snap("b") }]);
    assert!(matches!(&batch[..], [Backup::Delete(doomed)] if doomed.name == "a"), "{batch:?}");
}

/// What an attempt before has made under the same id is not ours to delete, were the id ever to come again.
#[test]
fn what_is_partial_goes_and_what_another_attempt_has_made_under_the_id_stays() {
    let doomed = |epoch, snaps: [Snap; 2]| {
        let mut v = view(void(1, epoch, Timestamp::UNIX_EPOCH));
        let [a, b] = snaps;
        v.fold(Fact::Snaps(Seen::Known([("a".to_owned(), a), ("b".to_owned(), b)].into())));
        let Ok(Next::Do { batch, .. }) = next(&v, Timestamp::UNIX_EPOCH) else { return vec![] };
        batch
            .into_iter()
            .filter_map(|step| if let Backup::Delete(doomed) = step { Some(doomed.name) } else { None })
            .collect::<Vec<_>>()
    };
    let open = || Snap { sealed: false, ..snap("a") };
    let other = || Snap { epoch: 7, sealed: false, ..snap("b") };
    assert_eq!(doomed(1, [open(), other()]), ["a"]);
    assert_eq!(doomed(7, [open(), other()]), ["b"]);
    assert_eq!(doomed(1, [snap("a"), other()]), [""; 0], "what was proved is not partial");
    assert_eq!(doomed(0, [open(), snap("b")]), ["a"], "older versions did not write the epoch");
}

#[test]
fn ids_are_seconds_of_the_api_servers_clock_and_status_cannot_move_them_far() {
    let id = |ahead, told: &str| {
        let mut v = view(Journal::Idle);
        v.want.backup = BackupWant::default();
        v.fold(Fact::Snaps(Seen::Known([].into())));
        v.fold(Fact::Ahead(SignedDuration::from_hours(ahead)));
        if let Seen::Known(record) = &mut v.record {
            record.status.last_run = Some(LastRun { id: Some(told.into()), ..LastRun::default() });
        }
        let Ok(Next::Do { batch, .. }) = next(&v, Timestamp::from_second(1_800_000_000).unwrap()) else { panic!() };
        let [Backup::Write(write)] = &batch[..] else { panic!("{batch:?}") };
        write.status.run.as_ref().unwrap().id.clone().unwrap()
    };
    assert_eq!(id(0, "20260101-000000"), "20270115-080000");
    assert_eq!(id(-48, "20260101-000000"), "20270113-080000", "the node's clock is two days ahead");
    assert_eq!(id(0, "20270115-120000"), "20270115-120001", "ids never go back");
    assert_eq!(id(0, "99981231-235959"), "20270115-080000", "nobody can have begun that one");
}
