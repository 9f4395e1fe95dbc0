//! Retention at work: once the run is complete and ready, runs that no rule wants are deleted, whole, oldest first,
//! one after the other, so that at most one is ever half gone; a process that dies there leaves a broken run, which
//! the next one removes. Whatever stands in the way of a deletion leaves the run where it is and is said; the backup
//! has succeeded all the same.

pub mod room;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::backup::{Backup, CALL};
use super::flow::Next;
use super::guard;
use super::journal::Cut;
use super::known::{self, Content, Owner, Record, Snapshot, Snapshots, State, snapshot};
use super::member::Odd;
use super::name::{self, RunId};
use super::noun::{Keep, Refusal};
use super::retention::{Fate, Run, Verdict, retain};
use super::view::{Read, Seen, View};
use crate::api::{FILE_UID, LOCK_POLICY, MARKS_POLICY, annotation};

/// So often the deletion of one snapshot is tried before its run is left alone.
const TRIES: u32 = 5;

/// A deletion that holds for this very version: whatever changes on the snapshot (a restore pins it) forbids it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prune {
    pub name: String,
    pub uid: String,
    pub version: String,
    pub run: RunId,
    /// What let it go, for the audit log.
    pub why: String,
}

/// The content is to take the storage's snapshot along when its `VolumeSnapshot` goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    pub content: String,
    pub uid: String,
    pub version: String,
    /// The `VolumeSnapshot` that will be deleted next.
    pub snapshot: String,
}

/// What retention alone has to know. A definite no is knowledge here, and no refusal of the run.
#[derive(Debug, Clone, Default)]
pub struct Pruning {
    stock: Seen<Result<Snapshots, Refusal>>,
    contents: BTreeMap<String, Result<Option<Content>, Refusal>>,
    /// The uids of the restores that have not ended.
    restores: Seen<Result<BTreeSet<String>, Refusal>>,
    tries: BTreeMap<String, (u32, Option<Refusal>)>,
    /// What this process has deleted something of.
    dropped: BTreeSet<RunId>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    Stock(Seen<Result<Snapshots, Refusal>>),
    Content(String, Result<Option<Content>, Refusal>),
    Restores(Result<BTreeSet<String>, Refusal>),
    /// The deletion of the snapshot of this name was accepted: what is left of it.
    Dropped(String, RunId, Option<Box<Snapshot>>),
    /// What was tried for the deletion of this snapshot came to nothing, and why where that is known.
    Failed(String, Option<Refusal>),
}

impl Pruning {
    pub fn fold(&mut self, fact: Fact) {
        match fact {
            Fact::Stock(stock) => self.stock = stock,
            Fact::Content(name, content) => drop(self.contents.insert(name, content)),
            Fact::Restores(restores) => self.restores = Seen::Known(restores),
            Fact::Dropped(name, run, left) => {
                self.dropped.insert(run);
                if let Seen::Known(Ok(stock)) = &mut self.stock {
                    match left {
                        Some(left) => drop(stock.insert(name, *left)),
                        None => drop(stock.remove(&name)),
                    }
                }
            }
            Fact::Failed(name, why) => {
                let tries = self.tries.entry(name).or_default();
                *tries = (tries.0 + 1, why);
                // A conflict, or no answer: what we knew is stale, pins above all.
                self.stock = Seen::Unknown;
                self.restores = Seen::Unknown;
                self.contents.clear();
            }
        }
    }

    pub fn stale(&mut self, read: &Read) {
        match read {
            Read::Stock => self.stock = Seen::Unknown,
            Read::Content(name) => drop(self.contents.remove(name)),
            Read::Restores => self.restores = Seen::Unknown,
            _ => {}
        }
    }

    /// All snapshots of the `StatefulSet`.
    pub fn stock(&self) -> Result<Result<&Snapshots, &Refusal>, Read> {
        self.stock.get(Read::Stock).map(Result::as_ref)
    }
    fn content(&self, name: &str) -> Result<Result<Option<&Content>, &Refusal>, Read> {
        let content = self.contents.get(name).ok_or_else(|| Read::Content(name.to_owned()))?;
        Ok(content.as_ref().map(Option::as_ref))
    }
    fn restores(&self) -> Result<Result<&BTreeSet<String>, &Refusal>, Read> {
        self.restores.get(Read::Restores).map(Result::as_ref)
    }
}

