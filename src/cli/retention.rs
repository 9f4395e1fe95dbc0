//! `retention`: what a policy keeps and drops, and by which rules, before it does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::{Deserialize, Serialize};

use super::output::{self, Output};
use super::{Global, manifest};
use crate::api::backup::StatefulSetBackup;
use crate::api::snapshot::VolumeSnapshot;
use crate::api::{annotation, label};
use crate::client;
use crate::error::{Error, Result, sentence};
use crate::plan::known::{self, Owner, Record, Snapshot, Snapshots, State, snapshot};
use crate::plan::name;
use crate::plan::noun::Want;
use crate::plan::retention::{Fate, Rule, Run, retain};
use crate::plan::roll::{self, Roll};
use crate::run;
use crate::step::lock;

#[derive(Args, Debug)]
pub struct Retention {
    /// The StatefulSetBackup, as a manifest; "-" reads standard input
    #[arg(short, long = "filename", value_name = "FILE")]
    filename: PathBuf,
    /// The runs, as a JSON list of objects with id, cutTime, complete and claims [default: those in the cluster]
    #[arg(long, value_name = "FILE")]
    runs: Option<PathBuf>,
    /// When the new run is cut, RFC 3339: ages count back from here [default: the newest complete run's cutTime]
    #[arg(long, value_name = "TIME")]
    now: Option<Timestamp>,
    /// How the answer is written
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

/// A run in the file.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    id: String,
    cut_time: Timestamp,
    complete: bool,
    #[serde(default)]
    claims: Vec<String>,
}

/// A run in the answer.
#[derive(Serialize, Debug)]
struct Answer {
    id: String,
    keep: bool,
    rules: Vec<&'static str>,
}

/// What is known of the runs, beside what the rules ask for.
#[derive(Default)]
struct Found {
    runs: Vec<Run<String>>,
    /// Those that stay although no rule wants them.
    pinned: BTreeSet<String>,
    remarks: Vec<String>,
}

