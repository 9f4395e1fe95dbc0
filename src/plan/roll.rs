//! The roll: which runs of a `StatefulSet` were sealed, kept on its lock Lease, which nobody else may write. Only a run
//! that stands on it lets retention drop another one: who may create snapshots can cut real claims under right names,
//! but cannot put them on record.
//!
//! The annotation's text is JSON, `{"POLICY-UID": {"RUN": "CLAIMS DIGEST"}}`, for example
//! `{"3f…": {"20261125-012640": "data:0-2;wal:0-2 9f86d081884c7d65 frozen"}}`; `frozen` if hooks held all pods. A run that
//! was sealed before there was a record has the word `imported` behind it, unless its object's status remembers it: nobody
//! knows who made it, so it lets no other go.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::journal::Cut;
use super::known::{self, Snapshots, State};
use super::member;
use super::name::{ClaimKey, RunId, hex};
use super::noun::Snap;
use super::view::{Read, View};
use crate::api::shared::Outcome;

/// All annotations of an object have 256 KiB together. What is more than this, oldest runs first, is struck off: such a
/// run stays, and lets no other go.
const ROOM: usize = 192 * 1024;

/// The sealed runs, by the uid of their policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roll(BTreeMap<String, BTreeMap<RunId, Entry>>);

/// One sealed run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// By template the ordinals of its claims, from each first to each last.
    claims: BTreeMap<String, Vec<(u32, u32)>>,
    /// Of the uids of its snapshots.
    pub digest: String,
    /// Hooks held all pods while it was cut.
    pub frozen: bool,
    /// Found when the first record was made, and not remembered by status.
    pub imported: bool,
}

/// The words for these two.
const FROZEN: &str = "frozen";
const IMPORTED: &str = "imported";

/// Puts a run on record, on the Lease as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Enroll {
    /// resourceVersion of the Lease.
    pub version: String,
    pub run: RunId,
    pub roll: Roll,
}

/// The record that the run of `cut` lacks; none where it stands, or can stand nowhere. The first one imports all that were
/// sealed before there was a roll.
pub fn enroll(v: &View, cut: &Cut) -> Result<Option<Enroll>, Read> {
    let run = of_cut(v, cut)?;
    if v.refused.is_some() || run.len() < cut.size {
        return Ok(None);
    }
    let Some(lease) = v.lease()? else { return Ok(None) };
    let entry = cut.entry.clone().unwrap_or_else(|| Entry::of(run.iter().map(|(_, snap)| *snap)));
    if lease.roll.as_ref().and_then(|roll| roll.entry(&v.want.uid, cut.id)) == Some(&entry) {
        return Ok(None);
    }
    let snaps = v.snaps()?;
    let known = |run: RunId| remembers(v, run);
    let mut roll = match &lease.roll {
        Some(roll) => roll.clone(),
        None => match v.prune.stock()? {
            Ok(all) => sealed(all, |uid, run| uid == v.want.uid && known(run)),
            // A first record without the runs from before would leave them off it for good.
            Err(_) => return Ok(None),
        },
    };
    let there: BTreeSet<(&str, RunId)> = snaps.values().map(|snap| (snap.policy_uid.as_str(), snap.run)).collect();
    // What is newer than this run may have been made since the snapshots were seen.
    roll.keep(|uid, run| run >= cut.id || there.contains(&(uid, run)));
    roll.put(&v.want.uid, cut.id, entry);
    // Where there is no room for it, it stays off the record.
    let changes = lease.roll.as_ref() != Some(&Roll::read(&roll.text()));
    Ok(changes.then(|| Enroll { version: lease.version.clone(), run: cut.id, roll }))
}

/// Status tells that it succeeded, which only runs may write.
fn remembers(v: &View, run: RunId) -> bool {
    let id = run.to_string();
    let Ok(record) = v.record() else { return false };
    let last = record.status.last_run.as_ref().map(|last| (last.id.as_deref().unwrap_or_default(), last.outcome));
    let history = record.status.history.iter().map(|entry| (entry.id.as_str(), entry.outcome));
    last.into_iter().chain(history).any(|(known, outcome)| known == id && outcome == Some(Outcome::Succeeded))
}

/// The snapshots of a run that was cut, as far as they are there: the very ones, where the journal knows them.
pub fn of_cut<'a>(v: &'a View, cut: &Cut) -> Result<Vec<(&'a String, &'a Snap)>, Read> {
    let entry = cut.entry.as_ref();
    // What its annotations say counts only where the journal does not know better.
    let is_its = |snap: &Snap| !snap.leaving && (entry.is_some() || snap.epoch == cut.epoch);
    let all = v.run(cut.id)?.filter(|(_, snap)| is_its(snap)).collect();
    let run: Vec<(&String, &Snap)> =
        member::of_run(all, Some(cut.size), entry, |(_, snap)| (Some(snap.claim.clone()), snap.created));
    let replaced = run.len() == cut.size
        && entry.is_some_and(|entry| entry.digest != digest(run.iter().map(|(_, snap)| snap.uid.as_str())));
    Ok(if replaced { vec![] } else { run })
}

