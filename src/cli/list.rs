//! `list`: policies, runs and restores, as kubectl would list them.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::output::{self, Output, age};
use super::{Global, block_on};
use crate::api::annotation;
use crate::api::backup::StatefulSetBackup;
use crate::api::restore::{RestorePhase, StatefulSetRestore};
use crate::api::snapshot::VolumeSnapshot;
use crate::client;
use crate::error::{Error, Result};
use crate::plan::catalog::{self, Origin, Run};
use crate::plan::known::Maker;

#[derive(Args, Debug)]
pub struct List {
    /// What to list
    #[arg(value_enum, default_value_t = What::Backups)]
    what: What,
    /// Of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// StatefulSetBackups
    Backups,
    /// The runs that there are snapshots of, whoever made them
    Runs,
    /// StatefulSetRestores
    Restores,
}

/// Where to look: one namespace, or all of them.
struct Scope {
    client: Client,
    namespace: Option<String>,
}

impl Scope {
    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        client::within(&self.client, self.namespace.as_deref())
    }

    async fn all<K>(&self) -> Result<Vec<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let place = self.namespace.as_ref().map_or("all namespaces".to_owned(), |name| format!("namespace {name}"));
        let what = format!("{} in {place}", K::plural(&()));
        let list = self.api::<K>().list(&ListParams::default()).await;
        let mut items = list.map_err(|error| Error::api("list", what, error))?.items;
        items.sort_by_key(|item| (item.namespace(), item.name_any()));
        Ok(items)
    }
}

pub fn run(global: &Global, list: &List) -> Result<ExitCode> {
    let text = block_on(async {
        let connection = client::connect(&global.access()).await?;
        let own = global.namespace.clone().unwrap_or_else(|| connection.namespace.clone());
        let scope = Scope { client: connection.client, namespace: (!list.all_namespaces).then_some(own) };
        let sight = Sight { wide: list.all_namespaces, now: Timestamp::now() };
        match list.what {
            What::Backups => {
                objects(&scope.all::<StatefulSetBackup>().await?, list.output, "statefulsetbackup", |all| {
                    backups(all, &sight)
                })
            }
            What::Restores => {
                objects(&scope.all::<StatefulSetRestore>().await?, list.output, "statefulsetrestore", |all| {
                    restores(all, &sight)
                })
            }
            What::Runs => {
                let found = found(&scope).await?;
                match list.output {
                    Output::Table => Ok(runs(&found, &sight)),
                    Output::Json => output::json(&found.runs),
                    Output::Yaml => output::yaml(&found.runs),
                    Output::Name => Ok(names(&found.runs)),
                }
            }
        }
    })?;
    if text.is_empty() {
        let place = if list.all_namespaces { "all namespaces" } else { "this namespace" };
        let what = list.what.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        eprintln!("no {what} in {place}");
    }
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// How tables are made: with the namespace as a column or not, and seen when.
pub struct Sight {
    pub wide: bool,
    pub now: Timestamp,
}

/// What kubectl prints of several objects.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectList<'a, K> {
    api_version: &'static str,
    kind: &'static str,
    metadata: BTreeMap<&'static str, &'static str>,
    items: &'a [K],
}

fn objects<K>(all: &[K], format: Output, kind: &str, table: impl FnOnce(&[K]) -> String) -> Result<String>
where
    K: Resource<DynamicType = ()> + Serialize + Clone,
{
    let mut shown = all.to_vec();
    for one in &mut shown {
        one.meta_mut().managed_fields = None;
    }
    let metadata = BTreeMap::from([("resourceVersion", "")]);
    let list = ObjectList { api_version: "v1", kind: "List", metadata, items: &shown };
    match format {
        Output::Table => Ok(table(all)),
        Output::Json => output::json(&list),
        Output::Yaml => output::yaml(&list),
        Output::Name => {
            let name = |one: &K| format!("{kind}.{}/{}\n", crate::api::GROUP, one.name_any());
            Ok(all.iter().map(name).collect::<Vec<_>>().concat())
        }
    }
}