pub fn run(global: &Global, asked: &Retention) -> Result<ExitCode> {
    let policy = manifest::backup(&asked.filename)?;
    let wrong = |why: String| Error::Usage(format!("{}: {why}", asked.filename.display()));
    let problems = policy.retention_problems();
    if !problems.is_empty() {
        return Err(wrong(problems.join("; ")));
    }
    let zone_name = policy.spec.time_zone();
    let zone = TimeZone::get(zone_name)
        .map_err(|_| wrong(format!("spec.timeZone {zone_name:?} is not in the time zone database")))?;
    let found = match &asked.runs {
        Some(path) => from_file(path)?,
        None => super::block_on(from_cluster(global, policy.clone()))?,
    };
    let newest = found.runs.iter().filter(|run| run.complete).map(|run| run.cut).max();
    let now = asked.now.or(newest).unwrap_or_default();
    let verdicts = retain(&found.runs, policy.spec.retention_policy.as_ref(), now, &zone);
    let answer = |(id, fate, rules): (String, Fate, Vec<Rule>)| Answer {
        keep: fate == Fate::Keep || found.pinned.contains(&id),
        rules: rules.into_iter().map(Rule::name).collect(),
        id,
    };
    let answers: Vec<_> =
        verdicts.into_iter().map(|verdict| answer((verdict.id, verdict.fate, verdict.rules))).collect();
    output::print(&match asked.output {
        Output::Json => output::json(&answers)?,
        Output::Yaml => output::yaml(&answers)?,
        Output::Name => answers.iter().filter(|run| run.keep).map(|run| run.id.clone() + "\n").collect(),
        Output::Table => table(&answers, &found, now),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn from_file(path: &Path) -> Result<Found> {
    let wrong = |why: String| Error::Usage(format!("{}: {why}", path.display()));
    let form = r#"expected [{"id": "...", "cutTime": "2026-01-01T00:00:00Z", "complete": true, "claims": ["..."]}]"#;
    let lines: Vec<Line> =
        serde_json::from_str(&manifest::text(path)?).map_err(|error| wrong(format!("{error}; {form}")))?;
    let mut ids = BTreeSet::new();
    for line in &lines {
        if !ids.insert(&line.id) {
            return Err(wrong(format!("run {:?} is there twice", line.id)));
        }
        if line.complete && line.claims.is_empty() {
            return Err(wrong(format!("run {:?} is complete, but has no claims", line.id)));
        }
    }
    let run = |line: Line| Run {
        id: line.id,
        cut: line.cut_time,
        complete: line.complete,
        claims: line.claims.into_iter().collect(),
    };
    Ok(Found { runs: lines.into_iter().map(run).collect(), ..Found::default() })
}

/// The runs of the policy, as the snapshots in the StatefulSet's namespace tell them.
async fn from_cluster(global: &Global, policy: StatefulSetBackup) -> Result<Found> {
    let connection = client::connect(&global.access()).await?;
    let want = run::file::want_of(&connection, global.namespace.as_deref(), policy).await?;
    let (namespace, statefulset) = (&want.statefulset_namespace, &want.statefulset);
    let api: Api<VolumeSnapshot> = Api::namespaced(connection.client.clone(), namespace);
    let of = ListParams::default().labels(&format!("{}={statefulset}", label::STATEFULSET));
    let path = format!("VolumeSnapshots of StatefulSet {namespace}/{statefulset}");
    let objects = api.list(&of).await.map_err(|error| Error::api("list", path, error))?;
    let all: Snapshots = objects.items.iter().map(|one| (one.name_any(), Snapshot::of(one))).collect();
    let leases: Api<Lease> = Api::namespaced(connection.client.clone(), namespace);
    let sealed = || roll::sealed(&all, |_, _| true);
    let (roll, remark) = match leases.get_opt(&name::lease(statefulset)).await {
        // Before the first record the next backup puts on record what is sealed.
        Ok(lease) => (lease.as_ref().and_then(lock::roll).unwrap_or_else(sealed), None),
        Err(error) => {
            let remark = format!("which runs are on record cannot be read ({}): all are counted", sentence(&error));
            (sealed(), Some(remark))
        }
    };
    let mut found = sort(&all, &roll, &want);
    found.remarks.extend(remark);
    Ok(found)
}

/// Those of the policy, and a word about what else is there.
fn sort(all: &Snapshots, roll: &Roll, want: &Want) -> Found {
    let mut found = Found::default();
    let (mut orphaned, mut imported): (Vec<String>, usize) = (vec![], 0);
    for run in known::runs(all, Some(roll)) {
        match run.maker.owner(want) {
            Owner::Own => {
                let id = run.id.to_string();
                imported += usize::from(run.record == Record::Imported);
                if run.state == State::Complete && run.snapshots.iter().any(|(_, one)| !one.pins.is_empty()) {
                    found.pinned.insert(id.clone());
                }
                let Run { cut, complete, claims, .. } = run.counted(&want.statefulset);
                found.runs.push(Run { id, cut, complete, claims });
            }
            Owner::Orphaned => orphaned.push(format!(
                "run {} is orphaned (of a former {}, uid {}): left alone, unless the object has the annotation {}: {}",
                run.id,
                run.maker.name,
                run.maker.uid,
                annotation::ADOPT,
                run.maker.uid
            )),
            Owner::Foreign => {}
        }
    }
    let legacy = all.values().filter(|one| one.run.is_none() && one.stranger.is_none()).count();
    let strangers = snapshot::strangers(all).count();
    found.remarks = orphaned;
    if imported > 0 {
        found.remarks.push(format!(
            "{imported} runs were sealed before runs were put on record: they let no other go, and each goes once the rules \
             want it no more beside those on record"
        ));
    }
    if strangers > 0 {
        found.remarks.push(format!(
            "{strangers} VolumeSnapshots bear the label {} of a run that they do not belong to, and are left alone",
            label::RUN
        ));
    }
    if legacy > 0 {
        found.remarks.push(format!("{legacy} VolumeSnapshots without the label {} are left alone", label::RUN));
    }
    found
}

fn table(answers: &[Answer], found: &Found, now: Timestamp) -> String {
    let heading = ["RUN", "CUT", "AGE", "CLAIMS", "", "RULES"].map(String::from).to_vec();
    let row = |answer: &Answer| {
        let run = found.runs.iter().find(|run| run.id == answer.id);
        let cut = run.map(|run| run.cut).unwrap_or_default();
        let pinned = found.pinned.contains(&answer.id) && answer.rules.is_empty();
        vec![
            answer.id.clone(),
            format!("{cut:.0}"),
            age(now, cut),
            run.map_or(0, |run| run.claims.len()).to_string(),
            if answer.keep { "keep" } else { "drop" }.into(),
            if pinned { "pinned by a restore".into() } else { answer.rules.join(", ") },
        ]
    };
    let rows: Vec<_> = std::iter::once(heading).chain(answers.iter().map(row)).collect();
    let kept = answers.iter().filter(|answer| answer.keep).count();
    let count = format!("{kept} kept, {} dropped", answers.len() - kept);
    let remarks = std::iter::once(&count).chain(&found.remarks).map(|remark| remark.clone() + "\n");
    output::table(&rows) + &remarks.collect::<String>()
}

/// As kubectl writes it: the greatest unit that is whole.
fn age(now: Timestamp, cut: Timestamp) -> String {
    let seconds = now.duration_since(cut).as_secs();
    match seconds {
        ..0 => "future".into(),
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
