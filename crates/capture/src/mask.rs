//! Passwords of DirectPlay sessions, made zero in frames before anything keeps them (protocols.md 1.3, 1.7).
//!
//! A message is found by its "play", wherever in the frame it stands: over UDP and TCP with or without an envelope, over IPX
//! in every framing, alone in a frame of the DirectPlay protocol, or within PACKET. The offset of the password is in the
//! message's head, and zeroing goes on to the zero word that ends it, over as many segments or fragments as it takes.
//!
//! **Not masked** (docs/capture.md says it to users): what a segment holds whose message's head never came by or comes later
//! (captured from the middle, reordered), the later pieces of a message that PACKET or the DirectPlay protocol cut up, and
//! every other protocol's passwords.
//!
//! **Invariants.** Only ever writes zeroes, and the checksum over them. Masking too much is preferred to too little: after a
//! gap in a password everything up to the message's end goes. At most [`FLOWS_MAX`] flows are remembered.
use std::collections::BTreeMap;

use memchr::memmem;
use wire::dplay::{Command, ENVELOPE_LEN, Envelope, SIGNATURE};

use crate::packet::{Flow, Payload};

/// Flows with a message that is under way. Of more, the one that was quiet longest is forgotten.
pub const FLOWS_MAX: usize = 256;
/// Passwords of one flow that are remembered, for segments that are sent again.
const PASSWORDS_MAX: usize = 8;
/// Octets that a password may have where the message's end is not known. DirectPlay's own limit is 16 characters.
const PASSWORD_LEN_MAX: u32 = 1024;
/// Offset, from "play", of the last field that tells where a password is, with its length.
const FIELDS_LEN_MAX: usize = 36;

/// Remembers, for one port, what is under way.
#[derive(Debug, Default)]
pub struct Masker {
    flows: BTreeMap<Flow, State>,
    frames: u64,
}

#[derive(Debug, Default)]
struct State {
    /// The frame, by count, in which it was last seen.
    used: u64,
    /// The beginning of a message whose fields have not all come.
    carry: Vec<u8>,
    /// Position of the first octet of `carry`.
    carry_at: u32,
    passwords: Vec<Password>,
}

/// Positions count as those of its flow.
#[derive(Debug, Clone, Copy)]
struct Password {
    start: u32,
    /// Octets from `start` on that are known to belong to it.
    known: u32,
    /// Octets that it has at most.
    limit: u32,
    /// The zero word was found.
    ended: bool,
    /// The first octet of the word that is being read was zero.
    half_zero: bool,
}

impl Masker {
    /// Zeroes what must not be kept. Answers whether there was anything.
    pub fn mask(&mut self, frame: &mut [u8]) -> bool {
        self.frames += 1;
        let Some(payload) = Payload::of(frame) else { return false };
        let (flow, position) = payload.part_of.map_or((None, 0), |(flow, position)| (Some(flow), position));
        let Some(bytes) = frame.get_mut(payload.range.clone()) else { return false };
        let mut state = flow.and_then(|flow| self.flows.remove(&flow)).unwrap_or_default();
        let is_datagram = !matches!(flow, Some(Flow::Tcp { .. }));
        if is_datagram && position == 0 {
            // Another datagram, whose identification was used before.
            state = State::default();
        }
        state.find(bytes, position, flow.is_some());
        let mut sum = Sum::default();
        for password in &mut state.passwords {
            password.zero(bytes, position, &mut sum);
        }
        if let Some(flow) = flow
            && !(state.carry.is_empty() && state.passwords.is_empty())
        {
            state.used = self.frames;
            self.remember(flow, state);
        }
        if sum.octets == 0 {
            return false;
        }
        if let Some((at, zero_is_none)) = payload.checksum
            && let Some(place) = frame.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>)
        {
            *place = sum.taken_from(*place, zero_is_none);
        }
        true
    }

    fn remember(&mut self, flow: Flow, state: State) {
        if self.flows.len() >= FLOWS_MAX
            && let Some(quiet) = self.flows.iter().min_by_key(|(_, state)| state.used).map(|(flow, _)| *flow)
        {
            self.flows.remove(&quiet);
        }
        self.flows.insert(flow, state);
    }
}

impl State {
    /// Finds the messages that begin in `bytes`, or began before and have their head here, and notes their passwords.
    fn find(&mut self, bytes: &[u8], position: u32, goes_on: bool) {
        let carry = std::mem::take(&mut self.carry);
        let continues = self.carry_at.wrapping_add(len32(carry.len())) == position;
        if carry.is_empty() || !continues {
            self.find_in(bytes, position, goes_on);
        } else {
            let window = [carry.as_slice(), bytes].concat();
            self.find_in(&window, self.carry_at, goes_on);
        }
    }

