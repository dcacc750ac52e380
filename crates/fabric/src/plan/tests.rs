//! The plan against a small model of the kernel: random starting points, one pass, judged by what must hold.
use std::collections::BTreeMap;

use model::{InstanceId, NodeName, Seat, Snapshot};
use proptest::{collection::vec, prelude::*, sample::select};

use testkit::directory;

use super::*;
use crate::{PortCounters, observed::Nic};

const VTEP: Vtep = Vtep { local: Ipv4Addr::new(10, 99, 0, 11), port: 14789 };

/// The card of the node, in the tests.
const NIC: u32 = 7;

fn nic() -> Nic {
    Nic { name: "eth0".to_owned(), index: NIC, mtu: 1600, up: true }
}

/// Nothing there but the card.
fn bare() -> Observed {
    Observed { parent: Parent::Fit(nic()), ..Observed::default() }
}

fn snapshot(modes: [NetworkMode; 3], seats: &[(u8, u8, &str)]) -> Snapshot {
    let lan = |(index, mode): (u8, NetworkMode)| {
        directory::lan(&format!("lan-{index}"), 4200 + u32::from(index), mode, "10.98.0.0/24")
    };
    let node = |name, last| directory::node(name, Ipv4Addr::new(10, 99, 0, last));
    let placed = seats
        .iter()
        .map(|(lan, seat, node)| directory::guest(&format!("i-{lan}-{seat}"), &format!("lan-{lan}"), *seat, node));
    Snapshot::new((0..).zip(modes).map(lan), [node("a", 11), node("b", 12), node("c", 13)], placed.collect::<Vec<_>>())
        .unwrap()
}

fn spec_of(seats: &[(u8, u8, &str)]) -> FabricSpec {
    spec_with([NetworkMode::Vxlan; 3], seats)
}

fn spec_with(modes: [NetworkMode; 3], seats: &[(u8, u8, &str)]) -> FabricSpec {
    FabricSpec::from_snapshot(&snapshot(modes, seats), &"a".parse::<NodeName>().unwrap())
}

/// Moves guests one after the other, each given by LAN and seat of its start and the LAN it goes to, as far as that may be.
fn moved(mut snapshot: Snapshot, moves: &[(u8, u8, u8)]) -> Snapshot {
    for (lan, seat, to) in moves {
        let (id, to) = (format!("i-{lan}-{seat}").parse().unwrap(), format!("lan-{to}").parse().unwrap());
        // What cannot be changes nothing.
        snapshot.move_to(&id, &to, None).ok();
    }
    snapshot
}

/// Which node each of 3 x 4 seats is on, if any, in LANs of which each is of either mode of the kernel's; and some that were moved.
fn specs() -> impl Strategy<Value = FabricSpec> {
    let modes = || select(&[NetworkMode::Vxlan, NetworkMode::Vxlan, NetworkMode::Macvlan][..]);
    let places = vec(select(&[None, Some("a"), Some("b"), Some("c")][..]), 12);
    let gone = vec((0u8..3, 0u8..4, 0u8..3), 0..5);
    (places, [modes(), modes(), modes()], gone).prop_map(|(places, modes, gone)| {
        let seats: Vec<(u8, u8, &str)> =
            (0u8..).zip(places).filter_map(|(at, place)| Some((at / 4, at % 4, place?))).collect();
        FabricSpec::from_snapshot(&moved(snapshot(modes, &seats), &gone), &"a".parse::<NodeName>().unwrap())
    })
}

fn fdb_entries() -> impl Strategy<Value = FdbEntry> {
    (0u8..4, 11u8..15).prop_map(|(mac, vtep)| {
        let mac = if mac == 0 { MacAddr::ZERO } else { MacAddr([2, 0x4c, 0, 0x10, 0x68, mac]) };
        FdbEntry { mac, vtep: Ipv4Addr::new(10, 99, 0, vtep) }
    })
}

