//! What towns say to each other: the payload of DirectPlay user messages. First byte the kind, then fixed fields.

/// Most trains in one town's list.
pub const TRAINS: usize = 9;
/// Longest encoding.
pub const LONGEST: usize = 4 + 3 * TRAINS;

/// A train: the seat that it belongs to, and how often it was handed on. The higher count is the newer truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Train {
    pub home: u8,
    pub hops: u16,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Guaranteed: it enters your tunnel on that side (0 north, clockwise).
    Out { train: Train, side: u8 },
    /// Guaranteed: I have it.
    Taken { train: Train },
    /// Guaranteed: night or day, for everyone.
    Light { night: bool },
    /// Unguaranteed, every two seconds: the trains that are here. Also a sign of life.
    Here { trains: [Option<Train>; TRAINS] },
    /// Unguaranteed: one of my trains is on its way to your side, `progress` of 255.
    Coming { side: u8, progress: u8 },
}

impl Message {
    /// Writes it; the length.
    pub fn encode(&self, out: &mut [u8; LONGEST]) -> usize {
        let mut len = 0;
        let mut push = |bytes: &[u8]| {
            out[len..len + bytes.len()].copy_from_slice(bytes);
            len += bytes.len();
        };
        match self {
            Self::Out { train, side } => {
                push(&[b'O', *side]);
                push(&train.bytes());
            }
            Self::Taken { train } => {
                push(b"T");
                push(&train.bytes());
            }
            Self::Light { night } => push(&[b'L', u8::from(*night)]),
            Self::Here { trains } => {
                push(b"H");
                trains.iter().flatten().for_each(|t| push(&t.bytes()));
            }
            Self::Coming { side, progress } => push(&[b'C', *side, *progress]),
        }
        len
    }

    /// `None` for what no town says.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        Some(match (kind, rest) {
            (b'O', [side @ 0..=3, train @ ..]) => Self::Out { train: Train::parse(train)?, side: *side },
            (b'T', train) => Self::Taken { train: Train::parse(train)? },
            (b'L', [night]) => Self::Light { night: *night != 0 },
            (b'H', list) if list.len() % 3 == 0 && list.len() / 3 <= TRAINS => {
                let mut trains = [None; TRAINS];
                for (place, bytes) in trains.iter_mut().zip(list.chunks_exact(3)) {
                    *place = Some(Train::parse(bytes)?);
                }
                Self::Here { trains }
            }
            (b'C', [side @ 0..=3, progress]) => Self::Coming { side: *side, progress: *progress },
            _ => return None,
        })
    }
}

impl Train {
    fn bytes(self) -> [u8; 3] {
        let [low, high] = self.hops.to_le_bytes();
        [self.home, low, high]
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let [home, low, high] = *bytes else { return None };
        (usize::from(home) < TRAINS).then_some(Self { home, hops: u16::from_le_bytes([low, high]) })
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, Message, TRAINS, Train};

    #[test]
    fn what_is_said_is_understood() {
        let train = Train { home: 8, hops: 0x1234 };
        let mut trains = [Some(train); TRAINS];
        let all = [
            Message::Out { train, side: 3 },
            Message::Taken { train },
            Message::Light { night: true },
            Message::Here { trains },
            Message::Coming { side: 1, progress: 200 },
        ];
        for message in all {
            let mut bytes = [0; LONGEST];
            let len = message.encode(&mut bytes);
            assert_eq!(Message::decode(&bytes[..len]), Some(message));
            assert_eq!(Message::decode(&bytes[..len - 1]).filter(|m| *m == message), None);
        }
        trains = [None; TRAINS];
        assert_eq!(Message::decode(b"H"), Some(Message::Here { trains }));
    }

    #[test]
    fn rubbish_is_refused() {
        for bytes in [&b""[..], b"X", b"O\x04\x01\0\0", b"T\x09\0\0", b"H\x01", b"C\x01", b"L"] {
            assert_eq!(Message::decode(bytes), None, "{bytes:?}");
        }
    }
}
