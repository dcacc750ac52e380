//! The fuzz targets with generated input: frames of the captures, changed and cut, and made-up ones. Libfuzzer, which
//! learns from what the code does with them, runs the same by `cargo xtask fuzz`.
use std::sync::LazyLock;

use proptest::{collection::vec, prelude::*, sample::select};

use crate::pcap::{conversation, frames};

#[path = "../../fuzz/src/targets.rs"]
#[expect(unreachable_pub, reason = "the same file is a public module of the fuzz package")]
pub(crate) mod targets;

const CAPTURES: [&str; 5] = ["dplay4-3peer", "dosbox-ipxnet", "netbios-nmbd", "syn-dplay4", "syn-ipx-eth"];

/// Every frame of the captures, and each packet, datagram and DirectPlay message inside.
static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut seeds: Vec<_> = CAPTURES.into_iter().flat_map(frames).collect();
    let inner: Vec<_> = seeds.iter().filter_map(|seed| Some(seed.get(14..)?.to_vec())).collect();
    let payloads: Vec<_> = inner.iter().filter_map(|seed| Some(seed.get(28..)?.to_vec())).collect();
    seeds.extend(inner);
    seeds.extend(payloads);
    seeds.extend(CAPTURES.into_iter().flat_map(|name| conversation(name).into_iter().map(|seen| seen.bytes)));
    seeds
});

/// Values that lengths, counts and offsets go wrong with.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![select(vec![0, 1, 2, 0x7f, 0x80, 0xc0, 0xfe, 0xff]), any::<u8>()]
}

/// A seed with some bytes changed, most of them near its front, cut somewhere or with something behind.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let place = prop_oneof![0..80_usize, 0..4096_usize];
    let changes = vec((place, byte()), 0..6);
    (any::<prop::sample::Index>(), changes, prop::option::of(any::<prop::sample::Index>()), vec(byte(), 0..8)).prop_map(
        |(seed, changes, cut, tail)| {
            let mut bytes = seed.get(&SEEDS).clone();
            let len = bytes.len().max(1);
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at % len) {
                    *byte = value;
                }
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            bytes.extend(tail);
            bytes
        },
    )
}

/// A frame with one of the types and lengths that something is known of, and any content.
fn made_up() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![
        select(vec![0x0800, 0x0806, 0x8137, 0x86dd, 0x8100, 0x88a8, 0x9100, 1500, 1501, 0x05ff, 0x0600, 0, 1, 2]),
        0..64_u16,
    ];
    let llc = select(vec![
        &[][..],
        &[0xff, 0xff, 0, 30],
        &[0, 0, 0, 30],
        &[0xe0, 0xe0, 3, 0xff, 0xff, 0, 30],
        &[0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0x37, 0xff, 0xff, 0, 30],
        &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17],
        &[0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0],
        &[0xf0, 0xf0, 3],
        &[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17],
        &[0x46, 0, 0, 44, 0, 0, 0, 0, 64, 6],
        &[0x45, 0, 0, 28, 0, 0, 0x20, 0, 64, 1],
        &[0, 1, 8, 0, 6, 4],
    ]);
    (kind, llc, vec(byte(), 0..64)).prop_map(|(kind, llc, rest)| {
        let [high, low] = kind.to_be_bytes();
        [&[2; 12][..], &[high, low], llc, &rest].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn targets_hold_for_changed_captures(bytes in mutated()) {
        for (_, target) in targets::TARGETS {
            target(&bytes);
        }
    }

    #[test]
    fn frames_hold_whatever_they_say(bytes in made_up()) {
        targets::frame(&bytes);
    }

    #[test]
    fn targets_hold_for_anything(bytes in vec(any::<u8>(), 0..300)) {
        for (_, target) in targets::TARGETS {
            target(&bytes);
        }
    }
}

#[test]
fn every_seed_is_parsed_at_every_length() {
    for seed in SEEDS.iter() {
        for len in 0..=seed.len().min(400) {
            for (_, target) in targets::TARGETS {
                target(&seed[..len]);
            }
        }
    }
}
