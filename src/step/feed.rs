//! Watches that deliver facts while the planner waits. Each is opened when first waited on and kept until a cut has told
//! of itself, or until a pause in which nothing is waited on: so nothing that happens between two waits is missed. A watch that fails is opened again; the planner's deadline bounds it. One
//! that is accepted and says nothing cannot be told from one with nothing to say: so now and then, but never in a freeze,
//! we look for ourselves.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use jiff::Timestamp;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::cluster::Cluster;
use super::observe::{self, selector, snap};
use super::trim::Keep;
use crate::api::lean::{self, PersistentVolume, PersistentVolumeClaim, StatefulSet, VolumeAttachment};
use crate::api::restore::StatefulSetRestore;
use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::plan::flow::{Feed, Verb};
use crate::plan::name;
use crate::plan::noun::{Claim, Pod, Snaps};
use crate::plan::restore::sight::Look;
use crate::plan::view::{Fact, Read, Seen};

/// What watching needs of a role.
pub const VERBS: &[Verb] = &[
    ("coordination.k8s.io", "leases", "watch"),
    ("coordination.k8s.io", "leases", "list"),
    ("", "pods", "list"),
    ("", "pods", "watch"),
    ("", "persistentvolumeclaims", "watch"),
    ("", "persistentvolumes", "list"),
    ("", "persistentvolumes", "watch"),
    ("apps", "statefulsets", "list"),
    ("apps", "statefulsets", "watch"),
    ("backup.sts-backup.io", "statefulsetrestores", "list"),
    ("backup.sts-backup.io", "statefulsetrestores", "watch"),
    ("storage.k8s.io", "volumeattachments", "list"),
    ("storage.k8s.io", "volumeattachments", "watch"),
    ("snapshot.storage.k8s.io", "volumesnapshots", "watch"),
    ("snapshot.storage.k8s.io", "volumesnapshotcontents", "list"),
    ("snapshot.storage.k8s.io", "volumesnapshotcontents", "watch"),
];

/// How long a watch is believed to be one although nothing comes of it.
const IDLE: Duration = Duration::from_mins(1);
/// Objects of a page, each of which may have 1.5 MiB.
const PAGE: u32 = 5;

type Facts = Pin<Box<dyn Stream<Item = Vec<Fact>>>>;

/// Between two looks at what is waited for: while pods may stand still, and while snapshots become ready.
const LOOK: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_mins(1);

#[derive(Default)]
pub(super) struct Feeds {
    open: Mutex<BTreeMap<Feed, Facts>>,
    looked: Cell<Option<Instant>>,
}

impl Feeds {
    /// What any of these has to tell, once one of them has. Watches that are silent for long are opened anew: the API
    /// server may have forgotten them. Not while pods are frozen or snapshots are cut.
    pub async fn next(&self, c: &Cluster, on: &[Feed]) -> Vec<Fact> {
        let calm = !on.iter().any(|feed| matches!(feed, Feed::Snaps | Feed::Cut(_) | Feed::Hook(..)));
        loop {
            tokio::select! {
                facts = self.speak(c, on) => return facts,
                () = tokio::time::sleep(IDLE), if calm => {}
            }
            self.open.lock().await.retain(|feed, _| !on.contains(feed));
        }
    }

    async fn speak(&self, c: &Cluster, on: &[Feed]) -> Vec<Fact> {
        let mut open = self.open.lock().await;
        open.retain(|feed, _| match feed {
            Feed::Hook(..) => true,
            // Whoever is not asked for a cut any more has told of it: its connection is another's.
            Feed::Cut(_) => on.contains(feed),
            // In a pause nobody listens. What a watch has told by then would come late, one at a time, and older than what
            // is read after the pause: so it is opened anew, with a list.
            _ => !on.is_empty(),
        });
        for feed in on {
            open.entry(feed.clone()).or_insert_with(|| start(c, feed));
        }
        let speak = poll_fn(|context| {
            let mut facts = vec![];
            for (_, stream) in open.iter_mut().filter(|(feed, _)| on.contains(feed)) {
                while let Poll::Ready(Some(more)) = stream.as_mut().poll_next(context) {
                    facts.extend(more);
                }
            }
            if facts.is_empty() { Poll::Pending } else { Poll::Ready(facts) }
        });
        let silence =
            async { if on.contains(&Feed::Lease) { c.lock.silence().await } else { std::future::pending().await } };
        tokio::select! {
            biased;
            facts = speak => facts,
            () = silence => vec![Fact::Lease(Seen::Unknown)],
            facts = self.look(c, on) => facts,
        }
    }

