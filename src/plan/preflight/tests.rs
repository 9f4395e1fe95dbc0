//! A cluster in which nothing speaks against the restore, and one thing after another that does.

mod agree;
mod choice;
mod class;
mod preview;
mod record;
mod template;

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Finding, Severity, preflight, verdict};
use crate::api::condition::Reason;
use crate::api::recorded::RecordedClaim;
use crate::api::restore::{Strategy, Uncovered};
use crate::plan::choose::{Chosen, choose};
use crate::plan::flow::{Exit, Next};
use crate::plan::guard::Guard;
use crate::plan::known::{Content, Maker, Snapshot};
use crate::plan::name::ClaimKey;
use crate::plan::noun::{Claim, ClaimRef, Lease, Pod, Refusal, RestoreWant, Target, Volume, Want};
use crate::plan::restore::begin::plan;
use crate::plan::restore::preview as dry;
use crate::plan::restore::sight::{Fence, Look, Peer, Quota, Sight, StorageClass};
use crate::plan::topology::Node;
use crate::plan::view::{Fact, Read, Seen, View};

/// Everything that a preflight can read; a test changes one part of it.
#[derive(Clone)]
struct Cluster {
    want: RestoreWant,
    target: Target,
    /// There is no StatefulSet.
    absent: bool,
    claims: BTreeMap<String, Claim>,
    volumes: BTreeMap<String, Volume>,
    pods: BTreeMap<String, Pod>,
    sources: BTreeMap<String, Snapshot>,
    recorded: RecordedClaim,
    content: Content,
    class: StorageClass,
    /// Beside that one.
    others: Vec<StorageClass>,
    nodes: Vec<Node>,
    quotas: Vec<Quota>,
    rights: Vec<String>,
    trial: Option<Refusal>,
    peers: Vec<Peer>,
    scalers: Vec<String>,
    lease: Lease,
    fence: Fence,
    guard: Guard,
}

fn pod() -> Pod {
    let (owner, node) = (Some("sts".to_owned()), Some("n1".to_owned()));
    Pod { owner, node, claims: vec!["data-web-0".into()], running: true, ..Pod::default() }
}

fn cluster() -> Cluster {
    let manifest =
        RecordedClaim { storage: "1Gi".into(), storage_class_name: Some("fast".into()), ..RecordedClaim::default() };
    let pvc = "data-web-0".to_owned();
    let claim = Claim {
        uid: "claim".into(),
        volume: Some("pv".into()),
        asked: Some("pv".into()),
        manifest: manifest.clone(),
        ..Claim::default()
    };
    let of = ClaimRef { namespace: "shop".into(), name: pvc.clone(), uid: Some("claim".into()) };
    let volume = Volume { uid: "pv".into(), policy: "Delete".into(), claim: Some(of), ..Volume::default() };
    let source = Snapshot {
        uid: "snap".into(),
        statefulset: Some("web".into()),
        maker: Maker { namespace: "shop".into(), name: "nightly".into(), uid: "policy".into() },
        run: "20260101-000000".parse().ok(),
        claim: Some(ClaimKey { ordinal: 0, template: "data".into() }),
        epoch: Some(1),
        size: Some(1),
        sealed: Some(Timestamp::UNIX_EPOCH),
        ready: true,
        pvc: Some(pvc.clone()),
        content: Some("content".into()),
        ..Snapshot::default()
    };
    Cluster {
        want: RestoreWant {
            source: "web".into(),
            backup: Some("nightly".into()),
            scale_down: true,
            ..RestoreWant::default()
        },
        target: Target { uid: "sts".into(), replicas: 1, templates: vec!["data".into()], ..Target::default() },
        absent: false,
        claims: [(pvc, claim)].into(),
        volumes: [("pv".into(), volume)].into(),
        pods: [("web-0".into(), pod())].into(),
        sources: [("snap".into(), source)].into(),
        recorded: manifest,
        content: Content {
            driver: "csi".into(),
            snapshot: Some("snap".into()),
            handle: Some("handle".into()),
            ..Content::default()
        },
        class: StorageClass { name: "fast".into(), provisioner: "csi".into(), ..StorageClass::default() },
        others: vec![],
        nodes: vec![Node { name: "n1".into(), ready: true, schedulable: true, ..Node::default() }],
        quotas: vec![],
        rights: vec![],
        trial: None,
        peers: vec![],
        scalers: vec![],
        lease: Lease::default(),
        fence: Fence::Rising,
        guard: Guard::whole(),
    }
}