fn kinds() -> impl Strategy<Value = LinkKind> {
    let tunnel = (4200u32..4203, select(&[11u8, 99][..]), select(&[14789u16, 4789][..]), any::<(bool, bool)>())
        .prop_map(|(vni, local, port, (learning, at_home))| {
            LinkKind::Vxlan(Tunnel { vni, local: Some(Ipv4Addr::new(10, 99, 0, local)), port, learning, at_home })
        });
    let submodes = select(&[Submode::Bridge, Submode::Passthru, Submode::Other][..]);
    let macvtap = (select(&[None, Some(NIC), Some(8)][..]), submodes)
        .prop_map(|(parent, submode)| LinkKind::Macvtap { parent, submode });
    prop_oneof![
        3 => any::<(bool, bool)>().prop_map(|(stp, mcast_snooping)| LinkKind::Bridge { stp, mcast_snooping }),
        3 => tunnel,
        4 => Just(LinkKind::Tap),
        3 => macvtap,
        1 => Just(LinkKind::Other("dummy".to_owned())),
    ]
}

/// Any link at all, under a name that may or may not be ours, of a kind that mostly goes with it.
fn links() -> impl Strategy<Value = (String, Link)> {
    let name = prop_oneof![
        8 => (0u32..3, 0u8..6).prop_map(|(lan, seat)| OurName::Tap(Vni::new(4200 + lan).unwrap(), Seat(seat)).text()),
        6 => (0u32..3, 0u8..6).prop_map(|(lan, seat)| OurName::Macvtap(Vni::new(4200 + lan).unwrap(), Seat(seat)).text()),
        3 => (0u32..4).prop_map(|lan| OurName::Bridge(Vni::new(4200 + lan).unwrap()).text()),
        3 => (0u32..4).prop_map(|lan| OurName::Vxlan(Vni::new(4200 + lan).unwrap()).text()),
        2 => (0u32..4).prop_map(|lan| station_name(Vni::new(4200 + lan).unwrap())),
        1 => select(&["lo", "eth0", "locobr1", "loco", "veth7"][..]).prop_map(str::to_owned),
    ];
    let master =
        prop_oneof![Just(None), (0u32..4).prop_map(|lan| Some(OurName::Bridge(Vni::new(4200 + lan).unwrap()).text())),];
    (
        name,
        kinds(),
        any::<(bool, bool, bool, bool)>(),
        select(&[1500u32, 1450, 1600][..]),
        master,
        vec(fdb_entries(), 0..5),
        any::<u8>(),
    )
        .prop_map(|(name, kind, (up, carrier, own_kind, all_groups), mtu, master, fdb, mac)| {
            let kind = match (OurName::parse(&name), own_kind || carrier) {
                (Some(OurName::Tap(..)), true) => LinkKind::Tap,
                (Some(OurName::Bridge(_)), true) if !matches!(kind, LinkKind::Bridge { .. }) => {
                    LinkKind::Bridge { stp: up, mcast_snooping: carrier }
                }
                (Some(OurName::Macvtap(..)), true) if !matches!(kind, LinkKind::Macvtap { .. }) => {
                    LinkKind::Macvtap { parent: Some(NIC), submode: Submode::Bridge }
                }
                _ => kind,
            };
            let fdb = if matches!(kind, LinkKind::Vxlan(_)) { fdb.into_iter().collect() } else { BTreeSet::new() };
            let mac = MacAddr([2, 0, 0, 0, 0, mac]);
            let counters = PortCounters::default();
            (name, Link { index: 0, kind, mac, mtu, up, carrier, all_groups, master, fdb, counters })
        })
}

