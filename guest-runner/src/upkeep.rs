//! What the loop does besides: the disk's news, what holds the guest, QEMU's and the agent's signs of life, orders.
use std::time::Duration;

use guest::{
    lifecycle::{Fact, State},
    qmp::Event,
};
use qapi::qmp;
use seat::{FromRunner, Order, Port};
use telemetry::chain;
use tokio::time::Instant;

use crate::{
    runner::Runner,
    storage::{Held, News},
};

/// An agent that leaves a question open for this long hangs: the connection is ended, and the next one asks for anew. Its loop
/// turns four times a second, and its longest wait is for a tap, 5 s.
const AGENT_LIMIT: Duration = Duration::from_secs(10);
/// How long QEMU may say nothing before it is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(3);
/// How long QEMU may leave that open before the guest counts as not ready. A busy machine takes a second.
const SILENT: Duration = Duration::from_secs(10);

/// Questions to the agent: one at a time.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    since: Option<Instant>,
}

/// QEMU's signs of life.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// It was asked for one and has not answered.
    nudged: bool,
    /// It was said that it gives none.
    silent: bool,
}

impl Runner {
    /// Once a second.
    pub(crate) async fn look_after(&mut self) {
        self.look_at_held().await;
        self.look_at_qemu().await;
        self.ask_agent().await;
        self.tell_storage().await;
    }

    pub(crate) async fn storage_news(&mut self, news: News) {
        match news {
            News::Settled => {
                self.signs.metrics.disk_fallback.set(i64::from(self.storage.on_fallback()));
                if let Some(words) = self.storage.blocked() {
                    self.signs.qemu.fail(format!("not started: {words}"));
                }
            }
            News::Measured(usage) => self.signs.metrics.disk(usage),
        }
        self.tell_storage().await;
    }

    /// Says what somebody should know of the disk, if that is news to the agent.
    pub(crate) async fn tell_storage(&mut self) {
        let held = self.held.as_ref().map(|held| held.words.clone());
        let held = held.or_else(|| self.storage.blocked().map(str::to_owned));
        let now = seat::Storage { held: held.is_some(), text: held.or_else(|| self.storage.notice()) };
        self.signs.metrics.disk_held.set(i64::from(now.held));
        // Nothing to say is what an agent that was told nothing takes for granted.
        if !self.link.is_attached() || *self.said.get_or_insert_default() == now {
            return;
        }
        match self.link.send(&FromRunner::Storage(now.clone()), &[]).await {
            Ok(()) => self.said = Some(now),
            Err(reason) => self.agent_gone(&reason),
        }
    }

    pub(crate) async fn event(&mut self, event: &Event) {
        match event.name.as_str() {
            "SHUTDOWN" | "RESET" | "POWERDOWN" => {
                // qapi/run-state.json, ShutdownCause.
                self.signalled |= event.data["reason"] == "host-signal";
                tracing::info!(event = event.name, reason = %event.data["reason"], "guest");
            }
            "BLOCK_IO_ERROR" if event.data["action"] == "stop" => {
                let full = event.data["nospace"] == true;
                self.hold(full, event.data["reason"].as_str().unwrap_or("no reason given")).await;
            }
            "STOP" if self.held.is_none() => {
                self.signs.qemu.fail("the guest is paused");
                self.why_stopped().await;
            }
            "RESUME" => match &mut self.held {
                Some(held) => held.resumed(Instant::now()),
                None => self.signs.qemu.hold(),
            },
            _ => {}
        }
    }

    /// QEMU limits how often it says what went wrong; its state says it all the same.
    async fn why_stopped(&mut self) {
        let Some(monitor) = &mut self.monitor else { return };
        match monitor.execute(qmp::query_status {}).await {
            Ok(status) if status.status == qmp::RunState::io_error => {
                // Full or not: that is found out by trying.
                self.hold(true, "no reason given").await;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %chain(&error), "QEMU does not say why the guest is paused"),
        }
    }