/// Every run that is whole and says on all of its snapshots that it is proved; as imported, unless `is_known`.
pub fn sealed(all: &Snapshots, is_known: impl Fn(&str, RunId) -> bool) -> Roll {
    let mut roll = Roll::default();
    for run in known::runs(all, None).iter().filter(|run| matches!(run.state, State::Complete | State::Uploading)) {
        let uids = run.snapshots.iter().map(|(_, one)| one.uid.as_str());
        let (uid, imported) = (&run.maker.uid, !is_known(&run.maker.uid, run.id));
        roll.put(uid, run.id, Entry { imported, ..Entry::new(run.claims(), uids) });
    }
    roll
}

/// The same for the same uids in any order.
pub fn digest<'a>(uids: impl IntoIterator<Item = &'a str>) -> String {
    let sorted: BTreeSet<&str> = uids.into_iter().collect();
    let mut hash = Sha256::new();
    for uid in sorted {
        hash.update(uid);
        hash.update("\n");
    }
    hex(&hash.finalize()[..8])
}

impl Roll {
    pub fn entry(&self, policy_uid: &str, run: RunId) -> Option<&Entry> {
        self.0.get(policy_uid)?.get(&run)
    }

    pub fn put(&mut self, policy_uid: &str, run: RunId, entry: Entry) {
        self.0.entry(policy_uid.to_owned()).or_default().insert(run, entry);
    }

    /// Strikes off what `is_there` does not know any more.
    pub fn keep(&mut self, is_there: impl Fn(&str, RunId) -> bool) {
        for (uid, runs) in &mut self.0 {
            runs.retain(|run, _| is_there(uid, *run));
        }
        self.0.retain(|_, runs| !runs.is_empty());
    }

    /// An entry that cannot be read is none; so is a text that is none of ours.
    pub fn read(text: &str) -> Roll {
        let all: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(text).unwrap_or_default();
        let entry = |(run, entry): (String, String)| Some((run.parse().ok()?, Entry::read(&entry)?));
        Roll(all.into_iter().map(|(uid, runs)| (uid, runs.into_iter().filter_map(entry).collect())).collect())
    }

    /// As it is stored.
    pub fn text(&self) -> String {
        let mut roll = self.clone();
        let mut text = roll.whole();
        while text.len() > ROOM && roll.strike_oldest() {
            text = roll.whole();
        }
        text
    }

    fn whole(&self) -> String {
        let entry = |(run, entry): (&RunId, &Entry)| (run.to_string(), entry.text());
        let all: BTreeMap<_, BTreeMap<_, _>> =
            self.0.iter().map(|(uid, runs)| (uid, runs.iter().map(entry).collect())).collect();
        serde_json::to_string(&all).unwrap_or_default()
    }

    /// An eighth of all, so that a large one is not written anew for each.
    fn strike_oldest(&mut self) -> bool {
        let mut runs: Vec<RunId> = self.0.values().flat_map(BTreeMap::keys).copied().collect();
        runs.sort_unstable();
        let Some(last) = runs.get(runs.len() / 8).copied() else { return false };
        self.keep(|_, run| run > last);
        true
    }
}

