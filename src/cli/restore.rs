//! `restore`: makes the object that asks for a restore; or, as a dry run, says what would come of it.

#[cfg(test)]
mod flags;

use std::fmt::Write;
use std::process::ExitCode;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args};
use jiff::{SignedDuration, Timestamp};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt};

use super::output::{self, Output};
use super::{Global, Target, block_on, follow};
use crate::api::condition::Reason;
use crate::api::restore::{
    OnFailure, ReleaseOldVolumes, StatefulSetRestore, StatefulSetRestoreSpec, Strategy, Uncovered,
};
use crate::api::shared::StatefulSetRef;
use crate::client::{self, Connection};
use crate::config::Settings;
use crate::error::{Error, Result, is_definite, sentence};
use crate::plan::noun::Refusal;
use crate::plan::preflight::{Finding, Severity};
use crate::plan::restore::preview::Preview;
use crate::run::restore::{Flow, Request, preview};

/// What the command line ends with when something refuses.
const REFUSED: u8 = 10;
/// Longest name of our objects, and what the API server appends to a generateName.
const NAME: usize = 52;
const GENERATED: usize = 5;

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("what").args(["backup", "snapshots"]).required(true)))]
pub struct Restore {
    /// The StatefulSet whose claims get the restored volumes
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    statefulset: Target,
    /// The StatefulSetBackup whose newest complete run is restored, as `list runs` prints it; it need not exist any more
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    backup: Option<Target>,
    /// Of its complete runs the newest that was cut at or before this instant, RFC 3339; a second without a fraction is
    /// all of it, so that the CUT of a run selects that run
    #[arg(long, value_name = "TIME", requires = "backup", conflicts_with = "run")]
    at: Option<Timestamp>,
    /// Of its runs this one, YYYYMMDD-HHMMSS
    #[arg(long, value_name = "ID", requires = "backup")]
    run: Option<String>,
    /// These VolumeSnapshots, and their claims only; comma-separated
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with_all = ["at", "run"])]
    snapshots: Vec<String>,
    /// The StatefulSet that the snapshots were taken of, to restore them into another one
    #[arg(long, value_name = "NAME")]
    source_statefulset: Option<String>,
    /// How the new volumes come under the claims [default: Staged]
    #[arg(long, value_name = "WORD", value_parser = words::<Strategy>(Strategy::ALL.iter().map(|word| word.as_str())))]
    strategy: Option<Strategy>,
    /// What becomes of replicas that run now and that the run lacks [default: Refuse]
    #[arg(long, value_name = "WORD", value_parser = words::<Uncovered>(Uncovered::ALL.iter().map(|word| word.as_str())))]
    uncovered: Option<Uncovered>,
    /// What a failure leads to once claims have been replaced [default: Rollback]
    #[arg(long, value_name = "WORD", value_parser = words::<OnFailure>(OnFailure::ALL.iter().map(|word| word.as_str())))]
    on_failure: Option<OnFailure>,
    /// Whether the StatefulSet is scaled to 0 for the swap; false is refused while a pod uses a claim [default: true]
    #[arg(long, value_name = "BOOL")]
    scale_down: Option<bool>,
    /// How long the pods may take to stop [default: 2m and their grace period, in turn or at once as they stop]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    stop_timeout: Option<i64>,
    /// How long a claim may take to disappear once it is deleted [default: 1m]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pvc_deletion_timeout: Option<i64>,
    /// When the old volumes are freed after the undo window [default: Auto]
    #[arg(long, value_name = "WORD", value_parser = words::<ReleaseOldVolumes>(ReleaseOldVolumes::ALL.iter().map(|word| word.as_str())))]
    release_old_volumes: Option<ReleaseOldVolumes>,
    /// How long the old volumes are kept for an undo: seconds, or a duration such as 36h [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    undo_window: Option<i64>,
    /// How long the pods may take to become ready, anew with each that does [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    ready_timeout: Option<i64>,
    /// How long the new volumes may take until they are Bound [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    stage_timeout: Option<i64>,
    /// Name of the object [default: the StatefulSet's, and five characters of the API server's choice]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Change nothing: print what would be done, and what would be refused (exit code 10)
    #[arg(long)]
    dry_run: bool,
    /// Follow the restore to its end, and end with its exit code
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How the object, or with --dry-run the plan, is written
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

/// The words of an enum of the API.
fn words<W>(all: impl Iterator<Item = &'static str>) -> impl TypedValueParser<Value = W>
where
    W: FromStr<Err = crate::api::word::NotAWord> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.collect::<Vec<_>>()).try_map(|word| word.parse::<W>())
}

