//! The command line: what a person or a Job types, in the conventions of kubectl.

#[cfg(test)]
mod advice;
mod backup;
mod describe;
mod doctor;
mod follow;
mod generate;
mod list;
mod logs;
mod manifest;
pub mod output;
mod restore;
mod retention;
mod run_once;
mod schedule;
mod takeover;
mod undo;
mod version;
mod wait;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::client::Access;
use crate::error::{Error, Result};
use crate::telemetry::Format;

/// sysexits(3): the command was used incorrectly.
const USAGE: u8 = 64;

#[derive(Parser, Debug)]
#[command(name = "sts-backup", version, about = "Backup and restore of Kubernetes StatefulSets", max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug)]
pub struct Global {
    /// Path of the kubeconfig [default: $KUBECONFIG, then the pod's account, then ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Namespace of a NAME given without one [default: the context's]
    #[arg(short, long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// How log lines are written [default: text on a terminal, else json]
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<Format>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Watch the cluster and make a Job for each run that is due, until told to stop
    ///
    /// The resident role: settings come from the environment (SSB_*).
    Watch,
    /// Carry out one run here and now, with the rights of the kubeconfig or of the pod
    #[command(subcommand)]
    RunOnce(run_once::RunOnce),
    /// Show when a schedule fires, or why it is refused; needs no cluster
    Schedule(schedule::Ask),
    /// List policies, runs or restores
    List(list::List),
    /// Ask for a run of a StatefulSetBackup now
    ///
    /// A watcher makes a Job for it; without one, `run-once backup` does it here.
    Backup(backup::Backup),
    /// Ask for a restore, or with --dry-run say what would come of it
    ///
    /// Makes a StatefulSetRestore, which a watcher carries out, or `run-once restore`.
    Restore(Box<restore::Restore>),
    /// Ask for the volumes that a restore has replaced to be put back
    Undo(undo::Undo),
    /// Tell all about one StatefulSetBackup or StatefulSetRestore: spec, state, volumes or runs, events
    Describe(describe::Describe),
    /// Show the log of the newest run, of all its Jobs: its audit trail, as text on a terminal and JSON otherwise
    Logs(logs::Logs),
    /// Wait until the run that is under way has ended, and end with its exit code
    Wait(wait::Wait),
    /// Show which installation manages what; put right what a run or an installation has left behind
    Doctor(doctor::Doctor),
    /// Print version, commit, and the Kubernetes and tz database versions built in
    Version {
        /// How it is written
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: output::Output,
    },
    /// What a retention policy keeps and drops, with the rules that keep each run
    Retention(retention::Retention),
    /// Print what is generated from the program itself
    #[command(subcommand)]
    Generate(generate::Generate),
}

impl Global {
    fn access(&self) -> Access {
        Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }
}

/// `NS/NAME` or `NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    namespace: Option<String>,
    name: String,
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Target, String> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, text),
        };
        let is_name = |text: &str| !text.is_empty() && !text.contains(['/', ' ']);
        if !is_name(name) || !namespace.as_deref().is_none_or(is_name) {
            return Err("expected NAMESPACE/NAME or NAME".into());
        }
        Ok(Target { namespace, name: name.to_owned() })
    }
}

impl Target {
    /// The namespace that is written with the name wins; two that differ are a mistake.
    fn resolve(&self, global: &Global, default: &str) -> Result<(String, String)> {
        let namespace = match (&self.namespace, &global.namespace) {
            (Some(written), Some(given)) if written != given => {
                let message = format!("{written}/{} contradicts --namespace {given}: give one of them", self.name);
                return Err(Error::Usage(message));
            }
            (Some(namespace), _) | (None, Some(namespace)) => namespace.as_str(),
            (None, None) => default,
        };
        Ok((namespace.to_owned(), self.name.clone()))
    }
}

/// Runs a command that talks to the cluster, on this thread.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::Config(format!("cannot start: {error}")))?.block_on(work)
}

/// Parses and runs the command.
///
/// # Errors
/// What could not even begin, for `main` to print; how a run ended is its exit code.
pub fn run() -> Result<ExitCode> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return Ok(if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS });
        }
    };
    match cli.command {
        Command::Watch => watch::run(&cli.global),
        Command::RunOnce(what) => run_once::run(&cli.global, &what),
        Command::Schedule(ask) => schedule::run(&ask),
        Command::List(list) => list::run(&cli.global, &list),
        Command::Backup(asked) => backup::run(&cli.global, &asked),
        Command::Logs(asked) => logs::run(&cli.global, &asked),
        Command::Wait(asked) => wait::run(&cli.global, &asked),
        Command::Restore(asked) => restore::run(&cli.global, &asked),
        Command::Undo(asked) => undo::run(&cli.global, &asked),
        Command::Describe(describe) => describe::run(&cli.global, &describe),
        Command::Doctor(asked) => doctor::run(&cli.global, &asked),
        Command::Version { output } => version::run(output),
        Command::Retention(asked) => retention::run(&cli.global, &asked),
        Command::Generate(what) => generate::run(&cli.global, &what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_target_is_a_name_with_or_without_a_namespace() {
        let parse = |text: &str| text.parse::<Target>().map(|target| (target.namespace, target.name));
        assert_eq!(parse("shop/nightly"), Ok((Some("shop".into()), "nightly".into())));
        assert_eq!(parse("nightly"), Ok((None, "nightly".into())));
        for wrong in ["", "/", "a/", "/b", "a/b/c", "a b"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