/// A run that is to go, and why.
struct Doomed<'a> {
    run: known::Run<'a>,
    why: String,
}

/// The next deletions; none when all is done that can be done. Pre: the run of `cut` is complete and ready.
pub fn prune(v: &View, cut: &Cut, now: Timestamp) -> Result<Option<Next<Backup>>, Read> {
    let (Some(keep), Ok(doomed)) = (&v.want.backup.keep, doomed(v, cut.id)?) else { return Ok(None) };
    for Doomed { run, why } in &doomed {
        if hindrance(v, keep, run)?.is_none() {
            return Ok(Some(Next::Do { batch: deletion(v, run, why)?, until: now + CALL }));
        }
    }
    Ok(None)
}

/// Every snapshot of the run that is there; but first its contents, where what they hold would stay behind.
fn deletion(v: &View, run: &known::Run, why: &str) -> Result<Vec<Backup>, Read> {
    let there: Vec<_> = run.snapshots.iter().filter(|(_, piece)| piece.leaving.is_none()).collect();
    let mut purge = vec![];
    for (name, piece) in &there {
        let Some(of) = &piece.content else { continue };
        if let Ok(Some(content)) = v.prune.content(of)?
            && content.retains
        {
            let (uid, version) = (content.uid.clone(), content.version.clone());
            let (content, snapshot) = (of.clone(), (*name).clone());
            purge.push(Backup::Purge(Purge { content, uid, version, snapshot }));
        }
    }
    let delete = |(name, piece): &&(&String, &Snapshot)| {
        let (name, uid, version) = ((*name).clone(), piece.uid.clone(), piece.version.clone());
        Backup::Prune(Prune { name, uid, version, run: run.id, why: why.to_owned() })
    };
    Ok(if purge.is_empty() { there.iter().map(delete).collect() } else { purge })
}

/// The runs that are to go and are not gone yet, oldest first; or why nothing can be decided.
fn doomed(v: &View, id: RunId) -> Result<Result<Vec<Doomed<'_>>, String>, Read> {
    let Some(keep) = &v.want.backup.keep else { return Ok(Ok(vec![])) };
    let (zone, own) = match own(v, keep)? {
        Ok(own) => own,
        Err(why) => return Ok(Err(why)),
    };
    // Ages are counted from this run's own creation, by the API server's clock.
    let now = match own.iter().find(|run| run.id == id && run.state == State::Complete) {
        Some(run) if run.record == Record::Own => run.created(),
        Some(_) => return Ok(Err(format!("run {id} is not on record on Lease {}", name::lease(&v.want.statefulset)))),
        None => return Ok(Err(format!("run {id} is not complete any more"))),
    };
    let unwanted = unwanted(&own, None, &v.want.statefulset, |runs| retain(runs, Some(&keep.policy), now, zone));
    let mut doomed = vec![];
    for run in own {
        let there = run.staying();
        let why = match run.state {
            State::Complete if unwanted.contains(&run.id) => format!("no rule keeps it ({})", rules(keep)),
            // A later one may be under way. An earlier one is over, or this run would not have begun.
            _ if run.id < id && is_partial(&run) => {
                format!("it is partial: {there} snapshots of it are there")
            }
            _ => continue,
        };
        doomed.push(Doomed { run, why });
    }
    Ok(Ok(doomed))
}

/// Something of it is there, and it can never become complete. What says that it was proved and is not on record may be
/// anybody's: it stays.
fn is_partial(run: &known::Run) -> bool {
    run.state == State::Broken && run.staying() > 0 && (run.record != Record::None || run.sealed() == 0)
}