    /// What there is of these, now and then: what was known before is not forgotten for it.
    async fn look(&self, c: &Cluster, on: &[Feed]) -> Vec<Fact> {
        let reads: Option<Vec<Read>> = on.iter().map(read).collect();
        let Some(reads) = reads.filter(|reads| !reads.is_empty()) else { return std::future::pending().await };
        let pause = if reads == [Read::Snaps] { GLANCE } else { LOOK };
        loop {
            let last = self.looked.get().unwrap_or_else(Instant::now);
            self.looked.set(Some(last));
            sleep_until(last + pause).await;
            self.looked.set(Some(Instant::now()));
            let mut facts = vec![];
            for read in &reads {
                facts.extend(observe::read(c, read).await.unwrap_or_default());
            }
            if !facts.is_empty() {
                return facts;
            }
        }
    }
}

/// What a feed tells, as a read. None: of a freeze, in which nothing is read.
fn read(feed: &Feed) -> Option<Read> {
    Some(match feed {
        Feed::Claims => Read::Claims,
        Feed::Pods => Read::Restore(Look::Pods),
        Feed::Target => Read::Target,
        Feed::Volume(name) => Read::Volume(name.clone()),
        Feed::Attached => Read::Restore(Look::Attached),
        Feed::Snaps => Read::Snaps,
        Feed::Object => Read::Restore(Look::Record),
        Feed::Lease | Feed::Hook(..) | Feed::Cut(_) => return None,
    })
}

/// A watch begins with a list, which is held a page at a time.
fn paged() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

fn start(c: &Cluster, feed: &Feed) -> Facts {
    match feed {
        Feed::Lease => {
            let config = watcher::Config::default().fields(&format!("metadata.name={}", c.lock.name()));
            let changes = watcher(c.lock.api().clone(), config).default_backoff();
            // That it changed is all we take from it: the planner reads it, and by our own clock.
            changes.filter_map(|event| async { event.ok() }).map(|_| vec![Fact::Lease(Seen::Unknown)]).boxed_local()
        }
        Feed::Hook(run, ordinal) => {
            let ends = c.hooks.end(*run, *ordinal);
            ends.chain(stream::pending()).boxed_local()
        }
        Feed::Pods => {
            let api: Api<lean::Pod> = Api::namespaced(c.client.clone(), &c.want.statefulset_namespace);
            let events = watcher(api, paged()).default_backoff();
            let keep = Keep::of(c);
            let facts = events.scan(BTreeMap::new(), move |list, event| {
                let facts = event.map(|event| fold_pod(list, event, &keep)).unwrap_or_default();
                std::future::ready(Some(facts))
            });
            facts.filter(|facts| std::future::ready(!facts.is_empty())).boxed_local()
        }
        Feed::Snaps => {
            let api: Api<VolumeSnapshot> = Api::namespaced(c.client.clone(), &c.want.statefulset_namespace);
            let events = watcher(api, paged().labels(&selector(c))).default_backoff();
            let clock = c.clock;
            let facts = events.scan(Snaps::new(), move |list, event| {
                let facts = event.map(|event| fold(list, event, clock.now())).unwrap_or_default();
                std::future::ready(Some(facts))
            });
            facts.filter(|facts| std::future::ready(!facts.is_empty())).boxed_local()
        }
        Feed::Claims | Feed::Volume(_) | Feed::Target | Feed::Object | Feed::Attached => storage(c, feed),
        Feed::Cut(uid) => {
            let api: Api<VolumeSnapshotContent> = Api::all(c.client.clone());
            let config = watcher::Config::default().fields(&format!("metadata.name={}", name::content(uid)));
            let objects = watcher(api, config).default_backoff().touched_objects();
            let uid = uid.clone();
            let cuts = objects.filter_map(move |object| {
                let at = object.ok().and_then(|object| cut(&object, &uid));
                std::future::ready(at.map(|at| vec![Fact::Cut(uid.clone(), at)]))
            });
            cuts.take(1).chain(stream::pending()).boxed_local()
        }
    }
}

