//! One resource of the Kubernetes API, listed once and then watched, for ever.
//!
//! ```text
//! no version:  streaming list (WatchList) --refused by an old API--> list in pages --+
//!                 |                                                                  v
//!                 +----------------------------------------------> watch from the version <--+
//!                                                                    | ends, breaks ---------+  from where it was
//!                                                                    | 410 Gone: list anew
//! ```
//! `kube::runtime::watcher` does not say whether a watch stands, only what comes through it; what is shown as stale depends on
//! just that, so the loop over kube's own `Api::watch` is here.
//!
//! **Invariants.** Never ends by itself. Waits longer after each failure, with a part of chance, so that a thousand agents do not
//! come back at once. A watch that was interrupted goes on from its version: an API that restarts is not asked for everything.
//! The queue to the reader is bounded, and a full one holds the connection back.
use std::{fmt::Debug, pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, Error,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant},
};

use crate::{stats::WatchStats, thin::Thin};

/// The API ends a watch after a time within this range, by chance; a new one goes on where it ended. The chance keeps a
/// thousand agents apart that began together.
const WATCH_SECONDS: std::ops::Range<u32> = 200..290;
/// After this an idle connection is dead, as the API would have ended the watch itself.
const IDLE: Duration = Duration::from_secs(WATCH_SECONDS.end as u64 + 10);
/// For the head of an answer.
const ANSWER: Duration = Duration::from_secs(10);
const PAGE: u32 = 500;
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A watch that the API ends sooner than this did not work.
const SHORT: Duration = Duration::from_secs(1);

/// What a watch tells its reader.
#[derive(Debug)]
pub(crate) enum Heard<F> {
    /// Everything is told anew; what is not told until [`Heard::Listed`] is gone.
    Listing,
    Is(String, F),
    Gone(String),
    Listed,
    /// The API took the watch: from here on every change is told.
    Following,
    /// It does not stand; why.
    Away(String),
}

/// One resource of one namespace.
#[derive(Debug)]
pub(crate) struct Watch<K> {
    pub(crate) api: Api<K>,
    pub(crate) labels: String,
    pub(crate) stats: Arc<crate::Stats>,
    pub(crate) mine: fn(&crate::Stats) -> &WatchStats,
}

/// How a connection ended.
enum Ended {
    /// By the API, or it was asked to begin anew from where it is.
    Clean,
    /// The version is no longer known there.
    Expired,
    /// Everything is to be listed anew.
    Asked,
    Failed(String),
    ReaderGone,
}

