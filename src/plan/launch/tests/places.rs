//! Who gets a place, who gets none, and who is told so.

use super::*;

/// A policy of that namespace, of a StatefulSet of its own, whose slot of that hour is due.
fn due(namespace: &str, n: u128, hour: i64) -> (Uid, Object) {
    let next = Some(at(&format!("2026-03-03T0{hour}:00:00Z")));
    let schedule = Some(format!("0 {hour} * * *").into());
    let policy = Policy { schedule, owned: Owned { next, ..settled().owned }, ..settled() };
    let (name, statefulset) = (format!("policy-{n}").into(), format!("app-{n}").into());
    let object = object(Subject::Backup(Box::new(policy)));
    (Uid(n), Object { namespace: namespace.into(), name, statefulset, ..object })
}

/// Whose Jobs are made; each is Running at once, and its status is told.
fn jobs(index: &mut Index, time: &str) -> Vec<u128> {
    let mut made = vec![];
    loop {
        let acts = index.plan(now(time));
        if acts.is_empty() {
            return made;
        }
        for Act { uid, what } in acts {
            match what {
                What::Launch { run, .. } => {
                    made.push(uid.0);
                    let job = Job::new(uid, run.kind, run.slot.into(), run.attempt, run.trigger, State::Running, None);
                    index.answer(uid, Answer::Launched(Some(job)), now(time));
                }
                What::Status(owned) => tell(index, uid, owned, time),
                What::Look => index.answer(uid, Answer::Lease(Lease::default()), now(time)),
                What::Tell(_) => {}
                What::Prune { .. } => panic!("no Job is too old here"),
                What::Judge(_) | What::Sight(_) | What::Inspect { .. } | What::Remove { .. } => {
                    panic!("nothing is wrong here")
                }
            }
        }
    }
}

/// Status is stored, as the API server and the decoder have it.
fn tell(index: &mut Index, uid: Uid, owned: Owned, time: &str) {
    let mut object = index.get(uid).unwrap().object;
    object.version = format!("{}", object.version.parse::<u64>().unwrap() + 1).into();
    let owned = Owned { waiting: owned.waiting.filter(|waiting| waiting.why.is_some()), ..owned };
    match &mut object.subject {
        Subject::Backup(policy) => policy.owned = owned,
        Subject::Restore(restore) => restore.owned = owned,
    }
    index.answer(uid, Answer::Status(Some(Box::new(object))), now(time));
}

fn told(index: &Index, n: u128) -> Option<(Reason, String)> {
    let waiting = index.get(Uid(n)).unwrap().object.owned().waiting.clone()?;
    Some((waiting.why.unwrap(), waiting.message.into()))
}

#[test]
fn runs_that_wait_hold_no_place_and_of_each_namespace_three_may() {
    let mut index = index(2);
    (1..=6).for_each(|n| {
        let (uid, object) = due("tenant", n, 3);
        index.see(uid, object);
    });
    let (uid, object) = due("shop", 7, 4);
    index.see(uid, object);
    assert_eq!(jobs(&mut index, "2026-03-03T06:00:00Z"), [1, 7], "namespaces take turns, the oldest slot begins");
    assert_eq!(jobs(&mut index, "2026-03-03T06:00:29Z"), [] as [u128; 0]);
    assert_eq!(index.places()[0], (2, 5));
    assert_eq!(jobs(&mut index, "2026-03-03T06:00:30Z"), [2, 3], "none of the two has begun: both wait");
    assert_eq!(jobs(&mut index, "2026-03-03T06:01:00Z"), [] as [u128; 0]);
    assert_eq!(index.places()[0], (0, 3), "three wait at a lock, and two places are free for others");
    let already = "3 backups of namespace tenant already wait for a lock or a pod";
    let message = format!("A run is due, but {already}. No further Job is made until one of them goes on or ends");
    assert_eq!(told(&index, 4), Some((Reason::NoPlace, message)));
    let (uid, object) = due("shop", 8, 5);
    index.see(uid, object);
    assert_eq!(jobs(&mut index, "2026-03-03T06:02:00Z"), [8]);
    // One of those that waited is over.
    index.forget(Uid(1));
    assert_eq!(jobs(&mut index, "2026-03-03T06:02:01Z"), [4]);
    assert_eq!(told(&index, 4), None, "it waits no longer");
    assert!(told(&index, 5).is_some());
}

