//! The product as a process: started with the account of the scene, its log kept, its end awaited.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Scene;

/// Longer than any run here can take.
const LIMIT: Duration = Duration::from_mins(4);

/// What a process has written so far.
#[derive(Debug, Default)]
pub struct Log {
    pub command: String,
    pub stdout: Mutex<Vec<String>>,
    pub stderr: Mutex<Vec<String>>,
}

impl Log {
    fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap().clone()
    }

    pub fn audit(&self) -> Vec<Audit> {
        self.stdout().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// A line about a mutating request.
#[derive(Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Audit {
    pub time: String,
    pub level: String,
    pub run: Option<String>,
    pub step: String,
    pub verb: String,
    pub object: String,
    pub uid: Option<String>,
    pub outcome: String,
    pub code: Option<u16>,
    pub duration_ms: u64,
    pub message: Option<String>,
    // Of hooks.
    pub pod: Option<String>,
    pub container: Option<String>,
    pub argv: Option<String>,
    pub exit_code: Option<i32>,
    pub stdout: Option<String>,
    pub stderr: Option<String>,
}

/// A process that runs.
pub struct Running {
    child: Child,
    pub pid: u32,
    pub log: Arc<Log>,
    readers: [JoinHandle<()>; 2],
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    /// None: by a signal.
    pub code: Option<i32>,
    pub stdout: Vec<String>,
    pub stderr: String,
    pub audit: Vec<Audit>,
}

impl Ended {
    /// The last line, which holds the whole of `lastRun`.
    pub fn summary(&self) -> Value {
        let last = self.stdout.last().cloned().unwrap_or_default();
        let line: Value = serde_json::from_str(&last).unwrap_or_else(|_| panic!("no summary: {self:?}"));
        assert!(line["time"].is_string() && line["summary"].is_object(), "no summary: {last}");
        line["summary"].clone()
    }

    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code; stderr: {}", self.stderr);
        self
    }
}

impl Scene {
    /// Starts the product with the rights that it declares.
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.start_as(&self.kubeconfig, arguments)
    }

    pub fn start_as(&self, kubeconfig: &Path, arguments: &[&str]) -> Running {
        self.spawn(Command::new(env!("CARGO_BIN_EXE_sts-backup")), kubeconfig, arguments)
    }

    /// With more in its environment.
    pub fn start_with(&self, kubeconfig: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sts-backup"));
        command.envs(environment.iter().copied());
        self.spawn(command, kubeconfig, arguments)
    }

    /// Another build of it, with these settings and no others.
    pub fn start_program(
        &self,
        program: &Path,
        kubeconfig: &Path,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> Running {
        let mut command = Command::new(program);
        command.env_clear().envs(environment.iter().copied());
        self.spawn(command, kubeconfig, arguments)
    }

    /// As a process of this group, by which its packets can be told apart.
    pub fn start_in(&self, group: u32, arguments: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sts-backup"));
        command.gid(group);
        self.spawn(command, &self.kubeconfig, arguments)
    }

    fn spawn(&self, mut command: Command, kubeconfig: &Path, arguments: &[&str]) -> Running {
        command.args(["--log-format", "json", "--kubeconfig"]).arg(kubeconfig).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Log { command: arguments.join(" "), ..Log::default() });
        self.logs.borrow_mut().push(Arc::clone(&log));
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let readers = [read(out, Arc::clone(&log), |log| &log.stdout), read(err, Arc::clone(&log), |log| &log.stderr)];
        Running { pid: child.id().unwrap(), child, log, readers }
    }

    /// Runs it to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).ended().await
    }

    /// `run-once backup NAME` in our namespace, and what else is given.
    pub async fn backup(&self, name: &str, more: &[&str]) -> Ended {
        self.start_backup(name, more).ended().await
    }

    pub fn start_backup(&self, name: &str, more: &[&str]) -> Running {
        let target = format!("{}/{name}", self.namespace);
        let arguments: Vec<_> = ["run-once", "backup", &target].into_iter().chain(more.iter().copied()).collect();
        self.start(&arguments)
    }
}

fn read(
    pipe: impl AsyncRead + Unpin + Send + 'static,
    log: Arc<Log>,
    lines: fn(&Log) -> &Mutex<Vec<String>>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut reader = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = reader.next_line().await {
            lines(&log).lock().unwrap().push(line);
        }
    })
}

/// What a line of stderr says: beside a log in JSON it is a line of JSON.
fn sentence(line: &str) -> String {
    let read: Option<serde_json::Value> = serde_json::from_str(line).ok();
    let said = read.filter(|read| read["level"].is_string());
    said.and_then(|read| read["message"].as_str().map(ToOwned::to_owned)).unwrap_or_else(|| line.to_owned())
}

impl Running {
    /// By its id: `TERM`, `KILL`.
    pub async fn signal(&self, name: &str) {
        let pid = self.pid.to_string();
        // It may have ended already: then there is nobody to hear it.
        let _ = Command::new("kill").args(["-s", name, &pid]).stderr(Stdio::null()).status().await.unwrap();
    }

    pub async fn ended(mut self) -> Ended {
        let status = timeout(LIMIT, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("{} does not end", self.log.command)).unwrap();
        for reader in &mut self.readers {
            reader.await.unwrap();
        }
        let stdout = self.log.stdout();
        let stderr = self.log.stderr.lock().unwrap().iter().map(|line| sentence(line)).collect::<Vec<_>>().join("\n");
        Ended { code: status.code(), stdout, stderr, audit: self.log.audit() }
    }
}
