//! What is heard: one watch for each list. Streaming lists where the server has them, for they cost no memory; else
//! small pages.

use std::pin::Pin;
use std::sync::Arc;

use futures::future::ready;
use futures::stream::{Stream, StreamExt, select, unfold};
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tower::service_fn;

use super::decode;
use crate::api::label;
use crate::api::slim::{SlimBackup, SlimJob, SlimRestore};
use crate::config::Watching;
use crate::error::{root, sentence};
use crate::plan::flow::Verb;
use crate::plan::launch::entry::{Object, Uid};
use crate::plan::launch::{Feed, List};

/// What watching needs of the watcher's role.
pub const VERBS: &[Verb] = &[
    ("backup.sts-backup.io", "statefulsetbackups", "list"),
    ("backup.sts-backup.io", "statefulsetbackups", "watch"),
    ("backup.sts-backup.io", "statefulsetrestores", "list"),
    ("backup.sts-backup.io", "statefulsetrestores", "watch"),
    ("batch", "jobs", "list"),
    ("batch", "jobs", "watch"),
];

const PAGE: u32 = 50;

#[derive(Debug)]
pub enum News {
    Begin(Feed),
    End(Feed),
    Object(Uid, Box<Object>),
    Gone(Uid),
    Job(Box<SlimJob>),
    JobGone(Box<SlimJob>),
    /// After a trouble: the server has answered well again, whether or not there is anything to tell.
    Alive(Feed),
    Trouble(Feed, String),
    /// The same, and it is a right that is missing.
    Barred(Feed, String),
}

/// What one feed tells, in its order. It never ends.
pub type Stories = Pin<Box<dyn Stream<Item = News>>>;

pub fn news(client: Client, feed: &Feed, settings: &Watching) -> Stories {
    let install = settings.install.clone();
    let line = Line::new(client);
    match feed.list {
        List::Backups => objects::<SlimBackup>(line, feed, move |object| decode::backup(&install, object)),
        List::Restores => objects::<SlimRestore>(line, feed, move |object| decode::restore(&install, object)),
        List::Jobs => {
            let api: Api<SlimJob> = Api::namespaced(line.client, &settings.namespace);
            let ours = format!("{}={},{}", label::MANAGED_BY, label::MANAGED_BY_VALUE, label::UID);
            stories(api, line.answered, watcher::Config::default().labels(&ours), feed, |event| match event {
                Told::Here(job) => Some(News::Job(Box::new(job))),
                Told::Gone(job) => Some(News::JobGone(Box::new(job))),
            })
        }
    }
}

/// The client of one feed, and when it was answered well. A watch that goes on from where it was, where nothing happens,
/// tells nothing: that it stands again shows nowhere else.
struct Line {
    client: Client,
    answered: Arc<Notify>,
}

impl Line {
    fn new(client: Client) -> Line {
        let answered = Arc::new(Notify::new());
        let (namespace, notify) = (client.default_namespace().to_owned(), answered.clone());
        let service = service_fn(move |request| {
            let (client, answered) = (client.clone(), notify.clone());
            async move {
                let response = client.send(request).await?;
                if response.status().is_success() {
                    answered.notify_one();
                }
                Ok::<_, kube::Error>(response)
            }
        });
        Line { client: Client::new(service, namespace), answered }
    }
}

enum Told<K> {
    Here(K),
    Gone(K),
}

fn objects<K>(line: Line, feed: &Feed, decode: impl Fn(K) -> Option<(Uid, Object)> + 'static) -> Stories
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Lean,
{
    let api: Api<K> = match &feed.namespace {
        Some(namespace) => Api::namespaced(line.client, namespace),
        None => Api::all(line.client),
    };
    stories(api, line.answered, watcher::Config::default(), feed, move |event| match event {
        Told::Here(object) => decode(object).map(|(uid, object)| News::Object(uid, Box::new(object))),
        Told::Gone(object) => object.meta().uid.as_ref()?.parse().ok().map(News::Gone),
    })
}

pub trait Lean: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static {}
impl<K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static> Lean for K {}

fn stories<K: Lean>(
    api: Api<K>,
    answered: Arc<Notify>,
    config: watcher::Config,
    feed: &Feed,
    tell: impl Fn(Told<K>) -> Option<News> + 'static,
) -> Stories {
    let feed = feed.clone();
    let mut troubled = false;
    let answers = unfold(answered, async |answered| {
        answered.notified().await;
        Some((None, answered))
    });
    let stories = select(events(api, config).map(Some), answers).map(move |event| {
        troubled |= matches!(event, Some(Err(_)));
        match event {
            None => std::mem::take(&mut troubled).then(|| News::Alive(feed.clone())),
            Some(Ok(Event::Init)) => Some(News::Begin(feed.clone())),
            Some(Ok(Event::InitDone)) => Some(News::End(feed.clone())),
            Some(Ok(Event::InitApply(object) | Event::Apply(object))) => tell(Told::Here(object)),
            Some(Ok(Event::Delete(object))) => tell(Told::Gone(object)),
            Some(Err(error)) if code(&error) == Some(403) => Some(News::Barred(feed.clone(), why(&feed, &error))),
            Some(Err(error)) => Some(News::Trouble(feed.clone(), why(&feed, &error))),
        }
    });
    stories.filter_map(ready).boxed_local()
}

/// A server without streaming lists says 400 or 422; it is asked for pages from then on.
fn events<K: Lean>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = watcher::Result<Event<K>>> {
    let paged = config.clone().page_size(PAGE);
    let begin = watcher(api.clone(), config.streaming_lists()).default_backoff().boxed();
    unfold((begin, Some((api, paged))), async |(mut events, mut other)| {
        loop {
            let event = events.next().await?;
            if let Err(error) = &event
                && matches!(code(error), Some(400 | 422))
                && let Some((api, paged)) = other.take()
            {
                events = watcher(api, paged).default_backoff().boxed();
                continue;
            }
            return Some((event, (events, other)));
        }
    })
}

fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}

/// What is missing, and the remedy where there is one.
fn why(feed: &Feed, error: &watcher::Error) -> String {
    let said = match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => sentence(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => root(error),
    };
    let resource = feed.resource();
    match code(error) {
        Some(404) => format!("the CustomResourceDefinition of {resource} is not installed: apply manifests/crds.yaml"),
        Some(403) => format!("the right to list and watch {resource} is missing ({said}): bind the watcher's role"),
        _ => said,
    }
}