fn observed() -> impl Strategy<Value = Observed> {
    let parents = prop_oneof![
        1 => Just(Parent::Unasked),
        1 => Just(Parent::Unfit("the card went".to_owned())),
        6 => (any::<bool>(), select(&[1500u32, 1600, 1400][..])).prop_map(|(up, mtu)| Parent::Fit(Nic { mtu, up, ..nic() })),
    ];
    (vec(links(), 0..16), parents).prop_map(|(links, parent)| {
        let mut links: BTreeMap<String, Link> = links.into_iter().collect();
        let bridges: BTreeSet<String> = links
            .iter()
            .filter(|(_, link)| matches!(link.kind, LinkKind::Bridge { .. }))
            .map(|(name, _)| name.clone())
            .collect();
        for (index, link) in (1..).zip(links.values_mut()) {
            link.index = index;
            link.master = link.master.take().filter(|master| bridges.contains(master));
        }
        Observed { links, parent }
    })
}

/// What the kernel does with a step. A step that the kernel would refuse is a failure of the plan.
fn perform(state: &mut Observed, step: &Step) {
    let new = |kind, mac| Link {
        index: 1000,
        kind,
        mac,
        mtu: MTU,
        up: false,
        carrier: false,
        all_groups: false,
        master: None,
        fdb: BTreeSet::new(),
        counters: PortCounters::default(),
    };
    let links = &mut state.links;
    match step {
        Step::DeleteLink { name } => {
            links.remove(name).expect("deletes what is there");
            for link in links.values_mut() {
                link.master = link.master.take().filter(|master| master != name);
            }
        }
        Step::CreateBridge { name, mac } => {
            let kind = LinkKind::Bridge { stp: false, mcast_snooping: false };
            assert!(links.insert(name.clone(), new(kind, *mac)).is_none(), "EEXIST {name}");
        }
        Step::CreateVxlan { name, mac, tunnel } => {
            assert!(links.insert(name.clone(), new(LinkKind::Vxlan(*tunnel), *mac)).is_none(), "EEXIST {name}");
        }
        Step::CreateTap { name } => {
            assert!(links.insert(name.clone(), new(LinkKind::Tap, MacAddr::ZERO)).is_none(), "EEXIST {name}");
        }
        Step::CreateMacvtap { name, mac, parent, mtu } => {
            let kind = LinkKind::Macvtap { parent: Some(*parent), submode: Submode::Bridge };
            assert!(links.insert(name.clone(), Link { mtu: *mtu, ..new(kind, *mac) }).is_none(), "EEXIST {name}");
        }
        Step::JoinCard { name } => match &mut links.get_mut(name).expect("is there").kind {
            LinkKind::Macvtap { submode, .. } if *submode != Submode::Passthru => *submode = Submode::Bridge,
            other => panic!("EINVAL {other:?}"),
        },
        Step::TakeAllGroups { name } => links.get_mut(name).expect("is there").all_groups = true,
        Step::QuietBridge { name } => {
            links.get_mut(name).expect("is there").kind = LinkKind::Bridge { stp: false, mcast_snooping: false };
        }
        Step::SetMac { name, mac } => links.get_mut(name).expect("is there").mac = *mac,
        Step::SetMtu { name, mtu } => links.get_mut(name).expect("is there").mtu = *mtu,
        Step::SetUp { name } => links.get_mut(name).expect("is there").up = true,
        Step::SetMaster { name, bridge } => {
            assert!(links.contains_key(bridge), "no bridge {bridge}");
            links.get_mut(name).expect("is there").master = Some(bridge.clone());
        }
        Step::AddFdb { vxlan, entry } => {
            assert!(links.get_mut(vxlan).expect("is there").fdb.insert(*entry), "appended twice");
        }
        Step::RemoveFdb { vxlan, entry } => {
            assert!(links.get_mut(vxlan).expect("is there").fdb.remove(entry), "ENOENT");
        }
    }
}

fn run(spec: &FabricSpec, state: &Observed) -> Observed {
    run_without(spec, state, &Away::new())
}

fn run_without(spec: &FabricSpec, state: &Observed, away: &Away) -> Observed {
    let mut end = state.clone();
    for step in plan(spec, VTEP, state, away).steps {
        perform(&mut end, &step);
    }
    end
}

