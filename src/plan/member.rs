//! Which snapshots are members of a run. Whoever may create a `VolumeSnapshot` may write our labels and annotations on
//! it, by accident too (a copied manifest). So the marks are a claim, which is checked against what the API server alone
//! decides (one object for a name, and when it was created), and against what the storage says of the cut. What does not
//! fit is a stranger: told of, never counted, never a reason to call a run broken or to delete.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::name::{self, ClaimKey, RunId};
use super::roll::Entry;
use crate::api::snapshot::VolumeSnapshot;
use crate::api::{annotation, label};

/// What a snapshot's labels come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Its name, its source claim and its age are those that its labels give.
    Member(RunId, ClaimKey),
    /// It bears the label of a run, and is none of its snapshots.
    Stranger(Odd),
    /// It claims to be of no run: made before there were runs, or by hand.
    Unmarked,
}

/// What does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Odd {
    /// Name, source or age are not those that its labels give.
    Marks,
    /// It says that it was cut at the first instant, and was at the second: a dump that was applied once more.
    Cut(Timestamp, Timestamp),
}

/// What it is, as the end of a sentence that begins with its name.
impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Odd::Marks => f.write_str("bears the labels of a run that it does not belong to (a copy, or made by hand)"),
            Odd::Cut(said, cut) => write!(
                f,
                "was cut at {cut:.0} and not at {said:.0}, as its annotation says: it was made again, and holds the data of \
                 the later instant"
            ),
        }
    }
}

/// An instant that is told with seconds may lie so far from one that is told with nanoseconds.
const ROUNDING: SignedDuration = SignedDuration::from_secs(2);
/// What a storage says of a cut is believed so far from the creation of the snapshot.
const APART: SignedDuration = SignedDuration::from_hours(1);

/// When the storage cut what was created then. An instant that cannot be (before 2000, or over an hour from its creation)
/// is taken for unknown, and the creation serves.
pub fn cut(told: Timestamp, created: Timestamp) -> Timestamp {
    let year_2000 = Timestamp::from_second(946_684_800).unwrap_or(Timestamp::UNIX_EPOCH);
    let believable = told >= year_2000 && told.duration_since(created).abs() <= APART;
    if believable { told } else { created }
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
        Some(run) => member(object, run).unwrap_or(Standing::Stranger(Odd::Marks)),
    }
}

/// When the driver has cut it, as its own status has it.
fn told(object: &VolumeSnapshot) -> Option<Timestamp> {
    Some(object.status.as_ref()?.creation_time.as_ref()?.0)
}

/// The annotation tells of another snapshot: of one that had this name before, and was deleted. What we seal is the storage's
/// instant, or the creation where that cannot be ([`cut`]), so that what is sealed always lies near both.
fn replaced(object: &VolumeSnapshot, created: Timestamp) -> Option<Odd> {
    let said: i128 = object.annotations().get(annotation::CUT)?.parse().ok()?;
    let said = Timestamp::from_nanosecond(said).ok()?;
    let near = |at: Timestamp, by: SignedDuration| said.duration_since(at).abs() <= by;
    let fits = match told(object) {
        None => near(created, APART + ROUNDING),
        Some(told) => {
            // On the edge of what is believed, rounding decides: both are as good.
            let doubtful = told.duration_since(created).abs() + ROUNDING >= APART || cut(told, created) != told;
            let by_storage = near(told, ROUNDING) && near(created, APART + ROUNDING);
            by_storage || doubtful && near(created, ROUNDING)
        }
    };
    (!fits).then(|| Odd::Cut(said, told(object).map_or(created, |told| cut(told, created))))
}

