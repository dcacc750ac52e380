use model::{NetworkMode, Vni};
use proptest::{prelude::*, sample::select};

use super::*;

fn lan(name: &str, vni: u32, seats: u8) -> Lan {
    let subnet = "10.98.0.0/24".parse().unwrap();
    Lan::new(name.parse().unwrap(), Vni::new(vni).unwrap(), NetworkMode::Vxlan, subnet, seats).unwrap()
}

fn lans() -> Vec<Lan> {
    vec![lan("party", 4200, 9), lan("other", 4201, 4)]
}

fn pod(name: &str, lan: &str, node: &str, ip: &str) -> PodFact {
    PodFact {
        name: name.into(),
        uid: format!("uid-{name}"),
        created: 100,
        node: Some(node.into()),
        host_ip: Some(ip.parse().unwrap()),
        lan: Some(lan.into()),
        ..PodFact::default()
    }
}

fn agent(node: &str, ip: &str) -> AgentFact {
    AgentFact { node: node.into(), address: ip.parse().unwrap(), port: AGENT_PORT }
}

fn ids(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.instances().map(|i| i.id.as_str()).collect()
}

#[track_caller]
fn says(problems: &Problems, subject: &str, words: &str) {
    let found = problems.first.iter().find(|p| p.subject == subject);
    assert!(found.is_some_and(|p| p.text.contains(words)), "{problems:#?}");
}

#[test]
fn pods_and_endpoints_make_a_snapshot() {
    let pods = [pod("instance-0", "party", "n1.example", "10.77.0.11"), pod("instance-1", "party", "n2", "10.77.0.12")];
    let mut agents = [agent("n1.example", "10.77.0.11"), agent("n3", "10.77.0.13")];
    agents[0].port = 15000;
    let (snapshot, problems) = assemble(&lans(), &pods, &agents);
    assert_eq!(problems, Problems::default());
    assert_eq!(ids(&snapshot), ["instance-0", "instance-1"]);
    let nodes: Vec<_> = snapshot.nodes().map(|n| (n.name.as_str(), n.agent_url.as_str())).collect();
    let want = [
        ("n1.example", "http://10.77.0.11:15000"),
        ("n2", "http://10.77.0.12:14780"),
        ("n3", "http://10.77.0.13:14780"),
    ];
    assert_eq!(nodes, want, "a node without an agent keeps its place while an instance is on it");
}

#[test]
fn two_agents_of_a_node_are_one_node() {
    // As while one of them stands by for the other: both have the node's address.
    let pods = [pod("instance-0", "party", "n1", "10.77.0.11"), pod("instance-1", "party", "n2", "10.77.0.12")];
    let one = [agent("n1", "10.77.0.11"), agent("n2", "10.77.0.12")];
    let two = [agent("n1", "10.77.0.11"), agent("n2", "10.77.0.12"), agent("n1", "10.77.0.11")];
    let (snapshot, problems) = assemble(&lans(), &pods, &two);
    assert_eq!((&snapshot, problems), (&assemble(&lans(), &pods, &one).0, Problems::default()));
    assert_eq!(snapshot.nodes().count(), 2);
}

#[test]
fn the_seat_is_the_labels_else_the_names_last_number() {
    let mut labelled = pod("instance-7", "party", "n1", "10.77.0.11");
    labelled.seat = Some("2".into());
    let pods = [
        labelled,
        pod("instance-other-3", "other", "n1", "10.77.0.11"),
        pod("job-1-x8k2p", "party", "n1", "10.77.0.11"),
    ];
    let (snapshot, _) = assemble(&lans(), &pods, []);
    let seats: Vec<_> = snapshot.instances().map(|i| (i.id.as_str(), i.seat.0)).collect();
    assert_eq!(seats, [("instance-7", 2), ("instance-other-3", 3), ("job-1-x8k2p", 1)]);
}

/// With the guest moved by its pod's annotation.
fn moved(to: &str, pod: PodFact) -> PodFact {
    PodFact { moved_to: Some(to.into()), ..pod }
}

