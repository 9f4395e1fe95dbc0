//! Commands in pods, as `kubectl exec` runs them.

use k8s_openapi::api::core::v1::Pod;
use kube::api::AttachParams;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Scene;

/// No command's output is longer.
const BUFFER: usize = 1 << 20;

impl Scene {
    /// Standard output of a command in a pod, by the shell; it must succeed.
    pub async fn exec(&self, pod: &str, script: &str) -> String {
        let params = AttachParams::default().max_stdout_buf_size(BUFFER).max_stderr_buf_size(BUFFER);
        let mut process = self.api::<Pod>().exec(pod, ["sh", "-c", script], &params).await.unwrap();
        let (out, err) = (process.stdout().unwrap(), process.stderr().unwrap());
        let status = process.take_status().unwrap();
        let (out, err, status) = tokio::join!(text(out), text(err), status);
        let status = status.unwrap_or_default();
        assert_eq!(status.status.as_deref(), Some("Success"), "{pod}: {script}: {:?}\n{out}\n{err}", status.message);
        out
    }
}

async fn text(mut stream: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
