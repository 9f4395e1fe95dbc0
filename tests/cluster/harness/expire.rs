//! A way to the API server in plain HTTP, on which a watch can be told that its version is too old, as after an hour
//! without a connection: whoever hears it lists anew.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::{AbortHandle, JoinHandle};

/// What the API server answers then.
fn expired() -> String {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410, "reason": "Expired",
        "message": "too old resource version: 1 (2)",
    });
    let line = json!({ "type": "ERROR", "object": status }).to_string() + "\n";
    let length = line.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{line}")
}

/// Ends with the test that made it.
pub struct Expiry {
    /// `http://...`
    pub server: String,
    told: Arc<Told>,
    accept: JoinHandle<()>,
    /// `kubectl proxy`, which has the account.
    _kubectl: Child,
}

struct Told {
    /// Part of the path of what is counted and expires.
    resource: &'static str,
    expire: AtomicBool,
    lists: AtomicUsize,
    open: Mutex<Vec<AbortHandle>>,
}

impl Expiry {
    pub async fn new(kubectl: &Path, kubeconfig: &Path, resource: &'static str) -> Expiry {
        let mut command = Command::new(kubectl);
        command.args(["proxy", "--port=0", "--kubeconfig"]).arg(kubeconfig);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        let far = line.trim().rsplit_once(' ').unwrap().1.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let (expire, lists) = (AtomicBool::new(false), AtomicUsize::new(0));
        let told = Arc::new(Told { resource, expire, lists, open: Mutex::default() });
        let kept = Arc::clone(&told);
        let accept = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (told, far) = (Arc::clone(&kept), far.clone());
                let passing = tokio::spawn(async move { drop(pass(near, &far, &told).await) });
                kept.open.lock().unwrap().push(passing.abort_handle());
            }
        });
        Expiry { server, told, accept, _kubectl: child }
    }

    /// How often the resource was listed.
    pub fn lists(&self) -> usize {
        self.told.lists.load(Ordering::SeqCst)
    }

    /// Ends every connection; the next watch of the resource that goes on from a version hears that it cannot.
    pub fn expire(&self) {
        self.told.expire.store(true, Ordering::SeqCst);
        std::mem::take(&mut *self.told.open.lock().unwrap()).iter().for_each(AbortHandle::abort);
    }
}

/// One connection. Only its first request is looked at: a watch never ends, so it is the last one, too.
async fn pass(mut near: TcpStream, far: &str, told: &Told) -> std::io::Result<()> {
    let mut head = vec![];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if near.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let request = String::from_utf8_lossy(&head);
    let line = request.lines().next().unwrap_or_default();
    if line.contains(told.resource) && line.contains("watch=true") {
        if line.contains("sendInitialEvents=true") {
            told.lists.fetch_add(1, Ordering::SeqCst);
        } else if told.expire.swap(false, Ordering::SeqCst) {
            return near.write_all(expired().as_bytes()).await;
        }
    }
    let mut far = TcpStream::connect(far).await?;
    far.write_all(&head).await?;
    copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

impl Drop for Expiry {
    fn drop(&mut self) {
        self.accept.abort();
        self.expire();
    }
}
