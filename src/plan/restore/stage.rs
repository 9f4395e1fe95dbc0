//! Mark, pin, stage and prove: every new volume is there and can be used before the application is touched.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::journal::{Item, Placed, Run};
use super::{Doomed, Go, Holds, KIND, NewClaim, Pin, Restore, Signs, Steer, own, steps};
use crate::api::condition::Reason;
use crate::api::restore::Strategy;
use crate::plan::flow::Feed;
use crate::plan::known::Snapshot;
use crate::plan::noun::{Claim, DELETE, Lease, Marks, Open, Refusal, Volume};
use crate::plan::quantity;
use crate::plan::topology::Node;
use crate::plan::view::{Read, View};

/// As the Lease is now.
pub fn signs(lease: &Lease) -> Signs {
    Signs { open: lease.open.clone(), fence: lease.fence.clone(), restored: lease.restored.clone() }
}

/// From here on the lock is for this object only.
pub fn mark(v: &View, run: &Run, _: Timestamp) -> Holds {
    let Some(lease) = v.lease()? else { return Ok(None) };
    if lease.open.as_ref().is_some_and(|open| open.uid == v.want.uid) {
        return Ok(None);
    }
    let id = run.deed.plan.run.map_or_else(|| "of snapshotNames".to_owned(), |id| id.to_string());
    let open = Open {
        kind: KIND.into(),
        namespace: v.want.namespace.clone(),
        name: v.want.name.clone(),
        uid: v.want.uid.clone(),
        run: id,
        pods: vec![],
        hooks: None,
        journal: None,
    };
    Ok(steps(vec![Restore::Mark(Box::new(Signs { open: Some(open), ..signs(lease) }))]))
}

/// No retention lets go of what we restore from.
pub fn pin(v: &View, run: &Run, _: Timestamp) -> Holds {
    let mut batch = vec![];
    for name in run.deed.plan.items.iter().filter_map(|item| item.snapshot.as_ref()) {
        let Some(source) = v.restore.sources()?.get(name).filter(|source| source.leaving.is_none()) else {
            let message = format!("VolumeSnapshot {name} was deleted before it was restored");
            return Ok(Some(Go::Fail(Refusal::new(Reason::RunNotFound, message))));
        };
        if !source.pins.contains(&v.want.uid) {
            let pinned = source.pins.iter().cloned().chain([v.want.uid.clone()]).collect();
            batch.push(Restore::Pin(to_pin(name, source, pinned)));
        }
    }
    Ok(steps(batch))
}

/// What is proven needs no snapshot any more; InPlace does until its claims are Bound.
pub fn unpin_staged(v: &View, run: &Run, now: Timestamp) -> Holds {
    if v.want.restore.strategy == Strategy::InPlace { Ok(None) } else { unpin(v, run, now) }
}

pub fn unpin(v: &View, run: &Run, _: Timestamp) -> Holds {
    let mut batch = vec![];
    for name in run.deed.plan.items.iter().filter_map(|item| item.snapshot.as_ref()) {
        let ours = |source: &&Snapshot| source.pins.contains(&v.want.uid);
        if let Some(source) = v.restore.sources()?.get(name).filter(ours) {
            let pinned = source.pins.iter().filter(|uid| **uid != v.want.uid).cloned().collect();
            batch.push(Restore::Pin(to_pin(name, source, pinned)));
        }
    }
    Ok(steps(batch))
}

fn to_pin(name: &str, source: &Snapshot, pinned: BTreeSet<String>) -> Pin {
    Pin { name: name.to_owned(), uid: source.uid.clone(), version: source.version.clone(), pinned }
}

