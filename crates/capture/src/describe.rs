//! What a frame says, in words for a capture's comments: the DirectPlay messages that begin in it.
use memchr::memmem;
use wire::dplay::{Body, Command, ENVELOPE_LEN, Envelope, Message, SIGNATURE, Text};

use crate::packet::{Flow, Payload, Transport};

/// Messages of one frame that are named. Each needs 28 octets; more than these in one frame is rubbish.
const MESSAGES_MAX: usize = 8;
/// Characters of a name that are shown.
const NAME_CHARS_MAX: usize = 64;
/// Frames of the DirectPlay protocol (MC-DPL4R) have their message this far behind their own head.
const DPL4R_HEAD: std::ops::RangeInclusive<usize> = 4..=12;

/// One comment a message. Never tells a password: those are gone when a frame is kept, and none is looked for here.
pub fn comments(frame: &[u8]) -> Vec<String> {
    let Some(payload) = Payload::of(frame) else { return Vec::new() };
    let bytes = frame.get(payload.range).unwrap_or_default();
    let head = match payload.part_of {
        // The first piece of a datagram begins with UDP's own header; no message begins in the others.
        Some((Flow::Fragments { .. }, 0)) if payload.transport == Transport::Udp => 8,
        Some((Flow::Fragments { .. }, _)) => return Vec::new(),
        _ => 0,
    };
    let bytes = bytes.get(head..).unwrap_or_default();
    let messages = memmem::find_iter(bytes, &SIGNATURE).filter_map(|at| {
        let envelope = at.checked_sub(ENVELOPE_LEN).and_then(|start| Envelope::parse(bytes.get(start..at)?));
        let begins_here = match payload.transport {
            _ if envelope.is_some() => true,
            Transport::Ipx => at == 0,
            Transport::Udp => at == 0 || DPL4R_HEAD.contains(&at),
            Transport::Tcp | Transport::Other => false,
        };
        let len = envelope.map_or(usize::MAX, |(_, size)| size - ENVELOPE_LEN);
        let message = bytes.get(at..)?;
        begins_here
            .then(|| describe(message.get(..len).unwrap_or(message), message.len() < len && envelope.is_some()))?
    });
    messages.take(MESSAGES_MAX).collect()
}

/// `message` begins at "play". `None`: a command that no table knows.
fn describe(message: &[u8], is_cut: bool) -> Option<String> {
    let command = Command(u16::from_le_bytes(*message.get(4..)?.first_chunk()?)).name()?;
    let detail = match Message::parse(message).map(|message| message.body) {
        Some(Body::EnumSessionsReply(body)) => named("session", body.name),
        Some(Body::SessionDescChanged(body)) => named("session", body.name),
        Some(Body::EnumPlayersReply(body) | Body::SuperEnumPlayersReply(body)) => named("session", body.name),
        Some(
            Body::CreatePlayer(body)
            | Body::CreateGroup(body)
            | Body::AddForward(body)
            | Body::CreatePlayerVerify(body),
        ) => named("player", body.player.short_name),
        Some(Body::RequestPlayerReply(body)) => format!(", id {:08x}, result {:?}", body.id.0, body.result),
        Some(Body::AddForwardReply(result)) => format!(", result {result:?}"),
        _ => String::new(),
    };
    Some(format!("DirectPlay {command}{detail}{}", if is_cut { " (goes on in later frames)" } else { "" }))
}

fn named(what: &str, name: Option<Text<'_>>) -> String {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return String::new() };
    let name: String = name.chars().take(NAME_CHARS_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    format!(", {what} \"{name}\"")
}