#[test]
fn whoever_has_had_no_place_for_half_a_minute_is_told_so_once() {
    let mut index = index(1);
    for (n, namespace) in [(1, "shop"), (2, "shop"), (3, "crm")] {
        let (uid, object) = due(namespace, n, 3);
        index.see(uid, object);
    }
    let begin = |index: &mut Index, n: u128, time: &str| {
        let mut object = index.get(Uid(n)).unwrap().object;
        object.version = format!("{}", object.version.parse::<u64>().unwrap() + 1).into();
        let slot = "2026-03-03T03:00:00Z";
        let Subject::Backup(policy) = &mut object.subject else { unreachable!() };
        policy.run = Some(OpenRun { slot: slot.into(), attempt: 1, stage: Stage::Other });
        policy.last = Some(Box::new(last(slot, Trigger::Schedule, None)));
        index.see(Uid(n), object);
        assert_eq!(jobs(index, time), [] as [u128; 0]);
    };
    let first = jobs(&mut index, "2026-03-03T06:00:00Z");
    assert_eq!(first.len(), 1);
    begin(&mut index, first[0], "2026-03-03T06:00:02Z");
    let others: Vec<u128> = (1..=3).filter(|n| *n != first[0]).collect();
    assert_eq!(index.wake().tick, Some(now("2026-03-03T06:00:30Z").tick), "then it is to be told");
    assert!(others.iter().all(|n| told(&index, *n).is_none()));
    let acts = index.plan(now("2026-03-03T06:00:30Z"));
    assert_eq!(acts.len(), 2);
    for Act { uid, what } in acts {
        let What::Status(owned) = what else { panic!("{what:?}") };
        let waiting = owned.waiting.as_deref().unwrap();
        assert_eq!((waiting.why, waiting.since), (Some(Reason::NoPlace), at("2026-03-03T06:00:30Z")));
        assert_eq!(&*waiting.message, "A run is due, but at most 1 backups run at a time. Namespaces take turns");
        tell(&mut index, uid, owned, "2026-03-03T06:00:30Z");
    }
    for time in ["2026-03-03T06:00:31Z", "2026-03-03T06:03:00Z", "2026-03-03T06:05:01Z"] {
        assert_eq!(index.plan(now(time)), [], "told once");
    }
    // Its Job goes with its object, and the place is free.
    index.forget(Uid(first[0]));
    let time = "2026-03-03T06:05:01Z";
    let acts = index.plan(now(time));
    let [Act { uid, what: What::Launch { run, .. } }] = &acts[..] else { panic!("{acts:?}") };
    let job = Job::new(*uid, run.kind, run.slot.clone().into(), 1, run.trigger, State::Pending, None);
    index.answer(*uid, Answer::Launched(Some(job)), now(time));
    let acts = index.plan(now(time));
    let [Act { what: What::Status(owned), .. }] = &acts[..] else { panic!("{acts:?}") };
    let over = owned.waiting.as_deref().map(|waiting| (waiting.why, waiting.since));
    assert_eq!(over, Some((None, at(time))), "told with what is told anyway");
}

/// The run of this object has begun, and is at this.
fn begin(index: &mut Index, n: u128, attempt: u32, stage: Stage) {
    let entry = index.get(Uid(n)).unwrap();
    let (mut object, slot) = (entry.object, entry.jobs[0].slot.clone());
    object.version = format!("{}", object.version.parse::<u64>().unwrap() + 1).into();
    let Subject::Backup(policy) = &mut object.subject else { unreachable!() };
    policy.last = Some(Box::new(Last { attempt, ..last(&slot, Trigger::Schedule, None) }));
    policy.run = Some(OpenRun { slot, attempt, stage });
    index.see(Uid(n), object);
}

/// Policies of these namespaces, one after the other, whose runs begin at once and never end.
fn fill(index: &mut Index, namespaces: &[&str], each: u128, time: &str) {
    for (i, namespace) in (0..).zip(namespaces) {
        (1..=each).for_each(|n| {
            let (uid, object) = due(namespace, 100 * i + n, 3);
            index.see(uid, object);
        });
        loop {
            let made = jobs(index, time);
            for n in &made {
                begin(index, *n, 1, Stage::Other);
            }
            if made.is_empty() {
                break;
            }
        }
    }
}

