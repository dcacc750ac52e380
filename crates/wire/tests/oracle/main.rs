//! Another reader of the same bytes: tshark. Every field of a single packet that both decode must be the same, in all
//! captures and in frames made here for what no capture holds. Where tshark is wrong, [`DIFFERENCES`] says where and
//! why, and docs/observer-oracle.md tells it in words.
//!
//! Needs tshark, which `cargo xtask setup --for test` installs; no root.
#![expect(clippy::unwrap_used, reason = "a test ends where its expectation does")]

#[path = "../wire/file.rs"]
mod file;
mod made;
mod names;
mod ours;
mod tshark;

use std::collections::BTreeSet;

/// Where tshark is not followed, and why.
struct Difference {
    capture: &'static str,
    fields: &'static [&'static str],
    frames: &'static [usize],
    why: &'static str,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        capture: "netbios-nmbd",
        fields: &["browser.response_computer_name"],
        frames: &[64],
        why: "Samba puts a zero before the name; tshark takes it for the end",
    },
    Difference {
        capture: "made",
        fields: &["tcp.seq_raw", "tcp.len"],
        frames: &[26],
        why: "tshark leaves these out of a segment that an ICMP error quotes, though they are there",
    },
    Difference {
        capture: "syn-dplay4",
        fields: &[
            "dplay.message.guid",
            "dplay.type_15.packet_idx",
            "dplay.type_15.offset",
            "dplay.type_15.total_packets",
            "dplay.type_15.message.size",
            "dplay.type_15.data_size",
        ],
        frames: &[8, 10, 12],
        why: "tshark knows PACKET2_DATA by name only, though its body is PACKET's",
    },
    Difference {
        capture: "syn-dplay4",
        fields: &["dplay.message.guid", "dplay.type_15.packet_idx"],
        frames: &[9, 11, 13],
        why: "tshark knows PACKET2_ACK by name only",
    },
    Difference {
        capture: "made",
        fields: &["dplay.spp.id", "dplay.spp.short_name", "dplay.spp.sysplayer_id"],
        frames: &[38],
        why: "tshark ignores the offset of the players and reads what follows the password: a gap, here",
    },
    Difference {
        capture: "made",
        fields: &[
            "dplay.size",
            "dplay.token",
            "dplay.saddr.port",
            "dplay.saddr.ip",
            "dplay.command",
            "dplay.dialect.version",
            "dplay.multi.id_to",
            "dplay.multi.player_id",
            "dplay.multi.group_id",
            "dplay.pp.id",
            "dplay.pp.flags",
        ],
        frames: &[39],
        why: "a message over two segments: tshark reads the first as far as it goes and calls it malformed; here it is \
              read when it is whole, which one packet is not",
    },
];

/// Compares all fields of all frames, and gives how many values were the same.
fn compare(capture: &str, frames: &[Vec<u8>], path: &std::path::Path) -> usize {
    let theirs = tshark::fields(path, names::FIELDS);
    assert_eq!(theirs.len(), frames.len(), "{capture}: tshark has read all frames");
    let (mut same, mut wrong) = (0, Vec::new());
    let mut needed = BTreeSet::new();
    for (index, (bytes, theirs)) in frames.iter().zip(theirs).enumerate() {
        let number = index + 1;
        let ours = ours::fields(bytes);
        for (field, theirs) in names::FIELDS.iter().zip(theirs) {
            let ours = ours.get(field).map_or(&[][..], Vec::as_slice);
            if ours == theirs {
                same += ours.len();
                continue;
            }
            let known = DIFFERENCES
                .iter()
                .position(|it| it.capture == capture && it.fields.contains(field) && it.frames.contains(&number));
            match known {
                Some(row) => {
                    needed.insert((row, *field, number));
                }
                None => wrong.push(format!("frame {number}, {field}: ours {ours:?}, tshark's {theirs:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{capture}: {} differences\n{}", wrong.len(), wrong.join("\n"));
    for (row, difference) in DIFFERENCES.iter().enumerate().filter(|(_, it)| it.capture == capture) {
        for field in difference.fields {
            for frame in difference.frames {
                let known = (row, *field, *frame);
                assert!(needed.contains(&known), "{known:?} is no difference any more: {}", difference.why);
            }
        }
    }
    same
}

#[test]
#[ignore = "needs tshark: run by `cargo xtask test --privileged`"]
fn tshark_reads_the_captures_as_this_crate_does() {
    for (name, at_least) in [
        ("dplay4-3peer", 3000),
        ("dosbox-ipxnet", 3300),
        ("netbios-nmbd", 2300),
        ("syn-dplay4", 350),
        ("syn-ipx-eth", 140),
    ] {
        let same = compare(name, &file::frames(name), &file::path(&format!("{name}.pcap")));
        assert!(same >= at_least, "{name}: only {same} values were compared");
    }
}

#[test]
#[ignore = "needs tshark: run by `cargo xtask test --privileged`"]
fn tshark_reads_made_frames_as_this_crate_does() {
    let frames = made::frames();
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("oracle-made.pcap");
    std::fs::write(&path, made::pcap(&frames)).unwrap();
    let same = compare("made", &frames, &path);
    assert!(same >= 900, "only {same} values were compared");
}
