//! `backup`: asks for a run of an existing policy, now.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{Global, Target, block_on, describe, follow, output};
use crate::api::annotation;
use crate::api::backup::StatefulSetBackup;
use crate::api::condition::Reason;
use crate::client;
use crate::error::{Error, Result};
use crate::plan::noun::Refusal;

#[derive(Args, Debug)]
pub struct Backup {
    /// The StatefulSetBackup
    #[arg(value_name = "[NAMESPACE/]NAME")]
    target: Target,
    /// Follow the run to its end, and end with its exit code
    #[arg(long)]
    wait: bool,
}

pub fn run(global: &Global, asked: &Backup) -> Result<ExitCode> {
    block_on(async {
        let connection = client::connect(&global.access()).await?;
        let (namespace, name) = asked.target.resolve(global, &connection.namespace)?;
        let object: StatefulSetBackup = describe::find(&connection.client, &namespace, &name).await?;
        if object.metadata.deletion_timestamp.is_some() {
            let message = format!("StatefulSetBackup {namespace}/{name} is being deleted: no run is begun for it");
            return Err(Error::Refused(Refusal::new(Reason::Superseded, message)));
        }
        let value = format!("{:.3}", Timestamp::now());
        let api: Api<StatefulSetBackup> = Api::namespaced(connection.client.clone(), &namespace);
        // With the uid: an object that was created anew is another policy.
        let patch = json!({ "metadata": { "uid": object.uid(), "annotations": { annotation::REQUESTED_AT: value } } });
        let done = api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        done.map_err(|error| Error::api("annotate", format!("StatefulSetBackup {namespace}/{name}"), error))?;
        output::print(&format!("statefulsetbackup.{}/{name} backup requested\n", crate::api::GROUP))?;
        if asked.wait {
            return follow::follow(global, &connection.client, &object, Some(&value)).await;
        }
        Ok(ExitCode::SUCCESS)
    })
}
