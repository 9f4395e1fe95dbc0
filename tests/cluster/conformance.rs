//! A real API server answers the scripts as it is committed that the double does.

#[path = "../it/script.rs"]
mod script;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::api::assert_snapshot;
use crate::harness::scene;

#[tokio::test]
async fn the_api_server_speaks_as_the_double_does() {
    scene("conformance", &[], async |s| {
        let file = Kubeconfig::read_from(&s.kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        let (admin, runner) = (s.client.clone(), Client::try_from(config).unwrap());
        let (count, said) = script::speak(&script::Both { admin, runner, namespace: s.namespace.clone() }).await;
        println!("{count} scripts");
        assert!(count >= 60, "{count} scripts are too few");
        assert_snapshot("conformance", &said);
    })
    .await;
}
