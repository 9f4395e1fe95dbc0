//! `wait`: until the run that is under way, or asked for, has ended.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use kube::{Client, ResourceExt};

use super::describe::{Either, either};
use super::follow::follow;
use super::{Global, Target, block_on, restore};
use crate::api::annotation;
use crate::client;
use crate::error::Result;

/// As `kubectl wait` ends when it has waited in vain.
const IN_VAIN: u8 = 1;

#[derive(Args, Debug)]
pub struct Wait {
    /// The StatefulSetBackup, or else the StatefulSetRestore
    #[arg(value_name = "[NAMESPACE/]NAME")]
    target: Target,
    /// How long at most, such as 90s, 15m or 2h; then it ends with exit code 1 [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = restore::seconds)]
    timeout: Option<i64>,
}

pub fn run(global: &Global, asked: &Wait) -> Result<ExitCode> {
    block_on(async {
        let connection = client::connect(&global.access()).await?;
        let (namespace, name) = asked.target.resolve(global, &connection.namespace)?;
        let work = under_way(global, &connection.client, &namespace, &name);
        let Some(seconds) = asked.timeout else { return work.await };
        let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        if let Ok(result) = tokio::time::timeout(limit, work).await {
            return result;
        }
        eprintln!("{namespace}/{name}: not over within {seconds} s");
        Ok(ExitCode::from(IN_VAIN))
    })
}

async fn under_way(global: &Global, client: &Client, namespace: &str, name: &str) -> Result<ExitCode> {
    match either(client, namespace, name).await? {
        Either::Backup(backup) => follow(global, client, backup.as_ref(), None).await,
        Either::Restore(restore) => {
            // An undo that is asked for, or was the last thing that happened to it, is what is waited for.
            let asked = restore.annotations().get(annotation::UNDO).cloned();
            follow(global, client, restore.as_ref(), asked.as_deref()).await
        }
    }
}
