//! A `VolumeSnapshot`, ours or not. What it says of its run is a claim, checked against its name, its source and its age
//! ([`member`]); what it does not say is absent.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::run::Part;
use crate::api::condition::Reason;
use crate::api::recorded::RecordedClaim;
use crate::api::shared::Consistency;
use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotError};
use crate::api::{FORMAT, annotation, label};
use crate::plan::member::{self, Odd, Standing};
use crate::plan::name::{ClaimKey, RunId};
use crate::plan::noun::{Refusal, Snap};
use crate::plan::text::{SAID, head};

const UID_MAX: usize = 64;
const PINS_MAX: usize = 100;
/// A token that is longer is none of ours.
const TOKEN_MAX: usize = 64;
/// No format that is known has more characters.
const FORMAT_MAX: usize = 16;
/// How long a deleted snapshot may stay Terminating before it is worth a word.
const OVERDUE: SignedDuration = SignedDuration::from_mins(10);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub uid: String,
    /// resourceVersion: whatever is decided about it holds for this version only.
    pub version: String,
    pub statefulset: Option<String>,
    pub maker: Maker,
    /// The run that it is a member of, and the claim that it was cut of. None: made before there were runs, by hand, or a
    /// stranger.
    pub run: Option<RunId>,
    pub claim: Option<ClaimKey>,
    /// The run whose label it bears, and why it is no member of it.
    pub stranger: Option<(String, Odd)>,
    /// When it was created, by the API server's clock.
    pub created: Timestamp,
    /// The newest instant that the API server has written on it.
    pub touched: Timestamp,
    /// Since when it is being deleted, by the API server's clock.
    pub leaving: Option<Timestamp>,
    pub format: Option<String>,
    /// `/transitions`: those of the Lease when it was made.
    pub epoch: Option<i64>,
    /// `/run-size`: how many make its run complete.
    pub size: Option<usize>,
    /// Which process made it: a word that nobody could know before it was there.
    pub token: Option<String>,
    /// `/cut`: it is proved to belong to one freeze, and was cut at this instant.
    pub sealed: Option<Timestamp>,
    pub consistency: Option<Consistency>,
    /// When it was cut, as the driver says, to the second.
    pub cut: Option<Timestamp>,
    pub ready: bool,
    /// The driver's complaint.
    pub error: Option<String>,
    /// A Quantity.
    pub restore_size: Option<String>,
    /// spec.source.persistentVolumeClaimName
    pub pvc: Option<String>,
    /// The content that it is bound to, and the class that it was made with.
    pub content: Option<String>,
    pub class: Option<String>,
    /// The uids of the restores that use it.
    pub pins: BTreeSet<String>,
}

/// By object name, of one namespace.
pub type Snapshots = BTreeMap<String, Snapshot>;

