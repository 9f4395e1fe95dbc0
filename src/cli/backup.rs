//! `backup`: asks for a run of an existing policy, now.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::{Global, Target, block_on, describe, follow};
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
        follow::ask(global, &connection.client, &object, &value, asked.wait).await
    })
}
