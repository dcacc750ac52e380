//! One event stream to each agent of the directory, and what it last said.
//!
//! An agent speaks on every change and every 2 s, so one that says nothing for [`SILENCE`] is silent, however alive its
//! TCP connection looks. Connections come back by themselves; nothing is forgotten meanwhile.
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use api::agent::AgentStatus;
use directory::Directory;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use model::NodeName;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use tokio::{net::TcpStream, sync::watch, task::JoinHandle, time};
use tokio_util::task::AbortOnDropHandle;

/// An agent that said nothing for this long is silent: 1.5 of its own beats.
pub const SILENCE: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Longest event that is taken: 1,000 instances need about 600 kB.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// For what a connection reads at a time: of a thousand that stand for hours, what each keeps counts.
const READ_BYTES: usize = 4096;

/// What is known of one agent.
#[derive(Debug, Clone, Default)]
pub struct AgentView {
    pub url: String,
    /// Seconds since the epoch of its last word.
    pub heard_at: Option<f64>,
    pub connected: bool,
    pub status: Option<Arc<AgentStatus>>,
    pub problem: Option<String>,
}

impl AgentView {
    /// Seconds of silence at `now`; `None` while it answers or before its first word.
    pub fn silent_for(&self, now: f64) -> Option<f64> {
        let quiet = now - self.heard_at?;
        (!self.connected || quiet > SILENCE.as_secs_f64()).then_some(quiet.max(0.0))
    }
}

pub type AgentViews = BTreeMap<NodeName, AgentView>;

/// Keeps the streams in step with the directory.
#[derive(Debug)]
pub struct Agents {
    views: watch::Receiver<AgentViews>,
    http: reqwest::Client,
    token: String,
    task: JoinHandle<()>,
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Clone)]
struct Metrics {
    connected: IntGaugeVec,
    events: IntCounterVec,
}

pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

impl Agents {
    pub fn start(directory: watch::Receiver<Directory>, token: String, registry: &Registry) -> anyhow::Result<Self> {
        let metrics = Metrics {
            connected: IntGaugeVec::new(
                Opts::new("loco_gateway_agent_connected", "1 while the agent's event stream stands"),
                &["node"],
            )?,
            events: IntCounterVec::new(
                Opts::new("loco_gateway_agent_events_total", "Status events taken from the agent"),
                &["node"],
            )?,
        };
        registry.register(Box::new(metrics.connected.clone()))?;
        registry.register(Box::new(metrics.events.clone()))?;
        let http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).no_proxy().build()?;
        let (sender, views) = watch::channel(AgentViews::new());
        let task = tokio::spawn(follow_directory(directory, Arc::new(sender), token.clone(), metrics));
        Ok(Self { views, http, token, task })
    }

    pub fn watch(&self) -> watch::Receiver<AgentViews> {
        self.views.clone()
    }

    /// A request to the agent of `node`, with the token; `None` if the directory has no such node.
    pub fn request(&self, method: reqwest::Method, node: &NodeName, path: &str) -> Option<reqwest::RequestBuilder> {
        let url = self.views.borrow().get(node).map(|view| format!("{}{path}", view.url.trim_end_matches('/')))?;
        Some(self.http.request(method, url).bearer_auth(&self.token))
    }
}

async fn follow_directory(
    mut directory: watch::Receiver<Directory>,
    views: Arc<watch::Sender<AgentViews>>,
    token: String,
    metrics: Metrics,
) {
    let mut streams: BTreeMap<NodeName, (String, JoinHandle<()>)> = BTreeMap::new();
    loop {
        let wanted: BTreeMap<NodeName, String> =
            directory.borrow_and_update().snapshot.nodes().map(|n| (n.name.clone(), n.agent_url.clone())).collect();
        streams.retain(|node, (url, task)| {
            let keep = wanted.get(node) == Some(url);
            if !keep {
                task.abort();
            }
            keep
        });
        views.send_if_modified(|views| {
            let before = views.len();
            views.retain(|node, _| wanted.contains_key(node));
            let mut changed = before != views.len();
            for (node, url) in &wanted {
                let view = views.entry(node.clone()).or_default();
                changed |= view.url != *url;
                view.url.clone_from(url);
            }
            changed
        });
        for (node, url) in wanted {
            streams.entry(node.clone()).or_insert_with(|| {
                let stream = Stream {
                    node: node.clone(),
                    url: url.clone(),
                    token: token.clone(),
                    views: Arc::clone(&views),
                    metrics: metrics.clone(),
                };
                (url, tokio::spawn(stream.run()))
            });
        }
        if directory.changed().await.is_err() {
            break;
        }
    }
    for (_, (_, task)) in streams {
        task.abort();
    }
}

struct Stream {
    node: NodeName,
    url: String,
    token: String,
    views: Arc<watch::Sender<AgentViews>>,
    metrics: Metrics,
}