#[test]
fn hooks_that_last_for_days_take_places_for_five_minutes_only_from_those_who_have_none() {
    for tenants in [&["tenant-a", "tenant-b", "tenant-c"][..], &["tenant-a", "tenant-b"]] {
        let mut index = index(8);
        fill(&mut index, tenants, 20, "2026-03-03T06:00:00Z");
        let taken = index.places()[0].0;
        assert!(taken >= 7, "{taken}");
        // Whoever has a place gets no other one beyond the limit, however long he waits.
        assert_eq!(jobs(&mut index, "2026-03-03T06:04:59Z"), [] as [u128; 0]);
        for (n, namespace) in [(901, "shop"), (902, "shop"), (903, "crm"), (904, "erp")] {
            let (uid, object) = due(namespace, n, 4);
            index.see(uid, object);
        }
        let mut made = jobs(&mut index, "2026-03-03T06:04:59Z");
        assert!(made.len() <= 1, "the last place at most: {made:?}");
        made.extend(jobs(&mut index, "2026-03-03T06:05:00Z"));
        made.sort_unstable();
        assert_eq!(made, [901, 903, 904], "one each, and none for the tenants");
        for n in &made {
            begin(&mut index, *n, 1, Stage::Other);
        }
        assert_eq!(jobs(&mut index, "2026-03-03T06:30:00Z"), [] as [u128; 0]);
        index.forget(Uid(901));
        assert_eq!(jobs(&mut index, "2026-03-03T06:30:01Z"), [902]);
    }
}

#[test]
fn restores_that_last_keep_no_place_from_others_either() {
    let mut index = index(4);
    let of = |namespace: &str, n: u128, restored: Restore, version: &str| {
        let (statefulset, version) = (format!("app-{n}").into(), version.into());
        Object { namespace: namespace.into(), statefulset, version, ..restore(restored) }
    };
    let mut begun = 0;
    for (n, namespace) in [(1, "tenant"), (2, "tenant"), (3, "tenant"), (4, "tenant"), (9, "shop")] {
        index.see(Uid(n), of(namespace, n, Restore::default(), "1"));
        for n in jobs(&mut index, "2026-03-03T06:00:00Z") {
            let run = Some(OpenRun { slot: "".into(), attempt: 1, stage: Stage::Other });
            index.see(Uid(n), of(namespace, n, Restore { run, ..Restore::default() }, "2"));
            begun += 1;
        }
    }
    assert_eq!(begun, 4, "three of the tenant's, and one");
    index.see(Uid(10), of("crm", 10, Restore::default(), "1"));
    let mut made = jobs(&mut index, "2026-03-03T06:04:00Z");
    made.extend(jobs(&mut index, "2026-03-03T06:05:01Z"));
    assert_eq!(made, [10]);
}

#[test]
fn a_run_that_is_taken_up_and_waits_for_its_lock_holds_no_place() {
    let mut index = index(1);
    let (uid, object) = due("shop", 1, 3);
    index.see(uid, object);
    assert_eq!(jobs(&mut index, "2026-03-03T06:00:00Z"), [1]);
    begin(&mut index, 1, 1, Stage::Other);
    let slot = "2026-03-03T03:00:00Z";
    index.see_job(uid, job(1, Kind::Backup, slot, Trigger::Schedule, State::Failed { refused: false }));
    assert_eq!(jobs(&mut index, "2026-03-03T06:00:01Z"), [] as [u128; 0]);
    let again = Job::new(Uid(2), Kind::Backup, slot.into(), 2, Trigger::Schedule, State::Running, None);
    index.see_job(uid, again);
    assert_eq!(jobs(&mut index, "2026-03-03T06:00:20Z"), [] as [u128; 0]);
    assert_eq!(index.places()[0], (1, 0), "it may be at work at any moment");
    let (uid, object) = due("crm", 2, 3);
    index.see(uid, object);
    assert_eq!(jobs(&mut index, "2026-03-03T06:00:51Z"), [2], "the lock is another's");
    begin(&mut index, 1, 2, Stage::Other);
    jobs(&mut index, "2026-03-03T06:00:52Z");
    assert_eq!(index.places()[0], (2, 0), "and now it is its own");
}