/// Whole seconds: a number, or a duration with units.
pub fn seconds(text: &str) -> std::result::Result<i64, String> {
    let span = text.parse().map(SignedDuration::from_secs).or_else(|_| text.parse::<SignedDuration>());
    match span {
        Ok(span) if span >= SignedDuration::ZERO && span.subsec_nanos() == 0 => Ok(span.as_secs()),
        _ => Err("expected whole seconds, or a duration such as 90s, 30m or 36h".into()),
    }
}

impl Restore {
    /// In the namespace of the backup, where that is written with it: its runs are restored by an object beside it.
    fn object(&self, place: &str, statefulset: String) -> StatefulSetRestore {
        let written = self.backup.as_ref().and_then(|backup| backup.namespace.clone());
        let namespace = written.unwrap_or_else(|| place.to_owned());
        let elsewhere = (namespace != place).then(|| place.to_owned());
        let prefix: String = statefulset.chars().take(NAME - GENERATED - 1).collect();
        let mut object = StatefulSetRestore::new(
            "",
            StatefulSetRestoreSpec {
                stateful_set_ref: StatefulSetRef { name: statefulset, namespace: elsewhere },
                backup_name: self.backup.as_ref().map(|backup| backup.name.clone()),
                run_id: self.run.clone(),
                point_in_time: self.at,
                snapshot_names: self.snapshots.clone(),
                source_stateful_set: self.source_statefulset.clone(),
                strategy: self.strategy,
                uncovered: self.uncovered,
                on_failure: self.on_failure,
                undo_window_seconds: self.undo_window,
                ready_timeout_seconds: self.ready_timeout,
                stage_timeout_seconds: self.stage_timeout,
                scale_down: self.scale_down,
                stop_timeout_seconds: self.stop_timeout,
                pvc_deletion_timeout_seconds: self.pvc_deletion_timeout,
                release_old_volumes: self.release_old_volumes,
            },
        );
        object.metadata = ObjectMeta {
            name: self.name.clone(),
            generate_name: self.name.is_none().then(|| format!("{}-", prefix.trim_end_matches(['-', '.']))),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        };
        object
    }
}

