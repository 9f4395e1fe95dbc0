//! A restore may die at any instant. The same command, run again, ends as if nothing had happened.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;

use crate::harness::driver::TWO;
use crate::harness::make::App;
use crate::harness::{Scene, With, is_long, scene};
use crate::kill::{Chance, LANES, setting};

/// No restore here needs more processes.
const TRIES: usize = 6;

#[tokio::test]
async fn a_restore_that_is_killed_anywhere_is_finished_by_the_same_command() {
    kills("torn", setting("SSB_KILLS", 5)).await;
}

#[tokio::test]
async fn a_restore_that_is_killed_anywhere_is_finished_by_the_same_command_many_times() {
    if is_long() {
        kills("torn-long", setting("SSB_KILLS", 50)).await;
    }
}

async fn kills(name: &str, count: usize) {
    let slow = With::Faulty(TWO, json!({ "cloneDelay": "1s" }));
    scene(name, &[slow], async |s| {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = setting("SSB_SEED", u64::from(clock.subsec_nanos()));
        println!("SSB_SEED={seed} SSB_KILLS={count}");
        let lanes: Vec<_> = (0..LANES.min(count)).map(|lane| format!("web{lane}")).collect();
        for lane in &lanes {
            let app = App { name: lane, replicas: 1, start: 0, templates: &[("a", TWO.class), ("b", TWO.class)] };
            s.create(&app.manifest()).await;
            s.policy(lane, lane, &json!({})).await;
        }
        join_all(lanes.iter().map(async |lane| {
            s.ready(lane).await;
            s.paint(lane, "good").await;
            s.backup(lane, &[]).await.expect(0);
        }))
        .await;
        // An undisturbed restore of all lanes says how long the span is in which to kill.
        let begin = Instant::now();
        join_all(lanes.iter().map(async |lane| {
            s.restore(&format!("{lane}-calm"), lane, &json!({ "backupName": lane })).await.expect(0);
        }))
        .await;
        let span = begin.elapsed();
        println!("undisturbed: {:.1} s", span.as_secs_f64());
        let mut chance = Chance(seed);
        let mut done = 0;
        while done < count {
            let now = LANES.min(count - done);
            let instants = (0..now).map(|lane| chance.part(span, done + lane, count)).collect::<Vec<_>>();
            join_all(lanes.iter().zip(&instants).enumerate().map(async |(n, (lane, at))| {
                let flow = if (done / LANES + n) % 3 == 2 { "undo" } else { "restore" };
                killed(s, lane, &format!("{lane}-{done}"), flow, *at).await;
            }))
            .await;
            done += now;
        }
    })
    .await;
}

/// Damages the data, restores it, kills the restore or its undo at that instant, and runs it until it is done.
async fn killed(s: &Scene, lane: &str, name: &str, flow: &str, at: Duration) {
    s.paint(lane, "bad").await;
    s.request(name, lane, &json!({ "backupName": lane })).await;
    if flow == "undo" {
        s.carry_out("restore", name).await.expect(0);
    }
    let run = s.start_restore(flow, name, &[]);
    tokio::time::sleep(at).await; // not a wait for anything: the instant of the kill is what is tested
    run.signal("KILL").await;
    let first = run.ended().await;
    let last = first.audit.last().map_or("nothing", |line| line.step.as_str()).to_owned();
    println!(
        "{name} {flow}: killed after {:.2} s, {} requests, the last one {last}",
        at.as_secs_f64(),
        first.audit.len()
    );
    for _ in 0..TRIES {
        // A value of its own each time: by hand an undo that is done is not asked for twice.
        let attempt = if flow == "undo" && s.restored(name).await.last_request.is_some() { "restore" } else { flow };
        let again = s.start_restore(attempt, name, &[]).ended().await;
        match again.code {
            Some(0) => break,
            Some(20 | 30) => {}
            code => panic!("{name}: exit {code:?}: {}", again.stderr),
        }
    }
    s.ready(lane).await;
    s.all_say(lane, if flow == "undo" { "bad" } else { "good" }).await;
    assert_eq!(s.restored(name).await.phase.unwrap().as_str(), if flow == "undo" { "Undone" } else { "Completed" });
    s.tidy(lane).await;
}