pub fn backups(all: &[StatefulSetBackup], sight: &Sight) -> String {
    let row = |one: &StatefulSetBackup| {
        let status = one.status.clone().unwrap_or_default();
        let last = status.last_run.unwrap_or_default();
        vec![
            one.namespace().unwrap_or_default(),
            one.name_any(),
            one.spec.stateful_set_ref.name.clone(),
            or_none(one.spec.schedule().map(ToOwned::to_owned)),
            status.phase.map_or("Pending".into(), |phase| phase.to_string()),
            or_none(status.last_backup_time.map(|time| age(sight.now, time.0))),
            or_none(status.next_schedule_time.map(|time| time.0.to_string())),
            or_none(last.freeze_seconds.map(|seconds| format!("{seconds:.1}s"))),
            or_none(one.metadata.creation_timestamp.as_ref().map(|time| age(sight.now, time.0))),
        ]
    };
    let head = ["NAMESPACE", "NAME", "STATEFULSET", "SCHEDULE", "PHASE", "LAST", "NEXT", "FREEZE", "AGE"];
    table(&head, all.iter().map(row), sight)
}

pub fn restores(all: &[StatefulSetRestore], sight: &Sight) -> String {
    let row = |one: &StatefulSetRestore| {
        let status = one.status.clone().unwrap_or_default();
        let held = status.phase == Some(RestorePhase::Failed) && status.run.is_some();
        vec![
            one.namespace().unwrap_or_default(),
            one.name_any(),
            one.spec.stateful_set_ref.name.clone(),
            or_none(one.spec.backup_name.clone()),
            or_none(status.plan.as_ref().and_then(|plan| plan.run_id.clone())),
            if held { "Failed (Held)".into() } else { status.phase.map_or("New".into(), |phase| phase.to_string()) },
            or_none(status.downtime_seconds.map(|seconds| format!("{seconds:.1}s"))),
            or_none(status.undo_deadline.map(|time| time.0.to_string())),
            or_none(one.metadata.creation_timestamp.as_ref().map(|time| age(sight.now, time.0))),
        ]
    };
    let head = ["NAMESPACE", "NAME", "TARGET", "BACKUP", "RUN", "PHASE", "DOWNTIME", "UNDO UNTIL", "AGE"];
    table(&head, all.iter().map(row), sight)
}

/// Runs, and the seconds of freeze that the objects remember, by maker and id.
#[derive(Default)]
pub struct Found {
    pub runs: Vec<Run>,
    pub freezes: BTreeMap<(Maker, String), f64>,
}

/// The runs of the scope, told apart by whether their makers are there still. An object that may not be looked at
/// leaves its runs unjudged.
async fn found(scope: &Scope) -> Result<Found> {
    let snapshots = scope.all::<VolumeSnapshot>().await?;
    let mut found = Found { runs: catalog::runs(&snapshots), freezes: BTreeMap::new() };
    let mut makers: BTreeMap<(String, String), Option<Option<StatefulSetBackup>>> = BTreeMap::new();
    for run in &found.runs {
        let Maker { namespace, name, .. } = &run.maker;
        if run.origin.is_none() && !makers.contains_key(&(namespace.clone(), name.clone())) {
            let api: Api<StatefulSetBackup> = Api::namespaced(scope.client.clone(), namespace);
            makers.insert((namespace.clone(), name.clone()), api.get_opt(name).await.ok());
        }
    }
    for run in &mut found.runs {
        let Some(Some(maker)) = makers.get(&(run.maker.namespace.clone(), run.maker.name.clone())) else { continue };
        judge(run, maker.as_ref(), &mut found.freezes);
    }
    for maker in makers.into_values().flatten().flatten() {
        hold(&mut found.runs, &maker);
    }
    Ok(found)
}