#[test]
fn a_namespace_whose_runs_wait_for_uploads_gets_no_jobs_without_end() {
    let mut index = index(2);
    let mut made = 0;
    (1..=20).for_each(|n| {
        let (uid, object) = due("tenant", n, 3);
        index.see(uid, object);
    });
    for second in 0..30 {
        for n in jobs(&mut index, &format!("2026-03-03T06:00:{second:02}Z")) {
            made += 1;
            begin(&mut index, n, 1, Stage::Uploading);
        }
    }
    assert!((10..=12).contains(&made), "five for each place: {made}");
    jobs(&mut index, "2026-03-03T06:01:30Z");
    let (reason, message) = (13..=20).find_map(|n| told(&index, n)).unwrap();
    assert_eq!(reason, Reason::NoPlace);
    assert!(message.contains("of namespace tenant already wait for their snapshots to become ready"), "{message}");
    let (uid, object) = due("shop", 21, 3);
    index.see(uid, object);
    assert_eq!(jobs(&mut index, "2026-03-03T06:02:00Z"), [21]);
    index.forget(Uid(1));
    index.forget(Uid(2));
    index.forget(Uid(3));
    assert!(!jobs(&mut index, "2026-03-03T06:02:01Z").is_empty());
}

#[test]
fn one_namespace_leaves_some_places_to_those_that_hold_none() {
    let mut index = index(8);
    (1..=20).for_each(|n| {
        let (uid, object) = due("tenant", n, 3);
        index.see(uid, object);
    });
    // Each begins as soon as it has its Job, and never ends.
    for _ in 0..10 {
        for n in jobs(&mut index, "2026-03-03T06:00:00Z") {
            let mut object = index.get(Uid(n)).unwrap().object;
            object.version = "50".into();
            let Subject::Backup(policy) = &mut object.subject else { unreachable!() };
            let slot: Box<str> = "2026-03-03T03:00:00Z".into();
            policy.run = Some(OpenRun { slot: slot.clone(), attempt: 1, stage: Stage::Frozen });
            policy.last = Some(Box::new(last(&slot, Trigger::Schedule, None)));
            index.see(Uid(n), object);
        }
    }
    assert_eq!(index.places()[0], (6, 14));
    for (n, namespace) in [(21, "shop"), (22, "shop"), (23, "crm"), (24, "erp")] {
        let (uid, object) = due(namespace, n, 4);
        index.see(uid, object);
    }
    let mut made = jobs(&mut index, "2026-03-03T06:00:01Z");
    made.sort_unstable();
    assert_eq!((index.places()[0].0, made.len()), (8, 2));
    assert!(!made.contains(&21) || !made.contains(&22), "{made:?}");
}

#[test]
fn a_namespace_whose_runs_begin_has_soon_as_many_as_there_are_places() {
    let mut index = index(32);
    (1..=40).for_each(|n| {
        let (uid, object) = due("shop", n, 3);
        index.see(uid, object);
    });
    let mut counts = vec![];
    for second in 0..4 {
        let made = jobs(&mut index, &format!("2026-03-03T06:00:0{second}Z"));
        counts.push(made.len());
        for n in made {
            let mut object = index.get(Uid(n)).unwrap().object;
            object.version = "50".into();
            let Subject::Backup(policy) = &mut object.subject else { unreachable!() };
            let slot: Box<str> = "2026-03-03T03:00:00Z".into();
            policy.run = Some(OpenRun { slot, attempt: 1, stage: Stage::Other });
            index.see(Uid(n), object);
        }
    }
    assert_eq!(counts, [3, 6, 12, 3], "all but a quarter of the places");
}