impl<K> Watch<K>
where
    K: Thin + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Tells `sender` until nobody reads. A change of `again` breaks the connection off: [`Again`].
    pub(crate) async fn run(self, sender: mpsc::Sender<Heard<K::Fact>>, mut again: watch::Receiver<Again>) {
        let stats = Arc::clone(&self.stats);
        let stats = (self.mine)(&stats);
        let mut version: Option<String> = None;
        let mut streaming = true;
        let mut backoff = BACKOFF_MIN;
        loop {
            let began = Instant::now();
            let was = *again.borrow_and_update();
            let ended = tokio::select! {
                ended = self.once(stats, &mut version, &mut streaming, &sender) => ended,
                changed = again.changed() => match changed {
                    Ok(()) if again.borrow().list != was.list => Ended::Asked,
                    Ok(()) => Ended::Clean,
                    Err(_) => Ended::ReaderGone,
                },
            };
            let stood = stats.connected() && began.elapsed() >= SHORT;
            if stood {
                backoff = BACKOFF_MIN;
            }
            stats.ended(matches!(ended, Ended::Failed(_)));
            match ended {
                Ended::ReaderGone => return,
                Ended::Asked | Ended::Expired => version = None,
                Ended::Clean => {}
                Ended::Failed(why) => {
                    if sender.send(Heard::Away(why)).await.is_err() {
                        return;
                    }
                    // Listing anew is only asked of an API that was told so; after a failure the old version is tried first.
                    tokio::select! {
                        () = time::sleep(jittered(backoff)) => {}
                        changed = again.changed() => if changed.is_err() { return },
                    }
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    continue;
                }
            }
            // An API that ends every watch at once is not to be asked in a tight loop.
            if !stood {
                time::sleep(jittered(backoff)).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }

    async fn once(
        &self,
        stats: &WatchStats,
        version: &mut Option<String>,
        streaming: &mut bool,
        sender: &mpsc::Sender<Heard<K::Fact>>,
    ) -> Ended {
        if version.is_none() && !*streaming {
            match self.list(stats, sender).await {
                Ok(Some(listed)) => *version = Some(listed),
                Ok(None) => return Ended::ReaderGone,
                Err(error) => return Ended::Failed(words(&error)),
            }
        }
        let listing = version.is_none();
        let params = WatchParams {
            label_selector: Some(self.labels.clone()),
            field_selector: None,
            timeout: Some(rand::random_range(WATCH_SECONDS)),
            bookmarks: true,
            send_initial_events: listing,
        };
        let from = version.as_deref().unwrap_or("0");
        let stream = match time::timeout(ANSWER, self.api.watch(&params, from)).await {
            Err(_) => {
                return Ended::Failed(format!(
                    "the API takes the connection and says nothing for {} s",
                    ANSWER.as_secs()
                ));
            }
            Ok(Err(error)) if gone(&error) => return Ended::Expired,
            Ok(Err(error)) if listing && refused(&error) => {
                tracing::info!("this API knows no streaming lists; everything is listed in pages");
                *streaming = false;
                return Ended::Clean;
            }
            Ok(Err(error)) => return Ended::Failed(words(&error)),
            Ok(Ok(stream)) => stream,
        };
        stats.took_up();
        let first = if listing { Heard::Listing } else { Heard::Following };
        if sender.send(first).await.is_err() {
            return Ended::ReaderGone;
        }
        let mut stream = pin!(stream.into_stream());
        // The version is kept only once the list is whole: half of one is no state to go on from.
        let mut whole = !listing;
        loop {
            let event = match time::timeout(IDLE, stream.next()).await {
                Err(_) => return Ended::Failed("the watch fell silent".to_owned()),
                Ok(None) => return Ended::Clean,
                Ok(Some(Err(error))) if gone(&error) => return Ended::Expired,
                Ok(Some(Err(error))) => return Ended::Failed(words(&error)),
                Ok(Some(Ok(event))) => event,
            };
            let told = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    stats.event();
                    keep(version, whole, object.meta().resource_version.as_ref());
                    told(object)
                }
                WatchEvent::Deleted(object) => {
                    stats.event();
                    keep(version, whole, object.meta().resource_version.as_ref());
                    object.meta().name.clone().map(Heard::Gone)
                }
                WatchEvent::Bookmark(bookmark) => {
                    let ends = !whole && bookmark.metadata.annotations.contains_key("k8s.io/initial-events-end");
                    whole |= ends;
                    keep(version, whole, Some(&bookmark.metadata.resource_version));
                    if ends {
                        stats.listed();
                        if sender.send(Heard::Listed).await.is_err() {
                            return Ended::ReaderGone;
                        }
                    }
                    ends.then_some(Heard::Following)
                }
                WatchEvent::Error(refusal) if refusal.code == 410 => return Ended::Expired,
                WatchEvent::Error(refusal) => {
                    return Ended::Failed(format!("the API ended the watch: {}", refusal.message));
                }
            };
            if let Some(told) = told
                && sender.send(told).await.is_err()
            {
                return Ended::ReaderGone;
            }
        }
    }

    /// All objects, page by page: the version of the list, or `None` when nobody reads.
    async fn list(&self, stats: &WatchStats, sender: &mpsc::Sender<Heard<K::Fact>>) -> Result<Option<String>, Error> {
        let mut params = ListParams::default().labels(&self.labels).limit(PAGE);
        let mut begun = false;
        loop {
            let page = self.api.list(&params).await?;
            if !begun && sender.send(Heard::Listing).await.is_err() {
                return Ok(None);
            }
            begun = true;
            for object in page.items {
                stats.event();
                if let Some(told) = told(object)
                    && sender.send(told).await.is_err()
                {
                    return Ok(None);
                }
            }
            let Some(token) = page.metadata.continue_.filter(|token| !token.is_empty()) else {
                stats.listed();
                let listed = sender.send(Heard::Listed).await.is_ok();
                return Ok(page.metadata.resource_version.filter(|_| listed));
            };
            params.continue_token = Some(token);
        }
    }
}

/// What the reader asks of a watch, as counters: a change is a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Again {
    /// List everything anew.
    pub(crate) list: u64,
    /// Connect anew from the version that was reached: the connection may be dead.
    pub(crate) connect: u64,
}

fn told<K: Thin>(object: K) -> Option<Heard<K::Fact>> {
    let name = object.meta().name.clone()?;
    Some(Heard::Is(name, object.fact()))
}

fn keep(version: &mut Option<String>, whole: bool, new: Option<&String>) {
    if whole && let Some(new) = new {
        *version = Some(new.clone());
    }
}

/// The version is too old to go on from.
fn gone(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 410)
}

/// The API does not take the parameters of a streaming list (before Kubernetes 1.32, or with it switched off).
fn refused(error: &Error) -> bool {
    matches!(error, Error::Api(status) if matches!(status.code, 400 | 405 | 422))
}

/// In one line, with the remedy where one is known.
pub(crate) fn words(error: &Error) -> String {
    match error {
        Error::Api(status) => match status.code {
            401 => format!(
                "the API does not know who we are ({}); is the service account's token mounted?",
                status.message
            ),
            403 => format!("the API refuses: {}; the chart's Role grants it, see `rbac` in its values", status.message),
            code => format!("the API answers {code}: {}", status.message),
        },
        other => {
            // The innermost reason: the outer ones repeat one another.
            let mut source: &dyn std::error::Error = other;
            while let Some(next) = source.source() {
                source = next;
            }
            format!("the API does not answer: {source}")
        }
    }
}

/// Between half of it and all of it.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn api_error(code: u16) -> Error {
        Error::Api(Box::new(Status { code, message: "m".into(), ..Status::default() }))
    }

    #[test]
    fn errors_are_told_apart() {
        assert!(gone(&api_error(410)) && !gone(&api_error(403)));
        assert!(refused(&api_error(422)) && !refused(&api_error(403)) && !refused(&api_error(429)));
        assert!(words(&api_error(403)).contains("Role"));
        assert!(words(&api_error(500)).contains("500"));
    }

    #[test]
    fn a_version_is_kept_only_of_a_whole_list() {
        let mut version = None;
        keep(&mut version, false, Some(&"7".to_owned()));
        assert_eq!(version, None);
        keep(&mut version, true, Some(&"8".to_owned()));
        keep(&mut version, true, None);
        assert_eq!(version.as_deref(), Some("8"));
    }
}
