//! Frames between the switches of two nodes: UDP datagrams in the form of VXLAN (RFC 7348 section 5), so that every
//! analyser reads them.
//!
//! ```text
//!  0        1                4          7    8
//!  | 0x08   | reserved       | VNI      | r  | Ethernet frame, without check sum
//! ```
use model::Vni;

/// Octets in front of the frame.
pub const HEADER_LEN: usize = 8;
/// The VNI is valid.
const FLAG_VNI: u8 = 0x08;

/// What precedes a frame of the LAN with this VNI.
pub const fn header(vni: Vni) -> [u8; HEADER_LEN] {
    let [_, a, b, c] = vni.get().to_be_bytes();
    [FLAG_VNI, 0, 0, 0, a, b, c, 0]
}

/// The VNI and the frame in a datagram. Reserved bits are ignored, as the RFC asks. `None`: not VXLAN.
pub fn parse(datagram: &[u8]) -> Option<(Vni, &[u8])> {
    let ([flags, _, _, _, a, b, c, _], frame) = datagram.split_first_chunk::<HEADER_LEN>()?;
    if flags & FLAG_VNI == 0 {
        return None;
    }
    Some((Vni::new(u32::from_be_bytes([0, *a, *b, *c])).ok()?, frame))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_header_is_the_rfcs() {
        assert_eq!(header(Vni::new(0x0010_68aa).unwrap()), [8, 0, 0, 0, 0x10, 0x68, 0xaa, 0]);
        assert_eq!(parse(&[0, 0, 0, 0, 0, 0, 7, 0, 1]), None, "no VNI");
        assert_eq!(parse(&[8, 0, 0, 0, 0, 0, 0, 0, 1]), None, "VNI 0 is nobody's");
        assert_eq!(parse(&[8, 0, 0, 0, 0, 0, 7]), None);
    }

    proptest! {
        #[test]
        fn what_is_built_is_read(raw in 1_u32..=0x00ff_ffff, frame in proptest::collection::vec(any::<u8>(), 0..64)) {
            let vni = Vni::new(raw).unwrap();
            let datagram = [&header(vni)[..], &frame].concat();
            prop_assert_eq!(parse(&datagram), Some((vni, &frame[..])));
        }
    }
}