#[test]
fn restores_have_places_of_their_own_and_what_has_begun_needs_none() {
    let mut index = index(1);
    let (uid, backup) = due("shop", 1, 3);
    index.see(uid, backup);
    for n in 2..=4 {
        let object = restore(Restore::default());
        index.see(Uid(n), Object { statefulset: format!("app-{n}").into(), namespace: "crm".into(), ..object });
    }
    let run = Some(OpenRun { slot: "".into(), attempt: 1, stage: Stage::Other });
    let begun = restore(Restore { phase: Some(RestorePhase::Restoring), run, ..Restore::default() });
    index.see(Uid(5), Object { statefulset: "app-5".into(), ..begun });
    let mut made = jobs(&mut index, "2026-03-03T06:00:00Z");
    made.sort_unstable();
    assert_eq!(made, [1, 2], "one of each");
    assert_eq!(index.places(), [(1, 0), (1, 2)]);
    let made = jobs(&mut index, "2026-03-03T06:00:20Z");
    assert_eq!(made, [5], "its Job is lost: that is taken up at once, although no place is free");
    assert_eq!(index.places()[1], (2, 2));
    jobs(&mut index, "2026-03-03T06:00:30Z");
    assert_eq!(told(&index, 3).unwrap().0, Reason::NoPlace);
}

#[test]
fn a_restore_of_anothers_statefulset_holds_up_no_backup_before_it_has_begun() {
    let mut index = index(10);
    let (uid, backup) = due("shop", 1, 3);
    let target = backup.statefulset.clone();
    index.see(uid, backup);
    let foreign = |restored: Restore, version: &str| Object {
        namespace: "tenant".into(),
        statefulset: target.clone(),
        statefulset_namespace: Some("shop".into()),
        version: version.into(),
        ..restore(restored)
    };
    index.see(Uid(2), foreign(Restore::default(), "1"));
    assert!(jobs(&mut index, "2026-03-03T06:00:00Z").contains(&1));
    let (uid, backup) = due("shop", 3, 3);
    index.see(uid, Object { statefulset: target.clone(), ..backup });
    let run = Some(OpenRun { slot: "".into(), attempt: 1, stage: Stage::Other });
    index.see(Uid(2), foreign(Restore { run, ..Restore::default() }, "2"));
    assert_eq!(jobs(&mut index, "2026-03-03T06:00:01Z"), [] as [u128; 0], "the runner has let it pass");
    jobs(&mut index, "2026-03-03T06:00:31Z");
    assert_eq!(told(&index, 3).unwrap().0, Reason::RestoreUnderWay);
    index.see(Uid(2), foreign(Restore { phase: Some(RestorePhase::Completed), ..Restore::default() }, "3"));
    assert_eq!(jobs(&mut index, "2026-03-03T06:00:32Z"), [3]);
    assert_eq!(told(&index, 3), None);
}

#[test]
fn a_run_of_a_broken_spec_is_not_begun_but_one_that_has_begun_is_ended() {
    let slot = "2026-03-03T02:00:00Z";
    let broken = Policy { problem: Some("maxFreezeSeconds is 0".into()), ..settled() };
    let acts = backup(broken.clone()).plan(now(slot));
    let [Act { what: What::Judge(verdict), .. }, Act { what: What::Tell(note), .. }] = &acts[..] else {
        panic!("{acts:?}")
    };
    assert!(verdict.message.contains("is 0") && note.message.contains("is 0"), "{acts:?}");
    let run = Some(OpenRun { slot: slot.into(), attempt: 1, stage: Stage::Other });
    let last = Some(Box::new(last(slot, Trigger::Schedule, None)));
    let mut index = backup(Policy { owned: owned("2026-03-04T02:00:00Z", slot), run, last, ..broken });
    assert_eq!(jobs(&mut index, "2026-03-03T03:00:00Z"), [] as [u128; 0]);
    assert_eq!(jobs(&mut index, "2026-03-03T03:00:10Z"), [7 << 64]);
}

/// Whoever may change an object can put our finalizer on it: the Job that takes it off has a place, like every other, and
/// nothing is frozen where the newest run has its outcome.
#[test]
fn a_finalizer_on_what_is_over_makes_no_job_beyond_the_places() {
    let mut index = index(2);
    for n in 1..=6 {
        let (uid, object) = due("tenant", n, 3);
        index.see(uid, Object { held: true, ..object });
    }
    assert_eq!(jobs(&mut index, "2026-03-02T13:00:00Z"), [] as [u128; 0], "whose the lock is must be seen");
    let made = jobs(&mut index, "2026-03-02T14:00:00Z");
    assert!((1..=2).contains(&made.len()), "{made:?} at once, with two places");
    index.forget(Uid(made[0]));
    assert_eq!(jobs(&mut index, "2026-03-02T14:00:01Z").len(), 1, "the others have their turn");
}