/// What a restore waits for. Of most it takes only that it has changed: the planner reads it again.
fn storage(c: &Cluster, feed: &Feed) -> Facts {
    let namespace = &c.want.statefulset_namespace;
    let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    match feed {
        Feed::Volume(name) => {
            let name = name.clone();
            let events = watcher(Api::<PersistentVolume>::all(c.client.clone()), named(&name)).default_backoff();
            events.map(move |_| vec![Fact::Stale(Read::Volume(name.clone()))]).boxed_local()
        }
        Feed::Target => {
            let api: Api<StatefulSet> = Api::namespaced(c.client.clone(), namespace);
            let events = watcher(api, named(&c.want.statefulset)).default_backoff();
            events.map(|_| vec![Fact::Stale(Read::Target)]).boxed_local()
        }
        Feed::Object => {
            let api: Api<PartialObjectMeta<StatefulSetRestore>> = Api::namespaced(c.client.clone(), &c.want.namespace);
            let events = watcher(api, named(&c.want.name)).default_backoff();
            events.map(|_| vec![Fact::Stale(Read::Restore(Look::Record))]).boxed_local()
        }
        Feed::Attached => {
            let api: Api<VolumeAttachment> = Api::all(c.client.clone());
            let events = watcher(api, paged()).default_backoff();
            events.map(|_| vec![Fact::Stale(Read::Restore(Look::Attached))]).boxed_local()
        }
        _ => {
            let api: Api<PersistentVolumeClaim> = Api::namespaced(c.client.clone(), namespace);
            let events = watcher(api, paged()).default_backoff();
            let keep = Keep::of(c);
            let facts = events.scan(BTreeMap::new(), move |list, event| {
                let facts = event.map(|event| fold_claim(list, event, &keep)).unwrap_or_default();
                std::future::ready(Some(facts))
            });
            facts.filter(|facts| std::future::ready(!facts.is_empty())).boxed_local()
        }
    }
}

/// A watch begins with all that is there; from then on each change is an entry of its own.
fn fold(list: &mut Snaps, event: Event<VolumeSnapshot>, now: Timestamp) -> Vec<Fact> {
    match event {
        Event::Init => list.clear(),
        Event::InitApply(object) => {
            if let Some(snap) = snap(&object, now) {
                list.insert(object.name_any(), snap);
            }
        }
        Event::InitDone => return vec![Fact::Snaps(Seen::Known(std::mem::take(list)))],
        Event::Apply(object) => {
            if let Some(snap) = snap(&object, now) {
                return vec![Fact::Snap(object.name_any(), Some(snap))];
            }
        }
        Event::Delete(object) => return vec![Fact::Snap(object.name_any(), None)],
    }
    vec![]
}

fn fold_claim(list: &mut BTreeMap<String, Claim>, event: Event<PersistentVolumeClaim>, keep: &Keep) -> Vec<Fact> {
    match event {
        Event::Init => list.clear(),
        Event::InitApply(object) => drop(list.insert(object.name_any(), keep.claim(&object))),
        Event::InitDone => return vec![Fact::Claims(std::mem::take(list))],
        Event::Apply(object) => return vec![Fact::Claim(object.name_any(), Some(keep.claim(&object)))],
        Event::Delete(object) => return vec![Fact::ClaimEnd(object.name_any(), object.uid().unwrap_or_default())],
    }
    vec![]
}

fn fold_pod(list: &mut BTreeMap<String, Pod>, event: Event<lean::Pod>, keep: &Keep) -> Vec<Fact> {
    match event {
        Event::Init => list.clear(),
        Event::InitApply(object) => {
            if let Some(pod) = keep.pod(&object) {
                list.insert(object.name_any(), pod);
            }
        }
        Event::InitDone => return vec![Fact::Pods(std::mem::take(list))],
        Event::Apply(object) => {
            if let Some(pod) = keep.pod(&object) {
                return vec![Fact::Pod(object.name_any(), Some(pod))];
            }
        }
        Event::Delete(object) => return vec![Fact::Pod(object.name_any(), None)],
    }
    vec![]
}

/// When the storage cut it: told by a content that points back at our snapshot and has the storage's handle.
fn cut(content: &VolumeSnapshotContent, uid: &str) -> Option<Timestamp> {
    let status = content.status.as_ref()?;
    let ours = content.spec.volume_snapshot_ref.uid.as_deref() == Some(uid);
    let at = status.creation_time.filter(|_| ours && status.snapshot_handle.is_some())?;
    Timestamp::from_nanosecond(at.into()).ok()
}
