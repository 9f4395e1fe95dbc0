//! The lock of a `StatefulSet`: a Lease `sts-backup-NAME` in its namespace, shared by all runs on it.
//!
//! Taken when it is free, or when its renewTime has stood still for its whole duration on **our** monotonic clock
//! (wall clocks of two machines are never compared). Each taking raises leaseTransitions, the fencing token. It is
//! never deleted: the token must not start anew.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::Fault;
use super::call::{Call, No, call};
use super::clock::Clock;
use super::cluster::Cluster;
use super::sign::{after, fence, restored, text};
pub use super::sign::{open, roll};
use crate::api::{annotation, label, manager};
use crate::plan::flow::Row;
use crate::plan::name;
use crate::plan::noun::{Holder, Lease, Open, Stop, Want};
use crate::plan::restore::Signs;
use crate::plan::roll::Enroll;
use crate::plan::view::{Fact, Seen};

/// leaseDurationSeconds: how long a silent holder is left alone.
const DURATION: Duration = Duration::from_secs(30);
const RENEWAL: Duration = Duration::from_secs(10);

pub(super) struct Lock {
    api: Api<Object>,
    name: String,
    namespace: String,
    me: Holder,
    clock: Clock,
    held: RefCell<Option<Held>>,
    /// The epoch under which we have asked for it, and when: whose reply is lost may have got it.
    asked: Cell<Option<(i64, Instant)>>,
    sight: RefCell<Option<Sight>>,
}

/// The Lease as we last wrote it.
#[derive(Clone)]
struct Held {
    version: String,
    epoch: i64,
    renewed: Instant,
}

/// What we saw of another's Lease, and since when it looks so.
struct Sight {
    holder: Option<String>,
    renewed: Option<MicroTime>,
    since: Instant,
}

#[derive(Serialize, Debug)]
struct Renewal {
    metadata: ObjectMeta,
    spec: Spec,
}

/// A merge patch: what is absent stays, `null` clears.
#[derive(Serialize, Debug, Default)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(skip_serializing_if = "Change::is_none")]
    holder_identity: Change,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_duration_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acquire_time: Option<MicroTime>,
    renew_time: Option<MicroTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_transitions: Option<i64>,
}

#[derive(Serialize, Debug)]
struct Marking {
    metadata: MarkingMeta,
}

/// `null` takes an annotation away.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct MarkingMeta {
    resource_version: String,
    annotations: BTreeMap<&'static str, Option<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'static str, Option<&'static str>>,
}

/// What a merge patch does to a field.
#[derive(Debug, Default)]
enum Change {
    #[default]
    None,
    To(String),
    Clear,
}

impl Change {
    fn is_none(&self) -> bool {
        matches!(self, Change::None)
    }
}

impl Serialize for Change {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Change::To(text) => serializer.serialize_str(text),
            Change::None | Change::Clear => serializer.serialize_none(),
        }
    }
}

impl Lock {
    pub fn new(client: Client, want: &Want, clock: Clock) -> Lock {
        Lock {
            api: Api::namespaced(client, &want.statefulset_namespace),
            name: name::lease(&want.statefulset),
            namespace: want.statefulset_namespace.clone(),
            me: want.me.clone(),
            clock,
            held: RefCell::default(),
            asked: Cell::default(),
            sight: RefCell::default(),
        }
    }

