//! The data channels: reads them, acts on input at once, and hands the rest to the session.
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use tokio::sync::mpsc;
use webrtc::data_channel::{DataChannel, DataChannelEvent};

use super::trace::Tracer;
use crate::{
    Tier,
    input::{
        Done,
        desk::{Player, Stuck},
        message::{BadMessage, FromBrowser, PointerTotals, ToBrowser},
    },
    metrics::Metrics,
};

/// After this many refused messages a client is not one of ours.
const BAD_MAX: u32 = 100;

/// What a channel's reader asks of its session.
pub(super) enum Command {
    /// The channel `keys` is open: say hello on it.
    Opened(Arc<dyn DataChannel>),
    Tier(Option<Tier>),
    KeyFrame,
    Say(ToBrowser),
    End(&'static str),
}

/// Starts a reader for each channel that the browser opens.
pub(super) struct Channels {
    reader: Reader,
    tasks: tokio::task::JoinSet<()>,
}

#[derive(Clone)]
struct Reader {
    player: Arc<Player>,
    tracer: Arc<Mutex<Tracer>>,
    commands: mpsc::Sender<Command>,
    metrics: Metrics,
    instance: String,
}

impl Channels {
    pub(super) fn new(
        player: Arc<Player>,
        tracer: Arc<Mutex<Tracer>>,
        commands: mpsc::Sender<Command>,
        metrics: Metrics,
        instance: String,
    ) -> Self {
        Self { reader: Reader { player, tracer, commands, metrics, instance }, tasks: tokio::task::JoinSet::new() }
    }

    /// Its readers end with `self`.
    pub(super) fn listen(&mut self, channel: Arc<dyn DataChannel>) {
        let reader = self.reader.clone();
        self.tasks.spawn(async move {
            match channel.label().await.as_deref() {
                Ok("keys") => reader.keys(channel).await,
                Ok("pointer") => reader.pointer(channel).await,
                // Closed before it was open, or a channel that we do not know: it stays unread.
                _ => {}
            }
        });
    }
}

impl Reader {
    async fn keys(self, channel: Arc<dyn DataChannel>) {
        let mut greeted = false;
        let mut bad = 0;
        loop {
            let deadline = self.player.deadline().map(tokio::time::Instant::from_std);
            let event = tokio::select! {
                event = channel.poll() => event,
                () = super::until(deadline) => {
                    if self.player.expire(Instant::now()) {
                        self.metrics.held_timeouts.with_label_values(&[&self.instance]).inc();
                    }
                    continue;
                }
            };
            let message = match event {
                Some(DataChannelEvent::OnMessage(message)) => Some(message),
                Some(DataChannelEvent::OnOpen) => None,
                None | Some(DataChannelEvent::OnClose) => {
                    // Without this channel nobody can play or end the session.
                    self.command(Command::End("the browser closed its channel")).await;
                    return;
                }
                Some(_) => continue,
            };
            if !greeted {
                greeted = true;
                self.command(Command::Opened(Arc::clone(&channel))).await;
            }
            let Some(message) = message else { continue };
            match FromBrowser::parse(&message.data) {
                Ok(message) => {
                    if !self.act(message).await {
                        return;
                    }
                }
                Err(error) => {
                    bad += 1;
                    if !self.refuse(&error, bad).await {
                        return;
                    }
                }
            }
        }
    }

    /// False when the session ends.
    async fn act(&self, message: FromBrowser) -> bool {
        let received = SystemTime::now();
        let command = match message {
            FromBrowser::Tier(tier) => Command::Tier(tier),
            FromBrowser::KeyFrame => Command::KeyFrame,
            FromBrowser::Bye => Command::End("the browser said bye"),
            FromBrowser::Trace { on } => {
                self.tracer().switch(on);
                return true;
            }
            FromBrowser::Take => match self.player.take(Instant::now()) {
                Ok(()) => return true,
                Err(refused) => {
                    // The word first: pages without an eye for errors still show who has the controls.
                    self.command(Command::Say(ToBrowser::Lease { lease: self.player.lease_word() })).await;
                    Command::Say(ToBrowser::Error { message: refused.to_string() })
                }
            },
            FromBrowser::Give => {
                self.player.give();
                return true;
            }
            input => match self.player.input(input, received, Instant::now(), |n| self.trace(n, received)) {
                Ok(()) => return true,
                Err(Stuck) => Command::End("the guest does not take input"),
            },
        };
        let ends = matches!(command, Command::End(_));
        self.command(command).await;
        !ends
    }

    async fn pointer(self, channel: Arc<dyn DataChannel>) {
        let mut bad = 0;
        while let Some(event) = channel.poll().await {
            let DataChannelEvent::OnMessage(message) = event else { continue };
            match PointerTotals::parse(&message.data) {
                Ok(totals) => self.player.pointer(totals, SystemTime::now(), Instant::now()),
                Err(error) => {
                    bad += 1;
                    if !self.refuse(&error, bad).await {
                        return;
                    }
                }
            }
        }
    }

    /// False when the session ends for it.
    async fn refuse(&self, error: &BadMessage, count: u32) -> bool {
        self.metrics.bad_messages.inc();
        let end = count >= BAD_MAX;
        let say = Command::Say(ToBrowser::Error { message: error.to_string() });
        self.command(if end { Command::End("too many messages that are not in the contract") } else { say }).await;
        !end
    }

    fn trace(&self, n: u64, received: SystemTime) -> Option<Done> {
        let mut tracer = self.tracer();
        if !tracer.is_on() {
            return None;
        }
        tracer.received(n, received);
        let tracer = Arc::clone(&self.tracer);
        Some(Arc::new(move |at| tracer.lock().unwrap_or_else(PoisonError::into_inner).injected(n, at)))
    }

    fn tracer(&self) -> std::sync::MutexGuard<'_, Tracer> {
        self.tracer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the session is busy: a browser that floods is slowed down by SCTP. Closed: the session has ended.
    async fn command(&self, command: Command) {
        self.commands.send(command).await.ok();
    }
}
