//! One StatefulSet through its hour: backed up, damaged, restored, undone, released, and again.

use std::collections::BTreeMap;

use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use sts_backup::api::annotation;
use sts_backup::api::backup::StatefulSetBackup;
use sts_backup::api::condition::{self, ConditionType};
use sts_backup::api::restore::{RestorePhase, StatefulSetRestore};

use super::trouble::{self, Deed};
use super::{Hour, Shape};
use crate::harness::restore::restore;

/// A run, a restore or an undo has come to its end by then, whatever befell it.
const SETTLED: u64 = 900;

/// Whether a restore was deleted in its midst: what it had set aside by then is kept.
pub async fn lane(hour: &Hour<'_>, shape: &Shape) -> bool {
    let (s, name) = (hour.s, shape.app.name);
    {
        let _calm = hour.calm.read().await;
        s.create(&shape.manifest()).await;
        s.policy(name, name, &shape.policy()).await;
    }
    // The word in the volumes at the cut of each run.
    let mut runs = BTreeMap::new();
    let (mut round, mut kept) = (0, false);
    while !hour.is_over() {
        round += 1;
        let (good, bad) = (format!("good-{round}"), format!("bad-{round}"));
        ready(hour, shape).await;
        paint(hour, shape, &good).await;
        backed_up(hour, shape, &good, &mut runs).await;
        ready(hour, shape).await;
        paint(hour, shape, &bad).await;
        let Some((run, word)) = runs.last_key_value() else { continue };
        kept |= there_and_back(hour, shape, &Round { restore: format!("{name}-{round}"), run, word, bad: &bad }).await;
    }
    kept
}

/// Asks for a run, whose volumes hold that word, and waits until it has ended, well or not.
async fn backed_up(hour: &Hour<'_>, shape: &Shape, word: &str, runs: &mut BTreeMap<String, String>) {
    let name = shape.app.name;
    annotate::<StatefulSetBackup>(hour, name, annotation::REQUESTED_AT, word).await;
    let what = format!("{name}: run {word}");
    let ended = hour.until(&what, SETTLED, async || {
        let status = hour.s.get(name).await.status.unwrap_or_default();
        let last = json!(status.last_run);
        let over = status.run.is_none() && status.last_request.as_deref() == Some(word) && last["slot"] == word;
        if over {
            Ok((last, status.message.unwrap_or_default()))
        } else {
            Err(format!("{:?} {:?} {last}", status.phase, status.message))
        }
    });
    let ((last, message), ()) = tokio::join!(ended, suffer(hour, shape, name, 1));
    if last["outcome"] == "Succeeded" {
        runs.insert(last["id"].as_str().unwrap().to_owned(), word.to_owned());
        hour.saw("a run succeeds");
    } else {
        assert!(!message.is_empty(), "{name}: it says why: {last}");
        println!("{name}: {word}: {} {message}", last["reason"]);
        hour.saw(format!("a run fails: {}", last["reason"].as_str().unwrap_or_default()));
    }
}

struct Round<'a> {
    restore: String,
    run: &'a str,
    /// In the volumes when that run was cut.
    word: &'a str,
    /// In the volumes before the restore.
    bad: &'a str,
}

async fn there_and_back(hour: &Hour<'_>, shape: &Shape, round: &Round<'_>) -> bool {
    let (s, name) = (hour.s, &round.restore);
    {
        let _calm = hour.calm.read().await;
        let more = json!({ "backupName": shape.app.name, "runId": round.run });
        s.create(&restore(name, shape.app.name, &more)).await;
    }
    let (phase, ()) = tokio::join!(settled(hour, name, None), suffer(hour, shape, name, 3));
    let phase = if phase == Some(RestorePhase::Failed) { brought_back(hour, shape, name).await } else { phase };
    hour.saw(format!("a restore ends {}", phase.map_or("Deleted", RestorePhase::as_str)));
    ready(hour, shape).await;
    let said = one_word(hour, shape).await;
    match phase {
        Some(RestorePhase::Completed) => assert_eq!(said, round.word, "{name}: Completed"),
        Some(_) => assert_eq!(said, round.bad, "{name}: {phase:?}"),
        None => assert!([round.word, round.bad].contains(&said.as_str()), "{name}: deleted: {said}"),
    }
    if phase == Some(RestorePhase::Completed) && hour.draw(2) == 0 {
        undone(hour, shape, round).await;
    }
    gone(hour, name).await;
    phase.is_none()
}

/// A restore that has failed and left the application at 0 says what to do: its undo brings it back.
async fn brought_back(hour: &Hour<'_>, shape: &Shape, name: &str) -> Option<RestorePhase> {
    let (object, stopped) = {
        let _calm = hour.calm.read().await;
        let set = hour.s.api::<k8s_openapi::api::apps::v1::StatefulSet>().get(shape.app.name).await.unwrap();
        (hour.s.api::<StatefulSetRestore>().get_opt(name).await.unwrap(), set.spec.replicas == Some(0))
    };
    let status = object.as_ref()?.status.clone().unwrap_or_default();
    println!("{name}: Failed: {:?}", status.message);
    assert!(status.message.is_some_and(|text| !text.is_empty()), "{name}: it says why");
    if !stopped {
        return Some(RestorePhase::Failed);
    }
    hour.saw("a restore is Held");
    annotate::<StatefulSetRestore>(hour, name, annotation::UNDO, "held").await;
    settled(hour, name, Some("held")).await
}

