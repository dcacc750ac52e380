//! What the agent is given: control, sound, picture; again for each agent that comes.
//!
//! **Invariants.** QEMU is not touched when an agent comes or goes. What an agent still has to be given is kept as flags
//! ([`Owed`]) and tried until it is done, so no failure of one attempt loses anything.
use std::{os::fd::OwnedFd, time::Duration};

use guest::{
    argv::Monitor,
    handshake::{Bus, HandshakeError},
};
use seat::{FromRunner, Started};
use telemetry::chain;
use tokio::{net::UnixStream, time::Instant};

use crate::runner::Runner;

/// Pause after a hand-over that did not succeed: QEMU may not have noticed yet that the agent before is gone.
const HAND_OVER_RETRY: Duration = Duration::from_millis(100);
/// After this many in a row the pause is longer: something else is wrong.
const HAND_OVER_QUICK_TRIES: u32 = 20;
const HAND_OVER_SLOW_RETRY: Duration = Duration::from_secs(2);

/// What the connected agent has not been given yet.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Owed {
    pub(crate) control: bool,
    pub(crate) display: bool,
    pub(crate) audio: bool,
}

impl Owed {
    pub(crate) const ALL: Self = Self { control: true, display: true, audio: true };

    pub(crate) const fn anything(self) -> bool {
        self.control || self.display || self.audio
    }
}

impl Runner {
    /// Gives the agent what it is owed: control, sound, picture.
    pub(crate) async fn hand_over(&mut self) {
        let result = self.try_hand_over().await;
        // A guest without sound is still a guest.
        if self.link.is_attached() && !self.owed.control && !self.owed.display {
            self.signs.agent.hold();
        }
        let Err(error) = result else {
            tracing::info!("control, display and sound handed over");
            self.hand_over_tries = 0;
            return;
        };
        self.hand_over_tries += 1;
        let reason = chain(&*error);
        if self.hand_over_tries == HAND_OVER_QUICK_TRIES {
            tracing::warn!(reason, owed = ?self.owed, "hand-over to the agent does not succeed; going on trying");
        }
        let pause = if self.hand_over_tries < HAND_OVER_QUICK_TRIES { HAND_OVER_RETRY } else { HAND_OVER_SLOW_RETRY };
        self.hand_over_at = Instant::now() + pause;
        if !self.link.is_attached() {
            self.agent_gone(&reason);
        }
    }

    async fn try_hand_over(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let (Some(monitor), Some(qemu)) = (&mut self.monitor, &self.qemu) else { return Ok(()) };
        if self.owed.control {
            let started = Started {
                qemu_pid: qemu.pid(),
                accelerator: self.accelerator.as_str().to_owned(),
                netdev: self.netdev.clone(),
            };
            // Not blocking: a QEMU that accepts nobody must not stop this runner; full is an error, and tried again.
            let connect = async |which| -> std::io::Result<OwnedFd> {
                let stream = UnixStream::connect(self.run_dir.monitor(which)).await?.into_std()?;
                Ok(stream.into())
            };
            let (input, poke) = (connect(Monitor::Input).await?, connect(Monitor::Poke).await?);
            self.link.send(&FromRunner::Started(started), &[]).await?;
            self.link.send(&FromRunner::Qmp, &[&input, &poke]).await?;
            self.owed.control = false;
        }
        if self.owed.display || self.bus.is_none() {
            // A new bus replaces the one that QEMU had; a listener of sound is not touched by that.
            self.bus = None;
            self.bus = Some(Bus::open(monitor).await?);
            self.owed.display = true;
        }
        let Some(bus) = &mut self.bus else { return Ok(()) };
        // Sound before the picture: once it has a display listener QEMU calls it, and waits for the agent's answer.
        let mut no_sound = None;
        if self.owed.audio {
            match bus.audio().await {
                Ok(listener) => {
                    let message = FromRunner::Audio { listener_guid: listener.guid };
                    self.link.send(&message, &[&listener.fd]).await?;
                    self.owed.audio = false;
                }
                Err(error @ HandshakeError::BusGone { .. }) => {
                    self.bus = None;
                    return Err(error.into());
                }
                // Mostly: QEMU has not noticed yet that the listener before is gone. The picture must not wait for it.
                Err(error) => no_sound = Some(error),
            }
        }
        if self.owed.display {
            let fds = bus.display().await?;
            let (bus_guid, listener_guid) = (fds.bus_guid, fds.listener_guid);
            self.link.send(&FromRunner::Display { bus_guid, listener_guid }, &[&fds.bus, &fds.listener]).await?;
            self.owed.display = false;
        }
        no_sound.map_or(Ok(()), |error| Err(error.into()))
    }
}
