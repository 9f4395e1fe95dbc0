//! A cluster in memory on a virtual clock, as a restore meets it: claims, volumes with what is in them, a StatefulSet
//! with its pods, the fence, the Lease; and the controllers, which do what the real ones do, traps included.

mod blow;
mod deed;
mod excuse;
mod nature;
mod setting;

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sts_backup::api::recorded::RecordedClaim;
use sts_backup::api::restore::{StatefulSetRestoreStatus, Strategy};
use sts_backup::plan::known::{Maker, Snapshot};
use sts_backup::plan::name::ClaimKey;
use sts_backup::plan::noun::{Claim, ClaimRef, DELETE, Holder, Lease, Pod, Retention, Target, Volume};
use sts_backup::plan::restore::Restore;
use sts_backup::plan::restore::invariant::{self, State};
use sts_backup::plan::restore::sight::Peer;
use tokio::time::Instant;

use super::broken::Mutant;
use crate::life;

pub use blow::Blow;
use deed::Other;
pub use excuse::Wrong;
pub use nature::PULL;
pub use setting::{Odd, Setting};

pub const PODS: u32 = 2;
pub const TEMPLATES: [&str; 2] = ["data", "wal"];
pub const UID: &str = "restore";
/// Of the object that is created anew under the same name, and what its processes are called.
pub const NAMESAKE: &str = "namesake";
/// Of its request: namespace and name @ hash.
pub const SIGNATURE: &str = "shop/back@abc";

pub struct Instance {
    pub pod: Pod,
    born: Timestamp,
    gone_at: Option<Timestamp>,
}

