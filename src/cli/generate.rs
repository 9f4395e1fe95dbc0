//! `generate`: what the program knows about itself, as text.

use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;

use super::Global;
use crate::error::{Error, Result};
use crate::generate;

#[derive(Subcommand, Debug)]
pub enum Generate {
    /// The CustomResourceDefinitions
    Crds,
    /// The ValidatingAdmissionPolicies
    Policies,
    /// All that an installation is, for `kubectl apply --server-side -f -`
    ///
    /// --namespace says where [default: sts-backup-system].
    Install {
        /// The image of the watcher and of its Jobs
        #[arg(long, value_name = "IMAGE", default_value = generate::install::IMAGE)]
        image: String,
    },
    /// The roles, with just the rights that steps, reads and watches declare
    Rbac,
}

pub fn run(global: &Global, what: &Generate) -> Result<ExitCode> {
    let text = match what {
        Generate::Crds => generate::crds(),
        Generate::Policies => generate::policies(),
        Generate::Install { image } => {
            let namespace = global.namespace.as_deref().unwrap_or(generate::install::NAMESPACE);
            generate::install(namespace, image)
        }
        Generate::Rbac => generate::rbac(),
    };
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|error| Error::Config(format!("cannot write: {error}")))?;
    Ok(ExitCode::SUCCESS)
}
