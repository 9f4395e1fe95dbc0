use jiff::tz::TimeZone;

use super::*;
use crate::api::backup::RetentionPolicy;
use crate::plan::known::Maker;
use crate::plan::name::ClaimKey;
use crate::plan::noun::{BackupWant, Lease, Want};
use crate::plan::{roll, view};

fn id(day: u32) -> RunId {
    format!("202701{day:02}-080000").parse().unwrap()
}

fn at(day: u32) -> Timestamp {
    format!("2027-01-{day:02}T08:00:00Z").parse().unwrap()
}

/// A run of one claim, cut on that day, ready.
fn snapshot(day: u32) -> Snapshot {
    Snapshot {
        uid: format!("uid-{day}"),
        version: "1".into(),
        maker: Maker { namespace: "shop".into(), name: "nightly".into(), uid: "u".into() },
        run: Some(id(day)),
        claim: Some(ClaimKey { ordinal: 0, template: "data".into() }),
        epoch: Some(1),
        size: Some(1),
        sealed: Some(at(day)),
        created: at(day),
        cut: Some(at(day)),
        ready: true,
        pvc: Some("data-web-0".into()),
        ..Snapshot::default()
    }
}

/// Runs of these days, of which some are on record as imported.
fn view(days: &[u32], imported: &[u32], keep_last: i64) -> View {
    let policy = RetentionPolicy { keep_last: Some(keep_last), ..RetentionPolicy::default() };
    let keep = Keep { policy, zone_name: "UTC".into(), zone: Some(TimeZone::UTC) };
    let backup = BackupWant { keep: Some(keep), ..BackupWant::default() };
    let mut v = View::new(Want {
        namespace: "shop".into(),
        name: "nightly".into(),
        uid: "u".into(),
        statefulset: "web".into(),
        statefulset_namespace: "shop".into(),
        guarded: false,
        backup,
        ..Want::default()
    });
    let stock: Snapshots = days.iter().map(|day| (format!("nightly-data-{day}"), snapshot(*day))).collect();
    let is_known = |_: &str, run| !imported.iter().any(|day| id(*day) == run);
    let roll = roll::sealed(&stock, is_known);
    v.fold(view::Fact::Lease(Seen::Known(Some(Lease { roll: Some(roll), ..Lease::default() }))));
    v.fold(view::Fact::Prune(Fact::Stock(Seen::Known(Ok(stock)))));
    v
}

/// What is said beforehand is what is done afterwards, but for the floor: of a run that was imported as well, which counts for
/// nobody.
#[test]
fn what_would_go_is_what_goes_once_the_run_is_complete() {
    for (imported, keep, days, floor) in [
        (vec![], 2, vec![10, 11, 12], vec![]),
        (vec![10], 2, vec![10, 11, 12], vec![]),
        (vec![10, 11], 2, vec![10, 11, 12], vec![]),
        (vec![13], 1, vec![10, 11, 12, 13], vec![12, 13]),
        (vec![10, 13], 3, vec![10], vec![]),
        // Each of them may be the only one: nobody knows who made the others.
        (vec![10, 11, 12, 13], 1, vec![10, 11, 12, 13], vec![10, 11, 12, 13]),
    ] {
        let before = view(&[10, 11, 12, 13], &imported, keep);
        let would = room::outlived(&before, &["data-web-0".to_owned()].into(), at(14)).unwrap();
        let would: Vec<RunId> = would.into_iter().map(|run| run.id).collect();
        let after = view(&[10, 11, 12, 13, 14], &imported, keep);
        let gone: Vec<RunId> =
            doomed(&after, id(14)).unwrap().unwrap().into_iter().map(|doomed| doomed.run.id).collect();
        let early: Vec<RunId> = days.iter().filter(|day| !floor.contains(day)).copied().map(id).collect();
        let expected: Vec<RunId> = days.into_iter().map(id).collect();
        assert_eq!((&would, &gone), (&early, &expected), "{imported:?} imported, keepLast {keep}");
    }
}

/// What is left of a run goes before the freeze only where newer runs have all its claims.
#[test]
fn half_a_run_goes_early_only_if_it_is_replaced() {
    let gone = |replaced: bool| {
        let mut v = view(&[11], &[], 5);
        let Seen::Known(Ok(stock)) = &mut v.prune.stock else { panic!() };
        let other = if replaced { "data-web-0" } else { "data-web-1" };
        let half = Snapshot { size: Some(2), sealed: None, pvc: Some(other.into()), ..snapshot(10) };
        stock.insert("nightly-data-10".into(), half);
        let claims = ["data-web-0".to_owned()].into();
        room::outlived(&v, &claims, at(14)).unwrap().into_iter().map(|run| run.id).collect::<Vec<_>>()
    };
    assert_eq!((gone(true), gone(false)), (vec![id(10)], vec![]));
}
