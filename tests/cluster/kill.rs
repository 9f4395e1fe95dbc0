//! A run may die at any instant. The same command, run again, ends as if nothing had happened.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;

use crate::harness::driver::TWO;
use crate::harness::make::App;
use crate::harness::run::whole;
use crate::harness::{Scene, With, is_long, scene};

/// No run here needs more processes, however often it is killed.
const TRIES: usize = 6;

#[tokio::test]
async fn a_run_that_is_killed_anywhere_is_finished_by_the_same_command() {
    kills("killed", setting("SSB_KILLS", 5)).await;
}

#[tokio::test]
async fn a_run_that_is_killed_anywhere_is_finished_by_the_same_command_many_times() {
    if is_long() {
        kills("killed-long", setting("SSB_KILLS", 50)).await;
    }
}

pub fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// As many as run at once, each on a StatefulSet of its own: most of their time they wait for a dead holder's Lease.
pub const LANES: usize = 5;

async fn kills(name: &str, count: usize) {
    let slow = With::Faulty(TWO, json!({ "cutDelay": "700ms", "readyDelay": "1s" }));
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
        join_all(lanes.iter().map(|lane| s.ready(lane))).await;
        // An undisturbed run of all lanes says how long the span is in which to kill.
        let begin = Instant::now();
        join_all(lanes.iter().map(|lane| async { s.backup(lane, &["--slot", "undisturbed"]).await.expect(0) })).await;
        let span = begin.elapsed();
        println!("undisturbed: {:.1} s", span.as_secs_f64());
        let mut chance = Chance(seed);
        let mut done = 0;
        while done < count {
            let now = LANES.min(count - done);
            let instants = (0..now).map(|lane| chance.part(span, done + lane, count)).collect::<Vec<_>>();
            let name = format!("slot-{done}");
            join_all(lanes.iter().zip(&instants).map(|(lane, at)| killed(s, lane, &name, *at))).await;
            done += now;
            for lane in &lanes[..now] {
                whole(s, lane, 1 + done.div_ceil(LANES)).await;
            }
        }
    })
    .await;
}

/// Small numbers that look random, the same for the same seed.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An instant in the n-th of `count` parts of the span, so that all of it is met.
    pub fn part(&mut self, span: Duration, n: usize, count: usize) -> Duration {
        let within = f64::from(u16::try_from(self.next() % 1000).unwrap()) / 1000.0;
        let (n, count) = (f64::from(u32::try_from(n).unwrap()), f64::from(u32::try_from(count).unwrap()));
        span.mul_f64((n + within) / count)
    }
}

/// Starts the run, kills it at that instant, and runs it again until it says that it is done.
async fn killed(s: &Scene, lane: &str, slot: &str, at: Duration) {
    let command = ["--slot", slot, "--trigger", "manual"];
    let run = s.start_backup(lane, &command);
    tokio::time::sleep(at).await; // not a wait for anything: the instant of the kill is what is tested
    run.signal("KILL").await;
    let first = run.ended().await;
    let last = first.audit.last().map_or("nothing", |line| line.step.as_str()).to_owned();
    println!(
        "{lane} {slot}: killed after {:.2} s, {} requests, the last one {last}",
        at.as_secs_f64(),
        first.audit.len()
    );
    for _ in 0..TRIES {
        let again = s.backup(lane, &command).await;
        match again.code {
            Some(0) => return,
            // The kill came after the last write: there is nothing left to do.
            Some(30) if again.stderr.contains("has ended already") => return,
            Some(20 | 30) => {}
            code => panic!("{lane} {slot}: exit {code:?}: {}", again.stderr),
        }
    }
    panic!("{lane} {slot}: not done after {TRIES} more runs");
}
