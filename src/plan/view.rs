//! What is known, and the only way it changes. Plain data and no flow's rules; the fixture format of plan tests.

mod denied;
mod fact;
mod fold;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use jiff::{SignedDuration, Timestamp};

pub use self::denied::{Denied, Doubt};
pub use self::fact::{Fact, Read};
use super::guard::Guard;
use super::hook::History;
use super::journal::{Journal, Record};
use super::known::SnapshotClass;
use super::member;
use super::name::RunId;
use super::noun::{Claim, Lease, Pod, Refusal, Snap, Snaps, Stop, Target, Volume, Want};
use super::prospect::Prospect;
use super::prune::Pruning;
use super::restore::sight::{Look, Sights};

/// Of what is `Unknown` nothing is decided: it is read first. Absence is knowledge: `Known(None)`, a missing key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seen<T> {
    #[default]
    Unknown,
    Known(T),
}

impl<T> Seen<T> {
    /// The only way to the value; `Err` names the read that would tell.
    pub fn get(&self, read: Read) -> Result<&T, Read> {
        match self {
            Seen::Known(value) => Ok(value),
            Seen::Unknown => Err(read),
        }
    }
}

/// How long an API server that does not answer is asked again, while nothing of ours is at stake.
const PATIENCE: SignedDuration = SignedDuration::from_mins(2);

#[derive(Debug, Clone)]
pub struct View {
    pub want: Want,
    pub record: Seen<Record>,
    pub lease: Seen<Option<Lease>>,
    /// The epoch at which we held the Lease: what is known was seen under it.
    held: Option<i64>,
    marked: Option<(String, Option<String>)>,
    target: Seen<Option<Target>>,
    grant: Seen<Vec<String>>,
    guards: BTreeMap<&'static str, Guard>,
    pods: BTreeMap<String, Option<Pod>>,
    proofs: BTreeMap<String, Option<Pod>>,
    pub hooks: History,
    claims: Seen<BTreeMap<String, Claim>>,
    volumes: BTreeMap<String, Option<Volume>>,
    classes: Seen<Vec<SnapshotClass>>,
    snaps: Seen<Snaps>,
    /// All pods of the namespace.
    roster: Seen<BTreeMap<String, Pod>>,
    /// What only a restore looks at.
    pub restore: Sights,
    /// By uid: once cut, cut for good.
    cuts: BTreeMap<String, Timestamp>,
    pub prune: Pruning,
    pub prospect: Prospect,
    /// The names of runs of this process that somebody else has taken.
    pub foreign: BTreeMap<RunId, String>,
    pub refused: Option<Refusal>,
    pub mute: Option<Refusal>,
    pub stop: Option<Stop>,
    silence: Option<Timestamp>,
    /// The API server says no, and that may pass.
    pub doubt: Option<Doubt>,
    /// The run whose freeze is open, by the journal as last known.
    freezing: Option<RunId>,
    /// How far the API server's clock is ahead of the runner's.
    pub ahead: SignedDuration,
    /// Whether this process has had a hand in the run, or only looked at it.
    pub acted: bool,
    /// Whether the run of our slot was ever seen open: if it is not open any more, it has ended.
    pub was_open: bool,
}

impl View {
    pub fn new(want: Want) -> View {
        View {
            want,
            record: Seen::Unknown,
            lease: Seen::Unknown,
            held: None,
            marked: None,
            target: Seen::Unknown,
            grant: Seen::Unknown,
            guards: BTreeMap::new(),
            pods: BTreeMap::new(),
            proofs: BTreeMap::new(),
            hooks: History::default(),
            claims: Seen::Unknown,
            volumes: BTreeMap::new(),
            classes: Seen::Unknown,
            snaps: Seen::Unknown,
            roster: Seen::Unknown,
            restore: Sights::default(),
            cuts: BTreeMap::new(),
            prune: Pruning::default(),
            prospect: Prospect::default(),
            foreign: BTreeMap::new(),
            refused: None,
            mute: None,
            stop: None,
            silence: None,
            doubt: None,
            freezing: None,
            ahead: SignedDuration::ZERO,
            acted: false,
            was_open: false,
        }
    }