fn places(snapshot: &Snapshot) -> Vec<String> {
    let card = |i: &PlacedInstance| i.card.map(|card| format!(" {card}")).unwrap_or_default();
    snapshot.instances().map(|i| format!("{} {}/{}{}", i.id, i.lan, i.seat.0, card(i))).collect()
}

#[test]
fn a_guest_is_where_its_pods_annotation_says_and_keeps_its_card() {
    let at = |name: &str, lan: &str| pod(name, lan, "n1", "10.77.0.11");
    let pods = [moved("other/2", at("instance-0", "party")), at("instance-1", "party"), at("o-1", "other")];
    let (snapshot, problems) = assemble(&lans(), &pods, []);
    assert_eq!(places(&snapshot), ["instance-0 other/2 02:4c:00:10:68:01", "instance-1 party/1", "o-1 other/1"]);
    assert_eq!(problems.count, 0);
    // Its own seat is no move, and a new pod of the name is at home.
    let home = ["instance-0 party/0", "instance-1 party/1", "o-1 other/1"];
    for first in [moved("party/0", at("instance-0", "party")), at("instance-0", "party")] {
        assert_eq!(places(&assemble(&lans(), &[first, pods[1].clone(), pods[2].clone()], []).0), home);
    }
}

#[test]
fn an_annotation_that_cannot_be_leaves_its_guest_at_home_in_words() {
    let at = |name: &str, lan: &str| pod(name, lan, "n1", "10.77.0.11");
    let others = [at("instance-1", "party"), at("o-1", "other"), moved("other/3", at("o-2", "other"))];
    for (to, words) in [
        ("other/1", "taken by `o-1`"),
        ("other/2", "kept for `o-2`"),
        ("other/9", "seats 0 to 3"),
        ("nowhere/1", "no LAN `nowhere`"),
        ("user/1", "cannot move to LAN `user` of mode user"),
        ("other", "`other`, which is no LAN/SEAT"),
        ("other/x", "no LAN/SEAT"),
    ] {
        let pods: Vec<_> = others.iter().cloned().chain([moved(to, at("instance-0", "party"))]).collect();
        let user = "10.99.0.0/24".parse().unwrap();
        let user = Lan::new("user".parse().unwrap(), Vni::new(7).unwrap(), NetworkMode::User, user, 9).unwrap();
        let lans: Vec<_> = lans().into_iter().chain([user]).collect();
        let (snapshot, problems) = assemble(&lans, &pods, []);
        let want = ["instance-0 party/0", "instance-1 party/1", "o-1 other/1", "o-2 other/3 02:4c:00:10:69:03"];
        assert_eq!(places(&snapshot), want, "{to}");
        says(&problems, "instance-0", words);
        assert_eq!(problems.count, 1);
    }
    // Two for one seat: the newer pod's guest has it.
    let mut newer = moved("other/0", at("instance-1", "party"));
    newer.created = 101;
    let (snapshot, problems) = assemble(&lans(), &[moved("other/0", at("instance-0", "party")), newer], []);
    assert_eq!(places(&snapshot), ["instance-0 party/0", "instance-1 other/0 02:4c:00:10:68:02"]);
    says(&problems, "instance-0", "taken by `instance-1`");
}

#[test]
fn a_bad_pod_is_left_out_in_words_and_takes_no_other_with_it() {
    let at = |name: &str, lan: &str| pod(name, lan, "n1", "10.77.0.11");
    let mut waits = at("instance-4", "party");
    (waits.node, waits.host_ip) = (None, None);
    waits.unscheduled = Some("0/3 nodes are available: 3 Insufficient loco.dev/seat.".into());
    let mut silent = at("instance-5", "party");
    (silent.node, silent.host_ip) = (Some("n9".into()), None);
    let mut odd = at("instance-6", "party");
    odd.seat = Some("first".into());
    let mut unlabelled = at("instance-7", "party");
    unlabelled.lan = None;
    let pods = [
        at("instance-0", "party"),
        at("instance-1", "nowhere"),
        at("instance-9", "party"),
        at("instance-300", "party"),
        at("instance.2", "party"),
        at("guest", "party"),
        waits,
        silent,
        odd,
        unlabelled,
    ];
    let (snapshot, problems) = assemble(&lans(), &pods, []);
    assert_eq!(ids(&snapshot), ["instance-0"]);
    assert_eq!(problems.count, 9);
    says(&problems, "instance-1", "`nowhere`, which the file of LANs does not list");
    says(&problems, "instance-9", "seats 0 to 8");
    says(&problems, "instance-300", "more than a LAN can have");
    says(&problems, "instance.2", "rename its StatefulSet");
    says(&problems, "guest", "pod-index");
    says(&problems, "instance-4", "waits for a node: 0/3 nodes");
    says(&problems, "instance-5", "no IPv4 address yet");
    says(&problems, "instance-6", "`first`");
    says(&problems, "instance-7", "no label loco.dev/lan");
}

