//! A way to the API server that can be cut: the product is told to go by it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};

use super::Scene;
use super::account::copy_kubeconfig;

/// Ends with the test that made it.
pub struct Proxy {
    pub kubeconfig: PathBuf,
    open: Arc<Mutex<Vec<AbortHandle>>>,
    accept: JoinHandle<()>,
}

impl Proxy {
    /// Between the product, with its usual rights, and the API server.
    pub async fn new(s: &Scene) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = String::new();
        let kubeconfig = copy_kubeconfig(&s.kubeconfig, &format!("{}-proxy", s.namespace), |config| {
            let cluster = &mut config["clusters"][0]["cluster"];
            cluster["server"].as_str().unwrap().trim_start_matches("https://").clone_into(&mut server);
            cluster["tls-server-name"] = server.rsplit_once(':').unwrap().0.into();
            cluster["server"] = format!("https://127.0.0.1:{port}").into();
        });
        let open: Arc<Mutex<Vec<AbortHandle>>> = Arc::default();
        let kept = Arc::clone(&open);
        let accept = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let server = server.clone();
                let passing = tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(server).await else { return };
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
                kept.lock().unwrap().push(passing.abort_handle());
            }
        });
        Proxy { kubeconfig, open, accept }
    }

    /// Ends every connection in the middle of whatever it carries; new ones are taken.
    pub fn cut(&self) {
        std::mem::take(&mut *self.open.lock().unwrap()).iter().for_each(AbortHandle::abort);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
        self.cut();
        let _ = std::fs::remove_file(&self.kubeconfig);
    }
}