impl Stream {
    async fn run(self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let (heard, problem) = self.once().await;
            self.metrics.connected.with_label_values(&[self.node.as_str()]).set(0);
            tracing::debug!(node = %self.node, %problem, "agent stream ended");
            self.change(|view| {
                view.connected = false;
                view.problem = Some(problem);
            });
            backoff = if heard { BACKOFF_MIN } else { (backoff * 2).min(BACKOFF_MAX) };
            time::sleep(backoff).await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut AgentView)) {
        self.views.send_modify(|views| {
            if let Some(view) = views.get_mut(&self.node) {
                change(view);
            }
        });
    }

    /// A connection of its own, without a pool, and the head of the answer; the connection ends with the task that drives it.
    async fn ask(&self) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), String> {
        let url = reqwest::Url::parse(&self.url).map_err(|error| format!("`{}`: {error}", self.url))?;
        let (Some(host), Some(port), "http") = (url.host_str(), url.port_or_known_default(), url.scheme()) else {
            return Err(format!("`{}` is not where an agent is; it speaks plain HTTP", self.url));
        };
        let connected = time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await;
        let socket = connected
            .map_err(|_| format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))?
            .map_err(|error| error.to_string())?;
        let handshake =
            http1::Builder::new().read_buf_exact_size(Some(READ_BYTES)).handshake(TokioIo::new(socket)).await;
        let (mut sender, connection) = handshake.map_err(|error| innermost(&error))?;
        let driving = AbortOnDropHandle::new(tokio::spawn(async move {
            // Why it ended is told by the answer, or by its body.
            connection.await.ok();
        }));
        let request = Request::get(format!("{}/v1/events", url.path().trim_end_matches('/')))
            .header(header::HOST, format!("{host}:{port}"))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(|error| innermost(&error))?;
        Ok((answer, driving))
    }

    /// One connection until it ends: whether anything was heard, and why it ended.
    async fn once(&self) -> (bool, String) {
        let (answer, _driving) = match time::timeout(SILENCE * 2, self.ask()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return (false, format!("the agent does not answer: {why}")),
            Err(_) => return (false, "the agent takes connections and does not answer".into()),
        };
        if !answer.status().is_success() {
            return (
                false,
                format!("the agent answers {}; do gateway and agent have the same agent token?", answer.status()),
            );
        }
        let mut events = answer.into_body();
        let mut parser = EventParser::default();
        let mut heard = false;
        loop {
            let frame = match time::timeout(SILENCE * 2, events.frame()).await {
                Err(_) => return (heard, "the agent fell silent".into()),
                Ok(None) => return (heard, "the agent closed the stream".into()),
                Ok(Some(Err(error))) => return (heard, format!("the stream broke: {}", innermost(&error))),
                Ok(Some(Ok(frame))) => frame,
            };
            // Trailers say nothing here.
            let Ok(chunk) = frame.into_data() else { continue };
            if !parser.push(&chunk) {
                return (heard, "the agent sent an event that is too long".into());
            }
            while let Some(data) = parser.next_data() {
                let status: AgentStatus = match serde_json::from_str(&data) {
                    Ok(status) => status,
                    Err(error) => {
                        return (
                            heard,
                            format!("the agent sent what is no status: {error}; is it of another version?"),
                        );
                    }
                };
                heard = true;
                self.metrics.connected.with_label_values(&[self.node.as_str()]).set(1);
                self.metrics.events.with_label_values(&[self.node.as_str()]).inc();
                self.change(|view| {
                    view.connected = true;
                    view.problem = None;
                    view.heard_at = Some(now());
                    view.status = Some(Arc::new(status));
                });
            }
        }
    }
}

/// The innermost reason: reqwest's own text repeats the URL and hides the system's word.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    innermost(error)
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut source = error;
    while let Some(next) = source.source() {
        source = next;
    }
    source.to_string()
}

/// Server-sent events (WHATWG HTML, section 9.2.6), as much as agents send: `data` lines, ended by an empty line.
#[derive(Debug, Default)]
struct EventParser {
    buffer: Vec<u8>,
}

impl EventParser {
    /// Takes a chunk; `false` if an event has grown too long.
    fn push(&mut self, chunk: &[u8]) -> bool {
        self.buffer.extend_from_slice(chunk);
        self.buffer.len() <= EVENT_BYTES_MAX
    }

    /// The data of the next whole event that has any.
    fn next_data(&mut self) -> Option<String> {
        loop {
            let end = self.buffer.windows(2).position(|pair| pair == b"\n\n")?;
            let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&event);
            let data: Vec<&str> = text
                .lines()
                .filter_map(|line| line.strip_prefix("data:"))
                .map(|data| data.strip_prefix(' ').unwrap_or(data))
                .collect();
            if !data.is_empty() {
                let data = data.join("\n");
                if self.buffer.is_empty() {
                    // A thousand agents, each silent for most of the time, are not to hold the room for their last word.
                    self.buffer = Vec::new();
                }
                return Some(data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_they_are_cut() {
        let text = b": hello\n\nevent: status\ndata: {\"a\":\ndata: 1}\n\ndata: second\n\ndata: unfinished";
        for cut in 1..text.len() {
            let mut parser = EventParser::default();
            let mut got = Vec::new();
            for part in text.chunks(cut) {
                assert!(parser.push(part));
                got.extend(std::iter::from_fn(|| parser.next_data()));
            }
            assert_eq!(got, ["{\"a\":\n1}", "second"], "cut every {cut}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = EventParser::default();
        let mut taken = 0;
        while parser.push(&vec![b'x'; 65536]) {
            taken += 65536;
            assert!(taken <= EVENT_BYTES_MAX);
        }
    }

    #[test]
    fn silence_counts_from_the_last_word() {
        let mut view = AgentView { connected: true, heard_at: Some(100.0), ..AgentView::default() };
        assert_eq!(view.silent_for(102.9), None);
        assert_eq!(view.silent_for(104.0), Some(4.0));
        view.connected = false;
        assert_eq!(view.silent_for(100.5), Some(0.5));
        view.heard_at = None;
        assert_eq!(view.silent_for(200.0), None);
    }
}