/// Said without the planner's help: what one LAN must look like.
fn assert_stands(lan: &LanSpec, state: &Observed, away: &Away) {
    if lan.mode == NetworkMode::Macvlan {
        let Parent::Fit(nic) = &state.parent else { return };
        for (seat, port) in &lan.ports {
            assert_eq!((port.card.vni(), port.card.seat()), (lan.vni, *seat), "nobody moves over the card");
            let link = &state.links[&format!("locom{:06x}-{}", lan.vni.get(), seat.0)];
            let meets = link.kind == LinkKind::Macvtap { parent: Some(NIC), submode: Submode::Bridge };
            assert!(meets && link.up && link.all_groups, "{link:?}");
            assert!(link.mac == port.identity.mac && link.mtu == nic.mtu, "{link:?}");
        }
        return;
    }
    let bridge = format!("locobr{:06x}", lan.vni.get());
    let quiet = LinkKind::Bridge { stp: false, mcast_snooping: false };
    let link = &state.links[&bridge];
    assert!(link.up && link.mtu == 1500 && link.mac == lan.bridge_mac && link.kind == quiet, "{link:?}");
    let link = &state.links[&format!("locovx{:06x}", lan.vni.get())];
    let tunnel =
        Tunnel { vni: lan.vni.get(), local: Some(VTEP.local), port: VTEP.port, learning: false, at_home: true };
    assert_eq!(link.kind, LinkKind::Vxlan(tunnel));
    assert!(link.up && link.mtu == 1500 && link.mac == lan.vxlan_mac && link.master.as_ref() == Some(&bridge));
    assert_eq!(link.fdb, lan.fdb(away));
    for port in lan.ports.values() {
        let link = &state.links[&format!("locot{:06x}-{}", port.card.vni().get(), port.card.seat().0)];
        assert!(link.kind == LinkKind::Tap && link.up && link.mtu == 1500 && link.master.as_ref() == Some(&bridge));
    }
    if let Some(link) = state.links.get(&format!("locoix{:06x}", lan.vni.get())).filter(|l| l.kind == LinkKind::Tap) {
        assert!(link.up && link.mtu == 1500 && link.master.as_ref() == Some(&bridge), "the station is not plugged in");
    }
}