    pub fn fold(&mut self, fact: Fact) {
        match fact {
            Fact::Record(record) => self.fold_record(*record),
            Fact::Lease(lease) => self.fold_lease(lease),
            Fact::Target(target) => self.target = Seen::Known(target),
            Fact::Grant(namespaces) => self.grant = Seen::Known(namespaces),
            Fact::Guard(policy, guard) => drop(self.guards.insert(policy, guard)),
            Fact::Pod(name, pod) => self.fold_pod(name, pod),
            Fact::Proof(name, pod) => drop(self.proofs.insert(name, pod)),
            Fact::Pods(pods) => self.fold_pods(pods),
            Fact::Hook(exec, tried) => {
                // Both are looked at once more after the last thaw, as proof that one freeze held throughout.
                self.lease = Seen::Unknown;
                self.proofs.clear();
                self.hooks.add(exec.run, exec.place.ordinal, exec.which, tried);
            }
            Fact::Strayed(run, place) => self.hooks.stray(run, place),
            Fact::Claims(claims) => self.fold_claims(claims),
            Fact::Claim(name, claim) => self.fold_claim(&name, claim),
            Fact::ClaimEnd(name, uid) => self.fold_end(&name, &uid),
            Fact::Restore(sight) => self.fold_sight(*sight),
            Fact::Stale(read) => self.stale(&read),
            Fact::Volume(name, volume) => drop(self.volumes.insert(name, volume)),
            Fact::Classes(classes) => self.classes = Seen::Known(classes),
            Fact::Snaps(snaps) => self.fold_snaps(snaps),
            Fact::Snap(name, snap) => {
                let before = self.snaps().ok().and_then(|snaps| snaps.get(&name)).cloned();
                self.fold_snap(name, snap, before.as_ref());
            }
            Fact::Cut(uid, at) => {
                self.fold_cut(uid.clone(), at);
                self.cuts.insert(uid, at); // the content knows it to the nanosecond, the snapshot to the second
            }
            Fact::Sealed(uid) => {
                if let Seen::Known(snaps) = &mut self.snaps {
                    snaps.values_mut().filter(|snap| snap.uid == uid).for_each(|snap| snap.sealed = true);
                }
            }
            Fact::Prune(fact) => self.fold_prune(fact),
            Fact::Quotas(at, quotas) => self.prospect.fold_quotas(at, quotas),
            Fact::Rights(at, missing) => self.prospect.fold_rights(at, missing),
            Fact::Foreign(run, name) => drop(self.foreign.insert(run, name)),
            Fact::Refused(refusal) => drop(self.refused.get_or_insert(refusal)),
            Fact::Mute(refusal) => drop(self.mute.get_or_insert(refusal)),
            Fact::Stop(stop) => {
                if stop > Stop::Sigterm && self.stop < Some(stop) {
                    self.lease = Seen::Unknown; // whose is it now, and what does it say of our freeze?
                }
                self.stop = self.stop.max(Some(stop));
            }
            Fact::Denied(denied) => self.fold_denied(*denied),
            Fact::Allowed { write } => self.fold_allowed(write),
            Fact::Silence(since) => self.silence = since,
            Fact::Ahead(ahead) => self.ahead = ahead,
            Fact::Acted => self.fold_acted(),
        }
    }

    fn fold_prune(&mut self, fact: super::prune::Fact) {
        if let super::prune::Fact::Dropped(..) = &fact {
            self.prospect.freed();
        }
        self.prune.fold(fact);
    }

    fn fold_record(&mut self, record: Seen<Record>) {
        self.record = record;
        self.inherit();
        let open = self.record().ok().and_then(|record| record.open.as_ref());
        self.was_open |= open.is_some_and(|(slot, _)| *slot == self.want.slot);
        if matches!(&self.record, Seen::Known(Record { journal: Journal::Void(..), .. })) {
            self.pods.clear(); // the next freeze looks at the containers anew
            self.prospect.thawed();
        }
    }

