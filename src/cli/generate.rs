//! `generate`: what the program knows about itself, as text.

use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;

use crate::error::{Error, Result};
use crate::generate;

#[derive(Subcommand, Debug)]
pub enum Generate {
    /// The CustomResourceDefinitions
    Crds,
    /// The ValidatingAdmissionPolicies
    Policies,
    /// The roles, with just the rights that steps, reads and watches declare
    Rbac,
}

pub fn run(what: &Generate) -> Result<ExitCode> {
    let text = match what {
        Generate::Crds => generate::crds(),
        Generate::Policies => generate::policies(),
        Generate::Rbac => generate::rbac(),
    };
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|error| Error::Config(format!("cannot write: {error}")))?;
    Ok(ExitCode::SUCCESS)
}
