//! Where a marked frame is seen on its way from one guest to another: at its tap, in the tunnel, at the other's tap.
//!
//! ```text
//!  agent ── ICMP echo, as if from B, with a mark ──> tap of A ── A's own stack answers B, with the same mark:
//!  tap of A ── bridge ── tunnel ═══ UDP ═══ tunnel ── bridge ── tap of B        each of these is watched meanwhile
//! ```
//! So the frame that is followed is one that the guest's own card sent, by the way that all of its frames take; B hears an answer
//! that it did not ask for, which every stack ignores (RFC 1122 3.2.2.6).
//!
//! **Invariants.** Only the guest that is asked is sent anything, at its own tap. Sockets that watch have copies: no frame is touched.
use std::{
    io,
    net::Ipv4Addr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use model::MacAddr;
use nix::net::if_::if_nametoindex;
use tokio::{runtime, task::JoinSet, time};

use crate::{
    FabricError, netns,
    packet::{EVERYTHING, FRAME_LEN_MAX, PacketSocket},
};

/// The watching begins this long before the question, so that the other nodes are ready as well.
pub const HEAD_START: Duration = Duration::from_millis(300);
/// The question is repeated, as the first one may have to wait for an ARP answer, or be lost.
pub const ASK_EVERY: Duration = Duration::from_millis(400);

/// One of the two guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub mac: MacAddr,
    pub ip: Ipv4Addr,
}

/// A frame with the mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub device: String,
    /// Out of the kernel at the device: to the guest at a tap, to other nodes at a tunnel.
    pub outgoing: bool,
    pub source: MacAddr,
}

/// An ICMP echo request to `guest` that says it is from `other`, with `mark` in it: the guest answers `other`.
pub fn question(guest: End, other: End, mark: &[u8]) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0x10, 0xc0, 0, 1];
    icmp.extend(mark);
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    let len = u16::try_from(20 + icmp.len()).unwrap_or(u16::MAX);
    let mut ip = vec![0x45, 0];
    ip.extend(len.to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 1, 0, 0]);
    ip.extend(other.ip.octets());
    ip.extend(guest.ip.octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    let mut frame = [&guest.mac.0[..], &other.mac.0, &[0x08, 0x00], &ip, &icmp].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// The Internet's (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut sum: u32 = pairs.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum();
    sum += rest.first().map_or(0, |last| u32::from(*last) << 8);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, a, b] = (!sum).to_be_bytes();
    [a, b]
}

/// Watches `devices` of the namespace for frames with `mark`, for as long as `limit` says, and meanwhile sends `ask` out of the
/// device that is named with it. Blocks. A device that is not there sees nothing.
///
/// # Errors
/// When the namespace cannot be entered, or no socket can be had.
pub fn trace(
    netns: &Path,
    devices: &[String],
    ask: Option<(&str, &[u8])>,
    mark: &[u8],
    limit: Duration,
) -> Result<Vec<Sighting>, FabricError> {
    let inside = || -> Result<Vec<Sighting>, FabricError> {
        netns::enter(netns)?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(FabricError::SpawnThread)?;
        runtime.block_on(watch(devices, ask, mark, limit)).map_err(FabricError::Watch)
    };
    // A thread of its own, which is left inside the namespace and ends.
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("fabric-trace".to_owned()).spawn_scoped(scope, inside);
        thread.map_err(FabricError::SpawnThread)?.join().unwrap_or(Err(FabricError::Ended))
    })
}

async fn watch(
    devices: &[String],
    ask: Option<(&str, &[u8])>,
    mark: &[u8],
    limit: Duration,
) -> io::Result<Vec<Sighting>> {
    let end = Instant::now() + limit;
    let mut watchers = JoinSet::new();
    for device in devices {
        let Ok(index) = if_nametoindex(device.as_str()) else { continue };
        let (socket, device, mark) = (PacketSocket::open(index, &EVERYTHING)?, device.clone(), mark.to_vec());
        watchers.spawn(async move {
            let mut sightings: Vec<Sighting> = Vec::new();
            let mut buffer = [0; FRAME_LEN_MAX];
            let look = async {
                loop {
                    let Ok((len, outgoing)) = socket.receive_either(&mut buffer).await else {
                        time::sleep(ASK_EVERY).await;
                        continue;
                    };
                    let frame = &buffer[..len];
                    let Some(source) = frame.get(6..12).and_then(|octets| octets.first_chunk()) else { continue };
                    if frame.windows(mark.len().max(1)).any(|window| window == mark) {
                        let sighting = Sighting { device: device.clone(), outgoing, source: MacAddr(*source) };
                        if !sightings.contains(&sighting) {
                            sightings.push(sighting);
                        }
                    }
                }
            };
            // Its end is the limit's.
            let _elapsed = time::timeout_at(end.into(), look).await;
            sightings
        });
    }
    if let Some((device, frame)) = ask {
        let socket = PacketSocket::open(if_nametoindex(device)?, &EVERYTHING)?;
        time::sleep(HEAD_START).await;
        while Instant::now() + ASK_EVERY < end {
            socket.send(frame)?;
            time::sleep(ASK_EVERY).await;
        }
    }
    Ok(watchers.join_all().await.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_an_echo_request_with_sound_check_sums() {
        let guest = End { mac: MacAddr([2, 0, 0, 0, 0, 1]), ip: Ipv4Addr::new(10, 98, 0, 1) };
        let other = End { mac: MacAddr([2, 0, 0, 0, 0, 2]), ip: Ipv4Addr::new(10, 98, 0, 2) };
        let frame = question(guest, other, b"LOCOTRACE odd");
        assert_eq!(frame[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        // The sum over what has its sum in it is nothing (RFC 1071 section 1).
        assert_eq!(checksum(&frame[14..34]), [0, 0]);
        let len = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        assert_eq!(checksum(&frame[34..14 + len]), [0, 0]);
        assert_eq!((frame[23], frame[34]), (1, 8));
        assert!(frame.len() >= 60 && frame.windows(13).any(|window| window == b"LOCOTRACE odd"));
        // From the example of RFC 1071 section 3.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), [0x22, 0x0d]);
    }
}
