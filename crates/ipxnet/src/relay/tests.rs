//! The relay without sockets: what must hold for any input, and the promises one by one.
use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::select};
use wire::{frame::FrameFormat, ipxnet};

use super::*;
use crate::{Framing, Rate, segment::FORMATS};

const GUEST: MacAddr = MacAddr([2, 0x4c, 0, 0x10, 0x68, 0]);

/// What came out of one call.
#[derive(Debug, Default)]
struct Out {
    datagrams: Vec<(SocketAddrV4, Vec<u8>)>,
    frames: Vec<Vec<u8>>,
}

impl Outlet for Out {
    fn datagram(&mut self, to: SocketAddrV4, packet: &[u8]) {
        self.datagrams.push((to, packet.to_vec()));
    }

    fn frame(&mut self, frame: &[u8]) {
        self.frames.push(frame.to_vec());
    }
}

impl Out {
    fn receivers(&self) -> Vec<SocketAddrV4> {
        self.datagrams.iter().map(|(to, _)| *to).collect()
    }

    fn formats(&self) -> Vec<FrameFormat> {
        self.frames
            .iter()
            .map(|frame| match Frame::parse(frame).unwrap().class {
                Class::Ipx(format) => format,
                other => panic!("{other:?}"),
            })
            .collect()
    }
}

struct Bench {
    relay: Relay,
    now: Instant,
}

fn client(n: u8) -> SocketAddrV4 {
    SocketAddrV4::new([10, 0, 0, n].into(), 40000)
}

fn node(n: u8) -> MacAddr {
    ipxnet::node_of(client(n))
}

fn address(node: MacAddr, socket: u16) -> Address {
    Address { network: 0, node, socket }
}

fn packet(from: MacAddr, to: MacAddr, payload: &[u8]) -> Vec<u8> {
    bytes(&Packet {
        checksum: 0xffff,
        hops: 0,
        packet_type: 4,
        destination: address(to, 0x5100),
        source: address(from, 0x5100),
        payload,
    })
}

