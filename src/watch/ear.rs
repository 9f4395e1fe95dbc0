//! When the API server was heard last: any answer, and any piece of a watch, if only a bookmark. Whoever is cut off hears
//! nothing, and no error either.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use http_body::Frame;
use kube::Client;
use kube::client::Body;
use tokio::time::{Instant, Sleep, sleep};
use tower::{BoxError, service_fn};

/// A server ends each watch within 290 s, so one that tells nothing for so long has lost its connection. Without this it
/// would be waited for for ever.
const SILENT: Duration = Duration::from_secs(310);

/// When something was heard last. Clones hear together.
#[derive(Debug, Clone)]
pub struct Ear(Arc<Mutex<Instant>>);

impl Default for Ear {
    fn default() -> Ear {
        Ear(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Ear {
    /// For how long nothing has been heard.
    pub fn silence(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn hear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// The same client, listened to.
    pub fn listen(&self, client: Client) -> Client {
        let (ear, namespace) = (self.clone(), client.default_namespace().to_owned());
        let service = service_fn(move |request| {
            let (client, ear) = (client.clone(), ear.clone());
            async move {
                let response: Response<Body> = client.send(request).await?;
                ear.hear();
                Ok::<_, kube::Error>(response.map(|body| Heard { body, ear, patience: Box::pin(sleep(SILENT)) }))
            }
        });
        Client::new(service, namespace)
    }
}

/// A body whose pieces are heard, and which ends when none comes for too long.
struct Heard {
    body: Body,
    ear: Ear,
    patience: Pin<Box<Sleep>>,
}

impl http_body::Body for Heard {
    type Data = <Body as http_body::Body>::Data;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.ear.hear();
            self.patience.as_mut().reset(Instant::now() + SILENT);
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match self.patience.as_mut().poll(cx) {
            Poll::Ready(()) => {
                let why = format!("nothing was heard for {} s: the connection is taken for lost", SILENT.as_secs());
                Poll::Ready(Some(Err(why.into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream::{self, StreamExt};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// Answers with a piece after each of these pauses, and then no more.
    fn server(pauses: &'static [u64]) -> Client {
        let service = service_fn(move |_: http::Request<Body>| async move {
            let pieces = stream::iter(pauses).then(|seconds| async move {
                sleep(Duration::from_secs(*seconds)).await;
                Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"{}")))
            });
            Ok::<_, BoxError>(Response::new(StreamBody::new(pieces.chain(stream::pending()))))
        });
        Client::new(service, "default")
    }

    #[tokio::test(start_paused = true)]
    async fn each_piece_is_heard_and_a_watch_that_falls_silent_ends() {
        let (ear, begun) = (Ear::default(), Instant::now());
        let request = http::Request::new(Body::empty());
        let mut body = ear.listen(server(&[60, 200])).send(request).await.unwrap().into_body();
        for heard in [60, 260] {
            assert!(body.frame().await.unwrap().is_ok());
            assert_eq!(begun.elapsed().as_secs(), heard);
            assert_eq!(ear.silence().as_secs(), 0);
        }
        let end = body.frame().await.expect("it does not just end");
        assert!(end.unwrap_err().to_string().contains("taken for lost"));
        assert_eq!(begun.elapsed(), Duration::from_secs(260) + SILENT);
        assert_eq!(ear.silence(), SILENT);
    }
}
