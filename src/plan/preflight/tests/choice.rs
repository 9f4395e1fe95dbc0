//! Which run an instant means: an instant that a table prints of a run selects that run.

use jiff::Timestamp;

use super::{Cluster, cluster};
use crate::plan::known::Snapshot;
use crate::plan::name::ClaimKey;

fn at(text: &str) -> Timestamp {
    format!("2026-01-01T00:00:{text}Z").parse().unwrap()
}

/// A run whose claims were cut apart, and a later one.
fn two_runs() -> Cluster {
    let mut cluster = cluster();
    let source = cluster.source();
    (source.size, source.sealed) = (Some(2), Some(at("01.25")));
    let claim = |ordinal| Some(ClaimKey { ordinal, template: "data".into() });
    let second = Snapshot { uid: "snap-1".into(), claim: claim(1), sealed: Some(at("03.999999999")), ..source.clone() };
    let later = Snapshot {
        uid: "later".into(),
        run: "20260101-000005".parse().ok(),
        size: Some(1),
        sealed: Some(at("06")),
        ..source.clone()
    };
    cluster.sources.extend([("snap-1".to_owned(), second), ("later".to_owned(), later)]);
    cluster
}

#[test]
fn a_cut_time_that_a_table_prints_selects_its_run() {
    let (first, second) = (Some("20260101-000000"), Some("20260101-000005"));
    for (instant, expected) in [
        ("00.999999999", None),
        ("01", first), // `describe` prints it of the first snapshot
        ("01.25", first),
        ("02", None),
        ("03.999999998", None),
        ("03", first), // `list runs` prints it
        ("03.999999999", first),
        ("05", first),
        ("05.999999999", first),
        ("06", second),
        ("30", second),
    ] {
        let mut cluster = two_runs();
        cluster.want.point_in_time = Some(at(instant));
        let run = cluster.chosen().ok().and_then(|chosen| chosen.run).map(|run| run.to_string());
        assert_eq!(run.as_deref(), expected, "{instant}");
    }
    assert_eq!(format!("{:.0}", at("03.999999999")), at("03").to_string(), "tables cut fractions off");
}

#[test]
fn the_last_instant_that_there_is_has_no_second_after_it() {
    let mut cluster = two_runs();
    cluster.want.point_in_time = Some(Timestamp::MAX);
    assert!(cluster.chosen().is_ok());
}

#[test]
fn a_snapshot_from_before_there_were_runs_is_known_by_its_claim() {
    let mut cluster = cluster();
    let Snapshot { run, claim, epoch, size, sealed, .. } = cluster.source();
    (*run, *claim, *epoch, *size, *sealed) = (None, None, None, None, None);
    cluster.want.snapshot_names = vec!["snap".into()];
    assert_eq!(cluster.findings().unwrap(), vec![]);
}