fn member(object: &VolumeSnapshot, run: &str) -> Option<Standing> {
    let of = |key| object.labels().get(key);
    let run: RunId = run.parse().ok()?;
    let claim = ClaimKey { ordinal: of(label::ORDINAL)?.parse().ok()?, template: of(label::CLAIM_TEMPLATE)?.clone() };
    let named = object.name_any() == name::snapshot(of(label::POLICY)?, &claim, run);
    let pvc = object.spec.source.persistent_volume_claim_name.as_ref();
    let sourced = pvc == Some(&claim.pvc(of(label::STATEFULSET)?));
    let created = object.metadata.creation_timestamp.as_ref()?.0;
    let fits = named && sourced && run.fits(created);
    fits.then(|| replaced(object, created).map_or(Standing::Member(run, claim), Standing::Stranger))
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
            let by = SignedDuration::from_secs(seconds);
            one.metadata.creation_timestamp.as_mut().unwrap().0 += by;
            one.status = None;
            let cut = one.metadata.creation_timestamp.as_ref().unwrap().0.as_nanosecond().to_string();
            one.annotations_mut().insert(annotation::CUT.into(), cut);
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
            assert_eq!(standing, Standing::Stranger(Odd::Marks), "{what}");
        }
    }

    #[test]
    fn an_id_lies_near_the_creation_of_what_bears_it() {
        let (hour, day) = (3600, 24 * 3600);
        for fits in [0, day, -day, 31 * day] {
            assert!(matches!(after(move_by(fits)), Standing::Member(..)), "created {fits} s after its id");
        }
        for far in [-day - hour, 31 * day + hour] {
            assert_eq!(after(move_by(far)), Standing::Stranger(Odd::Marks), "created {far} s after its id");
        }
    }

    /// A member that was created at its id's instant, sealed `cut` milliseconds after it, and of which the driver says that
    /// it was cut at `told` seconds after it.
    fn sealed(created: i64, cut: i64, told: Option<i64>) -> Standing {
        let id: Timestamp = "2026-11-25T01:26:40Z".parse().unwrap();
        let at = |ms: i64| id + SignedDuration::from_millis(ms);
        after(|one| {
            one.metadata.creation_timestamp.as_mut().unwrap().0 = at(created * 1000);
            one.annotations_mut().insert(annotation::CUT.into(), at(cut).as_nanosecond().to_string());
            let mut time = one.metadata.creation_timestamp.clone().unwrap();
            one.status.as_mut().unwrap().creation_time = told.map(|told| {
                time.0 = at(told * 1000);
                time
            });
        })
    }

    #[test]
    fn what_was_sealed_agrees_with_what_the_storage_says() {
        let day = 24 * 3600;
        let honest = [
            ("as the content has it, to the nanosecond", sealed(0, 2_900, Some(2))),
            ("the driver is a clock of its own, behind", sealed(0, -3_599_500, Some(-3600))),
            ("and ahead", sealed(0, 3_600_000, Some(3600))),
            ("not to be believed: the creation", sealed(0, 0, Some(-day))),
            ("a driver that tells no time", sealed(0, 0, Some(-1_795_570_000))),
            ("not to be believed by less than a second", sealed(0, 0, Some(3600))),
            ("the status has not followed yet", sealed(0, 2_900, None)),
            ("frozen for a day before it was cut", sealed(day, day * 1000 + 2_900, Some(day + 2))),
        ];
        for (what, standing) in honest {
            assert!(matches!(standing, Standing::Member(..)), "{what}: {standing:?}");
        }
        let again = [
            ("applied again a day later", sealed(day, 2_900, Some(day + 2))),
            ("not cut yet", sealed(day, 2_900, None)),
            ("a minute later", sealed(60, 2_900, Some(62))),
            ("whose driver tells no time", sealed(day, 0, Some(-1_795_570_000))),
            ("a minute later", sealed(60, 0, Some(-1_795_570_000))),
        ];
        for (what, standing) in again {
            assert!(matches!(standing, Standing::Stranger(Odd::Cut(..))), "{what}: {standing:?}");
        }
        let Standing::Stranger(odd) = sealed(day, 2_900, Some(day + 2)) else { panic!() };
        let said = odd.to_string();
        assert!(said.starts_with("was cut at 2026-11-26T01:26:42Z and not at 2026-11-25T01:26:4"), "{said}");
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