    fn find_in(&mut self, window: &[u8], base: u32, goes_on: bool) {
        for at in memmem::find_iter(window, &SIGNATURE) {
            let message = window.get(at..).unwrap_or_default();
            let Some(command) = message.get(4..).and_then(<[u8]>::first_chunk::<2>) else {
                return self.keep(window, base, at, goes_on);
            };
            let Some(field) = password_field(Command(u16::from_le_bytes(*command))) else { continue };
            let Some(offset) = message.get(field..).and_then(<[u8]>::first_chunk::<4>) else {
                return self.keep(window, base, at, goes_on);
            };
            let offset = u32::from_le_bytes(*offset);
            // 0: there is none. Before the field's end or beyond a message's largest size: no such message.
            if offset < len32(field) + 4 || offset > 0xf_ffff {
                continue;
            }
            // The envelope says where the message ends; without one, in a datagram, only its own zero word does.
            let size = at
                .checked_sub(ENVELOPE_LEN)
                .and_then(|start| Envelope::parse(window.get(start..at)?))
                .and_then(|(_, size)| u32::try_from(size.checked_sub(ENVELOPE_LEN)?).ok());
            let limit = size.map_or(PASSWORD_LEN_MAX, |size| size.saturating_sub(offset));
            let start = base.wrapping_add(len32(at)).wrapping_add(offset);
            self.note(Password { start, known: 0, limit, ended: false, half_zero: false });
        }
        // Its signature may be cut in the middle.
        let cut = (1..SIGNATURE.len()).rev().find(|len| window.ends_with(SIGNATURE.split_at(*len).0));
        if let Some(len) = cut {
            self.keep(window, base, window.len() - len, goes_on);
        }
    }

    /// Keeps the message at `at`, with its envelope, until the rest of its head comes.
    fn keep(&mut self, window: &[u8], base: u32, at: usize, goes_on: bool) {
        if goes_on {
            let start = at.saturating_sub(ENVELOPE_LEN);
            self.carry = window.get(start..).unwrap_or_default().to_vec();
            debug_assert!(self.carry.len() < ENVELOPE_LEN + FIELDS_LEN_MAX);
            self.carry_at = base.wrapping_add(len32(start));
        }
    }

    fn note(&mut self, password: Password) {
        // A segment sent again says the same.
        if self.passwords.iter().any(|known| known.start == password.start) {
            return;
        }
        if self.passwords.len() >= PASSWORDS_MAX {
            self.passwords.remove(0);
        }
        self.passwords.push(password);
    }
}

impl Password {
    /// Zeroes what of it lies in `bytes`, which begin at `position`, and learns how far it goes.
    fn zero(&mut self, bytes: &mut [u8], position: u32, sum: &mut Sum) {
        // How far it begins behind the beginning of `bytes`; negative if before.
        let start = i64::from(self.start.wrapping_sub(position).cast_signed());
        let place = |offset: u32| usize::try_from((start + i64::from(offset)).max(0)).unwrap_or(usize::MAX);
        for (index, octet) in slice_mut(bytes, place(0), place(self.known)) {
            sum.zero(index, octet);
        }
        if self.ended {
            return;
        }
        if start + i64::from(self.known) < 0 {
            // Octets before these did not come by, and where it ends may have been among them.
            for (index, octet) in slice_mut(bytes, 0, place(self.limit)) {
                sum.zero(index, octet);
            }
            self.ended = start + i64::from(self.limit) <= len64(bytes);
            return;
        }
        for (index, octet) in slice_mut(bytes, place(self.known), place(self.limit)) {
            let is_zero = *octet == 0;
            sum.zero(index, octet);
            self.known += 1;
            if self.known % 2 == 1 {
                self.half_zero = is_zero;
            } else if self.half_zero && is_zero {
                self.ended = true;
                return;
            }
        }
        self.ended = self.known >= self.limit;
    }
}

/// The octets of `bytes` from `start` to before `end`, as far as there are, with their indices.
fn slice_mut(bytes: &mut [u8], start: usize, end: usize) -> impl Iterator<Item = (usize, &mut u8)> {
    let end = end.min(bytes.len());
    bytes
        .get_mut(start..end)
        .unwrap_or_default()
        .iter_mut()
        .enumerate()
        .map(move |(index, octet)| (start + index, octet))
}

/// What the zeroed octets were, for the checksum of RFC 1071.
#[derive(Debug, Default)]
struct Sum {
    octets: usize,
    sum: u64,
}

impl Sum {
    /// `index`: from the payload's beginning, which is at an even place of what is summed.
    fn zero(&mut self, index: usize, octet: &mut u8) {
        self.octets += 1;
        self.sum += if index.is_multiple_of(2) { u64::from(*octet) << 8 } else { u64::from(*octet) };
        *octet = 0;
    }

    /// `checksum` without them (RFC 1624, equation 3).
    fn taken_from(&self, checksum: [u8; 2], zero_is_none: bool) -> [u8; 2] {
        let old = u16::from_be_bytes(checksum);
        if zero_is_none && old == 0 {
            return checksum;
        }
        let new = !fold(u64::from(!old) + u64::from(!fold(self.sum)));
        if zero_is_none && new == 0 { [0xff, 0xff] } else { new.to_be_bytes() }
    }
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Where, from "play", a message says where its password is.
const fn password_field(command: Command) -> Option<usize> {
    match command {
        Command::ENUM_SESSIONS
        | Command::CREATE_PLAYER
        | Command::CREATE_GROUP
        | Command::ADD_FORWARD_REQUEST
        | Command::ADD_FORWARD
        | Command::CREATE_PLAYER_VERIFY => Some(24),
        Command::SESSION_DESC_CHANGED => Some(16),
        Command::ENUM_PLAYERS_REPLY | Command::SUPER_ENUM_PLAYERS_REPLY => Some(32),
        _ => None,
    }
}

fn len32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn len64(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}
