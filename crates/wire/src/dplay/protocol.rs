//! Frames of the "DirectPlay protocol", the retries and acknowledgements that a session with [`super::SessionFlags::DIRECT_PLAY_PROTOCOL`] puts between its
//! messages and UDP or IPX (MC-DPL4R 2.2; protocols.md 2). No envelope.
//!
//! | frame | behind the two player indexes |
//! |---|---|
//! | data | flags (0x20 set), message, sequence, serial, [extended, NACK mask], data |
//! | ACK | flags 0x02, message, sequence, serial, bytes received, tick |
//! | NACK | flags 0x82, extended, message, sequence, bytes received, tick, mask |
//!
//! An index is what is left of a player's id without the session's key ([`super::IdKey`]), in one to three groups of 7
//! bits, least significant first, high bit = more.
//!
//! Trap: two random bytes in front of a third with 0x20 set make a data frame. Ask for a session with the flag, or for
//! known indexes, or for [`Data::message`].
use super::envelope::Envelope;
use super::id::{Id, IdKey};
use super::message::{Message, SIGNATURE};
use crate::bytes::Reader;

const EXTENDED: u8 = 0x80;
/// Never implemented: must be 0.
const BIG: u8 = 0x40;
const COMMAND: u8 = 0x20;
const ACK: u8 = 0x02;

/// The index of a player or group in the host's table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Index(pub u16);

impl Index {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let mut value = 0_u32;
        for shift in [0, 7, 14] {
            let byte = r.u8()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u16::try_from(value).ok().map(Self);
            }
        }
        None
    }

    /// Whether `id` may be this one's. The other half of an id, how often its place was used, is not in the frame.
    pub const fn is_of(self, id: Id, key: IdKey) -> bool {
        key.index(id) == self.0
    }
}

/// A frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    pub from: Index,
    /// 0: the machine as such, or everyone.
    pub to: Index,
    pub kind: Kind<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind<'a> {
    Data(Data<'a>),
    Ack(Ack),
    Nack(Nack<'a>),
}

/// A message or a piece of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Data<'a> {
    pub flags: DataFlags,
    /// At most 24 are under way at a time.
    pub message: u8,
    /// Of the piece in its message, from 1.
    pub sequence: u8,
    /// Of this try, from 0: tells retries apart.
    pub serial: u8,
    /// A NACK that rides along; empty without one.
    pub nack_mask: &'a [u8],
    pub payload: &'a [u8],
}

/// The flags of a data frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DataFlags(pub u8);

impl DataFlags {
    /// First piece of a message.
    pub const START: Self = Self(0x10);
    /// Last piece of a message.
    pub const END: Self = Self(0x08);
    /// Acknowledge at once.
    pub const ACK_WANTED: Self = Self(0x04);
    pub const RELIABLE: Self = Self(0x01);

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl<'a> Data<'a> {
    /// The system message, where one begins here ("play" at the start of a first piece). A message that goes on in further
    /// frames reads as cut.
    pub fn system(&self) -> Option<Message<'a>> {
        self.begins_system().then(|| Message::parse(self.payload)).flatten()
    }

    /// Whether a system message begins here.
    pub fn begins_system(&self) -> bool {
        self.flags.contains(DataFlags::START) && self.payload.starts_with(&SIGNATURE)
    }

    /// The whole message is in this frame.
    pub fn is_whole(&self) -> bool {
        self.flags.contains(DataFlags(DataFlags::START.0 | DataFlags::END.0))
    }
}

/// "This arrived."
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    pub message: u8,
    pub sequence: u8,
    pub serial: u8,
    /// From the other side since the start, retries counted; wraps.
    pub bytes_received: u32,
    /// The sender's clock in ms: its difference between two ACKs, against that of their arrival, is jitter of the path.
    pub tick: u32,
}

/// "These are missing."
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nack<'a> {
    pub message: u8,
    /// The first one that is missing.
    pub sequence: u8,
    pub bytes_received: u32,
    pub tick: u32,
    /// One to three bytes: which of those behind it are missing, too.
    pub mask: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the payload of a UDP datagram or IPX packet. ACK and NACK must end with it. `None` for a message with an
    /// envelope, whose first bytes would pass for a frame.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if Envelope::parse(bytes).is_some_and(|(_, size)| size == bytes.len()) {
            return None;
        }
        let mut r = Reader::new(bytes);
        let (from, to) = (Index::read(&mut r)?, Index::read(&mut r)?);
        let flags = r.u8()?;
        if flags & BIG != 0 {
            return None;
        }
        let kind = match flags & (COMMAND | EXTENDED) {
            COMMAND => Kind::Data(Data::read(&mut r, flags, false)?),
            COMMAND_EXTENDED => Kind::Data(Data::read(&mut r, flags, true)?),
            EXTENDED if flags & ACK != 0 => Kind::Nack(Nack::read(&mut r)?),
            0 if flags & ACK != 0 => Kind::Ack(Ack::read(&mut r)?),
            _ => return None,
        };
        let ends = matches!(kind, Kind::Data(_)) || r.rest().is_empty();
        ends.then_some(Self { from, to, kind })
    }
}

