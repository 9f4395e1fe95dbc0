//! `doctor`: what people do when a run or an installation has left something behind that no process puts right.

mod authors;
mod needs;
mod policies;

use std::process::ExitCode;

use clap::{ArgGroup, Args};

use super::takeover::{self, Wish};
use super::{Global, Target, block_on, output};
use crate::client;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::plan::flow::Exit;
use crate::plan::name;
use crate::run::lift::{self, Found};
use crate::telemetry::{self, Format};

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("deed"))]
pub struct Doctor {
    /// Clear the fence and the open mark that a run has left on the lock of this StatefulSet: of a restore that is Held,
    /// which ends as it stands, or of a run whose object is gone
    #[arg(long, value_name = "[NAMESPACE/]STATEFULSET", group = "deed")]
    lift_fence: Option<Target>,
    /// Let another installation have this StatefulSetBackup or StatefulSetRestore, whose own is gone; without a name
    /// every object of every installation that is gone
    #[arg(long, value_name = "[NAMESPACE/]NAME", num_args = 0..=1, group = "deed")]
    take_over: Option<Vec<Target>>,
    /// Only what this installation manages, as status.managedBy names it
    #[arg(long, value_name = "NAMESPACE/DEPLOYMENT", requires = "take_over")]
    install: Option<String>,
    /// Do it without asking
    #[arg(short, long, requires = "take_over")]
    yes: bool,
    /// List how the admission policies stand, and which authors, objects and runs they stop once they deny
    #[arg(long, conflicts_with = "deed")]
    policies: bool,
    /// How the list is written
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT", requires = "policies")]
    output: output::Output,
    /// Say what would be done, and do nothing
    #[arg(long, requires = "deed")]
    dry_run: bool,
}

pub fn run(global: &Global, asked: &Doctor) -> Result<ExitCode> {
    if asked.policies {
        return block_on(async {
            let connection = client::connect(&global.access()).await?;
            policies::run(&connection, global.namespace.as_deref(), asked.output).await
        });
    }
    match (&asked.lift_fence, &asked.take_over) {
        (Some(target), _) => lift_fence(global, asked, target),
        (None, Some(object)) => block_on(async {
            let connection = client::connect(&global.access()).await?;
            let wish = Wish {
                object: object.first(),
                install: asked.install.as_deref(),
                dry_run: asked.dry_run,
                yes: asked.yes,
            };
            takeover::take_over(global, &connection.client, &connection.namespace, &wish).await
        }),
        (None, None) => block_on(async {
            let connection = client::connect(&global.access()).await?;
            takeover::report(global, &connection.client).await
        }),
    }
}

fn lift_fence(global: &Global, asked: &Doctor, target: &Target) -> Result<ExitCode> {
    telemetry::start(Format::or_default(global.log_format));
    let settings = Settings::from_env()?;
    block_on(async {
        let connection = client::connect(&global.access()).await?;
        let (namespace, statefulset) = target.resolve(global, &connection.namespace)?;
        let found = lift::look(&connection, &namespace, &statefulset).await?;
        let lock = format!("Lease {namespace}/{}", name::lease(&statefulset));
        if asked.dry_run || matches!(found, Found::Nothing) {
            output::print(&format!("{}\n", would(&found, &lock)))?;
            return Ok(ExitCode::SUCCESS);
        }
        match Box::pin(lift::lift(&connection, &settings, &found, (&namespace, &statefulset))).await? {
            // A Held restore ends Failed: that is what was asked for.
            Exit::Done(_) | Exit::Waits(_) => output::print(&format!("{}\n", did(&found, &lock)))?,
            Exit::Refused(refusal) => return Err(Error::Refused(refusal)),
            Exit::Again(why) | Exit::Superseded(why) => return Err(Error::Unanswered(why)),
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn whose(found: &Found) -> String {
    match found {
        Found::Nothing => "nothing".into(),
        Found::Orphan(None) => "a fence without a mark".into(),
        Found::Orphan(Some(open)) => {
            format!("run {} of {} {}/{}, whose object is gone or over", open.run, open.kind, open.namespace, open.name)
        }
        Found::Held(object) => {
            let meta = &object.metadata;
            let part = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("StatefulSetRestore {}/{}, which is Held", part(&meta.namespace), part(&meta.name))
        }
    }
}

fn would(found: &Found, lock: &str) -> String {
    match found {
        Found::Nothing => format!("{lock} bears neither fence nor open mark: there is nothing to lift"),
        _ => format!("would clear from {lock}, once nobody renews it: {}", whose(found)),
    }
}

fn did(found: &Found, lock: &str) -> String {
    let rest = match found {
        Found::Orphan(Some(open)) if !open.pods.is_empty() => {
            format!("These pods may still be frozen, thaw them: {}", open.pods.join(", "))
        }
        Found::Held(_) => {
            "What is under the claims stays; what is not is kept for the undo window, then released".to_owned()
        }
        _ => "Before you scale up, look that every claim stands on its volume (docs/restore.md, By hand)".to_owned(),
    };
    format!("cleared from {lock}: {}. {rest}", whose(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::noun::Open;

    #[test]
    fn the_report_names_whose_it_was_and_which_pods_may_be_frozen() {
        let (kind, namespace, name) = ("StatefulSetBackup".into(), "shop".into(), "nightly".into());
        let (uid, run, pods) = ("1".into(), "20260101-000000".into(), vec!["web-0".into(), "web-1".into()]);
        let found = Found::Orphan(Some(Open { kind, namespace, name, uid, run, pods, hooks: None, journal: None }));
        let text = did(&found, "Lease shop/sts-backup-web");
        for words in
            ["Lease shop/sts-backup-web", "run 20260101-000000 of StatefulSetBackup shop/nightly", "web-0, web-1"]
        {
            assert!(text.contains(words), "{words} is not in {text}");
        }
        assert!(would(&found, "L").starts_with("would clear from L"));
        assert!(would(&Found::Nothing, "L").contains("nothing to lift"));
    }
}