/// Which rules of the object's retention hold its runs.
pub fn hold(runs: &mut [Run], maker: &StatefulSetBackup) {
    let place = (maker.namespace().unwrap_or_default(), maker.name_any());
    let is_at = |maker: &Maker| (&maker.namespace, &maker.name) == (&place.0, &place.1);
    let mut its: Vec<_> = runs.iter_mut().filter(|run| run.origin.is_none() && is_at(&run.maker)).collect();
    let zone = TimeZone::get(maker.spec.time_zone()).unwrap_or(TimeZone::UTC);
    catalog::hold(&mut its, maker.spec.retention_policy.as_ref(), &zone);
}

/// Whether the run is the object's own, and how long it froze, as far as that is known.
pub fn judge(run: &mut Run, maker: Option<&StatefulSetBackup>, freezes: &mut BTreeMap<(Maker, String), f64>) {
    let uid = run.maker.uid.as_str();
    let owns = |one: &&StatefulSetBackup| {
        one.uid().as_deref() == Some(uid) || one.annotations().get(annotation::ADOPT).is_some_and(|old| old == uid)
    };
    let Some(maker) = maker.filter(owns) else {
        run.origin = run.origin.or((uid != "file").then_some(Origin::Orphaned)); // a file is no object
        return;
    };
    let history = maker.status.iter().flat_map(|status| &status.history);
    let frozen = history.filter(|entry| Some(&entry.id) == run.id.as_ref()).find_map(|entry| entry.freeze_seconds);
    if let (Some(id), Some(frozen)) = (run.id.clone(), frozen) {
        freezes.insert((run.maker.clone(), id), frozen);
    }
}

pub fn runs(found: &Found, sight: &Sight) -> String {
    let row = |run: &Run| {
        let id = run.id.clone().filter(|_| run.origin != Some(Origin::Foreign));
        let id = id.unwrap_or_else(|| run.snapshots.join(",")); // it is restored by its name
        let frozen = found.freezes.get(&(run.maker.clone(), id.clone()));
        let state = match (run.origin, run.complete) {
            (Some(Origin::Legacy), _) => "legacy",
            (Some(Origin::Foreign), _) => "foreign",
            (Some(Origin::Orphaned), true) => "complete, orphaned",
            (Some(Origin::Orphaned), false) => "incomplete, orphaned",
            (None, true) => "complete",
            (None, false) => "incomplete",
        };
        let mut sizes: Vec<_> = run.sizes.clone();
        sizes.dedup();
        vec![
            run.namespace.clone(),
            id,
            run.policy.clone(),
            run.stateful_set.clone(),
            or_none(run.cut_time.map(|cut| format!("{cut:.0}"))),
            state.to_owned(),
            or_none(run.consistency.clone()),
            run.claims.len().to_string(),
            or_none(Some(sizes.join(",")).filter(|sizes| !sizes.is_empty())),
            or_none(frozen.map(|seconds| format!("{seconds:.1}s"))),
            or_none(run.skew.map(|skew| format!("{:.3}s", skew.as_secs_f64()))),
            or_none(Some(run.kept_by.join(",")).filter(|rules| !rules.is_empty())),
        ]
    };
    let head = [
        "NAMESPACE",
        "RUN",
        "POLICY",
        "STATEFULSET",
        "CUT",
        "STATE",
        "CONSISTENCY",
        "CLAIMS",
        "SIZE",
        "FREEZE",
        "SKEW",
        "KEPT BY",
    ];
    let odd = |run: &Run| {
        let (namespace, message) = (&run.namespace, run.message.as_ref()?);
        Some(match (&run.id, run.origin) {
            (Some(id), None | Some(Origin::Orphaned)) => {
                format!("run {id} of StatefulSet {namespace}/{} is not complete: {message}\n", run.stateful_set)
            }
            _ => format!("VolumeSnapshot {namespace}/{} {message}\n", run.snapshots.join(",")),
        })
    };
    table(&head, found.runs.iter().map(row), sight) + &found.runs.iter().filter_map(odd).collect::<String>()
}

fn names(runs: &[Run]) -> String {
    runs.iter().map(|run| run.id.clone().unwrap_or_else(|| run.snapshots.join(",")) + "\n").collect()
}