const COMMAND_EXTENDED: u8 = COMMAND | EXTENDED;

/// How long the mask is, by the extended flags.
const fn mask_len(extended: u8) -> usize {
    (extended >> 5 & 3) as usize
}

impl<'a> Data<'a> {
    fn read(r: &mut Reader<'a>, flags: u8, extended: bool) -> Option<Self> {
        let [message, sequence, serial] = r.array()?;
        let nack_mask = if extended {
            let len = mask_len(r.u8()?);
            r.bytes(len)?
        } else {
            &[]
        };
        Some(Self { flags: DataFlags(flags), message, sequence, serial, nack_mask, payload: r.rest() })
    }
}

impl Ack {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let [message, sequence, serial] = r.array()?;
        Some(Self { message, sequence, serial, bytes_received: r.u32()?, tick: r.u32()? })
    }
}

impl<'a> Nack<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let [extended, message, sequence] = r.array()?;
        let (bytes_received, tick) = (r.u32()?, r.u32()?);
        let mask = r.bytes(mask_len(extended)).filter(|mask| !mask.is_empty())?;
        Some(Self { message, sequence, bytes_received, tick, mask })
    }
}

#[cfg(test)]
mod tests {
    use super::{Ack, Data, DataFlags, Frame, Index, Kind, Nack};
    use crate::dplay::{Body, Id, IdKey, Ping};

    #[track_caller]
    fn check(bytes: &[u8], want: Option<Frame<'_>>) {
        assert_eq!(Frame::parse(bytes), want);
    }

    #[expect(clippy::unnecessary_wraps, reason = "what a parser answers")]
    fn frame(kind: Kind<'_>) -> Option<Frame<'_>> {
        Some(Frame { from: Index(3), to: Index(5), kind })
    }

    #[test]
    fn a_data_frame_holds_a_system_message() {
        let bytes = b"\x03\x05\x38\x01\x00\x00play\x16\x00\x0d\x00\x00\x00\x00\x00\x4d\x00\x00\x00";
        let Some(Frame { kind: Kind::Data(data), .. }) = Frame::parse(bytes) else { panic!("no data") };
        assert!(data.is_whole() && data.begins_system());
        assert_eq!(data.system().unwrap().body, Body::Ping(Ping { from: Id(0), tick_count: 0x4d }));
        // A later piece may have "play" at its start by chance.
        let later = Data { flags: DataFlags(0x28), ..data };
        assert_eq!(later.system(), None);
    }

    #[test]
    fn acknowledgements_are_read_to_their_end() {
        let ack = b"\x03\x05\x02\x01\x07\x09\x3c\x00\x00\x00\xd2\x04\x00\x00";
        let want = Ack { message: 1, sequence: 7, serial: 9, bytes_received: 60, tick: 1234 };
        check(ack, frame(Kind::Ack(want)));
        check(&ack[..13], None);
        check(&[ack.as_slice(), b"x"].concat(), None);
    }

    #[test]
    fn negative_acknowledgements_have_a_mask() {
        let nack = b"\x03\x05\x82\x40\x01\x07\x3c\x00\x00\x00\xd2\x04\x00\x00\xaa\x01";
        let want = Nack { message: 1, sequence: 7, bytes_received: 60, tick: 1234, mask: &[0xaa, 1] };
        check(nack, frame(Kind::Nack(want)));
        check(&nack[..15], None);
        // No mask: nothing is said to be missing.
        check(b"\x03\x05\x82\x00\x01\x07\x3c\x00\x00\x00\xd2\x04\x00\x00", None);
    }

    #[test]
    fn a_nack_rides_along_with_data() {
        let data =
            Data { flags: DataFlags(0xbd), message: 1, sequence: 2, serial: 0, nack_mask: &[0xff], payload: b"data" };
        check(b"\x03\x05\xbd\x01\x02\x00\x20\xffdata", frame(Kind::Data(data)));
        check(b"\x03\x05\xbd\x01\x02\x00\x60\xff\xff", None);
    }

    #[test]
    fn indexes_have_up_to_three_groups() {
        for (bytes, want) in [
            (b"\x7f".as_slice(), Some(127)),
            (b"\x80\x01", Some(128)),
            (b"\xff\xff\x03", Some(0xffff)),
            (b"\x80\x80\x04", None),
            (b"\x80\x80\x80\x00", None),
            (b"\x80", None),
        ] {
            let frame = [bytes, b"\x01\x20\x01\x00\x00"].concat();
            assert_eq!(Frame::parse(&frame).map(|frame| frame.from), want.map(Index), "{bytes:?}");
        }
        let key = IdKey(0x5e40_26f1);
        assert!(Index(14).is_of(key.make_id(1, 14), key) && !Index(15).is_of(key.make_id(1, 14), key));
    }

    #[test]
    fn other_flags_are_no_frame() {
        // Big frames, neither data nor ACK, extended alone.
        for flags in [0x60, 0x00, 0x1d, 0x80, 0x42] {
            check(&[3, 5, flags, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0], None);
        }
    }
}