/// Every staging claim is Bound.
pub fn stage(v: &View, run: &Run, now: Timestamp) -> Holds {
    let (mut batch, mut waiting) = (vec![], vec![]);
    for item in &run.deed.plan.items {
        let (Some(snapshot), Some(staging)) = (&item.snapshot, &item.staging) else { continue };
        match v.claims()?.get(staging) {
            None => match candidate(v, run, item)? {
                Ok((node, tried)) => batch.push(Restore::Stage(Box::new(NewClaim {
                    name: staging.clone(),
                    snapshot: Some(snapshot.clone()),
                    node,
                    tried,
                    ..new_claim(v, item, Some(snapshot))?
                }))),
                Err(refusal) => return Ok(Some(Go::Fail(refusal))),
            },
            Some(claim) if !own::is_made(v, run, item, claim)? => {
                let message = format!("PersistentVolumeClaim {staging} is there and is not of this restore: delete it");
                return Ok(Some(Go::Fail(Refusal::new(Reason::Foreign, message))));
            }
            Some(claim) if claim.asked.is_some() && !own::is_proven(v, claim)? => {
                return Ok(Some(Go::Fail(unproven(staging, claim))));
            }
            Some(claim) if claim.volume.is_some() && claim.leaving_since.is_none() => {
                if let Some(go) = misplaced(v, run, item, claim)? {
                    batch.push(go);
                }
            }
            Some(claim) => {
                let strayed = claim.node.is_none() && !claim.tried.is_empty() && claim.leaving_since.is_none();
                match candidate(v, run, item)? {
                    Err(refusal) if strayed => {
                        let message = refusal.message + &v.restore.trouble(staging)?;
                        return Ok(Some(Go::Fail(Refusal { message, ..refusal })));
                    }
                    Ok((Some(node), tried)) if strayed => batch.push(Restore::Steer(Steer {
                        name: staging.clone(),
                        uid: claim.uid.clone(),
                        version: claim.version.clone(),
                        node,
                        tried,
                    })),
                    _ => waiting.push(staging),
                }
            }
        }
    }
    let by = run.since + v.want.restore.stage_timeout;
    let unwritten =
        if batch.iter().any(|step| matches!(step, Restore::Stage(_))) { None } else { own::record(v, run, now)? };
    match waiting.first() {
        _ if unwritten.is_some() => Ok(unwritten),
        _ if !batch.is_empty() => Ok(steps(batch)),
        None => Ok(None),
        Some(name) if now >= by => Ok(Some(Go::Fail(late(v, name)?))),
        Some(_) => Ok(Some(Go::Wait(vec![Feed::Claims], by))),
    }
}

fn late(v: &View, staging: &str) -> Result<Refusal, Read> {
    let (seconds, trouble) = (v.want.restore.stage_timeout.as_secs(), v.restore.trouble(staging)?);
    let message =
        format!("staging claim {staging} was not Bound within spec.stageTimeoutSeconds ({seconds} s){trouble}");
    Ok(Refusal::new(Reason::StageTimeout, message))
}

/// A claim of ours on a volume that was not made for it.
pub fn unproven(name: &str, claim: &Claim) -> Refusal {
    let volume = claim.asked.as_deref().unwrap_or_default();
    let message = format!(
        "PersistentVolumeClaim {name} is on PersistentVolume {volume}, which its provisioner has not made for it: \
         somebody has put it there"
    );
    Refusal::new(Reason::Foreign, message)
}

/// A claim as the plan wants it: at least as large as what is restored into it; and what is only on record of its size
/// asks for no more than there is known to be.
pub fn new_claim(v: &View, item: &Item, snapshot: Option<&String>) -> Result<NewClaim, Read> {
    let mut manifest = item.manifest.clone();
    let source = match snapshot {
        Some(name) => v.restore.sources()?.get(name),
        None => None,
    };
    let least = source.and_then(|source| source.restore_size.as_ref());
    if let Some(size) = least.filter(|size| quantity::exceeds(size, &manifest.storage)) {
        manifest.storage.clone_from(size);
    } else if let Some(most) = most(v, item, least)? {
        manifest.storage = most;
    }
    Ok(NewClaim { name: item.pvc.clone(), manifest, snapshot: snapshot.cloned(), ..NewClaim::default() })
}

