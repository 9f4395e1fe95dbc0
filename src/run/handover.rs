//! Objects of an installation that is gone, handed over: what manages what, the proof that nobody is left there, and the
//! write that lets the next watcher have them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::api::backup::StatefulSetBackup;
use crate::api::restore::StatefulSetRestore;
use crate::client::within;
use crate::error::{Error, Result, or_absent};
use crate::plan::launch::rival::{self, SILENT};
use crate::step::record;

/// Between two looks at a Lease.
const PACE: Duration = Duration::from_secs(2);
/// Another writer may come between a read and its write.
const TRIES: usize = 5;
const PAGE: u32 = 200;

/// An object that a watcher has taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Managed {
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
}

/// What every object says of who manages it: by installation, and `None` for those that nobody has taken.
pub type Installs = BTreeMap<Option<String>, Vec<Managed>>;

/// Whether an installation is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// By what, and what is to be done first.
    Lives(String),
    Gone,
    /// It cannot be told, and why.
    Hidden(String),
}

/// Who manages the objects of this namespace, or of all.
///
/// # Errors
/// Where they cannot be listed.
pub async fn installs(client: &Client, namespace: Option<&str>) -> Result<Installs> {
    let mut all = Installs::new();
    list::<StatefulSetBackup>(client, namespace, &mut all).await?;
    list::<StatefulSetRestore>(client, namespace, &mut all).await?;
    Ok(all)
}

/// A kind whose objects a watcher takes.
trait Taken: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug {
    const KIND: &str;
    /// status.managedBy, where it says something.
    fn by(&self) -> Option<&String>;
}

impl Taken for StatefulSetBackup {
    const KIND: &str = "StatefulSetBackup";
    fn by(&self) -> Option<&String> {
        self.status.as_ref()?.managed_by.as_ref().filter(|by| !by.is_empty())
    }
}

impl Taken for StatefulSetRestore {
    const KIND: &str = "StatefulSetRestore";
    fn by(&self) -> Option<&String> {
        self.status.as_ref()?.managed_by.as_ref().filter(|by| !by.is_empty())
    }
}

async fn list<K: Taken>(client: &Client, namespace: Option<&str>, all: &mut Installs) -> Result<()> {
    let api: Api<K> = within(client, namespace);
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let found = api.list(&page).await.map_err(|error| Error::api("list", K::plural(&()).into_owned(), error))?;
        for object in &found.items {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            all.entry(object.by().cloned()).or_default().push(Managed { kind: K::KIND, namespace, name });
        }
        match found.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => page = page.continue_token(&more),
            None => return Ok(()),
        }
    }
}

/// Watches the Lease of the installation's watchers for as long as one may keep silent, and looks for its Deployment.
///
/// # Errors
/// Where the API server does not answer.
pub async fn prove(client: &Client, install: &str) -> Result<Proof> {
    let (Some((namespace, deployment)), Some((_, lease))) = (rival::address(install), rival::lease(install)) else {
        return Ok(Proof::Gone);
    };
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let path = format!("Lease {namespace}/{lease}");
    let begun = Instant::now();
    let first = match see(&api, &lease, &path).await? {
        Ok(seen) => seen,
        Err(hidden) => return Ok(hidden),
    };
    let mut last = first.clone();
    while is_held(last.as_ref()) && begun.elapsed() < SILENT {
        sleep(PACE).await;
        match see(&api, &lease, &path).await? {
            Ok(seen) if seen == last => {}
            Ok(seen) if is_held(seen.as_ref()) => {
                let first = first_stop(namespace, deployment);
                return Ok(Proof::Lives(format!("its watcher has just renewed {path}: {first}")));
            }
            Ok(seen) => last = seen,
            Err(hidden) => return Ok(hidden),
        }
    }
    wanted(client, (namespace, deployment), last.is_some()).await
}

/// The Lease as far as it tells who is there; its resourceVersion changes with each renewal.
type Seen = Option<(Option<String>, Option<String>)>;

async fn see(api: &Api<Lease>, name: &str, path: &str) -> Result<std::result::Result<Seen, Proof>> {
    match or_absent(api.get(name).await) {
        Ok(found) => Ok(Ok(found.map(|lease| {
            let version = lease.resource_version();
            (lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty()), version)
        }))),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            Ok(Err(Proof::Hidden(format!("you may not read {path}, which shows whether its watcher runs"))))
        }
        Err(error) => Err(Error::api("get", path.to_owned(), error)),
    }
}

fn is_held(seen: Option<&(Option<String>, Option<String>)>) -> bool {
    seen.is_some_and(|(holder, _)| holder.is_some())
}

fn first_stop(namespace: &str, deployment: &str) -> String {
    format!("uninstall it, or kubectl -n {namespace} scale deployment {deployment} --replicas=0")
}

/// Nobody renews the Lease; whether somebody is still meant to.
async fn wanted(client: &Client, (namespace, name): (&str, &str), leased: bool) -> Result<Proof> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    match or_absent(api.get(name).await) {
        Ok(Some(found)) => {
            let replicas = found.spec.replicas.unwrap_or(1);
            let how = format!("Deployment {namespace}/{name} is there and wants {replicas} replicas");
            let first = first_stop(namespace, name);
            Ok(if replicas > 0 { Proof::Lives(format!("{how}: {first}")) } else { Proof::Gone })
        }
        Ok(None) => Ok(Proof::Gone),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(if leased {
            Proof::Gone
        } else {
            let what = format!("it has no Lease, and you may not read Deployment {namespace}/{name}");
            Proof::Hidden(format!("{what}, which may be of a version that has none"))
        }),
        Err(error) => Err(Error::api("get", format!("Deployment {namespace}/{name}"), error)),
    }
}

/// Takes the object off this installation, so that the next watcher that sees it has it. False: it is not there any more,
/// or not that installation's.
///
/// # Errors
/// Where the write is refused, or comes too late each time.
pub async fn release(client: &Client, install: &str, object: &Managed) -> Result<bool> {
    if object.kind == StatefulSetBackup::KIND {
        return take::<StatefulSetBackup>(client, install, object).await;
    }
    take::<StatefulSetRestore>(client, install, object).await
}

async fn take<K: Taken>(client: &Client, install: &str, object: &Managed) -> Result<bool> {
    let Managed { kind, namespace, name } = object;
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let path = format!("{kind} {namespace}/{name}");
    for _ in 0..TRIES {
        let found = or_absent(api.get(name).await).map_err(|error| Error::api("get", path.clone(), error))?;
        let Some(found) = found.filter(|found| found.by().is_some_and(|by| by == install)) else { return Ok(false) };
        match record::unmanage(&api, &found).await {
            Ok(()) => return Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(Error::api("patch the status of", path, error)),
        }
    }
    Err(Error::Unanswered(format!("{path} was changed by others each time: try again")))
}
