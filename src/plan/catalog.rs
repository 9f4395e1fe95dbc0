//! Runs as their snapshots tell them, for people and scripts: neither the object that made them nor the claims nor
//! the StatefulSet need exist any more. Nothing is decided here.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde::Serialize;

use super::known::{self, Maker, Snapshot, Snapshots, State};
use super::member::Odd;
use super::retention;
use crate::api::backup::RetentionPolicy;
use crate::api::snapshot::VolumeSnapshot;

/// All snapshots of one id, one object and one StatefulSet.
#[derive(Serialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// None for a snapshot from before there were runs.
    pub id: Option<String>,
    /// Name of the StatefulSetBackup, as `NAMESPACE/NAME` where its namespace is another one.
    pub policy: String,
    pub namespace: String,
    pub stateful_set: String,
    /// The latest cut.
    pub cut_time: Option<Timestamp>,
    pub complete: bool,
    pub consistency: Option<String>,
    pub claims: Vec<String>,
    /// Rules of the policy's retention that hold it.
    pub kept_by: Vec<String>,
    pub snapshots: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Why it is not complete; of what is foreign, as the end of a sentence that begins with its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// From the first cut to the last.
    #[serde(skip)]
    pub skew: Option<SignedDuration>,
    /// Least sizes of the volumes that can be made from it.
    #[serde(skip)]
    pub sizes: Vec<String>,
    #[serde(skip)]
    pub maker: Maker,
    /// When the first of its snapshots was made, by the API server's clock: what retention counts from.
    #[serde(skip)]
    pub created: Option<Timestamp>,
}

/// Where a run comes from, when not from an object that is there.
#[derive(Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Made before there were runs: restorable by the names of its snapshots, never pruned.
    Legacy,
    /// Made by an object that is gone, or that was created anew and has not adopted it.
    Orphaned,
    /// It bears the labels of a run that it does not belong to: restorable by its name, never counted, never pruned.
    Foreign,
}

/// The runs, newest first. Snapshots that are none of ours are left out.
pub fn runs<'a>(snapshots: impl IntoIterator<Item = &'a VolumeSnapshot>) -> Vec<Run> {
    let mut sets: BTreeMap<(String, String), Snapshots> = BTreeMap::new();
    for object in snapshots {
        let (namespace, snapshot) = (object.namespace().unwrap_or_default(), Snapshot::of(object));
        let Some(set) = snapshot.statefulset.clone().filter(|_| !snapshot.maker.name.is_empty()) else { continue };
        sets.entry((namespace, set)).or_default().insert(object.name_any(), snapshot);
    }
    let mut runs: Vec<Run> = sets.iter().flat_map(|((namespace, set), all)| of_set(namespace, set, all)).collect();
    let age = |run: &Run| (run.cut_time, run.id.clone());
    runs.sort_by_key(|run| std::cmp::Reverse(age(run)));
    runs
}

fn of_set(namespace: &str, set: &str, all: &Snapshots) -> Vec<Run> {
    let run = |run: &known::Run| Run {
        id: Some(run.id.to_string()),
        complete: run.state == State::Complete,
        message: run.why.as_ref().map(|refusal| refusal.message.clone()),
        ..row(namespace, set, run.maker, &run.snapshots)
    };
    // A stranger stands for itself, under the id that it bears; and so does what was made before there were runs.
    let alone = |(name, one): (&String, &Snapshot)| {
        if one.run.is_some() {
            return None;
        }
        let row = row(namespace, set, &one.maker, &[(name, one)]);
        Some(match &one.stranger {
            None => Run { origin: Some(Origin::Legacy), ..row },
            Some((id, odd)) => Run {
                id: Some(id.clone()),
                // Of what was made again the annotation is another's.
                cut_time: if let Odd::Cut(_, cut) = odd { Some(*cut) } else { row.cut_time },
                origin: Some(Origin::Foreign),
                message: Some(odd.to_string()),
                ..row
            },
        })
    };
    known::runs(all, None).iter().map(run).chain(all.iter().filter_map(alone)).collect()
}

/// What can be said of any snapshots.
fn row(namespace: &str, set: &str, maker: &Maker, all: &[(&String, &Snapshot)]) -> Run {
    let mut all = all.to_vec();
    all.sort_by_key(|(name, one)| (one.claim.as_ref().map(|claim| claim.ordinal), *name));
    let of = |see: fn(&Snapshot) -> Option<String>| all.iter().filter_map(|(_, one)| see(one)).collect();
    let cuts: Vec<_> = all.iter().filter_map(|(_, one)| one.instant()).collect();
    let (first, last) = (cuts.iter().min(), cuts.iter().max());
    let mut maker = maker.clone();
    if maker.namespace.is_empty() {
        namespace.clone_into(&mut maker.namespace);
    }
    Run {
        id: None,
        policy: if maker.namespace == namespace {
            maker.name.clone()
        } else {
            format!("{}/{}", maker.namespace, maker.name)
        },
        namespace: namespace.to_owned(),
        stateful_set: set.to_owned(),
        cut_time: last.copied(),
        complete: false,
        consistency: all.iter().find_map(|(_, one)| one.consistency).map(|word| word.to_string()),
        claims: of(|one| one.pvc.clone()),
        kept_by: vec![],
        snapshots: all.iter().map(|(name, _)| (*name).clone()).collect(),
        origin: None,
        message: None,
        skew: first.zip(last).map(|(first, last)| last.duration_since(*first)),
        sizes: of(|one| one.restore_size.clone()),
        created: all.iter().map(|(_, one)| one.created).min(),
        maker,
    }
}

