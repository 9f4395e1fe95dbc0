//! Every write, every blow, every pair of them: the run ends as the undisturbed one does.
//!
//! One case from a line: `SSB_CASE='[(3, DieAfter), (7, LostBefore)]' cargo test --test it one_case -- --nocapture`

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use sts_backup::api::backup::{BackupPhase, RetentionPolicy};
use sts_backup::api::condition::Reason;
use sts_backup::api::shared::{Consistency, Outcome, Trigger};
use sts_backup::plan::backup::{self, Backup};
use sts_backup::plan::flow::{Exit, Planner, Step};
use sts_backup::plan::hook::{HookSpec, Pair};
use sts_backup::plan::noun::{BackupWant, Holder, Keep, Want};
use sts_backup::plan::resolve;
use sts_backup::plan::view::View;
use sts_backup::step::{Io, drive};
use tokio::runtime::{Builder, Runtime};
use tokio::select;

use super::broken::{self, Mutant};
use super::draw::Draw;
use super::red;
use super::world::{Blow, Kind, Process, World, keys};

/// Of the pairs of a short sweep one in so many is run, and each that is two deaths; `just sweep` runs them all.
const PAIRS: u64 = 7;

const BLOWS: [Blow; 12] = [
    Blow::DieBefore,
    Blow::DieAfter,
    Blow::LostBefore,
    Blow::LostAfter,
    Blow::Hang,
    Blow::Refuse,
    Blow::Sigterm,
    Blow::Stolen,
    Blow::Restart,
    Blow::Straggler,
    Blow::Twice,
    Blow::Pinned,
];

/// From SIGTERM to the thaw, where nothing else goes wrong. A request takes 20 ms here.
const PROMPT: SignedDuration = SignedDuration::from_millis(150);

pub type Blows = [(usize, Blow)];

pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

pub fn want(world: &World, process: usize) -> Want {
    let hook = |argv: &str| {
        let argv = vec![argv.to_owned()];
        world.hooks.then(|| HookSpec { argv, container: None, timeout: SignedDuration::from_secs(5) })
    };
    Want {
        me: Holder(format!("backup/shop/nightly/{process}")),
        namespace: "shop".into(),
        name: "nightly".into(),
        uid: world.kind.uid().into(),
        generation: 1,
        statefulset: "web".into(),
        statefulset_namespace: "shop".into(),
        slot: "slot".into(),
        attempt: 1,
        lock_by: world.now() + SignedDuration::from_secs(600),
        guarded: !world.kind.is_file(),
        backup: BackupWant {
            trigger: Trigger::Command,
            hooks: Pair { pre: hook("freeze"), post: hook("thaw") },
            max_freeze: SignedDuration::from_secs(30),
            ready_timeout: SignedDuration::from_secs(600),
            keep: world.old.is_some().then(|| Keep {
                policy: RetentionPolicy {
                    keep_last: Some(2),
                    purge_retained: Some(world.kind == Kind::Old { purge: true }),
                    ..RetentionPolicy::default()
                },
                zone_name: "Etc/UTC".into(),
                zone: Some(TimeZone::UTC),
            }),
            adopt: Some("former".into()),
            ..BackupWant::default()
        },
        ..Want::default()
    }
}

/// Process after process, until one ends the run; then what must hold is looked at.
pub async fn case(blows: &Blows, kind: Kind, next: Planner<Backup>) -> World {
    Box::pin(live(World::new(blows, kind), blows, next)).await
}

pub async fn live(world: World, blows: &Blows, next: Planner<Backup>) -> World {
    let world = Rc::new(RefCell::new(world));
    for n in 1.. {
        let mut want = want(&world.borrow(), n);
        let id = |world: &World| world.status.last_run.as_ref().and_then(|last| last.id.clone());
        let begun = id(&world.borrow());
        if world.borrow().attempts {
            want.attempt = i64::try_from(n).unwrap();
        }
        let process = Process::start(&world, want.clone());
        let exit = select! {
            biased;
            () = process.life.died.notified() => None,
            (exit, _) = drive(&process, next, View::new(want.clone())) => Some(exit),
        };
        let mut world = world.borrow_mut();
        world.log.push(format!("       -- process {n}: {exit:?}"));
        if exit.is_some() && process.stop().is_none() && world.left_frozen() {
            world.violations.push("left with a pod frozen");
        }
        world.bury(&want.me);
        if world.attempts && begun.is_some() && id(&world) != begun {
            world.violations.push("another Job froze again");
        }
        match exit {
            Some(Exit::Done(_) | Exit::Refused(_)) => break,
            // It found the run ended, with nothing left to do.
            Some(Exit::Superseded(_)) if is_over(&world) => break,
            _ if n > 8 => {
                world.violations.push("never ends");
                break;
            }
            _ => {}
        }
    }
    let mut world = Rc::into_inner(world).unwrap().into_inner();
    verdict(&mut world, blows);
    world
}