/// Whether something of somebody else's has a name that this LAN needs, or a guest holds what would have to be made anew.
fn in_the_way(lan: &LanSpec, start: &Observed) -> bool {
    let is_in_the_way = |name: OurName, link: &Link| {
        let astray = matches!(link.kind, LinkKind::Macvtap { parent, submode } if parent != Some(NIC) || submode == Submode::Passthru);
        !name.fits(&link.kind) || astray && link.carrier
    };
    names(lan).any(|name| start.links.get(&name.text()).is_some_and(|link| is_in_the_way(name, link)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_pass_arrives_and_the_second_writes_nothing(spec in specs(), start in observed(), gone in vec((0u32..3, 11u8..14), 0..4)) {
        let gone = gone.into_iter().map(|(lan, last)| (Vni::new(4200 + lan).unwrap(), Ipv4Addr::new(10, 99, 0, last)));
        let away: Away = gone.collect();
        let end = run_without(&spec, &start, &away);
        prop_assert_eq!(plan(&spec, VTEP, &end, &away).steps, vec![]);
        for lan in spec.lans.values().filter(|lan| !lan.ports.is_empty() && !in_the_way(lan, &start)) {
            assert_stands(lan, &end, &away);
        }
    }

    #[test]
    fn what_is_not_ours_and_what_is_held_stays(spec in specs(), start in observed()) {
        let end = run(&spec, &start);
        for (name, link) in &start.links {
            let ours = OurName::parse(name).is_some_and(|ours| ours.fits(&link.kind));
            let station = name.starts_with("locoix") && link.kind == LinkKind::Tap;
            prop_assert!(!station || end.links.contains_key(name), "the station {} was deleted", name);
            if !ours && !station && name != "lo" {
                let mut now = end.links[name].clone();
                // A foreign port of a bridge of ours loses its master with the bridge: the kernel's doing.
                now.master.clone_from(&link.master);
                prop_assert_eq!(&now, link);
            }
            if ours && matches!(link.kind, LinkKind::Macvtap { .. }) && link.carrier {
                prop_assert!(end.links.contains_key(name), "{} was deleted under a guest", name);
            }
            if ours && link.kind == LinkKind::Tap && link.carrier {
                prop_assert!(end.links.contains_key(name), "{} was deleted under a guest", name);
                let can_be = |lan: &&LanSpec| lan.mode == NetworkMode::Vxlan && !in_the_way(lan, &start);
                let mut ports = spec.lans.values().filter(can_be).flat_map(|lan| lan.ports.values());
                let placed = ports.any(|port| *name == format!("locot{:06x}-{}", port.card.vni().get(), port.card.seat().0));
                if let Some(master) = link.master.as_ref().filter(|_| !placed) {
                    prop_assert!(end.links.contains_key(master), "the bridge of {} was deleted under a guest", name);
                }
            }
        }
    }

    #[test]
    fn removals_come_first(spec in specs(), start in observed()) {
        let steps = plan(&spec, VTEP, &start, &Away::new()).steps;
        let removes = |step: &Step| matches!(step, Step::DeleteLink { .. } | Step::RemoveFdb { .. });
        let first_add = steps.iter().position(|step| !removes(step)).unwrap_or(steps.len());
        prop_assert!(!steps[first_add..].iter().any(removes), "{:?}", steps);
    }
}

#[test]
fn a_seat_that_moved_away_leaves_nothing_behind() {
    let before = run(&spec_of(&[(0, 0, "a"), (0, 1, "b")]), &Observed::default());
    let after = run(&spec_of(&[(0, 0, "c"), (0, 1, "b")]), &before);
    assert_eq!(after, Observed::default());
}

#[test]
fn a_held_tap_of_a_guest_that_moved_is_a_problem_that_is_told() {
    let mut state = run(&spec_of(&[(0, 0, "a"), (0, 1, "b")]), &Observed::default());
    state.links.get_mut("locot001068-0").unwrap().carrier = true;
    let spec = spec_of(&[(0, 0, "c"), (0, 1, "b")]);
    let plan = plan(&spec, VTEP, &state, &Away::new());
    // Its LAN goes on here, with the forwarding table of the new directory.
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::DeleteLink { .. })), "{:?}", plan.steps);
    assert_eq!(plan.problems.len(), 1);
    assert!(plan.problems[0].contains("locot001068-0") && plan.problems[0].contains("stop that guest"));
}

#[test]
fn a_guest_that_moves_takes_its_port_along_in_one_step() {
    let seats = [(0, 0, "a"), (0, 1, "a"), (1, 0, "a"), (1, 1, "b")];
    let before = snapshot([NetworkMode::Vxlan; 3], &seats);
    let on_a = |snapshot: &Snapshot| FabricSpec::from_snapshot(snapshot, &"a".parse::<NodeName>().unwrap());
    let mut state = run(&on_a(&before), &Observed::default());
    state.links.get_mut("locot001068-0").unwrap().carrier = true;
    let after = moved(before, &[(0, 0, 1)]);
    let done = plan(&on_a(&after), VTEP, &state, &Away::new());
    let unplugged = Step::SetMaster { name: "locot001068-0".to_owned(), bridge: "locobr001069".to_owned() };
    assert_eq!((done.steps, done.problems), (vec![unplugged], vec![]));
    // From there to the third LAN, which has nobody yet: it comes, and the port goes on.
    let on = moved(after, &[(0, 0, 2)]);
    let end = run(&on_a(&on), &run(&on_a(&moved(on.clone(), &[(0, 0, 1)])), &state));
    assert_eq!(end.links["locot001068-0"].master.as_deref(), Some("locobr00106a"));
    // Home again, with an agent that knows of none of it: nothing is left of the third.
    let home = run(&on_a(&snapshot([NetworkMode::Vxlan; 3], &seats)), &end);
    assert_eq!(home, state);
}