/// Our runs, and the zone that they are judged in; or why nothing can be decided about them.
fn own<'a>(v: &'a View, keep: &'a Keep) -> Result<Result<(&'a TimeZone, Vec<known::Run<'a>>), String>, Read> {
    let Some(zone) = &keep.zone else {
        return Ok(Err(format!("spec.timeZone {:?} is not in the time zone database", keep.zone_name)));
    };
    let stock = match v.prune.stock()? {
        Ok(stock) => stock,
        Err(refusal) => return Ok(Err(refusal.message.clone())),
    };
    for policy in [MARKS_POLICY, LOCK_POLICY] {
        if let Some(refusal) = guard::refusal(v, policy)? {
            return Ok(Err(format!("{}: {}", refusal.reason, refusal.message)));
        }
    }
    let roll = v.lease()?.and_then(|lease| lease.roll.as_ref());
    let own = known::runs(stock, roll).into_iter().filter(|run| run.maker.owner(&v.want) == Owner::Own);
    Ok(Ok((zone, own.collect())))
}

/// What the rules let go, beside one that is to come.
fn unwanted(
    own: &[known::Run],
    new: Option<Run<RunId>>,
    statefulset: &str,
    judge: impl Fn(&[Run<RunId>]) -> Vec<Verdict<RunId>>,
) -> BTreeSet<RunId> {
    judged(own, new, statefulset, judge, |verdict| verdict.fate == Fate::Prune)
}

/// Those of which the verdict is such. What was imported is judged alone among those that are known: it pushes out nothing,
/// not even its like.
fn judged(
    own: &[known::Run],
    new: Option<Run<RunId>>,
    statefulset: &str,
    judge: impl Fn(&[Run<RunId>]) -> Vec<Verdict<RunId>>,
    is_such: impl Fn(&Verdict<RunId>) -> bool,
) -> BTreeSet<RunId> {
    let such = |runs: &[Run<RunId>]| -> BTreeSet<RunId> {
        judge(runs).into_iter().filter(|verdict| is_such(verdict)).map(|verdict| verdict.id).collect()
    };
    let mut runs: Vec<_> = own.iter().map(|run| run.counted(statefulset)).chain(new).collect();
    let mut all = such(&runs);
    for (at, run) in own.iter().enumerate() {
        if run.record == Record::Imported && run.state == State::Complete {
            runs[at].complete = true;
            all.extend(such(&runs).get(&run.id));
            runs[at].complete = false;
        }
    }
    all
}

/// The policy in a line, as in its manifest.
fn rules(keep: &Keep) -> String {
    let set = keep.policy.numbers().into_iter().filter_map(|(name, number)| Some(format!("{name}: {}", number?)));
    set.collect::<Vec<_>>().join(", ")
}

