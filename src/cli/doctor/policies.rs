//! `doctor --policies`: how the admission policies stand, and whom and what they stop once they deny: authors without the
//! rights that their objects ask for, objects that are refused as they are, runs that nobody has put on record.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use super::authors;
use super::needs::{self, Need};
use crate::api::backup::StatefulSetBackup;
use crate::api::restore::StatefulSetRestore;
use crate::api::snapshot::VolumeSnapshot;
use crate::api::{BACKUP_POLICY, FENCE_POLICY, LOCK_POLICY, MARKS_POLICY, RESTORE_POLICY, label};
use crate::cli::output::{self, Output};
use crate::client::{Connection, all, within};
use crate::error::{Error, Result, or_absent, sentence};
use crate::plan::guard::Guard;
use crate::plan::known::{self, Record, Snapshot, Snapshots, State, snapshot};
use crate::plan::member::Odd;
use crate::plan::name;
use crate::plan::roll::Roll;
use crate::step::{lock, observe};

const POLICIES: [&str; 5] = [BACKUP_POLICY, RESTORE_POLICY, FENCE_POLICY, LOCK_POLICY, MARKS_POLICY];
/// Those of an installation, which bear its name in front.
const ACCOUNTS: [&str; 2] = ["volumes.backup.sts-backup.io", "jobs.backup.sts-backup.io"];
const INSTALL: &str = "sts-backup generate policies | kubectl apply --server-side -f -, or helm upgrade";
const INSTALL_OWN: &str =
    "install the chart or manifests/install.yaml of this version, unless runs are made by hand only";

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Line {
    pub level: Level,
    /// Kind and name of what it is about.
    pub about: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Nothing is denied for it now, or nobody knows.
    Warning,
    /// What it is to guard is not guarded.
    Problem,
}

impl Line {
    fn new(level: Level, about: impl Into<String>, message: impl Into<String>, remedy: Option<&str>) -> Line {
        Line { level, about: about.into(), message: message.into(), remedy: remedy.map(ToOwned::to_owned) }
    }

    pub(super) fn warning(about: impl Into<String>, message: impl Into<String>, remedy: &str) -> Line {
        Line::new(Level::Warning, about, message, Some(remedy))
    }
}

/// Looks at all namespaces, or at one, and prints what was found.
pub async fn run(connection: &Connection, namespace: Option<&str>, output: Output) -> Result<ExitCode> {
    let lines = look(&connection.client, namespace).await?;
    output::print(&match output {
        Output::Json => output::json(&lines)?,
        Output::Yaml => output::yaml(&lines)?,
        Output::Name => output::lines(&lines.iter().map(|line| line.about.clone()).collect::<Vec<_>>()),
        Output::Table => table(&lines),
    })?;
    let bad = lines.iter().any(|line| line.level == Level::Problem);
    Ok(if bad { ExitCode::from(10) } else { ExitCode::SUCCESS })
}

fn table(lines: &[Line]) -> String {
    let level = |line: &Line| match line.level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Problem => "problem",
    };
    let text = |line: &Line| match &line.remedy {
        Some(remedy) => format!("{} ({remedy})", line.message),
        None => line.message.clone(),
    };
    let row = |line: &Line| vec![level(line).to_owned(), line.about.clone(), text(line)];
    output::table(&lines.iter().map(row).collect::<Vec<_>>())
}

/// All that the client may see. What it may not is a line, too.
///
/// # Errors
/// Our own objects cannot be listed.
pub async fn look(client: &Client, namespace: Option<&str>) -> Result<Vec<Line>> {
    let mut lines = standing(client).await;
    let backups: Vec<StatefulSetBackup> = all(within(client, namespace), "").await?;
    let restores: Vec<StatefulSetRestore> = all(within(client, namespace), "").await?;
    lines.extend(backups.iter().flat_map(needs::refused));
    lines.extend(restores.iter().filter_map(|restore| needs::invalid(restore, &restore.problems())));
    let needs: Vec<Need> =
        backups.iter().flat_map(needs::of_backup).chain(restores.iter().flat_map(needs::of_restore)).collect();
    lines.extend(authors::lacking(client, &needs).await.unwrap_or_else(|error| unseen("authors", &error)));
    lines.extend(runs(client, namespace).await.unwrap_or_else(|error| unseen("runs", &error)));
    Ok(lines)
}

fn unseen(what: &str, error: &Error) -> Vec<Line> {
    let message = format!("were not looked at: {error}");
    vec![Line::warning(what, message, "run it with the rights of cluster-admin")]
}