#[test]
fn pods_that_have_ended_or_have_no_node_are_no_instances_and_no_problem() {
    let mut ended = pod("instance-0", "party", "n1", "10.77.0.11");
    ended.ended = true;
    let mut fresh = pod("instance-1", "party", "n1", "10.77.0.11");
    (fresh.node, fresh.host_ip) = (None, None);
    let (snapshot, problems) = assemble(&lans(), &[ended, fresh], []);
    assert_eq!((snapshot.instances().count(), snapshot.nodes().count(), problems.count), (0, 0, 0));
}

#[test]
fn the_newer_pod_has_the_seat() {
    let old = pod("instance-0", "party", "n1", "10.77.0.11");
    let mut new = pod("job-0", "party", "n2", "10.77.0.12");
    new.created = 101;
    for pods in [[old.clone(), new.clone()], [new, old]] {
        let (snapshot, problems) = assemble(&lans(), &pods, []);
        assert_eq!(ids(&snapshot), ["job-0"]);
        says(&problems, "instance-0", "taken by job-0, which is newer");
        assert_eq!(snapshot.nodes().count(), 2, "its guest may still send: the node stays");
    }
}

#[test]
fn of_two_nodes_with_one_address_the_one_with_an_agent_stays() {
    let pods = [pod("instance-0", "party", "a-old", "10.77.0.11"), pod("instance-1", "party", "b-new", "10.77.0.11")];
    let (snapshot, problems) = assemble(&lans(), &pods, &[agent("b-new", "10.77.0.11")]);
    assert_eq!(ids(&snapshot), ["instance-1"]);
    says(&problems, "a-old", "also that of node b-new");
}

#[test]
fn ten_thousand_problems_are_a_few_words_and_a_number() {
    let pods: Vec<_> = (0..10_000).map(|i| pod(&format!("instance-{i}"), "nowhere", "n1", "10.77.0.11")).collect();
    let (_, problems) = assemble(&lans(), &pods, []);
    assert_eq!((problems.count, problems.first.len()), (10_000, PROBLEMS_MAX));
}

fn any_pod() -> impl Strategy<Value = PodFact> {
    let name = prop_oneof![
        4 => (0u32..12).prop_map(|i| format!("instance-{i}")),
        1 => (0u32..12).prop_map(|i| format!("job-{i}-abcde")),
        1 => any::<String>(),
    ];
    let node = prop_oneof![
        6 => (0u8..4).prop_map(|i| Some(format!("n{i}"))),
        1 => Just(None),
        1 => any::<String>().prop_map(Some),
    ];
    let lan = prop_oneof![
        6 => Just(Some("party".to_owned())),
        2 => Just(Some("other".to_owned())),
        1 => any::<Option<String>>(),
    ];
    let seat =
        prop_oneof![4 => Just(None), 2 => (0u32..300).prop_map(|s| Some(s.to_string())), 1 => any::<Option<String>>()];
    let ip = prop_oneof![6 => (11u8..15).prop_map(|i| Some(Ipv4Addr::new(10, 77, 0, i))), 1 => Just(None)];
    let moved_to = prop_oneof![
        3 => Just(None),
        3 => (select(&["party", "other"][..]), 0u8..10).prop_map(|(lan, seat)| Some(format!("{lan}/{seat}"))),
        1 => any::<Option<String>>(),
    ];
    let ended = prop::bool::weighted(0.1);
    (name, any::<u16>(), 0i64..5, node, ip, lan, seat, moved_to, ended, any::<Option<String>>()).prop_map(
        |(name, uid, created, node, host_ip, lan, seat, moved_to, ended, unscheduled)| PodFact {
            name,
            uid: uid.to_string(),
            created,
            node,
            host_ip,
            lan,
            seat,
            moved_to,
            ended,
            unscheduled,
        },
    )
}