/// What keeps an unwanted run from going.
fn hindrance(v: &View, keep: &Keep, run: &known::Run) -> Result<Option<String>, Read> {
    let pins: BTreeSet<_> = run.snapshots.iter().flat_map(|(_, piece)| &piece.pins).collect();
    if !pins.is_empty() {
        match v.prune.restores()? {
            Ok(open) => {
                if let Some(pin) = pins.iter().find(|pin| open.contains(**pin)) {
                    return Ok(Some(format!("the restore of uid {pin} uses it")));
                }
            }
            Err(refusal) => {
                return Ok(Some(format!(
                    "it is pinned, and whether its restore has ended cannot be read: {}",
                    refusal.message
                )));
            }
        }
    }
    for (name, piece) in run.snapshots.iter().filter(|(_, piece)| piece.leaving.is_none()) {
        if let Some((tries, why)) = v.prune.tries.get(*name)
            && (*tries >= TRIES || why.is_some())
        {
            let said = why.as_ref().map_or_else(|| "no answer".to_owned(), |why| why.message.clone());
            return Ok(Some(format!("VolumeSnapshot {name} could not be deleted: {said}")));
        }
        if let Some(why) = retained(v, keep, piece)? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

/// The storage's snapshot would stay behind, and the policy does not say that it may be purged.
fn retained(v: &View, keep: &Keep, piece: &Snapshot) -> Result<Option<String>, Read> {
    let purge = keep.policy.purge_retained == Some(true);
    let Some(name) = &piece.content else { return Ok(None) };
    let retains = match v.prune.content(name)? {
        Ok(None) => return Ok(None),
        Ok(Some(content)) if content.snapshot.as_ref() != Some(&piece.uid) => {
            return Ok(Some(format!("VolumeSnapshotContent {name} does not point back at it")));
        }
        Ok(Some(content)) => content.retains && !purge,
        // Who may not read contents goes by the class; and cannot change a content either.
        Err(_) => v.classes()?.iter().any(|class| Some(&class.name) == piece.class.as_ref() && class.retains),
    };
    Ok(retains.then(|| {
        "its VolumeSnapshotContents have deletionPolicy Retain, so the storage would keep its snapshots: set \
         spec.retentionPolicy.purgeRetained to let them go"
            .to_owned()
    }))
}

/// The runs that this process has deleted something of.
pub fn dropped(v: &View) -> Option<String> {
    let dropped = &v.prune.dropped;
    (!dropped.is_empty()).then(|| format!("{} pruned", names(dropped.iter().copied())))
}

/// What retention did, for status and Events: what was dropped, and what else is worth a word.
#[derive(Debug)]
pub struct Told {
    pub dropped: Option<String>,
    /// Why nothing could be pruned at all.
    pub skipped: Option<String>,
    pub remarks: Vec<String>,
}

pub fn told(v: &View, id: RunId) -> Result<Told, Read> {
    let dropped = dropped(v);
    let (mut skipped, mut remarks) = (None, vec![]);
    match doomed(v, id)? {
        Err(why) => skipped = Some(format!("retention was skipped: {why}")),
        Ok(doomed) => {
            let mut left: BTreeMap<String, Vec<RunId>> = BTreeMap::new();
            for (Doomed { run, .. }, keep) in doomed.iter().zip(v.want.backup.keep.iter().cycle()) {
                hindrance(v, keep, run)?.into_iter().for_each(|why| left.entry(why).or_default().push(run.id));
            }
            remarks.extend(left.into_iter().map(|(why, runs)| format!("{} not pruned: {why}", names(runs))));
        }
    }
    if let Seen::Known(Ok(stock)) = &v.prune.stock {
        remarks.extend(orphaned(v, stock));
        let alone = "it is left alone, and restored only by its name";
        let copies = snapshot::strangers(stock).filter(|(_, odd)| *odd == Odd::Marks).map(|(name, _)| name);
        remarks.extend(first(copies).map(|names| format!("VolumeSnapshot {names} {}: {alone}", Odd::Marks)));
        let mut again = snapshot::strangers(stock).filter(|(_, odd)| *odd != Odd::Marks);
        if let Some((name, odd)) = again.next() {
            let more = again.count();
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            remarks.push(format!("VolumeSnapshot {name}{more} {odd}: {alone}"));
        }
        remarks.extend(first(snapshot::overdue(stock).map(|(name, _)| name)).map(|names| {
            format!(
                "VolumeSnapshot {names} has been Terminating for over 10 minutes: look at its finalizers and at what was \
                 restored from it"
            )
        }));
    }
    Ok(Told { dropped, skipped, remarks })
}

/// Runs of former objects of our name, which retention leaves alone: by whose they were.
fn orphaned(v: &View, stock: &Snapshots) -> Vec<String> {
    let mut all: BTreeMap<&str, BTreeSet<RunId>> = BTreeMap::new();
    for piece in stock.values().filter(|piece| piece.stranger.is_none() && piece.maker.uid != FILE_UID) {
        if let Some(run) = piece.run.filter(|_| piece.maker.owner(&v.want) == Owner::Orphaned) {
            all.entry(&piece.maker.uid).or_default().insert(run);
        }
    }
    let word = |(uid, runs): (&str, BTreeSet<RunId>)| {
        format!(
            "nobody prunes {} of a former {}: to have them pruned, annotate this object with {}={uid}",
            names(runs),
            v.want.name,
            annotation::ADOPT
        )
    };
    all.into_iter().map(word).collect()
}

/// The first by name, and how many more.
fn first<'a>(mut names: impl Iterator<Item = &'a String>) -> Option<String> {
    let (first, more) = (names.next()?, names.count());
    Some(if more > 0 { format!("{first} and {more} more") } else { first.clone() })
}

/// The first three by name, and how many more.
fn names(runs: impl IntoIterator<Item = RunId>) -> String {
    let runs: Vec<String> = runs.into_iter().map(|run| run.to_string()).collect();
    let (first, rest) = runs.split_at(runs.len().min(3));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("run{} {}{more}", if runs.len() == 1 { "" } else { "s" }, first.join(", "))
}

#[cfg(test)]
mod tests;