    pub fn api(&self) -> &Api<Object> {
        &self.api
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> String {
        format!("lease/{}/{}", self.namespace, self.name)
    }

    /// What the Lease tells, by our own clock.
    pub fn see(&self, object: Option<&Object>) -> Fact {
        let Some(object) = object else { return Fact::Lease(Seen::Known(None)) };
        if let Some((epoch, since)) = self.asked.get().filter(|(epoch, _)| self.is_ours(object, *epoch)) {
            self.hold_since(object, epoch, since);
        }
        if let Some(held) = self.held.borrow_mut().as_mut().filter(|held| self.is_ours(object, held.epoch)) {
            held.version = object.metadata.resource_version.clone().unwrap_or_default();
        }
        let spec = object.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
        let mut sight = self.sight.borrow_mut();
        let same = sight.as_ref().is_some_and(|seen| seen.holder == holder && seen.renewed == spec.renew_time);
        if !same {
            *sight = Some(Sight { holder: holder.clone(), renewed: spec.renew_time, since: Instant::now() });
        }
        let gone = sight.as_ref().is_some_and(|seen| seen.since.elapsed() >= DURATION);
        Fact::Lease(Seen::Known(Some(Lease {
            holder: holder.map(Holder),
            gone,
            epoch: spec.lease_transitions.unwrap_or_default().into(),
            version: object.metadata.resource_version.clone().unwrap_or_default(),
            open: open(object),
            fence: fence(object),
            restored: restored(object),
            roll: roll(object),
        })))
    }

    /// Resolves when a holder that stays silent counts as gone.
    pub async fn silence(&self) {
        let since = self.sight.borrow().as_ref().map_or_else(Instant::now, |seen| seen.since);
        tokio::time::sleep_until(since + DURATION).await;
    }

    /// Pre: free, absent or gone, as `seen`. Again: a conflict, which is a lost reply; then the Lease is
    /// held from the moment that it is seen to be ours.
    pub async fn acquire(
        &self,
        cluster: &Cluster,
        row: &'static Row,
        seen: Option<&Lease>,
    ) -> Result<Vec<Fact>, Fault> {
        let now = MicroTime(self.clock.now());
        let epoch = after(seen.map_or(0, |lease| lease.epoch));
        let holder = self.me.to_string();
        self.asked.set(Some((epoch, Instant::now())));
        let asked = |verb| Call { step: row.name, verb, object: self.path(), uid: None, message: None };
        let reply = if let Some(lease) = seen {
            let patch = Renewal {
                metadata: ObjectMeta { resource_version: Some(lease.version.clone()), ..ObjectMeta::default() },
                spec: Spec {
                    holder_identity: Change::To(holder),
                    lease_duration_seconds: Some(DURATION.as_secs()),
                    acquire_time: Some(now.clone()),
                    renew_time: Some(now),
                    lease_transitions: Some(epoch),
                },
            };
            call(cluster, asked("patch"), self.patch(&patch)).await
        } else {
            let lease = self.fresh(holder, &now, epoch);
            let params = PostParams { field_manager: Some(manager::RUNNER.into()), ..PostParams::default() };
            call(cluster, asked("create"), self.api.create(&params, &lease)).await
        };
        let object = reply.map_err(No::fault)?;
        Ok(vec![self.hold(&object)])
    }

    fn fresh(&self, holder: String, now: &MicroTime, epoch: i64) -> Object {
        let labels = [(label::MANAGED_BY.to_owned(), label::MANAGED_BY_VALUE.to_owned())];
        Object {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(labels.into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: Some(now.clone()),
                renew_time: Some(now.clone()),
                lease_transitions: i32::try_from(epoch).ok(),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Post: the annotation `/open` says whose freeze is open, or is gone. Only on the Lease that we hold.
    pub async fn mark(&self, cluster: &Cluster, row: &'static Row, open: Option<&Open>) -> Result<Vec<Fact>, Fault> {
        let message = open.map_or("no freeze is open".to_owned(), |open| format!("freeze of run {} is open", open.run));
        self.write(cluster, row, BTreeMap::from([(annotation::OPEN, text(open))]), BTreeMap::new(), message).await
    }

    /// Post: mark, fence and memory are those of `signs`. Only on the Lease that we hold.
    pub async fn sign(&self, cluster: &Cluster, row: &'static Row, signs: &Signs) -> Result<Vec<Fact>, Fault> {
        let annotations = BTreeMap::from([
            (annotation::OPEN, text(signs.open.as_ref())),
            (annotation::FENCE_USER, signs.fence.clone()),
            (annotation::RESTORED_BY, (!signs.restored.is_empty()).then(|| signs.restored.join("\n"))),
        ]);
        let labels = BTreeMap::from([(label::FENCE, signs.fence.as_ref().map(|_| label::FENCE_VALUE))]);
        let open = if signs.open.is_some() { "open" } else { "not open" };
        let fence =
            signs.fence.as_ref().map_or("no fence".to_owned(), |user| format!("fenced, {user} alone may scale up"));
        let restored = match signs.restored.len() {
            0 => String::new(),
            count => format!(", {count} restores remembered"),
        };
        self.write(cluster, row, annotations, labels, format!("{open}, {fence}{restored}")).await
    }

    /// Post: the annotation `/runs` has the run. On the Lease as it was seen, whoever holds it. Again: a conflict.
    pub async fn enroll(&self, cluster: &Cluster, row: &'static Row, enroll: &Enroll) -> Result<Vec<Fact>, Fault> {
        let annotations = BTreeMap::from([(annotation::RUNS, Some(enroll.roll.text()))]);
        let resource_version = enroll.version.clone();
        let patch = Marking { metadata: MarkingMeta { resource_version, annotations, labels: BTreeMap::new() } };
        let message = Some(format!("run {} is on record", enroll.run));
        let asked = Call { step: row.name, verb: "patch", object: self.path(), uid: None, message };
        let params = PatchParams { field_manager: Some(manager::RUNNER.into()), ..PatchParams::default() };
        let request = async { self.api.patch(&self.name, &params, &Patch::Merge(&patch)).await };
        Ok(vec![self.see(Some(&call(cluster, asked, request).await.map_err(No::fault)?))])
    }

    async fn write(
        &self,
        cluster: &Cluster,
        row: &'static Row,
        annotations: BTreeMap<&'static str, Option<String>>,
        labels: BTreeMap<&'static str, Option<&'static str>>,
        message: String,
    ) -> Result<Vec<Fact>, Fault> {
        let held = self.held.borrow().clone().ok_or(Fault::Lost)?;
        let patch = Marking { metadata: MarkingMeta { resource_version: held.version, annotations, labels } };
        let asked = Call { step: row.name, verb: "patch", object: self.path(), uid: None, message: Some(message) };
        let params = PatchParams { field_manager: Some(manager::RUNNER.into()), ..PatchParams::default() };
        let request = async { self.api.patch(&self.name, &params, &Patch::Merge(&patch)).await };
        let object = call(cluster, asked, request).await.map_err(No::fault)?;
        if !self.is_ours(&object, held.epoch) {
            return Err(Fault::Lost);
        }
        Ok(vec![self.hold(&object)])
    }

    /// We hold it, and have not heard from it for as long as others wait before they take it.
    pub fn is_overdue(&self) -> bool {
        self.held.borrow().as_ref().is_some_and(|held| held.renewed.elapsed() >= DURATION)
    }

    /// Post: free for anyone. Only the Lease that we hold is touched, and no renewal follows.
    pub async fn release(&self, cluster: &Cluster, row: &'static Row, epoch: i64) -> Result<Vec<Fact>, Fault> {
        let held = self.held.borrow().clone().filter(|held| held.epoch == epoch).ok_or(Fault::Lost)?;
        let patch = Renewal {
            metadata: ObjectMeta { resource_version: Some(held.version), ..ObjectMeta::default() },
            spec: Spec {
                holder_identity: Change::Clear,
                renew_time: Some(MicroTime(self.clock.now())),
                ..Spec::default()
            },
        };
        let asked = Call { step: row.name, verb: "patch", object: self.path(), uid: None, message: None };
        let object = call(cluster, asked, self.patch(&patch)).await.map_err(No::fault)?;
        self.held.borrow_mut().take();
        Ok(vec![self.see(Some(&object))])
    }

    /// Renews while we hold it, for ever. `lost` is called once it is another's, or when no renewal has come
    /// through for as long as others wait before they take it.
    pub async fn renew(&self, lost: impl Fn(Stop)) -> Infallible {
        loop {
            sleep(RENEWAL).await;
            let Some(held) = self.held.borrow().clone() else { continue };
            let patch = Renewal {
                metadata: ObjectMeta { resource_version: Some(held.version), ..ObjectMeta::default() },
                spec: Spec { renew_time: Some(MicroTime(self.clock.now())), ..Spec::default() },
            };
            let left = DURATION.saturating_sub(held.renewed.elapsed());
            let reply = tokio::time::timeout(left.min(RENEWAL), self.patch(&patch)).await;
            let outcome = match reply {
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => self.look().await,
                Ok(Ok(object)) => Some(object),
                Ok(Err(_)) | Err(_) => None,
            };
            let Some(now_held) = self.held.borrow().clone().filter(|now| now.epoch == held.epoch) else { continue };
            match outcome {
                Some(object) if self.is_ours(&object, held.epoch) => drop(self.hold(&object)),
                Some(_) => lost(Stop::LeaseLost),
                None if now_held.renewed.elapsed() >= DURATION => lost(Stop::CutOff),
                None => {}
            }
        }
    }

    /// Somebody has written to the Lease: is it still ours? Then the next renewal goes by its new version.
    async fn look(&self) -> Option<Object> {
        tokio::time::timeout(RENEWAL, self.api.get(&self.name)).await.ok()?.ok()
    }

    fn is_ours(&self, object: &Object, epoch: i64) -> bool {
        let spec = object.spec.as_ref();
        spec.and_then(|spec| spec.holder_identity.as_deref()) == Some(&self.me.0)
            && spec.and_then(|spec| spec.lease_transitions).map(i64::from) == Some(epoch)
    }

    fn hold(&self, object: &Object) -> Fact {
        let epoch = object.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default();
        self.hold_since(object, epoch.into(), Instant::now());
        self.see(Some(object))
    }

    fn hold_since(&self, object: &Object, epoch: i64, renewed: Instant) {
        let version = object.metadata.resource_version.clone().unwrap_or_default();
        *self.held.borrow_mut() = Some(Held { version, epoch, renewed });
        self.asked.set(None);
    }

    async fn patch(&self, patch: &Renewal) -> kube::Result<Object> {
        let params = PatchParams { field_manager: Some(manager::RUNNER.into()), ..PatchParams::default() };
        self.api.patch(&self.name, &params, &Patch::Merge(patch)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_sends_null_and_a_renewal_leaves_the_holder_out() {
        let now = MicroTime(jiff::Timestamp::UNIX_EPOCH);
        let json = |spec: Spec| serde_json::to_string(&spec).unwrap();
        let renewal = json(Spec { renew_time: Some(now.clone()), ..Spec::default() });
        assert_eq!(renewal, r#"{"renewTime":"1970-01-01T00:00:00.000000Z"}"#);
        let release = json(Spec { holder_identity: Change::Clear, renew_time: Some(now), ..Spec::default() });
        assert_eq!(release, r#"{"holderIdentity":null,"renewTime":"1970-01-01T00:00:00.000000Z"}"#);
    }
}
