//! QEMU's D-Bus sound output, as a listener.
use std::{collections::HashMap, os::fd::OwnedFd, sync::Arc};

use zbus::{Connection, Message};

use super::tap::{AudioTap, SampleFormat};
use crate::{
    AttachError,
    bus::{self, CallError, Serve},
};

const LISTENER: &str = "org.qemu.Display1.AudioOutListener";
/// QEMU has one voice per card; more are not kept.
const STREAMS_MAX: usize = 16;

/// A standing audio connection; dropping it ends it.
#[derive(Debug)]
pub struct AudioConnection {
    listener: Connection,
    task: tokio::task::JoinHandle<()>,
}

impl AudioConnection {
    /// Resolves when QEMU's end is gone.
    pub async fn closed(&self) {
        self.listener.closed().await;
    }
}

impl Drop for AudioConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves the audio-out listener on a connection that is past `BEGIN`.
pub async fn attach(
    listener: OwnedFd,
    listener_guid: &str,
    tap: Arc<AudioTap>,
) -> Result<AudioConnection, AttachError> {
    let (listener, calls) = bus::connect("audio listener", listener, listener_guid).await?;
    let task = tokio::spawn(bus::serve(listener.clone(), calls, Listener { tap, streams: HashMap::new() }));
    Ok(AudioConnection { listener, task })
}

struct Listener {
    tap: Arc<AudioTap>,
    streams: HashMap<u64, SampleFormat>,
}

impl Serve for Listener {
    const WHAT: &'static str = "audio";
    const INTERFACES: &'static [&'static str] = &[];

    fn call(&mut self, interface: &str, member: &str, message: &Message) -> Result<(), CallError> {
        let body = message.body();
        match (interface, member) {
            (LISTENER, "Init") => {
                // Identifier, bits, signed, float, frequency, channels, bytes a frame, bytes a second, big endian.
                type Init = (u64, u8, bool, bool, u32, u8, u32, u32, bool);
                let (id, bits, signed, float, rate, channels, _, _, big_endian): Init = body.deserialize()?;
                let format = SampleFormat { bits, signed, float, big_endian, rate, channels };
                if format.gstreamer().is_none() || self.streams.len() >= STREAMS_MAX {
                    return Err(CallError::Refused(format!("a sound stream of {format:?} cannot be played")));
                }
                tracing::info!(?format, "sound stream announced");
                self.streams.insert(id, format);
            }
            (LISTENER, "Fini") => {
                let id: u64 = body.deserialize()?;
                self.tap.disabled(id);
                self.streams.remove(&id);
            }
            (LISTENER, "SetEnabled") => {
                let (id, enabled): (u64, bool) = body.deserialize()?;
                match self.streams.get(&id) {
                    Some(format) if enabled => self.tap.enabled(id, *format),
                    _ => self.tap.disabled(id),
                }
            }
            (LISTENER, "SetVolume") => {
                let (_, mute, volume): (u64, bool, &[u8]) = body.deserialize()?;
                self.tap.volume(mute, volume);
            }
            (LISTENER, "Write") => {
                let (id, data): (u64, &[u8]) = body.deserialize()?;
                self.tap.write(id, data);
            }
            _ => return Err(CallError::Unknown),
        }
        Ok(())
    }

    fn gone(&mut self) {
        for id in self.streams.keys() {
            self.tap.disabled(*id);
        }
    }
}
