//! A process as the kernel's books have it: what it holds, and what it has used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use super::until;

/// A process of this machine.
#[derive(Debug, Clone)]
pub struct Process {
    folder: PathBuf,
}

impl Process {
    pub fn new(pid: u32) -> Process {
        Process { folder: Path::new("/proc").join(pid.to_string()) }
    }

    /// The process that has this in its environment; None where a container's processes are not to be seen.
    pub fn with(variable: &str) -> Option<Process> {
        let all = std::fs::read_dir("/proc").ok()?.flatten().map(|entry| Process { folder: entry.path() });
        let mut all = all.filter(|process| process.environment().iter().any(|one| one == variable));
        all.next()
    }

    /// `NAME=VALUE`
    pub fn environment(&self) -> Vec<String> {
        let text = std::fs::read(self.folder.join("environ")).unwrap_or_default();
        text.split(|byte| *byte == 0).map(|one| String::from_utf8_lossy(one).into_owned()).collect()
    }

    /// A copy of the program that it runs.
    pub fn program(&self, to: &Path) {
        std::fs::copy(self.folder.join("exe"), to).unwrap();
    }

    /// KiB of a line of `status`: `VmRSS`, `RssAnon`, `VmHWM`.
    pub fn kib(&self, line: &str) -> u64 {
        let text = std::fs::read_to_string(self.folder.join("status")).unwrap();
        let found = text.lines().find_map(|one| one.strip_prefix(line)?.strip_prefix(':'));
        found.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_else(|| panic!("no {line}"))
    }

    /// `VmHWM` begins anew.
    pub fn forget_peak(&self) {
        std::fs::write(self.folder.join("clear_refs"), "5").unwrap();
    }

    /// Time on a processor so far.
    pub fn busy(&self) -> Duration {
        let threads = std::fs::read_dir(self.folder.join("task")).unwrap().flatten();
        let spent = threads.map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).unwrap());
        let spent = spent.map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap());
        Duration::from_nanos(spent.sum())
    }

    /// It has nothing to do: for three seconds it did next to nothing.
    pub async fn quiet(&self) {
        until("it to be quiet", 300, async || {
            let begin = self.busy();
            sleep(Duration::from_secs(3)).await;
            let spent = self.busy().saturating_sub(begin);
            (spent < Duration::from_millis(10)).then_some(()).ok_or_else(|| format!("{spent:?} in 3 s"))
        })
        .await;
    }
}