#[test]
fn a_guest_that_cannot_get_where_it_is_to_move_keeps_the_lan_where_it_is() {
    let before = snapshot([NetworkMode::Vxlan; 3], &[(0, 0, "a"), (0, 1, "b")]);
    let on_a = |snapshot: &Snapshot| FabricSpec::from_snapshot(snapshot, &"a".parse::<NodeName>().unwrap());
    let mut state = run(&on_a(&before), &Observed::default());
    state.links.get_mut("locot001068-0").unwrap().carrier = true;
    let stray = Link { kind: LinkKind::Other("dummy".to_owned()), master: None, ..state.links["locobr001068"].clone() };
    state.links.insert("locobr001069".to_owned(), stray);
    let done = plan(&on_a(&moved(before, &[(0, 0, 1)])), VTEP, &state, &Away::new());
    let gone: Vec<_> = done.steps.iter().filter(|step| matches!(step, Step::DeleteLink { .. })).collect();
    assert!(gone.is_empty(), "{gone:?}");
    assert!(
        done.problems.iter().any(|problem| problem.contains("`locobr001069` is in the way")),
        "{:?}",
        done.problems
    );
}

#[test]
fn a_wrong_directory_is_told() {
    let told = |spec: &FabricSpec, vtep, want: &str| {
        let problems = plan(spec, vtep, &Observed::default(), &Away::new()).problems;
        assert!(problems.iter().any(|problem| problem.contains(want)), "{problems:?}");
    };
    let spec = spec_of(&[(0, 0, "a")]);
    told(&spec, Vtep { local: Ipv4Addr::new(10, 99, 0, 77), ..VTEP }, "10.99.0.77");
    told(&FabricSpec { underlay_ip: None, ..spec.clone() }, VTEP, "does not list this node");
    let mut other = spec;
    other.lans.values_mut().for_each(|lan| lan.mode = NetworkMode::Socket);
    told(&other, VTEP, "none of the kernel's");
    assert!(other.port(&"i-0-0".parse::<InstanceId>().unwrap()).is_some());
}

#[test]
fn a_lan_over_the_card_has_its_ports_and_nothing_else() {
    let modes = [NetworkMode::Macvlan, NetworkMode::Vxlan, NetworkMode::Vxlan];
    let spec = spec_with(modes, &[(0, 0, "a"), (0, 1, "b"), (0, 2, "a")]);
    let end = run(&spec, &bare());
    assert_eq!(end.links.keys().collect::<Vec<_>>(), ["locom001068-0", "locom001068-2"]);
    // Its guests went, and it with them.
    assert_eq!(run(&spec_with(modes, &[(0, 1, "b")]), &end), bare());
    // The LAN got the other mode: what was there goes, and what it needs comes.
    let other = run(&spec_of(&[(0, 0, "a")]), &end);
    assert_eq!(other.links.keys().collect::<Vec<_>>(), ["locobr001068", "locot001068-0", "locovx001068"]);
    assert_eq!(run(&spec, &other), end);
}

#[test]
fn a_card_that_goes_down_or_away_is_told_and_changes_nothing() {
    let spec = spec_with([NetworkMode::Macvlan; 3], &[(0, 0, "a"), (1, 0, "a")]);
    let well = run(&spec, &bare());
    let told = |parent: Parent, want: &str| {
        let state = Observed { parent, ..well.clone() };
        let plan = plan(&spec, VTEP, &state, &Away::new());
        assert_eq!((plan.steps, plan.problems.len()), (vec![], 1), "{want}");
        assert!(plan.problems[0].contains(want), "{:?}", plan.problems);
    };
    told(Parent::Unfit("it is wireless".to_owned()), "it is wireless");
    told(Parent::Fit(Nic { up: false, ..nic() }), "`ip link set eth0 up`");
    // Another one, while a guest holds the port over the old one.
    let mut held = Observed { parent: Parent::Fit(Nic { index: 8, ..nic() }), ..well };
    held.links.get_mut("locom001068-0").unwrap().carrier = true;
    let plan = plan(&spec, VTEP, &held, &Away::new());
    assert!(
        plan.problems.len() == 1 && plan.problems[0].contains("restart that guest's runner"),
        "{:?}",
        plan.problems
    );
    let gone = |step: &&Step| matches!(step, Step::DeleteLink { name } if name == "locom001069-0");
    assert_eq!(plan.steps.iter().filter(gone).count(), 1);
    assert!(plan.steps.iter().all(|step| step.link() == "locom001069-0"), "{:?}", plan.steps);
}