/// The largest size that somebody else than the record knows of, where the record asks for more: of the claim and the
/// volume that are there, of the claim template, of the snapshot.
fn most(v: &View, item: &Item, snapshot: Option<&String>) -> Result<Option<String>, Read> {
    let claim = v.claims()?.get(&item.pvc);
    let mut known: Vec<&String> = snapshot.into_iter().collect();
    known.extend(claim.into_iter().flat_map(|claim| claim.capacity.iter().chain([&claim.manifest.storage])));
    if let Some(old) = &item.old {
        known.extend(v.volume(&old.pv)?.map(|volume| &volume.capacity));
    }
    let template = v.target()?.and_then(|target| target.request(item.pvc.as_str(), &v.want.statefulset));
    known.extend(&template);
    let asked = &item.manifest.storage;
    let known: Vec<&String> =
        known.into_iter().filter(|size| quantity::bytes(size).is_some_and(|size| size > 0)).collect();
    let within = known.is_empty() || known.iter().any(|size| !quantity::exceeds(asked, size));
    let largest = known.into_iter().max_by_key(|size| quantity::bytes(size));
    Ok(largest.filter(|_| !within).cloned())
}

/// A node (none where the class provisions at once) and all that were tried; or none is left.
pub type Candidate = Result<(Option<String>, Vec<String>), Refusal>;

/// For which node the replica's volumes are made, and which were tried, that one among them. No node where the class
/// provisions at once.
pub fn candidate(v: &View, run: &Run, item: &Item) -> Result<Candidate, Read> {
    let class = v.restore.storage_class(item.manifest.storage_class_name.as_deref())?;
    let Some(class) = class.filter(|class| class.waits) else { return Ok(Ok((None, vec![]))) };
    let siblings = run.deed.plan.items.iter().filter(|other| other.ordinal() == item.ordinal());
    let (mut claims, all): (Vec<&Claim>, _) = (vec![], v.claims()?);
    for other in siblings {
        if let Some(claim) = all.get(other.staging.as_ref().unwrap_or(&other.pvc))
            && own::is_made(v, run, other, claim)?
        {
            claims.push(claim);
        }
    }
    let strayed = |claim: &&Claim| claim.node.is_none() && claim.volume.is_none() && !claim.tried.is_empty();
    let failed: BTreeSet<&String> = claims.iter().copied().filter(strayed).flat_map(|claim| &claim.tried).collect();
    let current = claims.iter().filter_map(|claim| claim.node.as_ref()).find(|node| !failed.contains(node));
    let next = match current {
        Some(node) => Some(node.clone()),
        None => nodes(v, item, &class.provisioner)?.into_iter().find(|node| !failed.contains(node)),
    };
    Ok(match next {
        Some(node) => {
            let tried = failed.into_iter().cloned().chain([node.clone()]).collect::<BTreeSet<_>>();
            Ok((Some(node), tried.into_iter().collect()))
        }
        None => Err(Refusal::new(
            Reason::StagingTopology,
            format!(
                "no node is left that can serve the volumes of replica {}: tried {}; free one, or use spec.strategy: InPlace",
                item.ordinal(),
                failed.into_iter().cloned().collect::<Vec<_>>().join(", ")
            ),
        )),
    })
}

/// The pod's node, then Ready nodes that the old volume reaches, then those that the template allows.
fn nodes(v: &View, item: &Item, driver: &str) -> Result<Vec<String>, Read> {
    let pod = format!("{}-{}", v.want.statefulset, item.ordinal());
    let here = v.roster()?.get(&pod).and_then(|pod| pod.node.clone());
    let selector = v.target()?.map(|target| target.node_selector.clone()).unwrap_or_default();
    let old = match &item.old {
        Some(old) => v.volume(&old.pv)?.map(|volume| volume.affinity.as_slice()).unwrap_or_default(),
        None => &[],
    };
    let fit = |node: &&Node| node.is_open_to(&selector) && node.drivers.iter().any(|name| name == driver);
    let (near, far): (Vec<_>, Vec<_>) = v.restore.nodes()?.iter().filter(fit).partition(|node| node.serves(old));
    let (mut first, rest): (Vec<_>, Vec<_>) =
        near.into_iter().chain(far).map(|node| node.name.clone()).partition(|name| here.as_ref() == Some(name));
    first.extend(rest);
    Ok(first)
}

