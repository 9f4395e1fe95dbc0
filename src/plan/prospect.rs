//! Whether a freeze would come to anything, looked at before anything is frozen: the quotas leave room for the snapshots,
//! and what was denied in the freeze before this one is allowed by now.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::backup::Backup;
use super::name::RunId;
use super::noun::Refusal;
use super::prune::room;
use super::quantity::bytes;
use super::resolve::Covered;
use super::restore::sight::Quota;
use super::view::{Read, Seen, View};
use crate::api::condition::Reason;

/// What counts VolumeSnapshots in a ResourceQuota.
const COUNT: &str = "count/volumesnapshots.snapshot.storage.k8s.io";

/// A quota that has no room is looked at for so long: what is being deleted still counts.
const ROOM: SignedDuration = SignedDuration::from_secs(30);
/// What was denied is asked for again for so long, with nothing frozen.
const RIGHTS: SignedDuration = SignedDuration::from_secs(60);
/// Between two looks.
const AGAIN: SignedDuration = SignedDuration::from_secs(5);

/// What is known of it.
#[derive(Debug, Clone, Default)]
pub struct Prospect {
    /// When the quotas were first looked at.
    since: Option<Timestamp>,
    quotas: Seen<(Timestamp, Vec<Quota>)>,
    /// As they were when first looked at.
    first: Option<Vec<Quota>>,
    /// Snapshots that we have deleted since: a quota is told of it later.
    freed: usize,
    rights: Seen<(Timestamp, Vec<String>)>,
    balk: Option<Balk>,
}

/// The API server has said no in a freeze, and that may pass.
#[derive(Debug, Clone)]
struct Balk {
    run: RunId,
    /// Since the first one.
    since: Timestamp,
    refusal: Refusal,
}

impl Prospect {
    /// The quotas of the namespace at this instant; none where they may not be read.
    pub fn fold_quotas(&mut self, at: Timestamp, quotas: Vec<Quota>) {
        self.since.get_or_insert(at);
        self.first.get_or_insert_with(|| quotas.clone());
        self.quotas = Seen::Known((at, quotas));
    }

    /// What of a freeze's requests we may not send, at this instant.
    pub fn fold_rights(&mut self, at: Timestamp, missing: Vec<String>) {
        self.rights = Seen::Known((at, missing));
    }

    /// Denied in the freeze of this run.
    pub fn balk(&mut self, run: RunId, at: Timestamp, refusal: Refusal) {
        let since = self.balk.as_ref().map_or(at, |before| before.since);
        self.balk = Some(Balk { run, since, refusal });
        self.rights = Seen::Unknown;
    }

    /// What was denied in the freeze of this run.
    pub fn balked(&self, run: RunId) -> Option<&Refusal> {
        self.balk.as_ref().filter(|balk| balk.run == run).map(|balk| &balk.refusal)
    }

    /// The freeze is over, whatever it came to: its snapshots take room, or leave it.
    pub fn thawed(&mut self) {
        (self.since, self.first, self.freed) = (None, None, 0);
        self.quotas = Seen::Unknown;
    }

    /// A snapshot was deleted to make room: from now on the quotas are looked at for as long as ever.
    pub fn freed(&mut self) {
        self.freed += 1;
        self.since = None;
    }

    /// How many of these no look has shown yet at the quota of this name, of which so much is used.
    fn unseen(&self, name: &str, used: u128) -> u128 {
        let first = self.first.iter().flatten().find(|quota| quota.name == name);
        let before = first.and_then(|quota| bytes(&quota.left.get(COUNT)?.1)).unwrap_or(used);
        (self.freed as u128).saturating_sub(before.saturating_sub(used))
    }

    pub fn stale(&mut self, read: &Read) {
        match read {
            Read::Quotas => self.quotas = Seen::Unknown,
            _ => self.rights = Seen::Unknown,
        }
    }
}

/// What speaks against a freeze.
#[derive(Debug, PartialEq)]
pub enum Against {
    /// It may pass: look again then.
    Until(Timestamp),
    /// These make room for it.
    Room(Vec<Backup>),
    For(Refusal),
}