pub struct Disk {
    pub volume: Volume,
    /// What is on it.
    pub content: String,
    gone_at: Option<Timestamp>,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct World {
    start: Instant,
    /// When the restore object was made.
    pub born: Timestamp,
    pub setting: Setting,
    pub status: StatefulSetRestoreStatus,
    /// The last status of the object that was replaced, while its run is at work.
    pub ghost: Option<StatefulSetRestoreStatus>,
    pub replaced: bool,
    pub finalizers: Vec<String>,
    pub version: u64,
    pub leaving: bool,
    pub undo: Option<String>,
    pub lease: Lease,
    pub target: Target,
    pub no_target: bool,
    /// The replicas that somebody scales it to, and those that it is meant to have.
    pub rescale: u32,
    /// The snapshot that somebody takes meanwhile.
    pub late: Option<Snapshot>,
    pub meant: u32,
    /// The namespace is being deleted.
    pub ending: bool,
    pub pods: BTreeMap<String, Instance>,
    pub claims: BTreeMap<String, Claim>,
    made: BTreeMap<String, Timestamp>,
    pub disks: BTreeMap<String, Disk>,
    pub sources: BTreeMap<String, Snapshot>,
    pub recorded: BTreeMap<String, RecordedClaim>,
    pub released: bool,
    /// How many snapshots hang on a volume, by its handle.
    pub handles: BTreeMap<String, usize>,
    judged: (u64, u64, usize, usize, usize, usize, u32),
    pub uids: u64,
    pub writes: usize,
    /// Before this write the author policy is taken away.
    pub unguarded_at: Option<usize>,
    pub denied_until: Timestamp,
    /// Requests of this kind are denied, until then.
    pub barred: Option<(&'static str, Timestamp)>,
    talk: bool,
    pub log: Vec<String>,
    pub violations: Vec<String>,
    pub blows: Vec<(usize, Blow)>,
    pub mail: Vec<(Timestamp, Holder, Restore)>,
    /// Who is not done by then never ends.
    pub horizon: Timestamp,
    /// The provisioner is away: it makes no volume, and deletes none.
    pub idle: bool,
    /// All restores of the StatefulSet, ours among them.
    pub peers: Vec<Peer>,
    pub others: BTreeMap<String, Other>,
    /// What is not held against us, and of which claim or volume.
    excused: Vec<(Wrong, String)>,
    /// The claim that somebody has deleted or replaced.
    pub hit: Option<String>,
    pub reads: usize,
    /// This read gets no answer.
    pub fail_read: Option<usize>,
    /// It is acknowledged and never answered.
    pub hangs: bool,
    /// Which of two processes writes next, as long as it lasts: false is the first.
    pub order: VecDeque<bool>,
    pub mutant: Option<Mutant>,
    /// What a mutant takes for done.
    pub believed: Vec<Restore>,
}

pub fn keys() -> Vec<ClaimKey> {
    let of = |ordinal| TEMPLATES.map(|template| ClaimKey { ordinal, template: template.into() });
    (0..PODS).flat_map(of).collect()
}

fn manifest() -> RecordedClaim {
    RecordedClaim { storage: "1Gi".into(), ..RecordedClaim::default() }
}

pub fn second(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

/// The StatefulSet as it runs before.
fn target(setting: Setting) -> Target {
    let retention = if setting.odd == Odd::Scaled {
        Retention { scaled: DELETE.into(), deleted: "Retain".into() }
    } else {
        Retention::default()
    };
    let policy = json!({ "whenScaled": retention.scaled, "whenDeleted": retention.deleted });
    Target {
        uid: "sts".into(),
        replicas: PODS,
        templates: TEMPLATES.map(String::from).into(),
        version: "1".into(),
        observed: true,
        pods: PODS,
        retention,
        manifest: json!({ "metadata": { "uid": "sts" }, "spec": {
            "persistentVolumeClaimRetentionPolicy": policy,
            "volumeClaimTemplates": TEMPLATES.map(|name| json!({ "metadata": { "name": name } })),
        } }),
        ..Target::default()
    }
}

impl World {
    pub fn new(blows: &[(usize, Blow)], setting: Setting) -> World {
        let start = Instant::now();
        let mut world = World {
            start,
            born: life::now(start),
            setting,
            status: StatefulSetRestoreStatus::default(),
            ghost: None,
            replaced: false,
            finalizers: vec![],
            version: 1,
            leaving: false,
            undo: None,
            lease: Lease { version: "1".into(), ..Lease::default() },
            target: target(setting),
            no_target: false,
            rescale: 1,
            late: None,
            meant: PODS,
            ending: false,
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            made: BTreeMap::new(),
            disks: BTreeMap::new(),
            sources: BTreeMap::new(),
            recorded: BTreeMap::new(),
            released: false,
            handles: BTreeMap::new(),
            judged: Default::default(),
            uids: 0,
            writes: 0,
            unguarded_at: None,
            denied_until: Timestamp::MIN,
            barred: None,
            talk: ["SSB_CASE", "SSB_ORDER"].iter().any(|name| std::env::var_os(name).is_some()),
            log: vec![],
            violations: vec![],
            blows: blows.to_vec(),
            mail: vec![],
            horizon: Timestamp::MAX,
            idle: false,
            peers: vec![],
            others: BTreeMap::new(),
            excused: vec![],
            hit: None,
            reads: 0,
            fail_read: None,
            hangs: false,
            order: VecDeque::new(),
            mutant: None,
            believed: vec![],
        };
        world.people();
        world
    }

    /// The application as it runs before the restore, and one complete run of its snapshots.
    fn people(&mut self) {
        let manifest = manifest();
        for key in keys() {
            let pvc = key.pvc("web");
            let claim = Claim { manifest: manifest.clone(), ..self.claim() };
            self.claims.insert(pvc.clone(), claim);
            self.provision(&pvc, format!("old {pvc}"));
            let source = Snapshot {
                uid: format!("uid of snap-{pvc}"),
                version: "1".into(),
                statefulset: Some("web".into()),
                maker: Maker { namespace: "shop".into(), name: "nightly".into(), uid: "policy".into() },
                run: Some("20260101-000000".parse().unwrap()),
                claim: Some(key),
                epoch: Some(1),
                size: Some(keys().len()),
                sealed: Some(Timestamp::UNIX_EPOCH),
                ready: true,
                pvc: Some(pvc.clone()),
                content: Some(format!("content of snap-{pvc}")),
                ..Snapshot::default()
            };
            self.recorded.insert(format!("snap-{pvc}"), manifest.clone());
            self.sources.insert(format!("snap-{pvc}"), source);
        }
        self.neighbours();
        self.settle();
        let early = self.now() - second(3600);
        self.pods.values_mut().for_each(|instance| instance.born = early);
        self.claims.values_mut().for_each(|claim| claim.created = early);
        self.disks.values_mut().for_each(|disk| disk.volume.created = early);
        self.settle();
    }

    pub fn now(&self) -> Timestamp {
        life::now(self.start)
    }

    pub fn uid(&mut self, kind: &str) -> String {
        self.uids += 1;
        format!("{kind}-{}", self.uids)
    }

    pub fn claim(&mut self) -> Claim {
        Claim { uid: self.uid("pvc"), version: self.uid("v"), created: self.now(), ..Claim::default() }
    }

    /// A new volume for a claim, bound to it.
    fn provision(&mut self, pvc: &str, content: String) {
        let (uid, version, name, created) = (self.uid("pvuid"), self.uid("v"), self.uid("pv"), self.now());
        let Some(claim) = self.claims.get_mut(pvc) else { return };
        claim.volume = Some(name.clone());
        claim.asked = Some(name.clone());
        let of = ClaimRef { namespace: "shop".into(), name: pvc.into(), uid: Some(claim.uid.clone()) };
        let volume = Volume {
            driver: Some("csi".into()),
            handle: format!("handle of {uid}"),
            uid,
            version,
            policy: DELETE.into(),
            phase: "Bound".into(),
            claim: Some(of),
            capacity: claim.manifest.storage.clone(),
            provisioner: Some("csi".into()),
            created,
            ..Volume::default()
        };
        self.disks.insert(name, Disk { volume, content, gone_at: None });
    }

    /// What is due takes place, before anything else happens; then the promises are looked at.
    pub fn settle(&mut self) {
        let now = self.now();
        for _ in 0..6 {
            let before = self.fingerprint();
            self.rival();
            self.stateful_set(now);
            self.protection(now);
            self.binder(now);
            self.provisioner(now);
            self.reclaimer(now);
            if before == self.fingerprint() {
                break;
            }
        }
        if let Some(at) = self.mail.iter().position(|(at, ..)| *at <= now) {
            let (_, from, step) = self.mail.remove(at);
            self.note(|| format!("       a straggler lands: {step:?}"));
            self.land(&step);
            let _ = self.apply(&from, &step);
        }
        self.judge();
    }

    /// Changes whenever something that the promises speak of has changed.
    fn fingerprint(&self) -> (u64, u64, usize, usize, usize, usize, u32) {
        let leaving = self.claims.values().filter(|claim| claim.leaving).count();
        (self.uids, self.version, self.claims.len(), self.disks.len(), self.pods.len(), leaving, self.target.replicas)
    }

    pub fn judge(&mut self) {
        let seen = self.fingerprint();
        if std::mem::replace(&mut self.judged, seen) == seen {
            return;
        }
        let volumes = self.disks.iter().map(|(name, disk)| (name.clone(), disk.volume.clone())).collect();
        let state = |uid, status| State {
            uid,
            status,
            claims: &self.claims,
            volumes: &volumes,
            target: Some(&self.target).filter(|_| !self.no_target),
            lease: Some(&self.lease).filter(|_| !self.ending),
            released: self.released,
            ending: self.ending,
            signature: SIGNATURE,
        };
        let mut all = invariant::broken(&state(self.object(), &self.status));
        all.extend(self.ghost.iter().flat_map(|status| invariant::broken(&state(UID, status))));
        for broken in all {
            self.breach(broken);
        }
        self.look_at_others(false);
    }

    /// A writer of replicas that the fence must keep out.
    fn rival(&mut self) {
        if self.setting.odd == Odd::Rival && self.target.replicas == 0 && self.lease.fence.is_none() {
            self.target.replicas = PODS;
            self.touch_target();
        }
    }

    /// For who looks at one case.
    pub fn note(&mut self, line: impl Fn() -> String) {
        if self.talk {
            self.log.push(line());
        }
    }

    pub fn touch_target(&mut self) {
        self.target.version = self.uid("v");
    }

    /// The same without what is somebody else's.
    pub fn own_contents(&self) -> BTreeMap<String, String> {
        self.contents().into_iter().filter(|(_, content)| content != "theirs").collect()
    }

    /// Volumes that are not somebody else's.
    pub fn own_disks(&self) -> impl Iterator<Item = &Disk> {
        self.disks.values().filter(|disk| disk.content != "theirs")
    }

    /// What is under each claim, by its name.
    pub fn contents(&self) -> BTreeMap<String, String> {
        let under = |claim: &Claim| Some(self.disks.get(claim.volume.as_ref()?)?.content.clone());
        self.claims.iter().map(|(name, claim)| (name.clone(), under(claim).unwrap_or_default())).collect()
    }
}