    /// A freeze of another process is ours to thaw, and its hooks may come late.
    fn inherit(&mut self) {
        self.note_freeze();
        if let Seen::Known(Record { journal: Journal::Frozen(f), .. }) = &self.record
            && f.holder != self.want.me
        {
            f.hooks.iter().for_each(|hooks| self.hooks.inherit(hooks));
        }
    }

    pub fn fold_all(&mut self, facts: impl IntoIterator<Item = Fact>) {
        facts.into_iter().for_each(|fact| self.fold(fact));
    }

    fn fold_lease(&mut self, lease: Seen<Option<Lease>>) {
        self.lease = lease;
        if let Seen::Known(Some(Lease { open: Some(open), .. })) = &self.lease
            && open.is_of(&self.want)
        {
            self.marked = Some((open.run.clone(), open.hooks.clone()));
        }
        if let Seen::Known(Some(lease)) = &self.lease
            && lease.holder.as_ref() == Some(&self.want.me)
            && self.held.replace(lease.epoch) != Some(lease.epoch)
        {
            self.forget(); // what was seen before we held the lock is hearsay
        }
    }

    fn fold_snaps(&mut self, snaps: Seen<Snaps>) {
        let Seen::Known(snaps) = snaps else {
            self.snaps = Seen::Unknown;
            return;
        };
        let old = std::mem::replace(&mut self.snaps, Seen::Known(BTreeMap::new()));
        for (name, snap) in snaps {
            let before = if let Seen::Known(old) = &old { old.get(&name) } else { None };
            self.fold_snap(name, Some(snap), before);
        }
    }

    /// Keeps what an older sight of the same object knows better: since when it fails, and that it was cut.
    fn fold_snap(&mut self, name: String, snap: Option<Snap>, before: Option<&Snap>) {
        self.prune.stale(&Read::Stock);
        let Some(mut snap) = snap else {
            if let Seen::Known(snaps) = &mut self.snaps {
                snaps.remove(&name);
            }
            return;
        };
        if let Some(before) = before.filter(|before| before.uid == snap.uid) {
            if let (Some((_, since)), Some((_, first))) = (&mut snap.error, &before.error) {
                *since = *first;
            }
            snap.sealed |= before.sealed;
        }
        if let Some(at) = snap.cut {
            self.fold_cut(snap.uid.clone(), at);
        }
        if let Seen::Known(snaps) = &mut self.snaps {
            snaps.insert(name, snap);
        }
    }

    /// A cut is told once; and whether the Lease was still ours then is looked at once more, after the last one.
    fn fold_cut(&mut self, uid: String, at: Timestamp) {
        if let Entry::Vacant(entry) = self.cuts.entry(uid) {
            entry.insert(at);
            self.lease = Seen::Unknown;
        }
    }

    fn forget(&mut self) {
        self.record = Seen::Unknown;
        self.target = Seen::Unknown;
        self.grant = Seen::Unknown;
        self.guards.clear();
        self.pods.clear();
        self.proofs.clear();
        self.claims = Seen::Unknown;
        self.volumes.clear();
        self.classes = Seen::Unknown;
        self.snaps = Seen::Unknown;
        self.roster = Seen::Unknown;
        self.restore.forget();
    }