fn any_agent() -> impl Strategy<Value = AgentFact> {
    let node = prop_oneof![4 => (0u8..4).prop_map(|i| format!("n{i}")), 1 => any::<String>()];
    (node, 11u8..15, any::<u16>()).prop_map(|(node, ip, port)| AgentFact {
        node,
        address: Ipv4Addr::new(10, 77, 0, ip),
        port,
    })
}

proptest! {
    /// Nothing that the API says makes the whole directory fail, and each pod is either in it, or has a reason, or has ended
    /// or no node yet.
    #[test]
    fn every_pod_is_placed_or_explained(
        pods in prop::collection::vec(any_pod(), 0..24), agents in prop::collection::vec(any_agent(), 0..6)
    ) {
        let (snapshot, problems) = assemble(&lans(), &pods, &agents);
        prop_assert_eq!(snapshot.lans().count(), 2);
        prop_assert!(!problems.first.iter().any(|p| p.subject == "directory"), "{:?}", problems);
        let waiting = pods.iter().filter(|p| p.ended || (p.node.is_none() && p.unscheduled.is_none())).count();
        prop_assert!(snapshot.instances().count() + problems.count + waiting >= pods.len());
    }

    /// Good pods, each with a seat and a node of its own kind, are all there whatever else the API says, as long as that is
    /// older and on other nodes.
    #[test]
    fn a_bad_pod_never_costs_a_good_one(
        seats in prop::collection::btree_set(0u8..9, 0..9), bad in prop::collection::vec(any_pod(), 0..24),
        agents in prop::collection::vec(any_agent(), 0..6)
    ) {
        let good: Vec<PodFact> = seats.iter().map(|seat| PodFact {
            created: 10,
            seat: Some(seat.to_string()),
            ..pod(&format!("good-{seat}"), "party", "good", "10.77.1.1")
        }).collect();
        let all: Vec<&PodFact> = bad.iter().chain(&good).collect();
        let (snapshot, _) = assemble(&lans(), all, &agents);
        for pod in &good {
            prop_assert!(snapshot.instance(&pod.name.parse().unwrap()).is_some(), "{}", pod.name);
        }
    }

    /// A node with an instance stays a VTEP however its agent fares.
    #[test]
    fn an_agent_that_goes_away_takes_no_node_with_it(
        pods in prop::collection::vec(any_pod(), 0..24), agents in prop::collection::vec(any_agent(), 0..6)
    ) {
        // One address a node, as in a cluster whose nodes are all there.
        let known = |node: &str| ["n0", "n1", "n2", "n3"].iter().position(|n| *n == node).unwrap_or(0);
        let ip = |index: usize| Ipv4Addr::new(10, 77, 0, 10 + u8::try_from(index).unwrap());
        let pods: Vec<PodFact> = pods
            .into_iter()
            .map(|p| {
                let node = p.node.as_deref().map(known);
                PodFact { node: node.map(|n| format!("n{n}")), host_ip: node.map(ip), ..p }
            })
            .collect();
        let agents: Vec<AgentFact> = agents
            .into_iter()
            .map(|a| AgentFact { address: ip(known(&a.node)), node: format!("n{}", known(&a.node)), ..a })
            .collect();
        let nodes = |agents: &[AgentFact]| {
            let (snapshot, _) = assemble(&lans(), &pods, agents);
            snapshot.instances().map(|i| (i.id.clone(), snapshot.node(&i.node).unwrap().underlay_ip)).collect::<Vec<_>>()
        };
        let (with, without) = (nodes(&agents), nodes(&[]));
        prop_assert!(with == without, "{with:?} {without:?}");
    }
}
