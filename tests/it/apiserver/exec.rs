//! Exec: the real upgrade to a websocket over a pipe in memory, at whose far end a container plays its script.

use bytes::Bytes;
use futures::SinkExt;
use futures::stream::{self, StreamExt};
use http::Request;
use http_body_util::{Empty, StreamBody};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::answer::No;
use super::fault::Strike;
use super::request::Ask;
use super::store::text;
use super::{Answer, ApiServer};
use crate::act::Act;

const PROTOCOL: &str = "v5.channel.k8s.io";

/// The answer to the handshake, and a process that goes on whatever becomes of the connection.
pub async fn open(server: &ApiServer, ask: &Ask, strike: Option<Strike>) -> Result<Answer, No> {
    let (pod, argv) = (ask.key(), ask.words("command").to_vec());
    let container = ask.word("container").to_owned();
    let act = server.act(|state| {
        let object = state.store.find(&pod)?.clone();
        let act = if running(&object, &container)? {
            state.nature.play(state.store.clock.now(), &pod.name, frozen(&object), &argv)
        } else {
            // The upgrade is the API server's own, since it speaks another protocol to the kubelet than to us.
            let why = format!("unable to upgrade connection: container not found (\"{container}\")");
            Act::unstarted(&why, None)
        };
        state.log.push(format!("{} -> 101", ask.line()));
        Ok::<_, No>(act)
    })?;
    let (near, far) = duplex(64 * 1024);
    let key = ask.key.clone().unwrap_or_default();
    let cut = act.cut || matches!(strike, Some(Strike::LostAfter | Strike::Hang));
    tokio::spawn(play(server.clone(), far, key, act, cut));
    upgrade(near).await.map_err(|error| No::new(500, "InternalError", error.to_string()))
}

/// Whether that container of the pod runs.
fn running(pod: &Value, container: &str) -> Result<bool, No> {
    let statuses = pod["status"]["containerStatuses"].as_array();
    match statuses.into_iter().flatten().find(|status| status["name"] == container) {
        Some(status) => Ok(status["state"]["running"].is_object()),
        None => Err(No::bad(format!("container {container} is not valid for pod {}", text(pod, "/metadata/name")))),
    }
}

/// The container that a hook freezes and thaws, in whichever it runs itself: the first.
fn frozen(pod: &Value) -> &str {
    text(pod, "/status/containerStatuses/0/containerID")
}

/// The client's half of the handshake: what kube finds in the answer is a connection that was really upgraded.
async fn upgrade(near: DuplexStream) -> hyper::Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::get("/exec").header("host", "double").header("connection", "Upgrade");
    let request = request.header("upgrade", "websocket").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await?;
    Ok(response.map(|_| StreamBody::new(stream::empty().boxed())))
}

async fn play(server: ApiServer, mut far: DuplexStream, key: String, act: Act, cut: bool) {
    let (mut head, mut byte) = (vec![], [0]);
    while !head.ends_with(b"\r\n\r\n") && far.read_exact(&mut byte).await.is_ok() {
        head.push(byte[0]);
    }
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: \
         {accept}\r\nsec-websocket-protocol: {PROTOCOL}\r\n\r\n"
    );
    let _ = far.write_all(answer.as_bytes()).await;
    let mut socket = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
    tokio::time::sleep(act.takes).await;
    server.act(|state| act.take_effect(state));
    if cut {
        return; // without a status, and without a word
    }
    for (channel, text) in [(1, &act.stdout), (2, &act.stderr)] {
        let mut frame = vec![channel];
        frame.extend_from_slice(text.as_bytes());
        let _ = socket.send(Message::binary(frame)).await;
    }
    let mut frame = vec![3];
    frame.extend_from_slice(act.status().to_string().as_bytes());
    let _ = socket.send(Message::binary(frame)).await;
    let _ = socket.close(None).await;
    // The other end reads at its own pace.
    while let Some(Ok(_)) = socket.next().await {}
}
