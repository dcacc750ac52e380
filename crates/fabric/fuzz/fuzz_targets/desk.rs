//! DHCP and ARP of the edge: whatever a guest sends, what it gets back is for it alone, and never another seat's address.
#![no_main]

use std::time::{Duration, Instant};

use fabric::{
    FabricSpec,
    desk::{Books, Desk},
    probe::Probe,
};
use libfuzzer_sys::fuzz_target;
use model::{Lan, NetworkMode, Node, PlacedInstance, Seat, Snapshot, Vni};

fn spec() -> FabricSpec {
    let vni = Vni::new(4200).expect("in range");
    let subnet = "10.98.0.0/24".parse().expect("a subnet");
    let lan = Lan::new("party".parse().expect("a name"), vni, NetworkMode::Vxlan, subnet, 9).expect("nine fit");
    let node = Node {
        name: "a".parse().expect("a name"),
        underlay_ip: std::net::Ipv4Addr::new(10, 99, 0, 11),
        agent_url: String::new(),
    };
    let placed = PlacedInstance {
        id: "i-0".parse().expect("an id"),
        lan: "party".parse().expect("a name"),
        seat: Seat(0),
        node: node.name.clone(),
        card: None,
    };
    let name = node.name.clone();
    FabricSpec::from_snapshot(&Snapshot::new([lan], [node], [placed]).expect("sound"), &name)
}

fuzz_target!(|data: &[u8]| {
    let spec = spec();
    let lan = spec.lans.values().next().expect("there is one");
    let port = lan.ports.values().next().expect("there is one");
    let (start, mut books) = (Instant::now(), Books::default());
    let mut desk = Desk::new(lan, port.instance.clone(), &port.identity, start);
    // The bytes as they are, and as what this guest sends: most else ends at its address.
    let mut own = data.to_vec();
    if let Some(source) = own.get_mut(6..12) {
        source.copy_from_slice(&port.identity.mac.0);
    }
    for frame in [data, &own] {
        if let Some(answer) = desk.hear(frame, start + Duration::from_millis(1), &mut books) {
            assert!(answer[..6] == port.identity.mac.0 || answer[..6] == [0xff; 6]);
            assert!((60..=1514).contains(&answer.len()));
        }
        if let Some(probe) = Probe::parse(frame) {
            assert_eq!(Probe::parse(&probe.frame(frame.len())), Some(probe));
        }
    }
    assert!(books.addresses.len() <= 1 && books.conflicts.len() <= 1);
});