pub fn is_over(world: &World) -> bool {
    let ended = world.status.last_run.as_ref().is_some_and(|last| last.outcome.is_some());
    ended && world.finalizers.is_empty() && world.open.is_none()
}

fn verdict(world: &mut World, blows: &Blows) {
    world.settle();
    let struck = |kinds: &[Blow]| blows.iter().any(|(_, blow)| kinds.contains(blow));
    let mut bad = std::mem::take(&mut world.violations);
    let outcome = world.status.last_run.as_ref().and_then(|last| last.outcome);
    let succeeded = outcome == Some(Outcome::Succeeded) && world.status.phase == Some(BackupPhase::Ready);
    let failed = outcome == Some(Outcome::Failed) && world.status.phase == Some(BackupPhase::Failed);
    // A hook whose end nobody witnessed may be at work still: that is no success.
    let reason = world.status.last_run.as_ref().and_then(|last| last.reason);
    // Whatever befell its Job, the next attempt has closed it.
    let lost = failed && world.attempts && reason == Some(Reason::JobLost);
    // Its policy was taken away: no hook may run any more.
    let unguarded = failed && world.unguarded_at.is_some() && reason == Some(Reason::PolicyMissing);
    let unproven = [Reason::ThawUnproven, Reason::HookTimeout, Reason::ThawFailed].map(Some).contains(&reason);
    let failed = failed
        && (!struck(&[Blow::LostBefore, Blow::LostAfter])
            || unproven
            || struck(&[Blow::Hang, Blow::Refuse, Blow::Restart]));
    // Whose status may not be written leaves no word of its own.
    let refused = struck(&[Blow::Refuse]);
    if !(succeeded
        || lost
        || unguarded
        || failed && struck(&[Blow::LostBefore, Blow::LostAfter, Blow::Hang, Blow::Refuse, Blow::Restart])
        || refused)
    {
        bad.push("wrong outcome");
    }
    let mut check = |wrong: bool, what| {
        if wrong {
            bad.push(what);
        }
    };
    check(world.left_frozen(), "left frozen");
    let late = world.answered.is_some_and(|answered| answered > PROMPT);
    check(blows.len() == 1 && late, "SIGTERM was answered late");
    check(!refused && world.status.run.is_some(), "journal left open");
    check(!refused && !world.finalizers.is_empty(), "finalizer left");
    check(!refused && world.open.is_some(), "open mark left");
    check(!refused && world.holder.is_some(), "Lease still held");
    let consistency = world.status.last_run.as_ref().and_then(|last| last.consistency);
    let expected = if world.hooks { Consistency::Frozen } else { Consistency::CrashPerVolume };
    check(succeeded && consistency != Some(expected), "wrong consistency");
    let pruned = world.old.as_ref().map(|old| old.verdict(succeeded)).unwrap_or_default();
    let said = world.status.message.as_deref().unwrap_or_default();
    let names_orphan = said.contains("nobody prunes run 20270112-000000 of a former nightly");
    check(succeeded && world.old.is_some() && !names_orphan, "an orphaned run is not named");
    let (runs, size) = (world.runs(), keys().len());
    let whole = runs.values().filter(|disks| disks.len() == size && disks.iter().all(|disk| disk.snap.sealed));
    // Without an object nobody knows which slot a run was for: one whose process died once it was proved stands too.
    let whole = whole.count();
    check(succeeded && (whole == 0 || whole > 1 && !world.kind.is_file()), "not exactly one run");
    for disks in runs.values() {
        let sealed = disks.iter().any(|disk| disk.snap.sealed);
        check(succeeded && disks.len() != size && !struck(&[Blow::Straggler]), "partial run kept");
        let one = disks.iter().all(|disk| disk.evidence == disks[0].evidence && disk.snap.epoch == disks[0].snap.epoch);
        let frozen = matches!(disks[0].evidence, Some((true, _)));
        check(sealed && !(one && frozen), "one id, two freezes");
    }
    bad.extend(pruned);
    world.violations = bad;
}

