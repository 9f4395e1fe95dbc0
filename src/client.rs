//! The way to the cluster: the pod's own account, or a kubeconfig, which may lead through a proxy.

mod proxy;

use std::path::PathBuf;

use kube::api::ListParams;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use tower::util::MapResponseLayer;

use crate::error::{Error, Result};
use crate::step::clock::ServerClock;

/// Which cluster, as the command line says it.
#[derive(Debug, Clone, Default)]
pub struct Access {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
}

/// A client, and the namespace that a bare name is taken to be in.
#[derive(Clone)]
pub struct Connection {
    pub client: Client,
    pub namespace: String,
    /// How far the API server's clock is ahead of ours.
    pub server: ServerClock,
    /// The account is the pod's own: whoever made the object that is carried out is somebody else.
    pub in_pod: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("namespace", &self.namespace)
            .field("in_pod", &self.in_pod)
            .finish_non_exhaustive()
    }
}

/// The objects of that namespace, or of all.
pub fn within<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    namespace.map_or_else(|| Api::all(client.clone()), |name| Api::namespaced(client.clone(), name))
}

/// All of them that bear these labels.
///
/// # Errors
/// What the API server says instead.
pub async fn all<K>(api: Api<K>, labels: &str) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let list = api.list(&ListParams::default().labels(labels)).await;
    Ok(list.map_err(|error| Error::api("list", K::plural(&()), error))?.items)
}

/// A kubeconfig that is named wins over the pod's account, which wins over `~/.kube/config`.
pub async fn connect(access: &Access) -> Result<Connection> {
    let named = access.kubeconfig.is_some() || access.context.is_some() || std::env::var_os("KUBECONFIG").is_some();
    let in_pod = !named && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let mut config = if in_pod {
        Config::incluster().map_err(|error| Error::Config(format!("cannot use the pod's account: {error}")))?
    } else {
        from_kubeconfig(access).await?
    };
    // Every request is answered for by the flow, which must hear of each failure: nothing is retried below it.
    config.default_retry = false;
    let namespace = config.default_namespace.clone();
    let server = ServerClock::default();
    let builder = ClientBuilder::try_from(config)
        .map_err(|error| Error::Config(format!("cannot use the cluster's address: {error}")))?;
    let client = builder.with_layer(&dated(server.clone())).build();
    Ok(Connection { client, namespace, server, in_pod })
}

/// Notes the Date of each reply.
fn dated<B>(
    server: ServerClock,
) -> MapResponseLayer<impl FnOnce(http::Response<B>) -> http::Response<B> + Clone + Send + 'static> {
    MapResponseLayer::new(move |reply: http::Response<B>| {
        if let Some(date) = reply.headers().get(http::header::DATE).and_then(|date| date.to_str().ok()) {
            server.note(date);
        }
        reply
    })
}

async fn from_kubeconfig(access: &Access) -> Result<Config> {
    let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    let loaded = match &access.kubeconfig {
        Some(path) => match Kubeconfig::read_from(path) {
            Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await,
            Err(error) => Err(error),
        },
        None => Config::from_kubeconfig(&options).await,
    };
    let mut config = loaded.map_err(|error| Error::Config(unusable(&error)))?;
    let variable = |name: &str| std::env::var(name).ok();
    config.proxy_url = proxy::choose(config.proxy_url.take(), &config.cluster_url, &variable).map_err(Error::Config)?;
    Ok(config)
}

fn unusable(error: &KubeconfigError) -> String {
    let why = crate::error::root(error);
    match error {
        KubeconfigError::ParseNoProxy(_) => format!(
            "NO_PROXY cannot be understood ({why}): write host names, addresses and ranges such as 10.0.0.0/8, separated \
             by commas, and none of them empty"
        ),
        KubeconfigError::ParseProxyUrl(_) => format!(
            "the proxy is no URL ({why}): correct proxy-url in the kubeconfig, or HTTPS_PROXY, to one such as \
             http://proxy.example.com:3128"
        ),
        _ => format!("no usable kubeconfig ({why}): give --kubeconfig, set KUBECONFIG, or run in a pod"),
    }
}
