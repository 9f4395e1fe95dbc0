//! `watch`: the resident role.

use std::process::ExitCode;

use super::Global;
use crate::config::Watching;
use crate::error::{Error, Result};
use crate::telemetry::{self, Format};
use crate::{client, watch};

pub fn run(global: &Global) -> Result<ExitCode> {
    telemetry::start(Format::or_default(global.log_format));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::Config(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let connection = client::connect(&global.access()).await?;
        let settings = Watching::from_env(&connection.namespace)?;
        watch::watch(&connection, settings).await?;
        Ok(ExitCode::SUCCESS)
    })
}