#[derive(Debug, Default)]
struct Report {
    singles: usize,
    pairs: usize,
    red: red::Red<(usize, Blow), &'static str>,
}

fn is_death(blow: Blow) -> bool {
    matches!(blow, Blow::DieBefore | Blow::DieAfter)
}

/// Every single blow, and every pair of them; with old runs in stock the first of a pair falls on retention.
fn sweep(what: &str, kind: Kind, next: Planner<Backup>) -> Report {
    let (rt, mut report, start) = (runtime(), Report::default(), Instant::now());
    let mut go = |blows: &Blows| {
        let world = rt.block_on(case(blows, kind, next));
        if !world.violations.is_empty() {
            report.red.push((blows.into(), world.violations));
        }
        (world.writes, world.first_pruned)
    };
    let (mut one, mut two, mut draw) = (0, 0, Draw::new(PAIRS, 1));
    let (writes, pruned) = go(&[]);
    let pairs_from = if matches!(kind, Kind::Old { .. }) { pruned.unwrap() - 1 } else { 0 };
    for k in 0..writes {
        for first in BLOWS {
            one += 1;
            let writes = go(&[(k, first)]).0.min(60);
            for j in (k + 1..writes).filter(|_| k >= pairs_from) {
                for second in BLOWS {
                    two += 1;
                    if draw.take_or(is_death(first) && is_death(second)) {
                        go(&[(k, first), (j, second)]);
                    }
                }
            }
        }
    }
    (report.singles, report.pairs) = (one, two);
    let red = report.red.len();
    println!("{what}: {one} single blows, pairs: {draw}, {red} red, {:.1?}", start.elapsed());
    red::print(&report.red);
    report
}

#[test]
fn a_run_with_hooks_survives_every_blow_and_every_pair() {
    let report = sweep("with hooks", Kind::Hooks, backup::next);
    assert!(report.singles > 150 && report.pairs > 20_000, "{} and {}", report.singles, report.pairs);
    assert!(report.red.is_empty());
}

#[test]
fn a_run_without_hooks_survives_every_blow_and_every_pair() {
    let report = sweep("without hooks", Kind::NoHooks, backup::next);
    assert!(report.singles > 100 && report.pairs > 5_000, "{} and {}", report.singles, report.pairs);
    assert!(report.red.is_empty());
}

#[test]
fn retention_keeps_and_drops_the_same_after_every_blow_and_every_pair() {
    for purge in [true, false] {
        let report = sweep(&format!("old runs, purgeRetained: {purge}"), Kind::Old { purge }, backup::next);
        assert!(report.singles > 150 && report.pairs > 2_000, "{} and {}", report.singles, report.pairs);
        assert!(report.red.is_empty());
    }
}

#[test]
fn a_run_without_an_object_survives_every_blow_and_every_pair() {
    for hooks in [true, false] {
        let report = sweep(&format!("from a file, hooks: {hooks}"), Kind::File { hooks }, backup::next);
        assert!(report.singles > 100 && report.pairs > 5_000, "{} and {}", report.singles, report.pairs);
        assert!(report.red.is_empty());
    }
}

/// A Job that is lost is followed by one of the next attempt, which finishes what is cut and freezes nothing.
#[test]
fn the_next_attempt_thaws_and_freezes_no_more() {
    let (rt, mut cases, mut lost) = (runtime(), 0, 0);
    let writes = rt.block_on(case(&[], Kind::Hooks, backup::next)).writes;
    for k in 0..writes {
        for blow in [Blow::DieBefore, Blow::DieAfter, Blow::LostAfter, Blow::Sigterm, Blow::Straggler, Blow::Twice] {
            let blows = [(k, blow)];
            let mut world = World::new(&blows, Kind::Hooks);
            world.attempts = true;
            let world = rt.block_on(live(world, &blows, backup::next));
            assert!(world.violations.is_empty(), "{blows:?}: {:?}\n{}", world.violations, world.log.join("\n"));
            let reason = world.status.last_run.as_ref().and_then(|last| last.reason);
            lost += usize::from(reason == Some(Reason::JobLost));
            cases += 1;
        }
    }
    println!("{cases} Jobs lost, {lost} runs with them");
    assert!(cases > 90 && lost > 20 && lost < cases, "{cases} {lost}");
}