/// A volume that was made for a node which its siblings could not follow to: it goes, and is made anew.
fn misplaced(v: &View, run: &Run, item: &Item, claim: &Claim) -> Result<Option<Restore>, Read> {
    let Some(pv) = &claim.volume else { return Ok(None) };
    if claim.node.is_none() {
        return Ok(None);
    }
    let Ok((Some(node), _)) = candidate(v, run, item)? else { return Ok(None) };
    let there = v.restore.nodes()?.iter().find(|there| there.name == node);
    let Some(volume) = v.volume(pv)? else { return Ok(None) };
    if there.is_none_or(|there| there.serves(&volume.affinity)) {
        return Ok(None);
    }
    discard(v, run, item, item.staging.as_deref().unwrap_or_default(), claim)
}

/// A claim that was never served, with its volume: first the volume is set to Delete, then the claim goes. Nothing where
/// it is not sure that both are of our making: then both are left as they are.
pub fn discard(v: &View, run: &Run, item: &Item, name: &str, claim: &Claim) -> Result<Option<Restore>, Read> {
    if claim.leaving_since.is_some() || !own::is_disposable(v, run, item, claim)? {
        return Ok(None);
    }
    if let Some((pv, volume)) = super::volume::behind(v, name, claim)?
        && (volume.policy != DELETE || volume.marks != Marks::default())
    {
        return Ok(Some(Restore::Discard(super::volume::tend(pv, volume, DELETE, Marks::default()))));
    }
    let why = "staged and not used";
    Ok(Some(Restore::DropClaim(Doomed { name: name.to_owned(), uid: claim.uid.clone(), why })))
}

/// Large enough, and for each replica there is a node that reaches all its new volumes. That a volume is Bound says
/// nothing of its content.
pub fn prove(v: &View, run: &Run, _: Timestamp) -> Holds {
    let selector = v.target()?.map(|target| target.node_selector.clone()).unwrap_or_default();
    let mut replicas: BTreeMap<&str, Vec<&Volume>> = BTreeMap::new();
    for (item, _, volume) in volumes(v, run)? {
        let asked = new_claim(v, item, item.snapshot.as_ref())?.manifest.storage;
        if quantity::exceeds(&asked, &volume.capacity) {
            let message = format!(
                "the volume made for claim {} has {}, less than the {asked} that the claim asks for",
                item.pvc, volume.capacity
            );
            return Ok(Some(Go::Fail(Refusal::new(Reason::PreflightRefused, message))));
        }
        replicas.entry(item.ordinal()).or_default().push(volume);
    }
    for (ordinal, volumes) in replicas {
        let serves =
            |node: &&Node| node.is_open_to(&selector) && volumes.iter().all(|volume| node.serves(&volume.affinity));
        if volumes.iter().any(|volume| !volume.affinity.is_empty())
            && !v.restore.nodes()?.iter().any(|node| serves(&node))
        {
            let message = format!("no Ready schedulable node reaches all new volumes of replica {ordinal}");
            return Ok(Some(Go::Fail(Refusal::new(Reason::StagingTopology, message))));
        }
    }
    Ok(None)
}

fn volumes<'a>(v: &'a View, run: &'a Run) -> Result<Vec<(&'a Item, &'a Claim, &'a Volume)>, Read> {
    let (mut all, claims) = (vec![], v.claims()?);
    for item in &run.deed.plan.items {
        let Some(staging) = &item.staging else { continue };
        let Some(claim) = claims.get(staging) else { continue };
        if let Some((_, volume)) = super::volume::behind(v, staging, claim)? {
            all.push((item, claim, volume));
        }
    }
    Ok(all)
}

/// The new volumes as they are written into the journal.
pub fn staged(v: &View, run: &Run) -> Result<BTreeMap<String, Placed>, Read> {
    let mut all = BTreeMap::new();
    for (item, claim, volume) in volumes(v, run)? {
        all.insert(item.pvc.clone(), placed(claim, volume));
    }
    Ok(all)
}

pub fn placed(claim: &Claim, volume: &Volume) -> Placed {
    Placed {
        claim: claim.uid.clone(),
        pv: claim.volume.clone().unwrap_or_default(),
        pv_uid: volume.uid.clone(),
        handle: volume.handle.clone(),
        policy: volume.policy.clone(),
    }
}
