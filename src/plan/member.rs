//! Which snapshots are members of a run. Whoever may create a `VolumeSnapshot` may write our labels and annotations on
//! it, by accident too (a copied manifest). So the marks are a claim, which is checked against what the API server alone
//! decides: one object for a name, and when it was created. What does not fit is a stranger: told of, never counted,
//! never a reason to call a run broken or to delete.

use jiff::Timestamp;
use kube::ResourceExt;

use super::name::{self, ClaimKey, RunId};
use super::roll::Entry;
use crate::api::label;
use crate::api::snapshot::VolumeSnapshot;

/// What a snapshot's labels come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Its name, its source claim and its age are those that its labels give.
    Member(RunId, ClaimKey),
    /// It bears the label of a run, and is none of its snapshots.
    Stranger,
    /// It claims to be of no run: made before there were runs, or by hand.
    Unmarked,
}

impl Standing {
    pub fn run(&self) -> Option<RunId> {
        if let Standing::Member(run, _) = self { Some(*run) } else { None }
    }

    pub fn claim(&self) -> Option<ClaimKey> {
        if let Standing::Member(_, claim) = self { Some(claim.clone()) } else { None }
    }
}

pub fn standing(object: &VolumeSnapshot) -> Standing {
    match object.labels().get(label::RUN) {
        None => Standing::Unmarked,
        Some(run) => member(object, run).unwrap_or(Standing::Stranger),
    }
}

fn member(object: &VolumeSnapshot, run: &str) -> Option<Standing> {
    let of = |key| object.labels().get(key);
    let run: RunId = run.parse().ok()?;
    let claim = ClaimKey { ordinal: of(label::ORDINAL)?.parse().ok()?, template: of(label::CLAIM_TEMPLATE)?.clone() };
    let named = object.name_any() == name::snapshot(of(label::POLICY)?, &claim, run);
    let pvc = object.spec.source.persistent_volume_claim_name.as_ref();
    let sourced = pvc == Some(&claim.pvc(of(label::STATEFULSET)?));
    let aged = run.fits(object.metadata.creation_timestamp.as_ref()?.0);
    (named && sourced && aged).then_some(Standing::Member(run, claim))
}

/// Of all that are members by their names those that make the run up: the claims that are on record; without a record
/// the first `size` that were made. What comes on top was put there by somebody else and spoils nothing.
pub fn of_run<T>(
    mut all: Vec<T>,
    size: Option<usize>,
    entry: Option<&Entry>,
    see: impl Fn(&T) -> (Option<ClaimKey>, Timestamp),
) -> Vec<T> {
    if let Some(entry) = entry {
        all.retain(|one| see(one).0.is_some_and(|claim| entry.has(&claim)));
    } else if let Some(size) = size.filter(|size| *size < all.len()) {
        all.sort_by_key(|one| see(one).1);
        all.truncate(size);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::catalog::tests::snapshot;

    const RUN: &str = "20261125-012640";

    fn after(change: impl FnOnce(&mut VolumeSnapshot)) -> Standing {
        let mut one = snapshot(Some(RUN), 0, 0);
        change(&mut one);
        standing(&one)
    }

    fn relabel(key: &'static str, value: &'static str) -> impl FnOnce(&mut VolumeSnapshot) {
        move |one| drop(one.labels_mut().insert(key.into(), value.into()))
    }

    fn move_by(seconds: i64) -> impl FnOnce(&mut VolumeSnapshot) {
        move |one| {
            let created = one.metadata.creation_timestamp.as_mut().unwrap();
            created.0 += jiff::SignedDuration::from_secs(seconds);
        }
    }

    #[test]
    fn a_member_has_the_name_the_source_and_the_age_that_its_labels_give() {
        let key = ClaimKey { ordinal: 0, template: "data".into() };
        assert_eq!(after(|_| {}), Standing::Member(RUN.parse().unwrap(), key));
        assert_eq!(standing(&snapshot(None, 0, 0)), Standing::Unmarked);
        let forged: [(&str, Standing); 9] = [
            ("a copy under a name of its own", after(|one| one.metadata.name = Some("copy".into()))),
            ("another claim", after(|one| one.spec.source.persistent_volume_claim_name = Some("data-web-1".into()))),
            ("no claim: made of a content", after(|one| one.spec.source.persistent_volume_claim_name = None)),
            ("another ordinal", after(relabel(label::ORDINAL, "1"))),
            ("another StatefulSet", after(relabel(label::STATEFULSET, "db"))),
            ("another policy", after(relabel(label::POLICY, "weekly"))),
            ("another run", after(relabel(label::RUN, "20261125-012641"))),
            ("the end of time", after(relabel(label::RUN, "99991230-220000"))),
            ("no run id", after(relabel(label::RUN, "yesterday"))),
        ];
        for (what, standing) in forged {
            assert_eq!(standing, Standing::Stranger, "{what}");
        }
    }

    #[test]
    fn an_id_lies_near_the_creation_of_what_bears_it() {
        let (hour, day) = (3600, 24 * 3600);
        for fits in [0, day, -day, 31 * day] {
            assert!(matches!(after(move_by(fits)), Standing::Member(..)), "created {fits} s after its id");
        }
        for far in [-day - hour, 31 * day + hour] {
            assert_eq!(after(move_by(far)), Standing::Stranger, "created {far} s after its id");
        }
    }

    #[test]
    fn what_comes_on_top_spoils_no_run() {
        let key = |ordinal| ClaimKey { ordinal, template: "data".into() };
        let at = |second| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let see = |one: &(u32, i64)| (Some(key(one.0)), at(one.1));
        let all = vec![(0, 5), (7, 60), (1, 5)];
        assert_eq!(of_run(all.clone(), Some(2), None, see), [(0, 5), (1, 5)], "the first that were made");
        let entry = Entry::new(&[key(1), key(7)], []);
        assert_eq!(of_run(all.clone(), Some(2), Some(&entry), see), [(7, 60), (1, 5)], "as the record has it");
        assert_eq!(of_run(all.clone(), Some(3), None, see), all);
        assert_eq!(of_run(all.clone(), None, None, see), all, "how many there are to be is not known");
    }
}
