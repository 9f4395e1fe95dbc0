//! `run-once`: what the watcher's Jobs run, and pipelines and people as well.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Global, Target, block_on, manifest};
use crate::api::backup::{LastRun, StatefulSetBackup};
use crate::api::shared::Trigger;
use crate::client;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::plan::flow::Exit;
use crate::plan::noun::Outcome;
use crate::run::restore::Flow;
use crate::run::{self, Request};
use crate::telemetry::{self, Format};

#[derive(Subcommand, Debug)]
pub enum RunOnce {
    /// Back up the StatefulSet of a StatefulSetBackup
    ///
    /// Exit codes: 0 done, 10 failed for good, 20 worth another try, 30 another process holds the run or the lock,
    /// 64 usage.
    Backup(Backup),
    /// Carry out a StatefulSetRestore
    ///
    /// Killed at any instruction and started again, it goes on where it was. Exit codes: as of a backup.
    Restore(Step),
    /// Put the volumes that a StatefulSetRestore has replaced back under their claims
    ///
    /// The request is the annotation backup.sts-backup.io/undo of the object, or this command itself. Exit codes: as of
    /// a backup.
    Undo {
        #[command(flatten)]
        step: Step,
        /// Undo although replicas have come since the restore: their claims stay as they are
        #[arg(long)]
        force: bool,
    },
    /// Give up the volumes that a StatefulSetRestore has set aside, once its undo window is over
    Release(Step),
}

#[derive(Args, Debug)]
pub struct Step {
    /// The StatefulSetRestore
    #[arg(value_name = "[NAMESPACE/]NAME")]
    target: Target,
    /// Which attempt this is, from 1 [default: an open run's, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    attempt: Option<i64>,
}

#[derive(Args, Debug)]
pub struct Backup {
    /// The StatefulSetBackup
    #[arg(value_name = "[NAMESPACE/]NAME", required_unless_present = "filename")]
    target: Option<Target>,
    /// A StatefulSetBackup in a file instead of one in the cluster; "-" reads standard input. Its state lives on the
    /// snapshots and the Lease: the same command, run again, takes up what was left open
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["target", "slot", "attempt", "trigger"])]
    filename: Option<PathBuf>,
    /// The slot that this run is for: one run per slot [default: an open run's, else now]
    #[arg(long, value_name = "SLOT", allow_hyphen_values = true)]
    slot: Option<String>,
    /// Why it runs: schedule, first, catchup, manual or command
    #[arg(long, value_name = "WORD", default_value = "command", value_parser = trigger)]
    trigger: Trigger,
    /// Which attempt at the slot this is, from 1 [default: an open run's, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    attempt: Option<i64>,
}

fn trigger(word: &str) -> std::result::Result<Trigger, String> {
    word.parse().map_err(|_| {
        let words: Vec<_> = Trigger::ALL.iter().map(|word| word.as_str()).collect();
        format!("expected one of {}", words.join(", "))
    })
}

fn sentence(run: &LastRun) -> String {
    let outcome = run.outcome.map_or("unfinished".to_owned(), |outcome| outcome.to_string().to_lowercase());
    let mut text = format!("run {} {outcome}", run.id.as_deref().unwrap_or("(not begun)"));
    let _ = write!(text, ", {} snapshots", run.snapshots.len());
    if let Some(skew) = run.skew_seconds {
        let _ = write!(text, ", cut within {skew:.3} s of each other");
    }
    text
}

/// A manifest that the API server would accept, with a word about what means nothing without it.
fn from_file(path: &Path) -> Result<StatefulSetBackup> {
    let object = manifest::backup(path)?;
    let problems = object.problems();
    if !problems.is_empty() {
        return Err(Error::Usage(format!("{}: {}", path.display(), problems.join("; "))));
    }
    for warning in run::file::warnings(&object) {
        telemetry::complain(&format!("warning: {warning}"));
    }
    Ok(object)
}