    pub fn record(&self) -> Result<&Record, Read> {
        self.record.get(Read::Record)
    }
    pub fn lease(&self) -> Result<Option<&Lease>, Read> {
        self.lease.get(Read::Lease).map(Option::as_ref)
    }
    /// The epoch under which we hold the Lease.
    pub fn mine(&self) -> Result<Option<i64>, Read> {
        let ours = |lease: &&Lease| lease.holder.as_ref() == Some(&self.want.me);
        Ok(self.lease()?.filter(ours).map(|lease| lease.epoch))
    }
    /// The same, but a Lease that we never held is not looked at.
    pub fn to_release(&self) -> Result<Option<i64>, Read> {
        if self.held.is_some() { self.mine() } else { Ok(None) }
    }
    /// Another process has the lock, or had it since. An API server that was away is no other process: each taking raises
    /// the epoch.
    pub fn is_usurped(&self) -> Result<bool, Read> {
        let is_other = |lease: &Lease| {
            Some(lease.epoch) != self.held || lease.holder.as_ref().is_some_and(|holder| *holder != self.want.me)
        };
        match self.stop {
            Some(Stop::LeaseLost) => Ok(true),
            Some(Stop::CutOff) => Ok(self.lease()?.is_none_or(is_other)),
            Some(Stop::Sigterm) | None => Ok(false),
        }
    }
    /// A Lease that a dead process of our object has left behind; who may not read it has left none.
    pub fn left_behind(&self) -> Result<Option<&Lease>, Read> {
        if self.refused.is_some() {
            return Ok(None);
        }
        let kin =
            |lease: &&Lease| lease.gone && lease.holder.as_ref().is_some_and(|holder| holder.is_kin(&self.want.me));
        Ok(self.lease()?.filter(kin))
    }
    pub fn target(&self) -> Result<Option<&Target>, Read> {
        self.target.get(Read::Target).map(Option::as_ref)
    }
    pub fn grant(&self) -> Result<&[String], Read> {
        self.grant.get(Read::Grant).map(Vec::as_slice)
    }
    /// The admission policy of that name, and its binding.
    pub fn guard(&self, policy: &'static str) -> Result<&Guard, Read> {
        self.guards.get(policy).ok_or(Read::Guard(policy))
    }
    pub fn pod(&self, name: &str) -> Result<Option<&Pod>, Read> {
        self.pods.get(name).map(Option::as_ref).ok_or_else(|| Read::Pod(name.to_owned()))
    }
    /// The pod as it was after the last hook.
    pub fn proof(&self, name: &str) -> Result<Option<&Pod>, Read> {
        self.proofs.get(name).map(Option::as_ref).ok_or_else(|| Read::Proof(name.to_owned()))
    }
    pub fn claims(&self) -> Result<&BTreeMap<String, Claim>, Read> {
        self.claims.get(Read::Claims)
    }
    pub fn volume(&self, name: &str) -> Result<Option<&Volume>, Read> {
        self.volumes.get(name).map(Option::as_ref).ok_or_else(|| Read::Volume(name.to_owned()))
    }
    pub fn classes(&self) -> Result<&[SnapshotClass], Read> {
        self.classes.get(Read::Classes).map(Vec::as_slice)
    }
    pub fn snaps(&self) -> Result<&Snaps, Read> {
        self.snaps.get(Read::Snaps)
    }
    /// All pods of the namespace.
    pub fn roster(&self) -> Result<&BTreeMap<String, Pod>, Read> {
        self.roster.get(Read::Restore(Look::Pods))
    }
    /// What this policy has made under the id.
    pub fn run(&self, id: RunId) -> Result<impl Iterator<Item = (&String, &Snap)> + Clone, Read> {
        Ok(self.snaps()?.iter().filter(move |(_, snap)| snap.run == id && snap.policy_uid == self.want.uid))
    }
    /// The Lease says that this run's freeze is open, as far as we know. Asks for no read: a freeze may be waiting.
    pub fn marked(&self, run: &str) -> bool {
        self.mark_of(run).is_some()
    }
    /// The same, and what the mark says of the hooks.
    pub fn mark_of(&self, run: &str) -> Option<Option<&String>> {
        self.marked.as_ref().filter(|(marked, _)| marked == run).map(|(_, hooks)| hooks.as_ref())
    }
    /// When the storage cut it, as far as it is believed.
    pub fn cut(&self, snap: &Snap) -> Option<Timestamp> {
        Some(member::cut(*self.cuts.get(&snap.uid)?, snap.created))
    }
    /// The API server has been silent for longer than it makes sense to wait.
    pub fn is_deserted(&self, now: Timestamp) -> bool {
        self.silence.is_some_and(|since| now.duration_since(since) > PATIENCE)
    }
}
