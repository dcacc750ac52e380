//! Reads a capture: the records of a pcap. For tests only: trusts its input.
use std::path::Path;

pub(crate) fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(name)
}

/// The Ethernet frames of a little-endian, Ethernet pcap.
pub(crate) fn frames(name: &str) -> Vec<Vec<u8>> {
    let file = std::fs::read(path(&format!("{name}.pcap"))).unwrap();
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(20)), (0xa1b2_c3d4, 1), "{name} is not a little-endian Ethernet pcap");
    let (mut at, mut frames) = (24, Vec::new());
    while at < file.len() {
        let len = word(at + 8) as usize;
        assert_eq!(len, word(at + 12) as usize, "{name} holds a cut frame");
        frames.push(file[at + 16..at + 16 + len].to_vec());
        at += 16 + len;
    }
    frames
}