/// None: nothing is known that does.
pub fn against(v: &View, covered: &[Covered], now: Timestamp) -> Result<Option<Against>, Read> {
    match denied(v, now)? {
        None => lack(v, covered, now),
        against => Ok(against),
    }
}

/// What was denied in a freeze: it is not begun again before it is allowed.
fn denied(v: &View, now: Timestamp) -> Result<Option<Against>, Read> {
    let Some(balk) = &v.prospect.balk else { return Ok(None) };
    let (at, missing) = v.prospect.rights.get(Read::Rights)?;
    if missing.is_empty() {
        return Ok(None);
    }
    again(Read::Rights, *at, balk.since + RIGHTS, now)
        .map(|again| Some(again.unwrap_or(Against::For(balk.refusal.clone()))))
}

/// None: it has been looked at for long enough.
fn again(read: Read, at: Timestamp, by: Timestamp, now: Timestamp) -> Result<Option<Against>, Read> {
    match at + AGAIN {
        _ if at >= by => Ok(None),
        next if now < next => Ok(Some(Against::Until(next))),
        _ => Err(read),
    }
}

/// The quota that has the least room for the run, where it has not enough.
fn lack(v: &View, covered: &[Covered], now: Timestamp) -> Result<Option<Against>, Read> {
    let (at, quotas) = v.prospect.quotas.get(Read::Quotas)?;
    let asked = covered.len() as u128;
    let all = quotas.iter().filter_map(|quota| {
        let (hard, used) = quota.left.get(COUNT)?;
        let (hard, used) = (bytes(hard)?, bytes(used)?);
        (used + asked > hard).then_some((&quota.name, hard, used))
    });
    let short = all.max_by_key(|(_, hard, used)| used + asked - hard);
    let Some((name, hard, used)) = short else { return Ok(None) };
    let claims: BTreeSet<String> = covered.iter().map(|claim| claim.pvc.to_owned()).collect();
    let lacking = (used + asked).saturating_sub(hard + v.prospect.unseen(name, used));
    let lacking = usize::try_from(lacking).unwrap_or(usize::MAX);
    if lacking > 0
        && let Some(batch) = room::make(v, &claims, lacking, now)?
    {
        return Ok(Some(Against::Room(batch)));
    }
    if let Some(again) = again(Read::Quotas, *at, v.prospect.since.unwrap_or(*at) + ROOM, now)? {
        return Ok(Some(again));
    }
    let message = format!(
        "ResourceQuota {}/{name} leaves no room for this run: {COUNT} is {used} of {hard}, and the run makes {asked} more \
         snapshots. Nothing was frozen. Raise the quota to at least {}{}",
        v.want.statefulset_namespace,
        used + asked,
        remedy(v, &claims, lacking, now)?
    );
    Ok(Some(Against::For(Refusal::new(Reason::QuotaTooSmall, message))))
}

/// What else makes room: what the policy lets go after this run, and that it may keep less.
fn remedy(v: &View, claims: &BTreeSet<String>, lacking: usize, now: Timestamp) -> Result<String, Read> {
    let Some(keep) = &v.want.backup.keep else {
        return Ok(", or delete old snapshots: this backup has no spec.retentionPolicy that does".to_owned());
    };
    if v.prospect.freed > 0 && lacking == 0 {
        return Ok(": what was deleted for it is still Terminating, and counts".to_owned());
    }
    let outlived = room::outlived(v, claims, now)?;
    Ok(match outlived.split_first() {
        Some((first, more)) if keep.policy.make_room != Some(true) && room::is_enough(&outlived, lacking) => {
            let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            format!(
                ", lower spec.retentionPolicy, or set spec.retentionPolicy.makeRoom to true: then run {}{more}, which no rule \
                 keeps once this run is complete, may go before the freeze",
                first.id
            )
        }
        Some(_) => ", or lower spec.retentionPolicy: what it lets go after this run is not enough".to_owned(),
        None => ", or lower spec.retentionPolicy: none of the runs that are there may go before this one is complete"
            .to_owned(),
    })
}
