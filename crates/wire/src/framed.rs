//! Ethernet frames in a stream of bytes, each behind its length.
//!
//! | program | length |
//! |---|---|
//! | QEMU, `-netdev stream` and `-netdev socket` (`net/stream.c`, `net/net.c`: `net_fill_rstate`) | 4 octets, highest first |
//! | VDE, standard input and output of `vde_plug` (`libvdeplug`: `vdestream_send`) | 2 octets, highest first |
/// Longest frame that QEMU hands over (`NET_BUFSIZE`); a longer one is no frame, so the stream is not one of frames.
pub const LEN_MAX: usize = 4096 + 65_536;

/// How long the length is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    Qemu,
    Vde,
}

/// What a stream begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<'a> {
    /// A frame, perhaps an empty one, and how many octets of the stream it took.
    Frame(&'a [u8], usize),
    /// More has to come.
    Part,
    /// No frame is so long: where the next one begins cannot be known.
    Lost(u32),
}

impl Prefix {
    /// Octets in front of a frame.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub const fn len(self) -> usize {
        match self {
            Self::Qemu => 4,
            Self::Vde => 2,
        }
    }

    /// Reads the front of `stream`.
    pub fn next(self, stream: &[u8]) -> Next<'_> {
        let len = match self {
            Self::Qemu => stream.first_chunk().map(|octets| u32::from_be_bytes(*octets)),
            Self::Vde => stream.first_chunk().map(|octets| u16::from_be_bytes(*octets).into()),
        };
        let Some(raw) = len else { return Next::Part };
        let Ok(len @ ..=LEN_MAX) = usize::try_from(raw) else { return Next::Lost(raw) };
        let end = self.len() + len;
        stream.get(self.len()..end).map_or(Next::Part, |frame| Next::Frame(frame, end))
    }

    /// Writes `frame` behind its length into `to`; how many octets that are. `None`: it does not fit, or is too long for its length.
    pub fn write(self, frame: &[u8], to: &mut [u8]) -> Option<usize> {
        let head: &mut [u8] = to.get_mut(..self.len())?;
        match self {
            Self::Qemu => head.copy_from_slice(&u32::try_from(frame.len()).ok()?.to_be_bytes()),
            Self::Vde => head.copy_from_slice(&u16::try_from(frame.len()).ok()?.to_be_bytes()),
        }
        let end = self.len() + frame.len();
        to.get_mut(self.len()..end)?.copy_from_slice(frame);
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn qemus_length_has_four_octets_and_vdes_two() {
        assert_eq!(Prefix::Qemu.next(&[0, 0, 0, 2, 7, 8, 9]), Next::Frame(&[7, 8], 6));
        assert_eq!(Prefix::Vde.next(&[0, 2, 7, 8, 9]), Next::Frame(&[7, 8], 4));
        assert_eq!(Prefix::Qemu.next(&[0, 0, 0, 0, 9]), Next::Frame(&[], 4));
        for part in [&[][..], &[0, 0, 0], &[0, 0, 0, 2], &[0, 0, 0, 2, 7]] {
            assert_eq!(Prefix::Qemu.next(part), Next::Part);
        }
        // 70,000, and "GET ".
        assert_eq!(Prefix::Qemu.next(&[0, 1, 0x11, 0x70]), Next::Lost(70_000));
        assert_eq!(Prefix::Qemu.next(b"GET "), Next::Lost(0x4745_5420));
        assert_eq!(Prefix::Vde.write(&vec![0; 65_536], &mut vec![0; 70_000]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..20),
            cut in 1_usize..50,
            is_vde in any::<bool>(),
        ) {
            let prefix = if is_vde { Prefix::Vde } else { Prefix::Qemu };
            let mut stream = Vec::new();
            for frame in &frames {
                let mut room = [0; 100];
                let len = prefix.write(frame, &mut room).unwrap();
                stream.extend_from_slice(&room[..len]);
            }
            let (mut held, mut read) = (Vec::new(), Vec::new());
            for part in stream.chunks(cut) {
                held.extend_from_slice(part);
                while let Next::Frame(frame, used) = prefix.next(&held) {
                    read.push(frame.to_vec());
                    held.drain(..used);
                }
            }
            prop_assert_eq!(read, frames);
            prop_assert!(held.is_empty());
        }
    }
}
