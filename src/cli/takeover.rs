//! `doctor` and `doctor --take-over`: which installation manages what, and objects of one that is gone handed over.

use std::io::IsTerminal;
use std::process::ExitCode;

use futures::future::try_join_all;
use kube::Client;

use super::{Global, Target, output};
use crate::api::condition::Reason;
use crate::error::{Error, Result};
use crate::plan::noun::Refusal;
use crate::run::handover::{self, Installs, Managed, Proof};

/// Exit code of a report that has problems.
const PROBLEMS: u8 = 10;
/// Objects that are named before the rest is counted.
const SHOWN: usize = 5;

/// What is to be taken over.
#[derive(Debug)]
pub struct Wish<'a> {
    /// One object; none: all of every installation that is gone.
    pub object: Option<&'a Target>,
    /// Only of this installation, `NAMESPACE/DEPLOYMENT`.
    pub install: Option<&'a str>,
    pub dry_run: bool,
    /// Nobody is asked.
    pub yes: bool,
}

/// Every installation that manages something, and whether its watcher runs.
pub async fn report(global: &Global, client: &Client) -> Result<ExitCode> {
    let installs = handover::installs(client, global.namespace.as_deref()).await?;
    let proofs = prove(client, &installs).await?;
    let mut rows = vec![["INSTALLATION", "BACKUPS", "RESTORES", "WATCHER"].map(str::to_owned).to_vec()];
    let place = global.namespace.as_ref().map(|namespace| format!(" -n {namespace}")).unwrap_or_default();
    let count = |all: &[Managed], kind: &str| all.iter().filter(|one| one.kind == kind).count().to_string();
    for (install, all) in &installs {
        let proof = install.as_ref().and_then(|install| proofs.iter().find(|(name, _)| name == install));
        let watcher = match proof {
            None => "none has seen them yet".to_owned(),
            Some((_, Proof::Lives(_))) => "runs".to_owned(),
            Some((install, Proof::Gone)) => format!("gone: sts-backup doctor{place} --take-over --install {install}"),
            Some((_, Proof::Hidden(why))) => format!("unknown: {why}"),
        };
        let name = install.clone().unwrap_or_else(|| "-".into());
        rows.push(vec![name, count(all, "StatefulSetBackup"), count(all, "StatefulSetRestore"), watcher]);
    }
    if installs.is_empty() {
        output::print("there is no StatefulSetBackup and no StatefulSetRestore\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&output::table(&rows))?;
    let gone = proofs.iter().any(|(_, proof)| *proof == Proof::Gone);
    Ok(if gone { ExitCode::from(PROBLEMS) } else { ExitCode::SUCCESS })
}

/// Each by its own Lease, all at once.
async fn prove(client: &Client, installs: &Installs) -> Result<Vec<(String, Proof)>> {
    let names: Vec<&String> = installs.keys().flatten().collect();
    if std::io::stderr().is_terminal() && !names.is_empty() {
        output::say("watching the Leases of the watchers, for a minute at most");
    }
    let proofs = try_join_all(names.iter().map(|name| handover::prove(client, name))).await?;
    Ok(names.into_iter().cloned().zip(proofs).collect())
}

/// Hands them over.
///
/// # Errors
/// Refused where the installation lives, or may.
pub async fn take_over(global: &Global, client: &Client, namespace: &str, wish: &Wish<'_>) -> Result<ExitCode> {
    let place = wish.object.map(|target| target.resolve(global, namespace)).transpose()?;
    let within = place.as_ref().map(|(namespace, _)| namespace.as_str()).or(global.namespace.as_deref());
    let mut installs = chosen(handover::installs(client, within).await?, wish, place.as_ref())?;
    let proofs = prove(client, &installs).await?;
    let named = wish.object.is_some() || wish.install.is_some();
    for (install, proof) in proofs {
        let why = match proof {
            Proof::Gone => continue,
            Proof::Lives(why) => format!("{install} is at work: {why}"),
            Proof::Hidden(why) => format!("whether {install} is gone cannot be told: {why}"),
        };
        if named {
            return Err(Error::Refused(Refusal::new(Reason::ManagedByAnother, why)));
        }
        output::say(&format!("left alone: {why}"));
        installs.remove(&Some(install));
    }
    if installs.is_empty() {
        output::print("no object is managed by an installation that is gone: nothing is taken over\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let sentence = sentence(&installs);
    if wish.dry_run {
        output::print(&format!("would take over {sentence}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !wish.yes && !agreed(&sentence)? {
        output::print("nothing was changed\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut count = 0;
    for (install, objects) in &installs {
        for object in objects {
            let install = install.as_deref().unwrap_or_default();
            count += usize::from(handover::release(client, install, object).await?);
        }
    }
    output::print(&format!("{count} objects taken over: the next watcher that sees them manages them\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Those that are meant, without those that nobody manages.
fn chosen(installs: Installs, wish: &Wish, place: Option<&(String, String)>) -> Result<Installs> {
    let mut found = Installs::new();
    let mut free = false;
    for (install, objects) in installs {
        let of = |one: &Managed| place.is_none_or(|(namespace, name)| one.namespace == *namespace && one.name == *name);
        let objects: Vec<_> = objects.into_iter().filter(of).collect();
        let meant = wish.install.is_none_or(|wanted| install.as_deref() == Some(wanted));
        if objects.is_empty() || !meant {
            continue;
        }
        if install.is_some() {
            found.insert(install, objects);
        } else {
            free = true;
        }
    }
    match (place, found.is_empty()) {
        (Some((namespace, name)), true) if free => {
            Err(Error::Absent(format!("{namespace}/{name} is managed by nobody yet: a watcher that runs takes it")))
        }
        (Some((namespace, name)), true) => {
            let of = wish.install.map(|install| format!(" that {install} manages")).unwrap_or_default();
            Err(Error::Absent(format!("there is no StatefulSetBackup or StatefulSetRestore {namespace}/{name}{of}")))
        }
        (None, true) if wish.install.is_some() => {
            let install = wish.install.unwrap_or_default();
            Err(Error::Absent(format!("nothing is managed by {install}: sts-backup doctor shows who manages what")))
        }
        _ => Ok(found),
    }
}

fn sentence(installs: &Installs) -> String {
    let of = |(install, objects): (&Option<String>, &Vec<Managed>)| {
        let shown = objects.iter().take(SHOWN).map(|one| format!("{} {}/{}", one.kind, one.namespace, one.name));
        let more = objects.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let names = shown.collect::<Vec<_>>().join(", ");
        format!("{names}{more} of {}", install.as_deref().unwrap_or_default())
    };
    installs.iter().map(of).collect::<Vec<_>>().join("; ")
}

fn agreed(sentence: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::Usage(format!("would take over {sentence}: add --yes, since nobody can be asked here")));
    }
    output::ask(&format!("take over {sentence}? [y/N] "));
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Error::Config(format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn managed(kind: &'static str, name: &str) -> Managed {
        Managed { kind, namespace: "shop".into(), name: name.into() }
    }

    fn installs() -> Installs {
        let old = vec![managed("StatefulSetBackup", "nightly"), managed("StatefulSetRestore", "back")];
        let free = vec![managed("StatefulSetBackup", "new")];
        Installs::from([(Some("old/sts-backup".into()), old), (None, free)])
    }

    fn wish<'a>(object: Option<&'a Target>, install: Option<&'a str>) -> Wish<'a> {
        Wish { object, install, dry_run: false, yes: true }
    }

    #[test]
    fn what_is_meant_is_chosen_and_what_nobody_manages_is_left() {
        let all = chosen(installs(), &wish(None, None), None).unwrap();
        assert_eq!(sentence(&all), "StatefulSetBackup shop/nightly, StatefulSetRestore shop/back of old/sts-backup");
        let place = ("shop".to_owned(), "back".to_owned());
        let one = chosen(installs(), &wish(None, None), Some(&place)).unwrap();
        assert_eq!(sentence(&one), "StatefulSetRestore shop/back of old/sts-backup");
        let refused = |install, name: &str| {
            let place = ("shop".to_owned(), name.to_owned());
            chosen(installs(), &wish(None, install), Some(&place)).unwrap_err().to_string()
        };
        assert!(refused(None, "new").contains("managed by nobody yet"));
        assert!(refused(None, "none").contains("there is no"));
        assert!(refused(Some("other/x"), "back").contains("that other/x manages"));
        assert!(chosen(installs(), &wish(None, Some("other/x")), None).is_err());
    }
}