#[test]
fn the_undisturbed_run_reads_nothing_while_frozen() {
    let world = runtime().block_on(case(&[], Kind::Hooks, backup::next));
    assert_eq!(world.reads_in_freeze, 0, "{}", world.log.join("\n"));
    assert!(world.violations.is_empty());
}

#[test]
fn a_read_that_fails_once_changes_nothing() {
    let (rt, mut cases) = (runtime(), 0);
    for kind in [Kind::Hooks, Kind::NoHooks, Kind::Old { purge: true }, Kind::File { hooks: true }] {
        let reads = rt.block_on(case(&[], kind, backup::next)).reads;
        for k in 0..reads {
            cases += 1;
            let mut world = World::new(&[], kind);
            world.fail_read = Some(k);
            let world = rt.block_on(live(world, &[], backup::next));
            assert!(world.violations.is_empty(), "read {k}: {:?}\n{}", world.violations, world.log.join("\n"));
        }
    }
    println!("{cases} reads failed once");
    assert!(cases > 20, "{cases}");
}

/// Red cases that are enough to know that a promise is broken.
const ENOUGH: usize = 3;

/// How many single blows and failing reads show a broken promise.
pub fn sweep_broken(mutant: Mutant) -> usize {
    let rt = runtime();
    let mut red = 0;
    let whole = |blows: &Blows, fail_read| {
        let mut world = World::new(blows, Kind::Hooks);
        (world.mutant, world.fail_read) = (Some(mutant), fail_read);
        rt.block_on(live(world, blows, mutant.planner()))
    };
    let undisturbed = rt.block_on(case(&[], Kind::Hooks, backup::next));
    let singles = broken::blows(undisturbed.writes, &BLOWS).into_iter().map(|blows| (blows, None));
    let reads = (0..undisturbed.reads).map(|k| (vec![].into_boxed_slice(), Some(k)));
    for (blows, read) in singles.chain(reads) {
        red += usize::from(!whole(&blows, read).violations.is_empty());
        if red == ENOUGH {
            break;
        }
    }
    red
}

#[test]
fn one_case() {
    let Ok(text) = std::env::var("SSB_CASE") else { return };
    let kind = match std::env::var("SSB_KIND").unwrap_or_default().as_str() {
        "no-hooks" => Kind::NoHooks,
        "old" => Kind::Old { purge: true },
        "old-retained" => Kind::Old { purge: false },
        "file" => Kind::File { hooks: true },
        "file-no-hooks" => Kind::File { hooks: false },
        _ => Kind::Hooks,
    };
    let blows = red::blows(&text, &BLOWS);
    let world = runtime().block_on(case(&blows, kind, backup::next));
    println!("{}\n{:?}", world.log.join("\n"), world.violations);
}

#[test]
fn the_table_names_every_step_with_its_verbs() {
    let names: Vec<_> = Backup::TABLE.iter().map(|row| row.name).collect();
    let all = [
        "Lock", "Write", "Hold", "Mark", "Pre", "Post", "Snapshot", "Enroll", "Seal", "Delete", "Purge", "Prune",
        "Unlock",
    ];
    assert_eq!(names, all);
    assert!(Backup::TABLE.iter().all(|row| !row.verbs.is_empty()));
}

#[test]
fn an_owner_in_another_namespace_is_refused_before_anything_is_read() {
    let mut want = want(&runtime().block_on(async { World::new(&[], Kind::Hooks) }), 1);
    want.statefulset_namespace = "theirs".into();
    want.backup.owned = true;
    let view = View::new(want);
    let refusal = resolve::resolve(&view).unwrap().unwrap_err();
    assert_eq!(refusal.reason, Reason::DeletionPolicyCrossNamespace);
    assert!(refusal.message.contains("set deletionPolicy to Retain"), "{}", refusal.message);
}