/// The `StatefulSetBackup` that made it, by the labels; empty where they do not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Maker {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Snapshot {
    pub fn of(object: &VolumeSnapshot) -> Snapshot {
        let label = |key: &str| object.labels().get(key).cloned();
        let note = |key: &str| object.annotations().get(key);
        let meta = &object.metadata;
        let status = object.status.clone().unwrap_or_default();
        let standing = member::standing(object);
        let written = meta.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref());
        let instants = written.chain(&meta.creation_timestamp).chain(&meta.deletion_timestamp).map(|time| time.0);
        let sealed = note(annotation::CUT).and_then(|nanoseconds| nanoseconds.parse().ok());
        Snapshot {
            uid: object.uid().unwrap_or_default(),
            version: object.resource_version().unwrap_or_default(),
            statefulset: label(label::STATEFULSET),
            maker: Maker {
                namespace: label(label::POLICY_NAMESPACE).unwrap_or_default(),
                name: label(label::POLICY).unwrap_or_default(),
                uid: label(label::POLICY_UID).unwrap_or_default(),
            },
            run: standing.run(),
            claim: standing.claim(),
            stranger: match standing {
                Standing::Stranger(odd) => Some((label(label::RUN).unwrap_or_default(), odd)),
                _ => None,
            },
            created: meta.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default(),
            touched: instants.max().unwrap_or_default(),
            leaving: meta.deletion_timestamp.as_ref().map(|time| time.0),
            format: note(annotation::FORMAT).map(|format| head(format, FORMAT_MAX).into_owned()),
            epoch: note(annotation::TRANSITIONS).and_then(|epoch| epoch.parse().ok()),
            size: note(annotation::RUN_SIZE).and_then(|size| size.parse().ok()),
            token: note(annotation::TOKEN).filter(|token| token.len() <= TOKEN_MAX).cloned(),
            sealed: sealed.and_then(|nanoseconds| Timestamp::from_nanosecond(nanoseconds).ok()),
            consistency: note(annotation::CONSISTENCY).and_then(|word| word.parse().ok()),
            cut: status.creation_time.map(|time| time.0),
            ready: status.ready_to_use == Some(true),
            error: complaint(status.error),
            restore_size: status.restore_size.map(|size| size.0),
            pvc: object.spec.source.persistent_volume_claim_name.clone(),
            content: status.bound_volume_snapshot_content_name,
            class: object.spec.volume_snapshot_class_name.clone(),
            pins: pins(object).into_iter().collect(),
        }
    }

    /// The instant of the cut: as it says itself, to the nanosecond; else as the driver has it.
    pub fn instant(&self) -> Option<Timestamp> {
        self.sealed.or(self.cut)
    }

    /// What a later version wrote may mean what we do not know.
    pub fn is_newer(&self) -> bool {
        let number = |text: &str| text.parse::<u32>().ok();
        let is_known = |format: &String| number(format).is_some_and(|format| Some(format) <= number(FORMAT));
        !self.format.as_ref().is_none_or(is_known)
    }

    /// Its format is not known here.
    pub fn unknown_format(&self, name: &str) -> Option<Refusal> {
        let format = self.format.as_ref().filter(|_| self.is_newer())?;
        let message = format!("VolumeSnapshot {name} has format {format:?}; this version knows {FORMAT:?} and older");
        Some(Refusal::new(Reason::FormatUnknown, message))
    }

    /// A member of a run with all that every one of ours carries. `now`: since when a complaint of the driver is known to
    /// this process.
    pub fn snap(&self, now: Timestamp) -> Option<Snap> {
        if self.is_newer() || self.maker.uid.is_empty() {
            return None;
        }
        Some(Snap {
            uid: self.uid.clone(),
            policy_uid: self.maker.uid.clone(),
            run: self.run?,
            claim: self.claim.clone()?,
            epoch: self.epoch?,
            size: self.size?,
            token: self.token.clone(),
            sealed: self.sealed.is_some(),
            created: self.created,
            cut: self.cut,
            ready: self.ready,
            restore_size: self.restore_size.clone(),
            leaving: self.leaving.is_some(),
            error: self.error.clone().map(|message| (message, now)),
        })
    }

    /// What counts for its run.
    pub(super) fn part<'a>(&'a self, name: &'a str) -> Result<Part<'a>, Refusal> {
        if let Some(refusal) = self.unknown_format(name) {
            return Err(refusal);
        }
        let lacks = |key: &str| Refusal::new(Reason::RunNotFound, format!("VolumeSnapshot {name} lacks {key}"));
        if self.maker.uid.is_empty() {
            return Err(lacks(label::POLICY_UID));
        }
        Ok(Part {
            name,
            claim: self.claim.as_ref().ok_or_else(|| lacks(label::CLAIM_TEMPLATE))?,
            epoch: self.epoch.ok_or_else(|| lacks(annotation::TRANSITIONS))?,
            size: self.size.ok_or_else(|| lacks(annotation::RUN_SIZE))?,
            sealed: self.sealed.is_some(),
            ready: self.ready,
            leaving: self.leaving.is_some(),
        })
    }
}

/// The claim as it was when it was cut.
pub fn recorded(object: &VolumeSnapshot) -> Option<RecordedClaim> {
    object.annotations().get(annotation::CLAIM).and_then(|claim| serde_json::from_str(claim).ok())
}

/// What the driver last said.
fn complaint(error: Option<VolumeSnapshotError>) -> Option<String> {
    Some(error?.message.map_or_else(|| "unknown error".into(), |message| head(&message, SAID).into_owned()))
}

/// The restores that use it, by uid. More than there can be somebody else has made up.
fn pins(object: &VolumeSnapshot) -> Vec<String> {
    let all = object.annotations().get(annotation::PINNED_BY).map_or("", String::as_str).split(',').map(str::trim);
    all.filter(|uid| !uid.is_empty() && uid.len() <= UID_MAX).take(PINS_MAX).map(ToOwned::to_owned).collect()
}

/// What bears the label of a run and is no member of it.
pub fn strangers(all: &Snapshots) -> impl Iterator<Item = (&String, Odd)> {
    all.iter().filter_map(|(name, one)| Some((name, one.stranger.as_ref()?.1)))
}

/// The newest instant of the API server that is known from what it has written.
pub fn newest(all: &Snapshots) -> Option<Timestamp> {
    all.values().map(|one| one.touched).max()
}

/// What has been Terminating for so long that somebody should look.
pub fn overdue(all: &Snapshots) -> impl Iterator<Item = (&String, &Snapshot)> {
    let newest = newest(all);
    all.iter().filter(move |(_, one)| {
        one.leaving.zip(newest).is_some_and(|(since, newest)| newest.duration_since(since) >= OVERDUE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_is_overdue_after_ten_minutes_of_the_api_servers_time() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let all = |touched: i64| -> Snapshots {
            let leaving = Snapshot { leaving: Some(at(100)), ..Snapshot::default() };
            let other = Snapshot { touched: at(touched), ..Snapshot::default() };
            [("snap-0".to_owned(), leaving), ("snap-1".to_owned(), other)].into()
        };
        assert_eq!(overdue(&all(100 + 599)).count(), 0);
        assert_eq!(overdue(&all(100 + 600)).map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["snap-0"]);
    }
}