impl Cluster {
    fn claim(&mut self) -> &mut Claim {
        self.claims.get_mut("data-web-0").unwrap()
    }
    fn volume(&mut self) -> &mut Volume {
        self.volumes.get_mut("pv").unwrap()
    }
    fn source(&mut self) -> &mut Snapshot {
        self.sources.get_mut("snap").unwrap()
    }
    fn pod(&mut self) -> &mut Pod {
        self.pods.get_mut("web-0").unwrap()
    }

    fn answer(&self, read: &Read) -> Fact {
        let sight = |sight| Fact::Restore(Box::new(sight));
        match read {
            Read::Lease => Fact::Lease(Seen::Known(Some(self.lease.clone()))),
            Read::Target => Fact::Target((!self.absent).then(|| self.target.clone())),
            Read::Claims => Fact::Claims(self.claims.clone()),
            Read::Guard(policy) => Fact::Guard(policy, self.guard.clone()),
            Read::Volume(name) => Fact::Volume(name.clone(), self.volumes.get(name).cloned()),
            Read::Restore(look) => match look {
                Look::Pods => Fact::Pods(self.pods.clone()),
                Look::Sources => sight(Sight::Sources(self.sources.clone())),
                Look::Recorded(name) => sight(Sight::Recorded(name.clone(), Some(self.recorded.clone()))),
                Look::Content(name) => {
                    sight(Sight::Content(name.clone(), (name == "content").then(|| self.content.clone())))
                }
                Look::StorageClasses => sight(Sight::StorageClasses(self.classes())),
                Look::Nodes => sight(Sight::Nodes(self.nodes.clone())),
                Look::Quotas => sight(Sight::Quotas(self.quotas.clone())),
                Look::Rights => sight(Sight::Rights(self.rights.clone())),
                Look::Trial(claim) => sight(Sight::Trial(claim.name.clone(), self.trial.clone())),
                Look::Peers => sight(Sight::Peers(self.peers.clone())),
                Look::Scalers => sight(Sight::Scalers(self.scalers.clone())),
                Look::Handles(_) => sight(Sight::Handles(BTreeMap::new())),
                Look::Fence => sight(Sight::Fence(self.fence, Timestamp::UNIX_EPOCH)),
                other => panic!("a preflight does not ask for {other:?}"),
            },
            other => panic!("a preflight does not ask for {other:?}"),
        }
    }

    fn view(&self) -> View {
        View::new(Want {
            namespace: "shop".into(),
            name: "back".into(),
            uid: "restore".into(),
            statefulset: "web".into(),
            statefulset_namespace: "shop".into(),
            guarded: true,
            restore: self.want.clone(),
            ..Want::default()
        })
    }

    /// Reads what is asked for until the preview has all that it needs.
    fn preview(&self) -> dry::Preview {
        let mut view = self.view();
        loop {
            match dry::next(&view, Timestamp::UNIX_EPOCH) {
                Ok(Next::End(Exit::Done(_))) => return dry::preview(&view).unwrap(),
                Ok(other) => panic!("a preview changes nothing: {other:?}"),
                Err(read) => view.fold(self.answer(&read)),
            }
        }
    }

    /// Which run it is, by what is read for that.
    fn chosen(&self) -> Result<Chosen, Refusal> {
        let mut view = self.view();
        loop {
            match choose(&view) {
                Ok(chosen) => return chosen,
                Err(read) => view.fold(self.answer(&read)),
            }
        }
    }

    /// Reads what is asked for until there is an answer.
    fn findings(&self) -> Result<Vec<Finding>, Refusal> {
        let mut view = self.view();
        loop {
            let judged = choose(&view).and_then(|chosen| match chosen {
                Ok(chosen) => preflight(&view, &chosen, &plan(&view, &chosen)?).map(Ok),
                Err(refusal) => Ok(Err(refusal)),
            });
            match judged {
                Ok(judged) => return judged,
                Err(read) => view.fold(self.answer(&read)),
            }
        }
    }
}

fn said(findings: &[Finding], severity: Severity) -> Vec<String> {
    let of = findings.iter().filter(|finding| finding.severity == severity);
    of.map(|finding| format!("{}: {}", finding.object, finding.message)).collect()
}

#[test]
fn nothing_speaks_against_a_sound_restore() {
    assert_eq!(cluster().findings().unwrap(), vec![]);
}