/// The first column is the namespace, which only a list of all of them shows. Nothing at all has no heading.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>, sight: &Sight) -> String {
    let head = head.iter().map(ToString::to_string).collect();
    let all: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let skip = usize::from(!sight.wide);
    let cells: Vec<_> = all.into_iter().map(|row| row.into_iter().skip(skip).collect()).collect();
    if cells.len() == 1 { String::new() } else { output::table(&cells) }
}

fn or_none(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "-".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::catalog::tests::snapshot;

    const NOW: &str = "2026-11-27T12:00:00Z";

    fn sight(wide: bool) -> Sight {
        Sight { wide, now: NOW.parse().unwrap() }
    }

    fn policy(uid: &str) -> StatefulSetBackup {
        serde_json::from_value(json!({
            "apiVersion": crate::api::API_VERSION, "kind": "StatefulSetBackup",
            "metadata": { "name": "nightly", "namespace": "shop", "uid": uid, "creationTimestamp": "2026-11-20T12:00:00Z" },
            "spec": { "statefulSetRef": { "name": "web" }, "schedule": "0 2 * * *", "retentionPolicy": { "keepLast": 3 } },
            "status": { "phase": "Ready", "lastBackupTime": "2026-11-27T11:58:30Z",
                "lastRun": { "id": "20261125-012640", "freezeSeconds": 1.25 },
                "history": [{ "id": "20261125-012640", "freezeSeconds": 1.25, "outcome": "Succeeded" }] },
        }))
        .unwrap()
    }

    #[test]
    fn tables_of_all_three_read_like_those_of_kubectl() {
        let fresh = json!({ "metadata": { "name": "b", "namespace": "shop", "creationTimestamp": NOW },
            "spec": { "statefulSetRef": { "name": "db" } } });
        let all = [policy("uid-1"), serde_json::from_value(fresh).unwrap()];
        let restore = json!({ "metadata": { "name": "back", "namespace": "shop", "creationTimestamp": NOW },
            "spec": { "statefulSetRef": { "name": "web" }, "backupName": "nightly" },
            "status": { "phase": "Completed", "undoDeadline": "2026-11-28T12:00:00Z", "downtimeSeconds": 4.62,
                "plan": { "format": "1", "runId": "20261125-012640" } } });
        let held = json!({ "metadata": { "name": "stuck", "namespace": "shop" },
            "spec": { "statefulSetRef": { "name": "web" }, "snapshotNames": ["a"] },
            "status": { "phase": "Failed", "run": { "goal": "New" } } });
        let snapshots = [
            snapshot(Some("20261125-012640"), 0, 100),
            snapshot(Some("20261125-012640"), 1, 250),
            snapshot(Some("20261126-012640"), 0, 86_400_000),
            snapshot(None, 0, 0),
        ];
        let judged = |maker: Option<&StatefulSetBackup>| {
            let mut found = Found { runs: catalog::runs(&snapshots), freezes: BTreeMap::new() };
            for run in found.runs.iter_mut().filter(|run| run.origin.is_none()) {
                judge(run, maker, &mut found.freezes);
            }
            if let Some(maker) = maker {
                hold(&mut found.runs, maker);
            }
            found
        };
        let (mine, gone, anew) = (judged(Some(&all[0])), judged(None), judged(Some(&policy("uid-2"))));
        assert_eq!(runs(&gone, &sight(false)), runs(&anew, &sight(false)), "another object of the name is no maker");
        let restores = restores(&[restore, held].map(|one| serde_json::from_value(one).unwrap()), &sight(false));
        let text = [
            backups(&all, &sight(true)),
            restores,
            runs(&mine, &sight(false)),
            runs(&gone, &sight(true)),
            output::json(&gone.runs[1..].to_vec()).unwrap(),
            names(&mine.runs),
        ];
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../../snapshots");
        settings.set_prepend_module_to_snapshot(false);
        settings.bind(|| insta::assert_snapshot!("lists", text.join("\n")));
    }
}