    async fn hold(&mut self, full: bool, reason: &str) {
        let now = Instant::now();
        let held = Held::new(self.storage.overlay(), full, reason, now);
        if self.held.is_none() {
            tracing::error!("{}", held.words);
            self.signs.metrics.disk_holds.inc();
        }
        self.signs.qemu.fail(held.words.clone());
        self.held = Some(held);
        self.tell_storage().await;
    }

    async fn look_at_held(&mut self) {
        let (now, free) = (Instant::now(), self.storage.free_bytes());
        let Some(held) = &mut self.held else { return };
        if held.over(now) {
            tracing::info!("the guest goes on");
            self.held = None;
            self.signs.qemu.hold();
        } else if held.try_now(free, now)
            && let Some(monitor) = &mut self.monitor
            && let Err(error) = monitor.execute(qmp::cont {}).await
        {
            tracing::warn!(error = %chain(&error), "the guest could not be let go on");
        }
    }

    async fn look_at_qemu(&mut self) {
        let Some(monitor) = &mut self.monitor else { return };
        let quiet = monitor.heard_at().elapsed();
        if quiet < QUIET {
            if let Some(beat) = &self.qemu_beat {
                beat.tick();
            }
            self.pulse.nudged = false;
            if std::mem::take(&mut self.pulse.silent) && self.held.is_none() && self.life.state() == State::Running {
                self.signs.qemu.hold();
            }
            return;
        }
        if quiet >= SILENT {
            self.pulse.silent = true;
            self.signs.qemu.fail(format!(
                "QEMU has not answered for {} s; its main loop stands still or the machine is starved",
                quiet.as_secs()
            ));
        }
        if !self.pulse.nudged {
            self.pulse.nudged = true;
            if let Err(error) = monitor.nudge().await {
                tracing::warn!(error = %chain(&error), "QEMU takes no commands");
            }
        }
    }

    /// Asks whether the port is up and the picture live; an agent that does not answer hangs.
    async fn ask_agent(&mut self) {
        if !self.link.is_attached() {
            return;
        }
        let reason = match self.asking.since {
            Some(since) if since.elapsed() >= AGENT_LIMIT => {
                self.signs.metrics.agent_silences.inc();
                let reason =
                    format!("the agent holds its connection and has not answered for {} s", AGENT_LIMIT.as_secs());
                self.link.drop_agent(&reason);
                reason
            }
            Some(_) => return,
            None => match self.link.send(&FromRunner::AskPort, &[]).await {
                Ok(()) => {
                    self.asking.since = Some(Instant::now());
                    return;
                }
                Err(reason) => reason,
            },
        };
        self.agent_gone(&reason);
    }

    /// The agent's answer.
    pub(crate) fn port(&mut self, port: Port) {
        self.asking.since = None;
        let Port { up, picture_live, state, detail } = port;
        let why = || detail.clone().unwrap_or_else(|| format!("the agent says that it is {state}"));
        if up {
            self.signs.port.hold();
        } else {
            self.signs.port.fail(why());
        }
        if picture_live {
            self.signs.picture.hold();
            if let Some(after) = self.signs.startup.done() {
                tracing::info!(seconds = after.as_secs_f64(), "live");
                self.signs.metrics.started(after);
            }
        } else {
            self.signs.picture.fail(why());
        }
    }

    pub(crate) async fn order(&mut self, id: u64, order: Order) {
        let ending = matches!(self.life.state(), State::Stopping(_) | State::Ended(_));
        let refused = (ending || self.storage.busy())
            .then(|| "it is being started or switched off already; ask again when that is done".to_owned());
        let taken = refused.is_none();
        if let Err(reason) = self.link.send(&FromRunner::Took { id, refused }, &[]).await {
            // Who asked does not know that it was heard: nothing is done that was not confirmed.
            self.agent_gone(&reason);
            return;
        }
        if !taken {
            return;
        }
        tracing::info!(?order, "ordered");
        self.signs.metrics.restarts.with_label_values(&[if order == Order::Reset { "reset" } else { "restart" }]).inc();
        self.resetting = order == Order::Reset;
        if self.life.has_port() {
            self.take(Fact::RestartAsked).await;
        } else {
            // No guest runs: its disk could not be had.
            self.storage.again(std::mem::take(&mut self.resetting));
        }
    }
}