/// Fills in which rules of its maker's retention hold each run, as of its newest complete one. All are of one maker.
pub fn hold(runs: &mut [&mut Run], policy: Option<&RetentionPolicy>, zone: &TimeZone) {
    let seen = |(id, run): (usize, &&mut Run)| {
        let claims = run.claims.iter().cloned().collect();
        Some(retention::Run { id, cut: run.created?, complete: run.complete, claims })
    };
    let known: Vec<_> = runs.iter().enumerate().filter_map(seen).collect();
    let now = known.iter().filter(|run| run.complete).map(|run| run.cut).max().unwrap_or_default();
    for verdict in retention::retain(&known, policy, now, zone) {
        runs[verdict.id].kept_by = verdict.rules.iter().map(|rule| rule.name().to_owned()).collect();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{annotation, label};

    /// A snapshot of run `id` (none: a legacy one) by `nightly` on `web`, cut `ms` milliseconds into the second.
    pub(crate) fn snapshot(id: Option<&str>, ordinal: u32, ms: i64) -> VolumeSnapshot {
        let name = format!("nightly-data-{}-{ordinal}", id.unwrap_or("old"));
        let at = 1_795_570_000_000_i64 + ms;
        let mut labels = json!({ label::STATEFULSET: "web", label::POLICY: "nightly" });
        let mut notes = json!({});
        if let Some(id) = id {
            labels[label::RUN] = id.into();
            labels[label::POLICY_NAMESPACE] = "shop".into();
            labels[label::POLICY_UID] = "uid-1".into();
            labels[label::ORDINAL] = ordinal.to_string().into();
            labels[label::CLAIM_TEMPLATE] = "data".into();
            notes = json!({ annotation::RUN_SIZE: "2", annotation::TRANSITIONS: "7",
                annotation::CUT: format!("{at}000000"), annotation::CONSISTENCY: "Frozen" });
        }
        serde_json::from_value(json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
            "metadata": { "name": name, "namespace": "shop", "labels": labels, "annotations": notes,
                "creationTimestamp": Timestamp::from_millisecond(at).unwrap().round(jiff::Unit::Second).unwrap() },
            "spec": { "source": { "persistentVolumeClaimName": format!("data-web-{ordinal}") } },
            "status": { "readyToUse": true, "restoreSize": "1Gi",
                "creationTime": Timestamp::from_second(at.div_euclid(1000)).unwrap() },
        }))
        .unwrap()
    }

    #[test]
    fn snapshots_of_one_id_are_one_run_and_the_newest_comes_first() {
        let all = [
            snapshot(Some("20261125-012640"), 1, 250),
            snapshot(None, 0, 0),
            snapshot(Some("20261125-012640"), 0, 100),
            snapshot(Some("20261126-012640"), 0, 86_400_000),
        ];
        let found = runs(&all);
        let brief: Vec<_> = found.iter().map(|run| (run.id.as_deref(), run.complete, run.snapshots.len())).collect();
        assert_eq!(brief, [(Some("20261126-012640"), false, 1), (Some("20261125-012640"), true, 2), (None, false, 1)]);
        let whole = &found[1];
        assert_eq!(whole.skew, Some(SignedDuration::from_millis(150)));
        assert_eq!(whole.cut_time.unwrap().to_string(), "2026-11-25T01:26:40.25Z");
        assert_eq!((whole.policy.as_str(), whole.consistency.as_deref()), ("nightly", Some("Frozen")));
        assert_eq!(whole.claims, ["data-web-0", "data-web-1"]);
        assert_eq!(found[2].origin, Some(Origin::Legacy));
    }

    /// As `kubectl get -o yaml`, delete and apply make it: another uid, created and cut later, with the old annotations.
    #[test]
    fn a_dump_that_is_applied_again_is_no_run_of_old() {
        let day = 86_400_000;
        let mut again = snapshot(Some("20261125-012640"), 0, day);
        again.annotations_mut().insert(annotation::CUT.into(), "1795570000100000000".into());
        let found = runs(&[again, snapshot(Some("20261125-012640"), 1, 100)]);
        let brief: Vec<_> = found.iter().map(|run| (run.origin, run.complete, run.snapshots.len())).collect();
        assert_eq!(brief, [(Some(Origin::Foreign), false, 1), (None, false, 1)]);
        assert_eq!(found[0].cut_time.unwrap().to_string(), "2026-11-26T01:26:40Z");
        let message = found[0].message.as_deref().unwrap();
        assert!(message.starts_with("was cut at 2026-11-26T01:26:40Z and not at 2026-11-25T01:26:40Z"), "{message}");
    }

    #[test]
    fn what_lacks_one_thing_is_not_complete() {
        let changes: [fn(&mut VolumeSnapshot); 5] = [
            |one| one.status.as_mut().unwrap().ready_to_use = Some(false),
            |one| one.metadata.deletion_timestamp = one.status.as_ref().unwrap().creation_time.clone(),
            |one| drop(one.annotations_mut().remove(annotation::CUT)),
            |one| drop(one.annotations_mut().insert(annotation::TRANSITIONS.into(), "8".into())),
            |one| drop(one.annotations_mut().insert(annotation::RUN_SIZE.into(), "3".into())),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut all = [snapshot(Some("20261125-012640"), 0, 0), snapshot(Some("20261125-012640"), 1, 0)];
            assert!(runs(&all)[0].complete);
            change(&mut all[1]);
            assert!(!runs(&all)[0].complete, "change {n}");
        }
    }
}