pub fn run(global: &Global, what: &RunOnce) -> Result<ExitCode> {
    let format = Format::or_default(global.log_format);
    telemetry::start(format);
    let settings = Settings::from_env()?;
    let (exit, closed) = match what {
        RunOnce::Backup(asked) => backup(global, &settings, format, asked)?,
        RunOnce::Restore(step) => (restore(global, &settings, format, step, Flow::Restore)?, false),
        RunOnce::Undo { step, force } => {
            (restore(global, &settings, format, step, Flow::Undo { force: *force })?, false)
        }
        RunOnce::Release(step) => (restore(global, &settings, format, step, Flow::Release)?, false),
    };
    match &exit {
        Exit::Done(Outcome::Succeeded) => {}
        Exit::Done(Outcome::Failed(why) | Outcome::Superseded(why)) | Exit::Refused(why) => {
            telemetry::complain(&format!("{}: {}", why.reason, why.message));
        }
        Exit::Again(why) | Exit::Superseded(why) | Exit::Waits(why) => telemetry::complain(why),
    }
    Ok(ExitCode::from(code(&exit, settings.job_name.is_some() && closed)))
}

/// A Job whose run has an outcome in status has nothing left to do: that another process gave it that outcome, or that
/// the lock was held all the time, is no failure of the Job's, and alerts on failed Jobs need not hear of it.
fn code(exit: &Exit, closed_in_job: bool) -> u8 {
    match exit {
        Exit::Superseded(_) | Exit::Done(Outcome::Superseded(_)) if closed_in_job => 0,
        exit => exit.code(),
    }
}

/// How it ended, and whether status has an outcome of its slot.
fn backup(global: &Global, settings: &Settings, format: Format, asked: &Backup) -> Result<(Exit, bool)> {
    let file = asked.filename.as_deref().map(from_file).transpose()?;
    block_on(async {
        let connection = client::connect(&global.access()).await?;
        let ended = match (file, &asked.target) {
            (Some(object), _) => {
                Box::pin(run::file::run_file(&connection, settings, global.namespace.as_deref(), object)).await?
            }
            (None, Some(target)) => {
                let (namespace, name) = target.resolve(global, &connection.namespace)?;
                let (slot, trigger, attempt) = (asked.slot.clone(), asked.trigger, asked.attempt);
                let request = Request { namespace, name, slot, trigger, attempt };
                Box::pin(run::run_backup(&connection, settings, &request)).await?
            }
            (None, None) => return Err(Error::Usage("name a StatefulSetBackup, or a file with --filename".into())),
        };
        if let Some(last_run) = &ended.last_run {
            telemetry::summary(format, last_run, &sentence(last_run));
        }
        let closed = ended.last_run.is_some_and(|run| run.outcome.is_some());
        Ok((ended.exit, closed))
    })
}

fn restore(global: &Global, settings: &Settings, format: Format, step: &Step, flow: Flow) -> Result<Exit> {
    block_on(async {
        let connection = client::connect(&global.access()).await?;
        let (namespace, name) = step.target.resolve(global, &connection.namespace)?;
        let request = run::restore::Request { namespace, name, flow, attempt: step.attempt };
        let mut ended = Box::pin(run::restore::run(&connection, settings, &request)).await?;
        // What the restore once said is no answer to a release that still waits.
        if let (Exit::Waits(why), Some(summary)) = (&ended.exit, &mut ended.summary) {
            summary.status.message = Some(why.clone());
        }
        // One that is not due has done nothing.
        let is_done = flow != Flow::Release || matches!(ended.exit, Exit::Done(_) | Exit::Waits(_));
        if let Some(summary) = ended.summary.as_ref().filter(|_| is_done) {
            let status = &summary.status;
            let phase = status.phase.map_or("not begun", |phase| phase.as_str());
            let message = status.message.as_deref().unwrap_or_default();
            telemetry::summary(format, summary, &format!("{phase}: {message}"));
        }
        Ok(ended.exit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::condition::Reason;
    use crate::plan::noun::Refusal;

    #[test]
    fn a_job_of_a_superseded_run_that_has_its_outcome_is_complete() {
        let skipped = || Refusal::new(Reason::Skipped, "the lock was held all the time");
        for exit in [Exit::Done(Outcome::Superseded(skipped())), Exit::Superseded("it has ended already".into())] {
            assert_eq!((code(&exit, true), code(&exit, false)), (0, 30), "{exit:?}");
        }
        let failed = Exit::Done(Outcome::Failed(Refusal::new(Reason::HookFailed, "no")));
        assert_eq!(code(&failed, true), 10, "there is no backup");
        assert_eq!(code(&Exit::Again("no answer".into()), true), 20);
    }
}
