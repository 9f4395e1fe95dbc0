//! Runs as their snapshots tell them, for people and scripts: neither the object that made them nor the claims nor
//! the StatefulSet need exist any more. Nothing is decided here.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde::Serialize;

use super::member::{self, Odd, Standing, standing};
use super::retention;
use crate::api::backup::RetentionPolicy;
use crate::api::snapshot::VolumeSnapshot;
use crate::api::{annotation, label};

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
    /// Why it is foreign, as the end of a sentence that begins with its name.
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

/// The object that made a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Maker {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// The runs, newest first. Snapshots that are none of ours are left out.
pub fn runs<'a>(snapshots: impl IntoIterator<Item = &'a VolumeSnapshot>) -> Vec<Run> {
    let mut groups: BTreeMap<_, Vec<&VolumeSnapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        let of = |key| snapshot.labels().get(key).cloned();
        let (Some(statefulset), Some(policy)) = (of(label::STATEFULSET), of(label::POLICY)) else { continue };
        let namespace = snapshot.namespace().unwrap_or_default();
        // A stranger stands for itself, under the id that it bears.
        let standing = standing(snapshot);
        let id = of(label::RUN).filter(|_| standing != Standing::Unmarked);
        let alone = standing.run().is_none().then(|| snapshot.name_any());
        let maker = Maker {
            namespace: of(label::POLICY_NAMESPACE).unwrap_or_else(|| namespace.clone()),
            name: policy,
            uid: of(label::POLICY_UID).unwrap_or_default(),
        };
        groups.entry((namespace, statefulset, maker, id, alone)).or_default().push(snapshot);
    }
    let run =
        |((namespace, stateful_set, maker, id, alone), group): ((_, _, _, _, Option<String>), Vec<&VolumeSnapshot>)| {
            let odd =
                group.iter().find_map(|one| if let Standing::Stranger(odd) = standing(one) { Some(odd) } else { None });
            let run = run(namespace, stateful_set, maker, id, group);
            match (alone, &run.id) {
                (Some(_), Some(_)) => {
                    // Of what was made again the annotation is another's.
                    let cut_time = if let Some(Odd::Cut(_, cut)) = odd { Some(cut) } else { run.cut_time };
                    let message = odd.map(|odd| odd.to_string());
                    Run { origin: Some(Origin::Foreign), complete: false, cut_time, message, ..run }
                }
                _ => run,
            }
        };
    let mut runs: Vec<Run> = groups.into_iter().map(run).collect();
    let age = |run: &Run| (run.cut_time, run.id.clone());
    runs.sort_by_key(|run| std::cmp::Reverse(age(run)));
    runs
}

fn run(namespace: String, stateful_set: String, maker: Maker, id: Option<String>, all: Vec<&VolumeSnapshot>) -> Run {
    let see = |one: &&VolumeSnapshot| {
        let created = one.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (standing(one).claim(), created.unwrap_or_default())
    };
    let first = all.iter().min_by_key(|one| see(one).1);
    let size = first.and_then(|one| one.annotations().get(annotation::RUN_SIZE)?.parse().ok());
    let mut all = member::of_run(all, size.filter(|_| id.is_some()), None, see);
    all.sort_by_key(|one| (ordinal(one), one.name_any()));
    let cuts: Vec<_> = all.iter().filter_map(|one| cut(one)).collect();
    let (first, last) = (cuts.iter().min(), cuts.iter().max());
    let claims = all.iter().filter_map(|one| one.spec.source.persistent_volume_claim_name.clone());
    let size = |one: &&VolumeSnapshot| Some(one.status.as_ref()?.restore_size.as_ref()?.0.clone());
    Run {
        policy: if maker.namespace == namespace {
            maker.name.clone()
        } else {
            format!("{}/{}", maker.namespace, maker.name)
        },
        cut_time: last.copied(),
        complete: id.is_some() && is_complete(&all),
        consistency: all.iter().find_map(|one| one.annotations().get(annotation::CONSISTENCY).cloned()),
        claims: claims.collect(),
        kept_by: vec![],
        created: all.iter().filter_map(|one| Some(one.metadata.creation_timestamp.as_ref()?.0)).min(),
        snapshots: all.iter().map(|one| one.name_any()).collect(),
        origin: id.is_none().then_some(Origin::Legacy),
        message: None,
        skew: first.zip(last).map(|(first, last)| last.duration_since(*first)),
        sizes: all.iter().filter_map(size).collect(),
        namespace,
        stateful_set,
        id,
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

/// As many as it says, of one epoch of the lock, each cut for certain, ready, and not on its way out.
fn is_complete(all: &[&VolumeSnapshot]) -> bool {
    let note = |one: &VolumeSnapshot, key| one.annotations().get(key).cloned();
    let words = |key| all.iter().map(|one| note(one, key)).collect::<BTreeSet<_>>();
    let is_whole = |one: &&VolumeSnapshot| {
        let ready = one.status.as_ref().and_then(|status| status.ready_to_use) == Some(true);
        ready && one.metadata.deletion_timestamp.is_none() && note(one, annotation::CUT).is_some()
    };
    let size = words(annotation::RUN_SIZE).pop_first().flatten().and_then(|size| size.parse().ok());
    size == Some(all.len())
        && words(annotation::RUN_SIZE).len() == 1
        && words(annotation::TRANSITIONS).len() == 1
        && all.iter().all(is_whole)
}

fn ordinal(one: &VolumeSnapshot) -> u32 {
    one.labels().get(label::ORDINAL).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// As the snapshot says itself, to the nanosecond; else as the driver's answer has it.
fn cut(one: &VolumeSnapshot) -> Option<Timestamp> {
    let noted = one.annotations().get(annotation::CUT).and_then(|text| text.parse().ok());
    let noted = noted.and_then(|ns: i128| Timestamp::from_nanosecond(ns).ok());
    noted.or_else(|| Some(one.status.as_ref()?.creation_time.as_ref()?.0))
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

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