impl Entry {
    pub fn new<'a>(claims: impl IntoIterator<Item = &'a ClaimKey>, uids: impl IntoIterator<Item = &'a str>) -> Entry {
        let sorted: BTreeSet<&ClaimKey> = claims.into_iter().collect();
        let mut ranges: BTreeMap<String, Vec<(u32, u32)>> = BTreeMap::new();
        for ClaimKey { ordinal, template } in sorted {
            let of = ranges.entry(template.clone()).or_default();
            match of.last_mut().filter(|(_, last)| last.checked_add(1) == Some(*ordinal)) {
                Some((_, last)) => *last = *ordinal,
                None => of.push((*ordinal, *ordinal)),
            }
        }
        Entry { claims: ranges, digest: digest(uids), frozen: false, imported: false }
    }

    /// How many claims it has.
    pub fn len(&self) -> usize {
        let of = |(first, last): &(u32, u32)| (last - first) as usize + 1;
        self.claims.values().flatten().map(of).fold(0, usize::saturating_add)
    }

    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    pub fn of<'a>(all: impl IntoIterator<Item = &'a Snap> + Clone) -> Entry {
        Entry::new(all.clone().into_iter().map(|snap| &snap.claim), all.into_iter().map(|snap| snap.uid.as_str()))
    }

    pub fn has(&self, claim: &ClaimKey) -> bool {
        let within = |(first, last): &(u32, u32)| (*first..=*last).contains(&claim.ordinal);
        self.claims.get(&claim.template).is_some_and(|ranges| ranges.iter().any(within))
    }

    /// None: it is none of ours.
    pub fn read(text: &str) -> Option<Entry> {
        let mut words = text.split(' ');
        let (claims, digest) = (words.next()?, words.next()?);
        let words: Vec<&str> = words.collect();
        let (frozen, imported) = (words.contains(&FROZEN), words.contains(&IMPORTED));
        let range = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some((first, last))
        };
        let part = |part: &str| {
            let (template, ranges) = part.split_once(':')?;
            Some((template.to_owned(), ranges.split(',').map(range).collect::<Option<_>>()?))
        };
        let claims = claims.split(';').map(part).collect::<Option<_>>()?;
        Some(Entry { claims, digest: digest.to_owned(), frozen, imported })
    }

    /// As it is stored.
    pub fn text(&self) -> String {
        let range = |(first, last): &(u32, u32)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        };
        let part = |(template, ranges): (&String, &Vec<(u32, u32)>)| {
            format!("{template}:{}", ranges.iter().map(range).collect::<Vec<_>>().join(","))
        };
        let claims = self.claims.iter().map(part).collect::<Vec<_>>().join(";");
        let words = [(FROZEN, self.frozen), (IMPORTED, self.imported)].into_iter().filter(|(_, is_so)| *is_so);
        words.fold(format!("{claims} {}", self.digest), |text, (word, _)| format!("{text} {word}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(all: &[(&str, u32)]) -> Vec<ClaimKey> {
        all.iter().map(|(template, ordinal)| ClaimKey { ordinal: *ordinal, template: (*template).into() }).collect()
    }

    fn id(second: u32) -> RunId {
        format!("20261125-01{:02}{:02}", second / 60 % 60, second % 60).parse().unwrap()
    }

    #[test]
    fn a_roll_is_read_as_it_was_written_and_stays_short() {
        let mut roll = Roll::default();
        let all = claims(&[("data", 0), ("data", 1), ("data", 2), ("wal", 0), ("wal", 2)]);
        roll.put("uid", id(0), Entry::new(&all, ["b", "a"]));
        let text = roll.text();
        let sum = digest(["a", "b"]);
        assert_eq!(text, format!(r#"{{"uid":{{"20261125-010000":"data:0-2;wal:0,2 {sum}"}}}}"#));
        assert_eq!(Roll::read(&text), roll);
        let mut other = roll.clone();
        other.put("uid", id(1), Entry { frozen: true, imported: true, ..Entry::new(&all, ["c"]) });
        assert_eq!(Roll::read(&other.text()), other);
        assert!(other.text().ends_with(" frozen imported\"}}"), "{}", other.text());
        let read = Roll::read(&text);
        assert_eq!(read.entry("uid", id(0)).unwrap().len(), 5);
        let has = |key: &ClaimKey| read.entry("uid", id(0)).unwrap().has(key);
        assert!(all.iter().all(has) && !claims(&[("data", 3), ("wal", 1), ("log", 0)]).iter().any(has));
        assert_eq!(roll.entry("other", id(0)), None);
        assert_ne!(digest(["ab"]), digest(["a", "b"]));
        let wide: Vec<_> = (0..900).map(|ordinal| ClaimKey { ordinal, template: "data".into() }).collect();
        assert!(Entry::new(&wide, []).text().len() < 40);
    }

    #[test]
    fn what_cannot_be_read_is_not_on_record() {
        let entries = ["", "data", "data:0", "data:x 1", "data:3-1 1", "data:0-4294967296 1", ":0"];
        for text in entries {
            assert_eq!(Entry::read(text), None, "{text}");
        }
        for text in ["", "[]", r#"{"uid":{"tomorrow":"data:0 1"}}"#] {
            assert!(Roll::read(text).entry("uid", id(0)).is_none(), "{text}");
        }
    }

    #[test]
    fn the_oldest_are_struck_off_before_the_annotation_is_too_large() {
        let mut roll = Roll::default();
        let all = claims(&[("a-rather-long-name-of-a-template-of-claims", 0)]);
        (0..3600).for_each(|n| roll.put("uid", id(n), Entry::new(&all, ["uid"])));
        let text = roll.text();
        assert!(text.len() <= ROOM && text.len() > ROOM / 2, "{}", text.len());
        let read = Roll::read(&text);
        assert!(read.entry("uid", id(0)).is_none() && read.entry("uid", id(3599)).is_some());
        roll.keep(|_, run| run == id(7));
        assert!(roll.entry("uid", id(8)).is_none() && roll.entry("uid", id(7)).is_some());
    }
}