fn bytes(packet: &Packet<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 2048];
    let len = packet.write(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

fn frame(format: FrameFormat, from: MacAddr, to: MacAddr, packet: &[u8]) -> Vec<u8> {
    let mut buffer = [0; FRAME_LEN_MAX];
    let len = segment::write(&mut buffer, format, (to, from), packet, 0xdead).unwrap();
    // A guest writes no mark.
    buffer[len - 8..len].fill(0);
    buffer[..len].to_vec()
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let now = Instant::now();
        Self { relay: Relay::new(settings, now), now }
    }

    /// A relay with the clients 1 to `count`.
    fn with(settings: Settings, count: u8) -> Self {
        let mut bench = Self::new(settings);
        for n in 1..=count {
            assert_eq!(bench.register(client(n)), Some(node(n)));
        }
        bench
    }

    fn say(&mut self, from: SocketAddrV4, bytes: &[u8]) -> Out {
        let mut out = Out::default();
        self.relay.datagram(from, bytes, self.now, &mut out);
        out
    }

    fn hear(&mut self, frame: &[u8]) -> Out {
        let mut out = Out::default();
        self.relay.frame(frame, self.now, &mut out);
        out
    }

    fn pass(&mut self, time: Duration) -> Out {
        let mut out = Out::default();
        self.now += time;
        self.relay.tick(self.now, &mut out);
        out
    }

    /// The node that the answer gives.
    fn register(&mut self, from: SocketAddrV4) -> Option<MacAddr> {
        self.register_as(from, 0)
    }

    fn register_as(&mut self, from: SocketAddrV4, packet_type: u8) -> Option<MacAddr> {
        let nobody = Address { socket: SOCKET, ..Address::default() };
        let registration =
            Packet { checksum: 0xffff, hops: 0, packet_type, destination: nobody, source: nobody, payload: &[] };
        let out = self.say(from, &bytes(&registration));
        assert!(out.frames.is_empty(), "a registration is no business of the LAN");
        let (to, answer) = match out.datagrams.as_slice() {
            [] => return None,
            [one] => one,
            more => panic!("{more:?}"),
        };
        assert_eq!((*to, answer.len()), (from, 30));
        match Message::parse(answer) {
            Some(Message::Answer { node, server }) if server.network == 1 => Some(node),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn dropped(&self, reason: Drop, want: u64) {
        assert_eq!(self.relay.report(self.now).drops.of(reason), want, "{reason:?}");
    }
}

#[test]
fn the_same_client_gets_the_same_node_whatever_its_program_fills_in() {
    let mut bench = Bench::new(Settings::default());
    // DOSBox 0.74 (not initialised), IPXWrapper, which asks again after 250 ms, 500 ms, …
    for packet_type in [0x7f, 2, 2, 0, 0xff] {
        assert_eq!(bench.register_as(client(1), packet_type), Some(node(1)));
        bench.pass(Duration::from_millis(250));
    }
    assert_eq!(bench.relay.report(bench.now).clients.len(), 1);
    // Gone by age, and back.
    bench.pass(Duration::from_mins(10));
    assert_eq!(bench.relay.report(bench.now).clients.len(), 0);
    assert_eq!(bench.register(client(1)), Some(node(1)));
}

#[test]
fn a_broadcast_goes_to_the_others_and_the_lan() {
    let mut bench = Bench::with(Settings::default(), 3);
    let out = bench.say(client(2), &packet(node(2), MacAddr::BROADCAST, b"hello"));
    assert_eq!(out.receivers(), [client(1), client(3)]);
    assert_eq!(out.formats(), [FrameFormat::Llc]);
    let frame = Frame::parse(&out.frames[0]).unwrap();
    assert_eq!((frame.source, frame.destination), (node(2), MacAddr::BROADCAST));
    assert_eq!(frame.ipx().unwrap().payload, b"hello");
    assert!(out.datagrams.iter().all(|(_, bytes)| *bytes == packet(node(2), MacAddr::BROADCAST, b"hello")));
}

#[test]
fn a_unicast_goes_to_its_client_or_to_the_lan() {
    let mut bench = Bench::with(Settings::default(), 3);
    let out = bench.say(client(1), &packet(node(1), node(3), b"x"));
    assert_eq!((out.receivers(), out.frames.len()), (vec![client(3)], 0));
    bench.hear(&frame(FrameFormat::Raw8023, GUEST, MacAddr::BROADCAST, &packet(GUEST, MacAddr::BROADCAST, b"q")));
    let out = bench.say(client(1), &packet(node(1), GUEST, b"x"));
    assert_eq!((out.receivers(), out.formats()), (vec![], vec![FrameFormat::Raw8023]));
    // To itself, to nobody, to the relay.
    for to in [node(1), MacAddr::ZERO, OWN_NODE] {
        let out = bench.say(client(1), &packet(node(1), to, b"x"));
        assert_eq!((out.receivers(), out.frames.len()), (vec![], 0), "{to}");
    }
    bench.dropped(Drop::Destination, 2);
}

#[test]
fn the_lan_is_heard_in_every_framing_and_answered_in_each_in_use() {
    let mut bench = Bench::with(Settings::default(), 2);
    for (n, format) in (0..).zip(FORMATS) {
        let guest = MacAddr([2, 0x4c, 0, 0x10, 0x68, n]);
        let out = bench.hear(&frame(format, guest, MacAddr::BROADCAST, &packet(guest, MacAddr::BROADCAST, b"hi")));
        assert_eq!((out.receivers(), out.frames.len()), (vec![client(1), client(2)], 0), "{format:?}");
        let out = bench.hear(&frame(format, guest, node(2), &packet(guest, node(2), b"you")));
        assert_eq!(out.receivers(), [client(2)]);
        // Between stations: not for the tunnel.
        let out = bench.hear(&frame(format, guest, GUEST, &packet(guest, GUEST, b"them")));
        assert!(out.datagrams.is_empty());
    }
    assert_eq!(bench.say(client(1), &packet(node(1), MacAddr::BROADCAST, b"all")).formats(), FORMATS);
    let chosen = Settings { framing: Framing::Only(FrameFormat::Snap), ..Settings::default() };
    let out = Bench::with(chosen, 1).say(client(1), &packet(node(1), MacAddr::BROADCAST, b"all"));
    assert_eq!(out.formats(), [FrameFormat::Snap]);
}

#[test]
fn two_relays_on_one_lan_join_their_clients_and_do_not_loop() {
    let relay = |id| Settings { id, ..Settings::default() };
    let (mut a, mut b) = (Bench::with(relay(1), 2), Bench::new(relay(2)));
    let far = SocketAddrV4::new([10, 9, 0, 1].into(), 40000);
    b.register(far).unwrap();
    let sent = a.say(client(1), &packet(node(1), MacAddr::BROADCAST, b"hello"));
    let [on_the_lan] = sent.frames.as_slice() else { panic!("{sent:?}") };
    let there = b.hear(on_the_lan);
    assert_eq!((there.receivers(), there.frames.len()), (vec![far], 0));
    // It comes back to the first one, as it was, or through a bridge that took the padding off.
    let stripped = frame(FrameFormat::Llc, node(1), MacAddr::BROADCAST, &packet(node(1), MacAddr::BROADCAST, b"hello"));
    for back in [on_the_lan, &stripped] {
        assert!(a.hear(back).datagrams.is_empty());
    }
    a.dropped(Drop::Loop, 2);
    // Nor do they take each other's choice for a station's: once the guest is gone, so is its framing.
    b.hear(&frame(FrameFormat::Snap, GUEST, MacAddr::BROADCAST, &packet(GUEST, MacAddr::BROADCAST, b"q")));
    assert_eq!(b.say(far, &packet(ipxnet::node_of(far), GUEST, b"x")).formats(), [FrameFormat::Snap]);
    assert_eq!(b.relay.report(b.now).framings, [FrameFormat::Snap]);
}

#[test]
fn a_circle_through_a_strange_bridge_dies_down() {
    let mut bench = Bench::with(Settings::default(), 1);
    let round = frame(FrameFormat::Llc, GUEST, MacAddr::BROADCAST, &packet(GUEST, MacAddr::BROADCAST, b"round"));
    let passed = (0..3000).filter(|_| !bench.hear(&round).datagrams.is_empty()).count();
    assert_eq!(passed, 200);
    bench.dropped(Drop::Loop, 2800);
}

#[test]
fn strangers_and_forged_sources_get_nothing() {
    let mut bench = Bench::with(Settings::default(), 2);
    let silent = |out: Out| assert!(out.datagrams.is_empty() && out.frames.is_empty(), "{out:?}");
    silent(bench.say(client(9), &packet(node(1), MacAddr::BROADCAST, b"x")));
    bench.dropped(Drop::Unknown, 1);
    silent(bench.say(client(1), &packet(node(2), MacAddr::BROADCAST, b"x")));
    silent(bench.say(client(1), &packet(GUEST, MacAddr::BROADCAST, b"x")));
    bench.dropped(Drop::Source, 2);
    silent(bench.say(client(1), b"no IPX"));
    silent(bench.say(client(1), &packet(node(1), node(2), &[0; 1471])));
    bench.dropped(Drop::Malformed, 2);
    silent(bench.hear(&frame(FrameFormat::Llc, node(1), MacAddr::BROADCAST, &packet(node(1), node(2), b"x"))));
    bench.dropped(Drop::Loop, 1);
    assert_eq!(bench.relay.report(bench.now).clients.len(), 2);
    assert_eq!(bench.relay.report(bench.now).clients[0].dropped, 4);
}

#[test]
fn a_client_that_does_not_know_of_a_restart_goes_on() {
    let mut bench = Bench::with(Settings::default(), 1);
    let out = bench.say(client(7), &packet(node(7), MacAddr::BROADCAST, b"still here"));
    assert_eq!((out.receivers(), out.frames.len()), (vec![client(1)], 1));
    assert_eq!(bench.relay.report(bench.now).clients.len(), 2);
}

#[test]
fn silent_clients_are_pinged_and_forgotten() {
    let mut bench = Bench::with(Settings::default(), 2);
    assert!(bench.pass(Duration::from_secs(119)).datagrams.is_empty());
    let out = bench.pass(Duration::from_secs(1));
    assert_eq!(out.receivers(), [client(1), client(2)]);
    assert_eq!(Message::parse(&out.datagrams[0].1), Some(Message::Ping { from: OWN_NODE }));
    // One answers, as DOSBox does; nobody else hears of it.
    let mut pong = [0; 30];
    Message::Pong { from: node(2), to: OWN_NODE }.write(&mut pong).unwrap();
    let out = bench.say(client(2), &pong);
    assert!(out.datagrams.is_empty() && out.frames.is_empty());
    assert!(bench.pass(Duration::from_secs(1)).datagrams.is_empty(), "not at every tick");
    assert_eq!(bench.pass(Duration::from_mins(2)).receivers(), [client(1), client(2)]);
    bench.pass(Duration::from_mins(6));
    let left: Vec<_> = bench.relay.report(bench.now).clients.iter().map(|client| client.address).collect();
    assert_eq!(left, [client(2)]);
}

#[test]
fn pings_of_clients_stay_in_the_tunnel_and_the_relay_answers() {
    let mut bench = Bench::with(Settings::default(), 2);
    let mut ping = [0; 30];
    Message::Ping { from: node(1) }.write(&mut ping).unwrap();
    let out = bench.say(client(1), &ping);
    assert_eq!((out.receivers(), out.frames.len()), (vec![client(1), client(2)], 0));
    assert_eq!(Message::parse(&out.datagrams[0].1), Some(Message::Pong { from: OWN_NODE, to: node(1) }));
    let mut answer = [0; 30];
    Message::Pong { from: node(2), to: node(1) }.write(&mut answer).unwrap();
    assert_eq!(bench.say(client(2), &answer).receivers(), [client(1)]);
}

#[test]
fn netbios_of_strangers_passes_only_when_allowed() {
    let base = Packet {
        checksum: 0xffff,
        hops: 0,
        packet_type: 4,
        destination: address(MacAddr::BROADCAST, 0x4000),
        source: address(node(1), 0x4000),
        payload: b"name",
    };
    let propagated = Packet { packet_type: 20, ..base };
    let session = Packet { destination: address(MacAddr::BROADCAST, 0x0455), ..base };
    let answer = Packet { source: address(node(1), 0x0553), ..base };
    for (netbios, packet) in [propagated, session, answer].into_iter().flat_map(|p| [(false, p), (true, p)]) {
        let mut bench = Bench::with(Settings { netbios, ..Settings::default() }, 2);
        let out = bench.say(client(1), &bytes(&packet));
        assert_eq!((out.datagrams.len(), out.frames.len()), (netbios.into(), netbios.into()), "{packet:?}");
        let source = Address { node: GUEST, ..packet.source };
        let from_lan = frame(FrameFormat::Llc, GUEST, MacAddr::BROADCAST, &bytes(&Packet { source, ..packet }));
        assert_eq!(bench.hear(&from_lan).datagrams.len(), if netbios { 2 } else { 0 });
        bench.dropped(Drop::NetBios, if netbios { 0 } else { 2 });
    }
}

#[test]
fn checksums_are_made_none_and_hops_are_left_and_limited() {
    let mut bench = Bench::with(Settings { framing: Framing::Only(FrameFormat::Raw8023), ..Settings::default() }, 2);
    let packet = Packet {
        checksum: 0,
        hops: 15,
        packet_type: 0,
        destination: address(MacAddr::BROADCAST, 0x4000),
        source: address(node(1), 0x4000),
        payload: b"x",
    };
    let out = bench.say(client(1), &bytes(&packet));
    let on_the_lan = Frame::parse(&out.frames[0]).unwrap();
    assert_eq!(on_the_lan.class, Class::Ipx(FrameFormat::Raw8023), "told by FFFF");
    assert_eq!(on_the_lan.ipx(), Some(Packet { checksum: 0xffff, ..packet }));
    assert_eq!(bench.say(client(1), &bytes(&Packet { hops: 16, ..packet })).datagrams.len(), 0);
    bench.dropped(Drop::Hops, 1);
}

#[test]
fn floods_are_bounded() {
    let settings = Settings {
        client_rate: Rate { per_second: 10, burst: 20 },
        segment_rate: Rate { per_second: 10, burst: 7 },
        clients_max: 5,
        clients_per_ip_max: 3,
        newcomer_rate: Rate { per_second: 1, burst: 6 },
        ..Settings::default()
    };
    let mut bench = Bench::new(settings);
    let one = |port| SocketAddrV4::new([10, 0, 0, 1].into(), port);
    let admitted = |bench: &mut Bench, ports: std::ops::Range<u16>| {
        ports.filter(|port| bench.register(one(*port)).is_some()).count()
    };
    assert_eq!(admitted(&mut bench, 1000..1004), 3, "behind one address");
    bench.dropped(Drop::Full, 1);
    assert!(bench.register(client(2)).is_some() && bench.register(client(3)).is_some());
    assert_eq!(bench.register(client(4)), None);
    bench.dropped(Drop::Newcomers, 1);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.register(client(4)), None);
    bench.dropped(Drop::Full, 2);
    // Unicast costs one, a broadcast four.
    let passed = |bench: &mut Bench, from, to| {
        (0..100).filter(|n: &u8| !bench.say(client(from), &packet(node(from), to, &[*n])).datagrams.is_empty()).count()
    };
    assert_eq!(passed(&mut bench, 2, node(3)), 20);
    assert_eq!(passed(&mut bench, 3, MacAddr::BROADCAST), 5);
    let storm = (0..100_u8).filter(|n| {
        let storm = frame(FrameFormat::Llc, GUEST, MacAddr::BROADCAST, &packet(GUEST, MacAddr::BROADCAST, &[*n]));
        !bench.hear(&storm).datagrams.is_empty()
    });
    assert_eq!(storm.count(), 7);
}

/// Anything that can reach a relay, mostly sensible.
#[derive(Debug, Clone)]
enum Input {
    Register(u8),
    Say(u8, Vec<u8>),
    Hear(Vec<u8>),
    Pass(u64),
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let someone = || 1..12_u8;
    let macs = || {
        prop_oneof![
            4 => someone().prop_map(node),
            2 => Just(MacAddr::BROADCAST),
            1 => select(&[GUEST, OWN_NODE, MacAddr::ZERO, MacAddr([1, 0, 0, 0, 0, 1])][..]),
        ]
    };
    let sockets = || select(&[2_u16, 0x5100, 0x455, 0x4000][..]);
    let packets = (macs(), macs(), sockets(), sockets(), any::<(bool, u16)>(), 0..20_u8, vec(any::<u8>(), 0..60))
        .prop_map(|(from, to, from_socket, to_socket, (none, checksum), hops, payload)| {
            bytes(&Packet {
                checksum: if none { 0xffff } else { checksum },
                hops,
                packet_type: checksum.to_be_bytes()[0] % 24,
                destination: address(to, to_socket),
                source: address(from, from_socket),
                payload: &payload,
            })
        });
    let own =
        (someone(), macs(), vec(any::<u8>(), 0..60)).prop_map(|(n, to, payload)| (n, packet(node(n), to, &payload)));
    let frames = (select(&FORMATS[..]), macs(), macs(), packets.clone(), any::<bool>()).prop_map(
        |(format, from, to, packet, marked)| {
            let mut buffer = [0; FRAME_LEN_MAX];
            let len = segment::write(&mut buffer, format, (to, from), &packet, 7 * u32::from(marked)).unwrap();
            buffer[..len].to_vec()
        },
    );
    let input = prop_oneof![
        3 => someone().prop_map(Input::Register),
        4 => own.prop_map(|(n, packet)| Input::Say(n, packet)),
        2 => (someone(), packets).prop_map(|(n, packet)| Input::Say(n, packet)),
        1 => (someone(), vec(any::<u8>(), 0..100)).prop_map(|(n, bytes)| Input::Say(n, bytes)),
        3 => frames.prop_map(Input::Hear),
        1 => vec(any::<u8>(), 0..100).prop_map(Input::Hear),
        1 => (0..400_u64).prop_map(Input::Pass),
    ];
    vec(input, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// No amplification, never to the sender, only to clients, nodes as they were given, tables bounded.
    #[test]
    fn whatever_comes_the_promises_hold(inputs in inputs()) {
        let settings = Settings { clients_max: 6, id: 7, ..Settings::default() };
        let mut bench = Bench::new(settings);
        let mut nodes = BTreeMap::new();
        for input in inputs {
            let clients = |bench: &Bench| bench.relay.report(bench.now).clients;
            let before: Vec<_> = clients(&bench).iter().map(|client| client.address).collect();
            // Once a client is forgotten, somebody on the LAN may take its node.
            nodes.retain(|n, _| before.contains(&client(*n)));
            let (out, sender) = match input {
                Input::Register(n) => {
                    if let Some(given) = bench.register(client(n)) {
                        prop_assert_eq!(*nodes.entry(n).or_insert(given), given, "another node than before");
                        prop_assert!(!given.is_group());
                    }
                    (Out::default(), None)
                }
                Input::Say(n, bytes) => (bench.say(client(n), &bytes), Some((client(n), bytes))),
                Input::Hear(frame) => {
                    let out = bench.hear(&frame);
                    prop_assert!(out.frames.is_empty(), "the LAN's frames never go back to it");
                    (out, None)
                }
                Input::Pass(seconds) => {
                    let out = bench.pass(Duration::from_secs(seconds));
                    prop_assert!(out.frames.is_empty());
                    (out, None)
                }
            };
            prop_assert!(clients(&bench).len() <= settings.clients_max);
            prop_assert!(out.frames.len() <= 4);
            let mut seen = std::collections::BTreeSet::new();
            for (to, bytes) in &out.datagrams {
                prop_assert!(seen.insert(*to), "twice to {}", to);
                prop_assert!(clients(&bench).iter().any(|client| client.address == *to), "{} is no client", to);
                prop_assert_eq!(&bytes[..2], &[0xff, 0xff]);
            }
            if let Some((from, bytes)) = sender {
                // To the sender goes nothing but the answer to its own ping or registration.
                for (_, echo) in out.datagrams.iter().filter(|(to, _)| *to == from) {
                    let own = matches!(
                        Message::parse(echo),
                        Some(Message::Answer { .. } | Message::Pong { from: OWN_NODE, .. })
                    );
                    prop_assert!(own && echo.len() <= bytes.len(), "an echo: {:?}", echo);
                }
                let known = before.contains(&from) || clients(&bench).iter().any(|client| client.address == from);
                prop_assert!(known || (out.datagrams.is_empty() && out.frames.is_empty()), "a stranger was served");
            }
        }
    }
}
