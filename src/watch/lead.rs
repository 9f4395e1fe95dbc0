//! Leader election among the watchers of one installation, as client-go has it: a Lease `leader-DEPLOYMENT` in their own
//! namespace. Who holds it works, the others stand by. It saves requests and no more: what keeps two watchers from
//! starting a run twice is the Job's name.
//!
//! Without election the Lease is held all the same, and only shows that somebody is at work: to other installations, and
//! to whoever wants to take over what this one manages.
//!
//! A Lease is taken when it is free, or when it has not changed for its whole duration on our monotonic clock; wall
//! clocks are never compared.

use std::cell::RefCell;
use std::convert::Infallible;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use crate::api::manager;
use crate::error::sentence;
use crate::plan::flow::Verb;
use crate::plan::name;

/// leaseDurationSeconds: how long a silent leader is left alone.
const DURATION: Duration = Duration::from_secs(15);
/// Who could not renew for so long is no leader any more.
const DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
/// So often it is renewed where nobody is elected: it only shows others that we run.
const PULSE: Duration = Duration::from_secs(20);
/// And tried again, where another holds it.
const SOON: Duration = Duration::from_secs(5);
/// leaseDurationSeconds then.
const PULSED: Duration = Duration::from_mins(1);
/// A stop waits no longer for the Lease to be given back.
const FAREWELL: Duration = Duration::from_millis(300);

/// What it needs in the watcher's own namespace.
pub const VERBS: &[Verb] = &[
    ("coordination.k8s.io", "leases", "create"),
    ("coordination.k8s.io", "leases", "get"),
    ("coordination.k8s.io", "leases", "update"),
];

pub struct Seat {
    api: Api<Lease>,
    name: String,
    /// Our pod.
    me: String,
    /// Another's Lease as it looked last, and since when.
    seen: RefCell<Option<(Option<String>, Instant)>>,
    /// As we wrote it last.
    held: RefCell<Option<Lease>>,
    duration: Duration,
}

impl Seat {
    pub fn new(client: Client, namespace: &str, deployment: &str, me: String, elects: bool) -> Seat {
        let api = Api::namespaced(client, namespace);
        let duration = if elects { DURATION } else { PULSED };
        Seat { api, name: name::leader(deployment), me, seen: RefCell::default(), held: RefCell::default(), duration }
    }

    /// Shows that we run, where nobody is elected. Who else holds the Lease shows the same.
    pub async fn pulse(&self) -> Infallible {
        let mut well = true;
        loop {
            let taken = timeout(DEADLINE, self.take()).await;
            if let (Ok(Err(error)), true) = (&taken, well) {
                tracing::warn!(message = format!("Lease {} is not renewed: {}", self.name, sentence(error)));
            }
            well = matches!(taken, Ok(Ok(_)));
            // Who leaves gives it back: nobody is to take that for an end.
            sleep(if matches!(taken, Ok(Ok(true))) { PULSE } else { SOON }).await;
        }
    }

    /// Waits until we lead. `turn` is called at each try.
    pub async fn won(&self, turn: impl Fn()) {
        tracing::info!(message = format!("standing by for Lease {}", self.name));
        loop {
            turn();
            match timeout(DEADLINE, self.take()).await {
                Ok(Ok(true)) => break,
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => tracing::warn!(message = format!("Lease {}: {}", self.name, sentence(&error))),
            }
            sleep(RETRY).await;
        }
        tracing::info!(message = format!("leading as {}", self.me));
    }

    /// Renews; ends with the reason when we do not lead any more.
    pub async fn lost(&self) -> String {
        let mut renewed = Instant::now();
        loop {
            sleep(RETRY).await;
            let begun = Instant::now();
            match timeout(DEADLINE.saturating_sub(renewed.elapsed()), self.take()).await {
                Ok(Ok(true)) => renewed = begun,
                // Somebody has written to it in the same moment, perhaps no more than a label: it is read again.
                Ok(Ok(false)) if self.is_ours().await => {}
                Ok(Ok(false)) => return format!("Lease {} was taken by another watcher", self.name),
                Ok(Err(_)) | Err(_) if renewed.elapsed() < DEADLINE => {}
                Ok(Err(error)) => return format!("Lease {} cannot be renewed: {}", self.name, sentence(&error)),
                Err(_) => return format!("Lease {} cannot be renewed: the API server does not answer", self.name),
            }
        }
    }

    async fn is_ours(&self) -> bool {
        let found = timeout(RETRY, self.api.get_opt(&self.name)).await;
        let holder = found.ok().and_then(Result::ok).flatten().and_then(|lease| lease.spec?.holder_identity);
        holder.as_deref() == Some(&self.me)
    }

    /// Gives the Lease back, so that nobody has to wait until it runs out. Best effort.
    pub async fn leave(&self) {
        let Some(mut lease) = self.held.take() else { return };
        let spec = lease.spec.get_or_insert_default();
        (spec.holder_identity, spec.lease_duration_seconds) = (None, Some(1));
        let _ = timeout(FAREWELL, self.api.replace(&self.name, &params(), &lease)).await;
    }

    /// Whether we hold it now.
    async fn take(&self) -> kube::Result<bool> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let reply = self.api.create(&params(), &Lease { metadata, spec: Some(self.spec(&now, None)) }).await;
            return self.told(reply);
        };
        let old = lease.spec.take().unwrap_or_default();
        let holder = old.holder_identity.as_deref().filter(|holder| !holder.is_empty());
        if holder.is_some_and(|holder| holder != self.me) && !self.is_silent(lease.metadata.resource_version.as_deref())
        {
            return Ok(false);
        }
        lease.spec = Some(self.spec(&now, Some(old)));
        let reply = self.api.replace(&self.name, &params(), &lease).await;
        self.told(reply)
    }

    fn is_silent(&self, version: Option<&str>) -> bool {
        let mut seen = self.seen.borrow_mut();
        match &*seen {
            Some((old, since)) if old.as_deref() == version => since.elapsed() >= DURATION,
            _ => {
                *seen = Some((version.map(ToOwned::to_owned), Instant::now()));
                false
            }
        }
    }

    fn spec(&self, now: &MicroTime, old: Option<LeaseSpec>) -> LeaseSpec {
        let old = old.unwrap_or_default();
        let ours = old.holder_identity.as_deref() == Some(&self.me);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: old.acquire_time.filter(|_| ours).or_else(|| Some(now.clone())),
            renew_time: Some(now.clone()),
            lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(!ours)),
            ..LeaseSpec::default()
        }
    }

    /// 409: somebody was faster.
    fn told(&self, reply: kube::Result<Lease>) -> kube::Result<bool> {
        match reply {
            Ok(lease) => {
                self.held.replace(Some(lease));
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.held.replace(None);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(manager::WATCHER.into()), ..PostParams::default() }
}
