//! What every test on the cluster stands on: a namespace of its own, an account with just the product's rights, the
//! drivers it wants, and a report of everything in it when it fails.

pub mod account;
pub mod driver;
mod dump;
pub mod exec;
pub mod expire;
pub mod install;
pub mod make;
pub mod many;
pub mod process;
pub mod product;
pub mod proxy;
pub mod restore;
pub mod run;
pub mod watch;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, Client, Config};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

pub use driver::With;
pub use watch::until;

const NO_CLUSTER: &str = "no cluster (set SSB_TEST_KUBECONFIG or run just test as root on Linux)";

/// Names the cluster under test; none, with a sentence, where there is none.
pub fn kubeconfig() -> Option<PathBuf> {
    let path = std::env::var_os("SSB_TEST_KUBECONFIG").filter(|path| !path.is_empty());
    if path.is_none() {
        skipped(NO_CLUSTER);
    }
    path.map(PathBuf::from)
}

/// Says what is missing here.
///
/// # Panics
/// With `SSB_REQUIRE=all`, as CI has it: there nothing may be missing.
pub fn skipped(why: &str) {
    let all = std::env::var("SSB_REQUIRE").is_ok_and(|what| what == "all");
    assert!(!all, "this must run (SSB_REQUIRE=all), but {why}");
    println!("skipped: {why}");
}

/// Long tests run in `just e2e` only.
pub fn is_long() -> bool {
    let long = std::env::var("SSB_TIER").is_ok_and(|tier| tier == "long");
    if !long {
        println!("skipped: long tier (just e2e)");
    }
    long
}

/// A client of the cluster under test. One that is set and does not answer is a failure.
pub async fn client() -> Option<Client> {
    let path = kubeconfig()?;
    let file = Kubeconfig::read_from(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    client.apiserver_version().await.unwrap_or_else(|error| panic!("{} does not answer: {error}", path.display()));
    Some(client)
}

/// A stage of a test: its own namespace on the cluster.
pub struct Scene {
    pub client: Client,
    pub namespace: String,
    /// A kubeconfig whose user may do exactly what the product declares.
    pub kubeconfig: PathBuf,
    drivers: Vec<driver::Hold>,
    /// Namespaces that go with ours.
    others: RefCell<Vec<String>>,
    /// What the processes of the product wrote, for the report of a failure.
    logs: RefCell<Vec<Arc<product::Log>>>,
}

/// Runs `test` in a namespace of its own. It is removed in the end, and kept when the test fails.
///
/// `with`: the drivers that the test uses; without them on this cluster it is skipped.
pub async fn scene(name: &str, with: &[With], test: impl AsyncFnOnce(&Scene)) {
    let Some(client) = client().await else { return };
    let Some(drivers) = driver::hold(with).await else { return };
    definitions(&client).await;
    let namespace = format!("{name}-{:05x}", RandomState::new().hash_one(name) & 0xf_ffff);
    create_namespace(&client, &namespace).await;
    let kubeconfig = account::runner(&client, &namespace).await;
    let scene = Scene { client, namespace, kubeconfig, drivers, others: RefCell::default(), logs: RefCell::default() };
    let ended = AssertUnwindSafe(Box::pin(test(&scene))).catch_unwind().await;
    if let Err(panic) = ended {
        dump::dump(&scene).await;
        eprintln!("kept for a look: kubectl delete namespace {} {}", scene.namespace, scene.others.borrow().join(" "));
        resume_unwind(panic);
    }
    scene.remove().await;
}

impl Scene {
    /// The same cluster and account, in another namespace.
    pub fn within(&self, namespace: &str) -> Scene {
        let (client, kubeconfig) = (self.client.clone(), self.kubeconfig.clone());
        let namespace = namespace.to_owned();
        Scene { client, namespace, kubeconfig, drivers: vec![], others: RefCell::default(), logs: RefCell::default() }
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The drivers that the test asked for, to change their faults.
    pub fn drivers(&self) -> &[driver::Hold] {
        &self.drivers
    }

    /// Makes it in our namespace.
    pub async fn create<K>(&self, object: &K) -> K
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        self.api::<K>().create(&PostParams::default(), object).await.unwrap()
    }

    /// A second namespace, gone with ours.
    pub async fn another_namespace(&self, suffix: &str, annotations: &[(&str, &str)]) -> String {
        let name = format!("{}-{suffix}", self.namespace);
        create_namespace(&self.client, &name).await;
        self.others.borrow_mut().push(name.clone());
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        self.annotate_namespace(&name, &json!(annotations)).await;
        name
    }

    pub async fn annotate_namespace(&self, name: &str, annotations: &Value) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let patch = json!({ "metadata": { "annotations": annotations } });
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    async fn remove(&self) {
        self.let_go().await;
        let api: Api<Namespace> = Api::all(self.client.clone());
        let ours = [self.namespace.clone()];
        for name in self.others.take().iter().chain(&ours) {
            match api.delete(name, &DeleteParams::background()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {} // the test was about its end
                reply => drop(reply.unwrap()),
            }
        }
        let _ = std::fs::remove_file(&self.kubeconfig);
    }
}

async fn create_namespace(client: &Client, name: &str) {
    let api: Api<Namespace> = Api::all(client.clone());
    let labels = json!({ "app.kubernetes.io/part-of": "sts-backup-tests" });
    let object = serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// One of the admission policies, or its binding.
pub async fn policy_of(client: &Client, object: &Value) {
    let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
    let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
    let params = PatchParams::apply("sts-backup/tests").force();
    api.patch(name, &params, &Patch::Apply(object)).await.unwrap();
}

/// Our kinds are served, and guarded, as this program generates them.
async fn definitions(client: &Client) {
    static DONE: OnceCell<()> = OnceCell::const_new();
    let install = async || {
        for definition in sts_backup::generate::definitions() {
            crate::api::install(client, &definition).await;
        }
        for policy in sts_backup::generate::policies().split("---\n").skip(1) {
            policy_of(client, &serde_saphyr::from_str(policy).unwrap()).await;
        }
    };
    DONE.get_or_init(install).await;
}
