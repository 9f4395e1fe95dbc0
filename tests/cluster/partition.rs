//! Packets to the API server are dropped for a while: the run waits, or another process takes it up; never a half run.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tokio::process::Command;
use tokio::time::sleep;

use crate::harness::driver::TWO;
use crate::harness::make::App;
use crate::harness::run::whole;
use crate::harness::{Scene, With, is_long, scene};
use crate::kill::{Chance, LANES, setting};

/// Long enough for a renewal to be missed, too short for the lock to run out.
const DROPPED: Duration = Duration::from_secs(20);

/// No run here needs more processes.
const TRIES: usize = 4;

/// Groups of nobody else's, by which the packets of one process are told apart.
const GROUP: u32 = 424_200;

#[tokio::test]
async fn a_run_that_is_cut_off_from_the_api_server_ends_whole() {
    if !is_long() {
        return;
    }
    let count = setting("SSB_CUTS", 10);
    let slow = With::Faulty(TWO, json!({ "cutDelay": "700ms", "readyDelay": "1s" }));
    scene("cut-off", &[slow], async |s| {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = setting("SSB_SEED", u64::from(clock.subsec_nanos()));
        println!("SSB_SEED={seed} SSB_CUTS={count}");
        let lanes: Vec<_> = (0..LANES.min(count)).map(|lane| format!("web{lane}")).collect();
        for lane in &lanes {
            let app = App { name: lane, replicas: 1, start: 0, templates: &[("a", TWO.class), ("b", TWO.class)] };
            s.create(&app.manifest()).await;
            s.policy(lane, lane, &json!({})).await;
        }
        join_all(lanes.iter().map(|lane| s.ready(lane))).await;
        let begin = Instant::now();
        join_all(lanes.iter().map(|lane| async { s.backup(lane, &["--slot", "undisturbed"]).await.expect(0) })).await;
        let (span, mut chance, mut done) = (begin.elapsed(), Chance(seed), 0);
        while done < count {
            let now = LANES.min(count - done);
            let instants = (0..now).map(|lane| chance.part(span, done + lane, count)).collect::<Vec<_>>();
            let name = format!("slot-{done}");
            join_all((0..now).map(|n| cut_off(s, &lanes[n], GROUP + u32::try_from(n).unwrap(), &name, instants[n])))
                .await;
            done += now;
            for lane in &lanes[..now] {
                whole(s, lane, 1 + done.div_ceil(LANES)).await;
            }
        }
    })
    .await;
}

/// A rule that drops the group's packets to the API server, as long as it lives; also when the test panics.
struct Wall(u32);

impl Wall {
    fn rule(&self, verb: &str) -> Vec<String> {
        let group = self.0.to_string();
        let words =
            ["-w", verb, "OUTPUT", "-p", "tcp", "--dport", "6443", "-m", "owner", "--gid-owner", &group, "-j", "DROP"];
        words.map(ToOwned::to_owned).to_vec()
    }

    async fn raise(group: u32) -> Wall {
        let wall = Wall(group);
        let status = Command::new("iptables").args(wall.rule("-I")).status().await.unwrap();
        assert!(status.success(), "the packets of a group cannot be dropped here");
        wall
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        let gone = std::process::Command::new("iptables").args(self.rule("-D")).status();
        assert!(gone.is_ok_and(|status| status.success()) || std::thread::panicking(), "the wall stands still");
    }
}

async fn cut_off(s: &Scene, lane: &str, group: u32, slot: &str, at: Duration) {
    let target = format!("{}/{lane}", s.namespace);
    let command = ["run-once", "backup", &target, "--slot", slot, "--trigger", "manual"];
    let run = s.start_in(group, &command);
    sleep(at).await; // not a wait for anything: the instant is what is tested
    let wall = Wall::raise(group).await;
    sleep(DROPPED).await;
    drop(wall);
    let mut ended = run.ended().await;
    println!("{lane} {slot}: cut off after {:.2} s, exit {:?}", at.as_secs_f64(), ended.code);
    for _ in 0..TRIES {
        match ended.code {
            Some(0) => return,
            Some(20 | 30) => ended = s.start_in(group, &command).ended().await,
            code => panic!("{lane} {slot}: exit {code:?}: {}", ended.stderr),
        }
    }
    panic!("{lane} {slot}: not done after {TRIES} more runs: {}", ended.stderr);
}