pub fn run(global: &Global, asked: &Restore) -> Result<ExitCode> {
    block_on(async {
        let connection = client::connect(&global.access()).await?;
        let (place, statefulset) = asked.statefulset.resolve(global, &connection.namespace)?;
        let object = asked.object(&place, statefulset);
        let namespace = object.namespace().unwrap_or_default();
        if asked.dry_run {
            return Box::pin(dry_run(&connection, asked.output, object)).await;
        }
        let api: Api<StatefulSetRestore> = Api::namespaced(connection.client.clone(), &namespace);
        let mut made = api.create(&PostParams::default(), &object).await.map_err(|error| refused(&object, error))?;
        made.metadata.managed_fields = None;
        let name = format!("statefulsetrestore.{}/{}", crate::api::GROUP, made.name_any());
        output::print(&match asked.output {
            Output::Table if namespace != place => format!("{name} created in namespace {namespace}\n"),
            Output::Table => format!("{name} created\n"),
            Output::Name => format!("{name}\n"),
            Output::Json => output::json(&made)?,
            Output::Yaml => output::yaml(&made)?,
        })?;
        if asked.wait {
            return follow::follow(global, &connection.client, &made, None).await;
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn place(object: &StatefulSetRestore) -> String {
    // Without a name its generateName.
    format!("StatefulSetRestore {}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

fn refused(object: &StatefulSetRestore, error: kube::Error) -> Error {
    match &error {
        kube::Error::Api(status) if status.code == 409 => {
            Error::Usage(format!("{} is there already, and a restore runs once: choose another --name", place(object)))
        }
        _ => Error::api("create", place(object), error),
    }
}

/// First the object itself, for the API server and its policies to judge; then what its run would find.
async fn dry_run(connection: &Connection, format: Output, object: StatefulSetRestore) -> Result<ExitCode> {
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<StatefulSetRestore> = Api::namespaced(connection.client.clone(), &namespace);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let (object, judged) = match api.create(&params, &object).await {
        Ok(made) => (made, None),
        Err(error) if is_definite(&error) || matches!(&error, kube::Error::Api(status) if status.code == 409) => {
            let finding = of_object(&object, &error);
            (object, Some(finding))
        }
        Err(error) => return Err(Error::api("create", place(&object), error)),
    };
    let request = Request { namespace, name: object.name_any(), flow: Flow::Restore, attempt: None };
    let seen = preview(connection, &Settings::from_env()?, &object, &request).await;
    let mut seen = seen.map_err(with_own_rights)?;
    seen.findings.splice(0..0, judged);
    output::print(&match format {
        Output::Table => text(&object, &seen),
        Output::Json => output::json(&seen)?,
        Output::Yaml => output::yaml(&seen)?,
        Output::Name => output::lines(&seen.claims.iter().map(|row| &row.pvc).collect::<Vec<_>>()),
    })?;
    Ok(if seen.refuses() { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
}

/// Who asks for a restore needs few rights; who looks at all that it would look at needs to read what lies in no namespace.
fn with_own_rights(error: Error) -> Error {
    match error {
        Error::Refused(Refusal { reason: Reason::Forbidden, message }) => {
            let more = "a dry run looks with your own rights (docs/authority.md has them). Without --dry-run the runner looks \
                        with its own, and refuses before it touches anything";
            Error::Refused(Refusal::new(Reason::Forbidden, format!("{message}; {more}")))
        }
        error => error,
    }
}

fn of_object(object: &StatefulSetRestore, error: &kube::Error) -> Finding {
    let (reason, remedy) = match error {
        kube::Error::Api(status) if status.code == 403 => (Reason::Forbidden, "ask for the right, or let another ask"),
        kube::Error::Api(status) if status.code == 409 => (Reason::PreflightRefused, "choose another --name"),
        _ => (Reason::PreflightRefused, "change what it names"),
    };
    let (message, remedy) = (sentence(error), remedy.to_owned());
    Finding { severity: Severity::Refuse, reason, object: place(object), message, remedy }
}

/// The plan for people.
pub fn text(object: &StatefulSetRestore, seen: &Preview) -> String {
    let spec = &object.spec;
    let from = match (&seen.run, &spec.backup_name) {
        (Some(run), Some(backup)) => format!("run {run} of StatefulSetBackup {backup}"),
        (Some(run), None) => format!("snapshots of run {run}"),
        (None, _) if seen.claims.is_empty() => "nothing: no run was found".to_owned(),
        (None, _) => "snapshots without a run".to_owned(),
    };
    let namespace = object.namespace().unwrap_or_default();
    let of = |name: &str| format!("{}/{name}", spec.stateful_set_ref.namespace_or(&namespace));
    let mut rows = vec![("StatefulSet", of(&spec.stateful_set_ref.name)), ("From", from)];
    if spec.source_stateful_set() != spec.stateful_set_ref.name {
        rows.push(("Taken Of", of(spec.source_stateful_set())));
    }
    rows.extend(seen.cut.map(|cut| ("Cut", format!("{cut:.0}"))));
    rows.push(("Strategy", spec.strategy().to_string()));
    let mut text = super::describe::fields(&rows);
    let claims = seen.claims.iter().map(|row| {
        let snapshot = row.snapshot.clone().unwrap_or_else(|| "none: it starts empty".into());
        vec![row.pvc.clone(), snapshot, row.old_pv.clone().unwrap_or_else(|| "-".into()), row.size.clone()]
    });
    super::describe::section(&mut text, "Claims", &["CLAIM", "SNAPSHOT", "OLD VOLUME", "SIZE"], claims);
    let word = |severity| if severity == Severity::Refuse { "refuse" } else { "warn" };
    let found = seen.findings.iter().map(|one| {
        let says = format!("{}: {} ({})", one.object, one.message, one.remedy);
        vec![word(one.severity).to_owned(), one.reason.to_string(), says]
    });
    super::describe::section(&mut text, "Findings", &["", "REASON", "WHAT (REMEDY)"], found);
    if !seen.steps.is_empty() {
        text += "Steps:\n";
    }
    for (number, step) in seen.steps.iter().enumerate() {
        let _ = writeln!(text, "  {}. {step}", number + 1);
    }
    let refusing = seen.findings.iter().filter(|one| one.severity == Severity::Refuse).count();
    text + &match refusing {
        0 => "Nothing was changed. Nothing speaks against it: the same command without --dry-run does it.\n".to_owned(),
        count => format!(
            "Nothing was changed. The restore would be refused before it touches anything: {count} of the findings.\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::plan::restore::preview::Row;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        restore: Restore,
    }

    fn parse(line: &str) -> std::result::Result<Restore, String> {
        let words = ["restore"].into_iter().chain(line.split(' '));
        Line::try_parse_from(words).map(|line| line.restore).map_err(|error| error.to_string())
    }

    #[test]
    fn the_object_says_what_was_typed_and_no_more() {
        let asked = parse(
            "--statefulset shop/pg --backup nightly --at 2026-11-25T07:00:00Z --strategy InPlace --uncovered Keep \
             --on-failure Hold --undo-window 36h --ready-timeout 90 --source-statefulset old --name back",
        );
        let object = asked.unwrap().object("shop", "pg".into());
        let expected = json!({ "statefulSetRef": { "name": "pg" }, "backupName": "nightly",
            "pointInTime": "2026-11-25T07:00:00Z", "strategy": "InPlace", "uncovered": "Keep", "onFailure": "Hold",
            "undoWindowSeconds": 129_600, "readyTimeoutSeconds": 90, "sourceStatefulSet": "old" });
        assert_eq!(serde_json::to_value(&object.spec).unwrap(), expected);
        assert_eq!((object.metadata.name.as_deref(), object.metadata.generate_name), (Some("back"), None));

        let bare = parse("--statefulset pg --snapshots a,b").unwrap().object("shop", "pg".into());
        let expected = json!({ "statefulSetRef": { "name": "pg" }, "snapshotNames": ["a", "b"] });
        assert_eq!(serde_json::to_value(&bare.spec).unwrap(), expected);
        assert_eq!((bare.metadata.name, bare.metadata.generate_name.as_deref()), (None, Some("pg-")));
    }

    #[test]
    fn a_generated_name_has_room_for_what_the_server_appends() {
        let asked = parse("--statefulset pg --backup b").unwrap();
        for name in ["a".repeat(63), format!("{}-{}", "a".repeat(45), "b".repeat(9)), "short".into()] {
            let prefix = asked.object("shop", name.clone()).metadata.generate_name.unwrap();
            assert!(prefix.len() + GENERATED <= NAME && prefix.ends_with('-') && !prefix.ends_with("--"), "{prefix}");
            assert!(name.starts_with(prefix.trim_end_matches('-')));
        }
    }

    #[test]
    fn what_contradicts_itself_is_not_parsed() {
        for (line, says) in [
            ("--backup b", "--statefulset"),
            ("--statefulset s", "--backup"),
            ("--statefulset s --backup b --snapshots a", "cannot be used with"),
            ("--statefulset s --backup b --at 2026-01-01T00:00:00Z --run x", "cannot be used with"),
            ("--statefulset s --snapshots a --run x", "cannot be used with"),
            ("--statefulset s --backup b --strategy Stagged", "'Staged'"),
            ("--statefulset s --backup b --undo-window 1.5s", "whole seconds"),
            ("--statefulset s --backup b --undo-window=-1", "whole seconds"),
            ("--statefulset s --backup b --at yesterday", "--at"),
            ("--statefulset s --backup b --dry-run --wait", "cannot be used with"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }

    #[test]
    fn the_plan_reads_well() {
        let object = parse("--statefulset pg --backup nightly --source-statefulset old").unwrap();
        let object = object.object("shop", "pg".into());
        let row = |pvc: &str, snapshot: Option<&str>| Row {
            pvc: pvc.into(),
            snapshot: snapshot.map(ToOwned::to_owned),
            old_pv: snapshot.map(|_| "pv-1".into()),
            size: "1Gi".into(),
        };
        let finding = |severity, reason| Finding {
            severity,
            reason,
            object: "VolumeSnapshot shop/a".into(),
            message: "is not ready".into(),
            remedy: "wait".into(),
        };
        let full = Preview {
            run: Some("20261125-071701".into()),
            cut: "2026-11-25T07:17:01.5Z".parse().ok(),
            claims: vec![row("data-pg-0", Some("a")), row("data-pg-1", None)],
            findings: vec![
                finding(Severity::Refuse, Reason::PreflightRefused),
                finding(Severity::Warn, Reason::PolicyMissing),
            ],
            steps: vec!["take the lock".into(), "swap".into()],
        };
        let calm = Preview { findings: vec![], ..full.clone() };
        let all = [text(&object, &full), text(&object, &calm), text(&object, &Preview::default())];
        let all = format!("{}\n---\n{}", all.join("\n---\n"), output::json(&full).unwrap());
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../../snapshots");
        settings.set_prepend_module_to_snapshot(false);
        settings.bind(|| insta::assert_snapshot!("restore_preview", all));
    }
}