async fn undone(hour: &Hour<'_>, shape: &Shape, round: &Round<'_>) {
    let name = &round.restore;
    annotate::<StatefulSetRestore>(hour, name, annotation::UNDO, "back").await;
    let (phase, ()) = tokio::join!(settled(hour, name, Some("back")), suffer(hour, shape, name, 2));
    hour.saw(format!("an undo ends {}", phase.map_or("Deleted", RestorePhase::as_str)));
    ready(hour, shape).await;
    let said = one_word(hour, shape).await;
    match phase {
        Some(RestorePhase::Undone) => assert_eq!(said, round.bad, "{name}: Undone"),
        // Refused, or overtaken by the deletion: as it was, or back.
        _ => assert!([round.word, round.bad].contains(&said.as_str()), "{name}: {phase:?}: {said}"),
    }
}

/// How the restore has ended, after the undo of that value when there is one; None: it is gone.
async fn settled(hour: &Hour<'_>, name: &str, undo: Option<&str>) -> Option<RestorePhase> {
    hour.until(&format!("{name} to settle"), SETTLED, async || {
        let Some(object) = hour.s.api::<StatefulSetRestore>().get_opt(name).await.unwrap() else { return Ok(None) };
        let status = object.status.clone().unwrap_or_default();
        let asked = undo.is_none() || status.last_request.as_deref() == undo;
        let leaves = object.metadata.deletion_timestamp.is_some();
        if !leaves && asked && object.has_ended() {
            let ready = condition::get(&status.conditions, ConditionType::Ready).map(|one| one.reason.clone());
            assert!(ready.is_some_and(|reason| !reason.is_empty()), "{name}: a reason stands in Ready");
            return Ok(status.phase);
        }
        Err(format!("{:?} {:?} leaves: {leaves}", status.phase, status.message))
    })
    .await
}

/// Deleted, with all that it has set aside.
async fn gone(hour: &Hour<'_>, name: &str) {
    let api = hour.s.api::<StatefulSetRestore>();
    {
        let _calm = hour.calm.read().await;
        let _ = api.delete(name, &DeleteParams::default()).await; // it may be gone
    }
    hour.until(&format!("{name} to go"), SETTLED, async || match api.get_opt(name).await.unwrap() {
        None => Ok(()),
        Some(left) => Err(format!("{:?}", left.status.and_then(|status| status.message))),
    })
    .await;
}

/// Up to so many deeds, at instants drawn by lot.
async fn suffer(hour: &Hour<'_>, shape: &Shape, object: &str, most: u64) {
    for _ in 0..hour.draw(most + 1) {
        hour.some_time(12).await;
        let deed = Deed::any(hour);
        // A pod deleted in a freeze or a claim that goes with its replica changes what is true of the data.
        if deed != Deed::DeleteRestore || object != shape.app.name {
            trouble::deed(hour, shape, object, deed).await;
        }
    }
}

/// As many replicas as it has by its shape, all ready.
async fn ready(hour: &Hour<'_>, shape: &Shape) {
    let (s, name) = (hour.s, shape.app.name);
    let replicas = i32::try_from(shape.app.replicas).unwrap();
    hour.until(&format!("the pods of {name}"), SETTLED, async || {
        let api = s.api::<k8s_openapi::api::apps::v1::StatefulSet>();
        let object = api.get(name).await.unwrap();
        let strategy = object.spec.update_strategy.unwrap_or_default().rolling_update;
        let partition = strategy.and_then(|strategy| strategy.partition).unwrap_or(0);
        let (wanted, status) = (object.spec.replicas, object.status.unwrap_or_default());
        if wanted != Some(replicas) && wanted != Some(0) {
            let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
            let _ = api.patch(name, &PatchParams::default(), &patch).await; // behind a fence it is refused
        }
        // While it is rolled out, a pod that is Ready may be the next to go.
        let rolled = status.updated_replicas.unwrap_or(0) >= replicas - partition;
        let current = rolled && status.observed_generation == object.metadata.generation;
        let pods = s.pods(name).await;
        let ready = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod)).count();
        let whole = current && wanted == Some(replicas) && ready == pods.len() && i32::try_from(ready) == Ok(replicas);
        whole.then_some(()).ok_or_else(|| format!("{wanted:?} wanted, {ready} of {} ready", pods.len()))
    })
    .await;
}

pub fn is_ready(pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

async fn paint(hour: &Hour<'_>, shape: &Shape, word: &str) {
    let _calm = hour.calm.read().await;
    hour.s.paint(shape.app.name, word).await;
}

/// The one word in all its volumes.
async fn one_word(hour: &Hour<'_>, shape: &Shape) -> String {
    let _calm = hour.calm.read().await;
    let words = hour.s.words(shape.app.name).await;
    let first = words.values().next().unwrap().clone();
    assert!(words.values().all(|one| *one == first), "{}: a mixture: {words:?}", shape.app.name);
    first
}

pub async fn annotate<K>(hour: &Hour<'_>, name: &str, key: &str, value: &str)
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let _calm = hour.calm.read().await;
    let patch: Patch<Value> = Patch::Merge(json!({ "metadata": { "annotations": { key: value } } }));
    let patched = hour.s.api::<K>().patch(name, &PatchParams::default(), &patch).await;
    match patched {
        Err(kube::Error::Api(status)) if status.code == 404 => {} // it is gone
        reply => drop(reply.unwrap().name_any()),
    }
}
