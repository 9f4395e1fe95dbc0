//! Settings of the deployment: `SSB_*` in the environment, read once and turned into types here. Per-run choices
//! are flags, and live in `cli`.

use serde::Deserialize;

use crate::error::{Error, Result};

/// What a runner may be told by its Job. Everything is optional: by hand nothing is set.
#[derive(Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Settings {
    /// `SSB_JOB_NAME`: the Job that this process runs in, for `status.lastRun.jobName`.
    pub job_name: Option<String>,
    /// `SSB_POD_NAME`: the pod, for the Lease's holderIdentity. Default: the host's name.
    pub pod_name: Option<String>,
}

impl Settings {
    pub fn from_env() -> Result<Settings> {
        let vars =
            std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        Self::from_vars(vars)
    }

    fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Settings> {
        let set = vars.into_iter().filter(|(_, value)| !value.is_empty());
        envy::prefixed("SSB_")
            .from_iter(set)
            .map_err(|error| Error::Config(format!("in the environment (SSB_*): {error}")))
    }

    /// Who runs this, for people who look at the Lease.
    pub fn host(&self) -> String {
        let kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let host = self.pod_name.clone().or_else(kernel).unwrap_or_default();
        let host: String =
            host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).collect();
        if host.is_empty() { "unknown-host".into() } else { host }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_variables_are_unset_and_strangers_ignored() {
        let vars =
            [("SSB_JOB_NAME", "backup-x"), ("SSB_POD_NAME", ""), ("SSB_PORT", "tcp://10.0.0.1"), ("PATH", "/bin")];
        let settings = Settings::from_vars(vars.map(|(k, v)| (k.to_owned(), v.to_owned()))).unwrap();
        assert_eq!(settings, Settings { job_name: Some("backup-x".into()), pod_name: None });
    }
}