#[test]
fn the_cards_mtu_is_followed_and_one_below_a_full_frame_is_told() {
    let spec = spec_with([NetworkMode::Macvlan; 3], &[(0, 0, "a")]);
    let state = Observed { parent: Parent::Fit(Nic { mtu: 1400, ..nic() }), ..run(&spec, &bare()) };
    let plan = plan(&spec, VTEP, &state, &Away::new());
    assert_eq!(plan.steps, [Step::SetMtu { name: "locom001068-0".to_owned(), mtu: 1400 }]);
    assert!(plan.problems[0].contains("raise it to 1500"), "{:?}", plan.problems);
}

#[test]
fn a_node_that_is_away_leaves_the_flood_list_only() {
    let spec = spec_of(&[(0, 0, "a"), (0, 1, "b"), (0, 2, "c")]);
    let start = run(&spec, &Observed::default());
    let b = Ipv4Addr::new(10, 99, 0, 12);
    let away: Away = [(Vni::new(4200).unwrap(), b)].into();
    let vxlan = "locovx001068".to_owned();
    let entry = FdbEntry { mac: MacAddr::ZERO, vtep: b };
    assert_eq!(plan(&spec, VTEP, &start, &away).steps, [Step::RemoveFdb { vxlan: vxlan.clone(), entry }]);
    let without = run_without(&spec, &start, &away);
    assert_eq!(plan(&spec, VTEP, &without, &Away::new()).steps, [Step::AddFdb { vxlan, entry }]);
}

#[test]
fn what_is_mended_is_counted_once_for_a_link_made_anew() {
    let spec = spec_of(&[(0, 0, "a"), (0, 1, "b")]);
    let well = run(&spec, &Observed::default());
    let counted = |damage: &dyn Fn(&mut Observed)| {
        let mut state = well.clone();
        damage(&mut state);
        mended(&plan(&spec, VTEP, &state, &Away::new()).steps).collect::<Vec<_>>()
    };
    let vxlan = |state: &mut Observed| state.links.get_mut("locovx001068").unwrap().clone();
    assert_eq!(counted(&|_| {}), Vec::<&str>::new());
    assert_eq!(counted(&|state| drop(state.links.remove("locovx001068"))), ["link"]);
    assert_eq!(counted(&|state| state.links.get_mut("locot001068-0").unwrap().master = None), ["master"]);
    assert_eq!(counted(&|state| state.links.get_mut("locobr001068").unwrap().up = false), ["link"]);
    assert_eq!(counted(&|state| state.links.get_mut("locovx001068").unwrap().mtu = 1400), ["mtu"]);
    let fdb = |keep: fn(&FdbEntry) -> bool| {
        counted(&|state| {
            let link = Link { fdb: vxlan(state).fdb.into_iter().filter(keep).collect(), ..vxlan(state) };
            state.links.insert("locovx001068".to_owned(), link);
        })
    };
    assert_eq!(fdb(|entry| entry.mac != MacAddr::ZERO), ["flood"]);
    assert_eq!(fdb(|entry| entry.mac == MacAddr::ZERO), ["unicast", "unicast"]);
    assert_eq!(
        counted(&|state| {
            let link = Link { master: None, ..state.links["locot001068-0"].clone() };
            state.links.insert("locoix001068".to_owned(), link);
        }),
        Vec::<&str>::new(),
        "a station that was just opened"
    );
}