/// A line for each policy.
async fn standing(client: &Client) -> Vec<Line> {
    let (every, none) = (ListParams::default(), "validatingadmissionpolicies and their bindings");
    let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone()).list(&every).await;
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone()).list(&every).await;
    let (policies, bindings) = match (policies, bindings) {
        (Ok(policies), Ok(bindings)) => (policies.items, bindings.items),
        (Err(error), _) | (_, Err(error)) => return unseen("policies", &Error::api("list", none, error)),
    };
    let guard = |name: &str| {
        let policy = policies.iter().find(|policy| policy.name_any() == name);
        observe::guard_of(name, policy, bindings.iter().find(|binding| binding.name_any() == name))
    };
    let mut lines: Vec<_> = POLICIES.iter().map(|name| line_of(name, &guard(name), INSTALL)).collect();
    for suffix in ACCOUNTS {
        let names: Vec<_> = policies.iter().map(ResourceExt::name_any).filter(|name| name.ends_with(suffix)).collect();
        // They bear no format: whatever there is belongs to the installation that has made it.
        let undated = |name: &str| Guard { outdated: false, ..guard(name) };
        lines.extend(names.iter().map(|name| line_of(name, &undated(name), INSTALL_OWN)));
        if names.is_empty() {
            let (about, message) = (format!("ValidatingAdmissionPolicy {suffix}"), "no installation has one");
            lines.push(Line::warning(about, message, INSTALL_OWN));
        }
    }
    lines
}

/// `install`: what installs it.
fn line_of(name: &str, guard: &Guard, install: &str) -> Line {
    let Some((about, what)) = guard.gap(name) else {
        return Line::new(Level::Ok, format!("ValidatingAdmissionPolicy {name}"), "stands and denies", None);
    };
    let on_trial = guard.actions.as_ref().is_some_and(|actions| !actions.is_empty()) && guard.fails == Some(true);
    if on_trial && !guard.outdated {
        Line::warning(about, what, "when no warning below is left: helm upgrade --set policies.actions='{Deny}'")
    } else {
        Line::new(Level::Problem, about, what, Some(install))
    }
}

/// What the snapshots of each StatefulSet say of runs, and its lock Lease does not.
async fn runs(client: &Client, namespace: Option<&str>) -> Result<Vec<Line>> {
    let objects: Vec<VolumeSnapshot> = all(within(client, namespace), label::STATEFULSET).await?;
    let mut sets: BTreeMap<(String, String), Vec<VolumeSnapshot>> = BTreeMap::new();
    for object in objects {
        let set = object.labels().get(label::STATEFULSET).cloned().unwrap_or_default();
        sets.entry((object.namespace().unwrap_or_default(), set)).or_default().push(object);
    }
    let mut lines = vec![];
    for ((namespace, set), objects) in sets {
        let leases: Api<Lease> = Api::namespaced(client.clone(), &namespace);
        let about = format!("runs of StatefulSet {namespace}/{set}");
        match or_absent(leases.get(&name::lease(&set)).await) {
            Ok(lease) => {
                let all = objects.iter().map(|one| (one.name_any(), Snapshot::of(one))).collect();
                lines.extend(off_record(&about, &all, lease.as_ref().and_then(lock::roll).as_ref()));
            }
            Err(error) => {
                let message = format!("nobody knows which are on record: {}", sentence(&error));
                lines.push(Line::warning(about, message, "it takes the right to get Leases there"));
            }
        }
    }
    Ok(lines)
}

/// The runs of one StatefulSet that retention does not count.
fn off_record(about: &str, all: &Snapshots, roll: Option<&Roll>) -> Vec<Line> {
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for run in known::runs(all, roll) {
        let why = match run.record {
            Record::Imported => "were sealed before runs were put on record, so nobody knows who made them",
            Record::Other => "have other snapshots than those on record",
            Record::None if run.state == State::Complete && roll.is_some() => "are complete and not on record",
            Record::None if run.state == State::Complete => {
                "are complete, and no run of it is on record yet: the next backup puts them on record as imported"
            }
            Record::None | Record::Own => continue,
        };
        found.entry(why).or_default().insert(run.id.to_string());
    }
    let remedy = "retention counts none of them; see sts-backup list runs, and delete what nobody of yours has made";
    let mut lines: Vec<_> =
        found.iter().map(|(why, runs)| Line::warning(about, format!("{} {why}", some(runs)), remedy)).collect();
    let is_copy = |odd: Odd| odd == Odd::Marks;
    let strangers: BTreeSet<_> =
        snapshot::strangers(all).filter(|(_, odd)| is_copy(*odd)).map(|(name, _)| name.clone()).collect();
    if !strangers.is_empty() {
        let message = format!("{} bear the labels of runs that they do not belong to", some(&strangers));
        lines.push(Line::warning(about, message, "they count for nothing; delete them, or take the labels off"));
    }
    for (name, odd) in snapshot::strangers(all).filter(|(_, odd)| !is_copy(*odd)) {
        let remedy = "it counts for nothing, and is restored only by its name";
        lines.push(Line::warning(about, format!("VolumeSnapshot {name} {odd}"), remedy));
    }
    lines
}

/// Three of them, and how many more there are.
pub(super) fn some(names: &BTreeSet<String>) -> String {
    const MOST: usize = 3;
    let first: Vec<_> = names.iter().take(MOST).map(String::as_str).collect();
    match names.len().saturating_sub(MOST) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
#[path = "policies/tests.rs"]
mod tests;
