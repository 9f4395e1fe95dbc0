//! A run's memory does not grow with what others put into their objects: each list that it reads and each watch that it
//! opens, against a server whose objects are as big as they may be, in a process of its own whose peak is measured.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions; these are their helpers")]

mod server;

use std::process::Command;

use sts_backup::api::annotation;
use sts_backup::plan::flow::Feed;
use sts_backup::plan::noun::{RestoreWant, Want};
use sts_backup::plan::restore::sight::Look;
use sts_backup::plan::view::Read;
use sts_backup::step::clock::Clock;
use sts_backup::step::cluster::Cluster;
use sts_backup::step::{Io, observe};

/// What a run may take on top of what it takes where there is nothing: of the 128 MiB that it is given.
const LIMIT: u64 = 10 << 20;

enum Case {
    Read(Read),
    Feed(Feed),
}

fn cases() -> Vec<Case> {
    let looks = [
        Look::Pods,
        Look::Sources,
        Look::Recorded("other-3".into()),
        Look::Handles(["handle-7".to_owned()].into()),
        Look::StorageClasses,
        Look::Nodes,
        Look::Quotas,
        Look::Peers,
        Look::Attached,
        Look::Scalers,
        Look::Trouble("data-web-0".into()),
        Look::Kin,
    ];
    let reads = [Read::Claims, Read::Classes, Read::Snaps, Read::Stock, Read::Restores];
    let reads = reads.into_iter().chain(looks.map(Read::Restore)).map(Case::Read);
    let feeds = [Feed::Pods, Feed::Snaps, Feed::Claims, Feed::Attached].map(Case::Feed);
    reads.chain(feeds).collect()
}

fn name(case: &Case) -> String {
    match case {
        Case::Read(read) => format!("{read:?}"),
        Case::Feed(feed) => format!("watch of {feed:?}"),
    }
}

fn want() -> Want {
    Want {
        namespace: "shop".into(),
        name: "back".into(),
        uid: "0b6c1a52-6a4b-4c7e-9d59-0f3a3a1f7c11".into(),
        statefulset: "web".into(),
        statefulset_namespace: "shop".into(),
        restore: RestoreWant { source: "web".into(), backup: Some("nightly".into()), ..RestoreWant::default() },
        ..Want::default()
    }
}

/// The most that this process has held so far, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn no_list_takes_more_memory_for_what_others_wrote_into_their_objects() {
    let mut over = vec![];
    for case in cases() {
        // What we read ourselves others may write as well.
        let snapshots = matches!(case, Case::Read(Read::Snaps | Read::Stock | Read::Restore(Look::Sources)));
        let ours: &[&str] =
            if snapshots { &[annotation::CLAIM, annotation::PINNED_BY, annotation::FORMAT] } else { &[] };
        for key in [server::NOTE].iter().chain(ours) {
            let (case, bytes) = (name(&case), measured(&name(&case), key));
            println!("{:>6} KiB {case} {key}", bytes >> 10);
            if bytes > LIMIT {
                over.push((case, key.to_owned()));
            }
        }
    }
    assert!(over.is_empty(), "{over:?}");
}

/// Runs the case alone.
fn measured(case: &str, key: &str) -> u64 {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", "one_case", "--ignored", "--nocapture"]).env("SSB_LEAN", case).env("SSB_LEAN_KEY", key);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let bytes = said.lines().find_map(|line| line.split_once("took ")?.1.parse().ok());
    bytes.unwrap_or_else(|| panic!("{case}: {said}{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
#[ignore = "a process of its own: started by the test above"]
fn one_case() {
    let wanted = std::env::var("SSB_LEAN").unwrap();
    let case = cases().into_iter().find(|case| name(case) == wanted).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = Cluster::new(server::client(), want(), Clock::start());
        let before = peak();
        // Facts are held while the peak is read: what they hold counts.
        let facts = match &case {
            Case::Read(read) => observe::read(&cluster, read).await.unwrap(),
            Case::Feed(feed) => loop {
                let facts = cluster.feed(std::slice::from_ref(feed)).await;
                if server::served() >= server::MANY {
                    break facts;
                }
            },
        };
        assert!(!facts.is_empty());
        assert!(server::served() >= server::MANY, "all of it was read: {}", server::served());
        println!("took {}", peak() - before);
    });
}