/// What is done to the sound cluster, and what the finding must say.
type Case = (&'static str, fn(&mut Cluster));

const REFUSED: &[Case] = &[
    ("VolumeSnapshotContent is gone", |c| c.source().content = Some("other".into())),
    ("no snapshotHandle", |c| c.content.handle = None),
    ("does not point back", |c| c.content.snapshot = Some("other".into())),
    ("VolumeSnapshotContent is being deleted", |c| c.content.leaving = true),
    ("is in error: boom", |c| {
        (c.source().ready, c.source().error) = (false, Some("boom".into()));
        c.want.snapshot_names = vec!["snap".into()];
    }),
    ("not claim data-web-0", |c| c.source().pvc = Some("data-other-0".into())),
    ("no claim (an imported content)", |c| c.source().pvc = None),
    ("of driver other", |c| c.content.driver = "other".into()),
    ("StorageClass fast is gone", |c| c.class = StorageClass::default()),
    ("is of volumeMode Filesystem, the snapshot of Block", |c| c.content.mode = Some("Block".into())),
    ("depends on the claim's name", |c| drop(c.class.parameters.insert("path".into(), "/${pvc.name}".into()))),
    ("depends on the claim's name", |c| {
        drop(c.class.parameters.insert("zone".into(), "${pvc.annotations['z']}".into()));
    }),
    ("data-web-0: is being deleted", |c| c.claim().leaving = true),
    ("is not Bound", |c| c.claim().volume = None),
    ("is Lost", |c| c.claim().lost = true),
    ("is being resized", |c| c.claim().resizing = true),
    ("finalizers of others: x/y", |c| c.claim().finalizers = vec!["x/y".into()]),
    ("PersistentVolume pv: is being deleted", |c| c.volume().leaving = true),
    ("PersistentVolume pv: has finalizers of others", |c| c.volume().finalizers = vec!["x/y".into()]),
    ("gone or bound to another claim", |c| c.volume().claim = None),
    ("VolumeSnapshot fresh of it is not ready", |c| {
        let source = Snapshot { pvc: Some("data-web-0".into()), ..Snapshot::default() };
        c.sources.insert("fresh".into(), source);
    }),
    ("VolumeSnapshot stuck of it is not ready and is being deleted", |c| {
        let source =
            Snapshot { pvc: Some("data-web-0".into()), leaving: Some(Timestamp::UNIX_EPOCH), ..Snapshot::default() };
        c.sources.insert("stuck".into(), source);
    }),
    ("which is not of the StatefulSet", |c| c.pod().owner = Some("other".into())),
    ("spec.scaleDown is false", |c| c.want.scale_down = false),
    ("which is not Ready", |c| c.nodes[0].ready = false),
    ("replica 1 runs now and is not in the run", |c| c.target.replicas = 2),
    ("requests.storage: 1073741824 more are needed, 1024 of 2048 are left", |c| {
        let left = [("requests.storage".to_owned(), ("2048".to_owned(), "1024".to_owned()))];
        c.quotas = vec![Quota { name: "q".into(), left: left.into() }];
    }),
    ("the webhook says no", |c| c.trial = Some(Refusal::new(Reason::Forbidden, "the webhook says no"))),
    ("restore-author.backup.sts-backup.io: is not installed", |c| c.guard.fails = None),
    ("lacks the right to delete", |c| c.rights = vec!["delete persistentvolumeclaims".into()]),
    ("is open on the same StatefulSet", |c| {
        c.peers = vec![Peer { uid: "other".into(), planned: true, ..Peer::default() }];
    }),
];

#[test]
fn each_reason_to_refuse_is_found() {
    for (wanted, spoil) in REFUSED {
        let mut cluster = cluster();
        spoil(&mut cluster);
        let findings = cluster.findings().unwrap();
        let said = said(&findings, Severity::Refuse);
        assert!(said.iter().any(|said| said.contains(wanted)), "{wanted}: {said:?}");
        assert!(verdict(&findings).is_some_and(|refusal| refusal.message.contains(wanted)));
    }
}

#[test]
fn all_reasons_are_named_at_once() {
    let mut cluster = cluster();
    cluster.claim().resizing = true;
    cluster.content.handle = None;
    cluster.rights = vec!["patch persistentvolumes".into()];
    let refusal = verdict(&cluster.findings().unwrap()).unwrap();
    assert_eq!(refusal.reason, Reason::PreflightRefused);
    for wanted in ["resized", "no snapshotHandle", "patch persistentvolumes"] {
        assert!(refusal.message.contains(wanted), "{}", refusal.message);
    }
}

#[test]
fn one_reason_alone_is_the_reason() {
    let mut cluster = cluster();
    cluster.rights = vec!["patch persistentvolumes".into()];
    assert_eq!(verdict(&cluster.findings().unwrap()).unwrap().reason, Reason::Forbidden);
}

#[test]
fn warnings_do_not_refuse() {
    let cases: &[Case] = &[
        ("needs 2Gi, more than the 1Gi", |c| c.source().restore_size = Some("2Gi".into())),
        ("records 9000Ti for claim data-web-0, more than is known of it", |c| {
            c.claims.clear();
            c.pods.clear();
            c.recorded.storage = "9000Ti".into();
            c.source().restore_size = Some("1Gi".into());
        }),
        ("is ready, and its status has an error all the same: boom", |c| c.source().error = Some("boom".into())),
        ("Pod shop/web-0: has finalizers of others: x/y", |c| c.pod().finalizers = vec!["x/y".into()]),
        ("revision web-1 runs and web-2 is pending", |c| {
            c.target.pending = Some(("web-1".into(), "web-2".into()));
        }),
        ("its own reclaim policy is Retain", |c| c.volume().policy = "Retain".into()),
        ("HorizontalPodAutoscaler web scales it", |c| c.scalers = vec!["HorizontalPodAutoscaler web".into()]),
        ("owns its replica count", |c| c.target.governor = Some("a GitOps tool".into())),
        ("volumeClaimTemplate logs is not in the run", |c| c.target.templates.push("logs".into())),
        ("is not in the run and stays", |c| (c.target.replicas, c.want.uncovered) = (2, Uncovered::Keep)),
    ];
    for (wanted, spoil) in cases {
        let mut cluster = cluster();
        spoil(&mut cluster);
        let findings = cluster.findings().unwrap();
        assert!(said(&findings, Severity::Warn).iter().any(|said| said.contains(wanted)), "{wanted}: {findings:?}");
        assert_eq!(verdict(&findings), None, "{wanted}");
    }
}

#[test]
fn in_place_is_the_remedy_for_names_and_quota() {
    let mut cluster = cluster();
    cluster.class.parameters.insert("path".into(), "/${pvc.name}".into());
    cluster.quotas =
        vec![Quota { name: "q".into(), left: [("persistentvolumeclaims".into(), ("1".into(), "1".into()))].into() }];
    assert!(verdict(&cluster.findings().unwrap()).is_some());
    cluster.want.strategy = Strategy::InPlace;
    assert_eq!(verdict(&cluster.findings().unwrap()), None);
}

#[test]
fn only_a_whole_run_is_chosen() {
    let spoil: &[Case] = &[
        ("1 of 2 snapshots are there", |c| c.source().size = Some(2)),
        ("lacks backup.sts-backup.io/transitions", |c| c.source().epoch = None),
        ("no cut", |c| c.source().sealed = None),
        ("is not ready", |c| c.source().ready = false),
        ("is being deleted", |c| c.source().leaving = Some(Timestamp::UNIX_EPOCH)),
        ("there is no run", |c| c.source().maker.name = "other".into()),
        ("there is no run 20250101-000000", |c| c.want.run_id = Some("20250101-000000".into())),
        ("was cut at or before", |c| c.want.point_in_time = Some(Timestamp::MIN)),
        ("there is no VolumeSnapshot shop/x", |c| c.want.snapshot_names = vec!["x".into()]),
    ];
    for (wanted, spoil) in spoil {
        let mut cluster = cluster();
        spoil(&mut cluster);
        let refusal = cluster.findings().unwrap_err();
        assert_eq!(refusal.reason, Reason::RunNotFound, "{wanted}");
        assert!(refusal.message.contains(wanted), "{}", refusal.message);
    }
    let mut newer = cluster();
    newer.source().format = Some("2".into());
    newer.want.run_id = Some("20260101-000000".into());
    assert_eq!(newer.findings().unwrap_err().reason, Reason::FormatUnknown);
}

#[test]
fn snapshots_of_two_runs_are_no_restore() {
    let mut cluster = cluster();
    let other = Snapshot {
        run: "20260102-000000".parse().ok(),
        claim: Some(ClaimKey { ordinal: 1, template: "data".into() }),
        ..cluster.source().clone()
    };
    cluster.sources.insert("other".into(), other);
    cluster.want.snapshot_names = vec!["snap".into(), "other".into()];
    assert!(cluster.findings().unwrap_err().message.contains("more than one run"));
}
