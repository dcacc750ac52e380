//! The class of a frame: what the captures hold, and that the classifier of eBPF agrees with the parsers on anything.
use std::collections::BTreeMap;

use wire::class::{TrafficClass, classify};

use crate::fuzz::targets::class_by_parsers;
use crate::pcap::frames;

#[track_caller]
fn check(name: &str, expected: &[(&str, u32)]) {
    let mut counts = BTreeMap::new();
    for bytes in frames(name) {
        let class = classify(&*bytes);
        assert_eq!(class, class_by_parsers(&bytes));
        *counts.entry(class.name()).or_insert(0) += 1;
    }
    assert_eq!(counts, expected.iter().copied().collect());
}

/// Counts as tshark's display filters give them: see `tests/oracle`.
#[test]
fn frames_of_the_captures_by_class() {
    check("dplay4-3peer", &[("arp", 2), ("dplay_query", 2), ("dplay_tcp", 103), ("dplay_udp", 17), ("ip_fragment", 9)]);
    check("dosbox-ipxnet", &[("arp", 8), ("icmp", 20), ("ipxnet", 94)]);
    check("netbios-nmbd", &[("netbios_dgm", 15), ("netbios_ns", 65)]);
    check("syn-dplay4", &[("dplay_query", 1), ("dplay_udp", 15)]);
    check("syn-ipx-eth", &[("ipx_ethernet_ii", 2), ("ipx_llc", 5), ("ipx_raw_802_3", 2), ("ipx_snap", 2)]);
}

#[test]
fn no_bytes_are_malformed() {
    assert_eq!(classify(&[][..]), TrafficClass::Malformed);
}
