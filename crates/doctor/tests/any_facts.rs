//! Whatever agents say, however little sense it makes: no panic, bounded answers, and the ladder keeps its rules.
#![expect(clippy::unwrap_used, reason = "the helpers of a test end at the first surprise, as the test does")]
use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use api::{
    agent::{AgentStatus, InstanceStatus},
    lan::{Rung, RungResult},
    observe::{Certainty, Enumeration, Evidence, Machine, Observed, Player, Session, SystemPlayer},
};
use doctor::{AgentWord, FAULTS_MAX, Facts, Place, diagnose, doctor, faults};
use proptest::prelude::*;

fn id(seat: u8) -> String {
    format!("instance-{seat}")
}

fn mac(seat: u8) -> String {
    format!("02:4c:00:10:68:{:02x}", seat + 1)
}

fn places() -> Vec<Place> {
    (0..4)
        .map(|seat| Place {
            id: id(seat),
            lan: "party".into(),
            number: u16::from(seat) + 1,
            node: format!("node-{}", seat % 2),
            mac: mac(seat),
            ip: Ipv4Addr::new(10, 98, 0, seat + 1),
            subnet: (Ipv4Addr::new(10, 98, 0, 0), 24),
        })
        .collect()
}

prop_compose! {
    fn evidence()(at in prop_oneof![Just(0.0), 900.0..1000.0, Just(f64::NAN), Just(f64::INFINITY)], frame in any::<u64>())
        -> Option<Evidence> {
        Some(Evidence { at, frame, what: "a frame".into(), node: None, port: None })
    }
}

fn address() -> impl Strategy<Value = String> {
    prop_oneof![
        (0u8..6).prop_map(|n| format!("10.98.0.{n}")),
        Just("169.254.0.1".to_owned()),
        (0u8..4).prop_map(|n| format!("00000000:024c001068{:02x}", n + 1)),
        "[a-z0-9.:]{0,12}",
    ]
}

fn certainty() -> impl Strategy<Value = Certainty> {
    prop_oneof![
        Just(Certainty::Announced),
        Just(Certainty::Inferred),
        Just(Certainty::GoneByReset),
        Just(Certainty::GoneByFin)
    ]
}

prop_compose! {
    fn session()(guid in 0u8..3, host in address(), ours in proptest::option::of(0u8..5), max in 0u32..4, now in 0u32..4,
        flags in any::<u32>(), evidence in evidence(), certainty in certainty(), ipx in any::<bool>()) -> Session {
        Session {
            name: Some(format!("game {guid}")),
            transport: if ipx { "ipx" } else { "tcp" }.into(),
            instance_guid_wire: (guid > 0).then(|| format!("{guid:032x}")),
            app_guid_wire: Some(format!("{guid:032x}")),
            max_players: Some(max),
            current_players: Some(now),
            flags: Some(format!("{flags:#010x}")),
            host_ip: (!ipx).then(|| host.clone()),
            host_ipx: ipx.then_some(host),
            host_instance: ours.map(id),
            evidence,
            certainty,
            ..Session::default()
        }
    }
}

prop_compose! {
    fn observed()(sessions in proptest::collection::vec(session(), 0..4),
        asked in proptest::collection::vec((address(), any::<u64>(), evidence(), any::<u16>(), address()), 0..4),
        machines in proptest::collection::vec((0u8..5, address(), any::<u64>(), any::<bool>()), 0..5),
        systems in proptest::collection::vec((0u8..5, 0u8..3, certainty()), 0..4)) -> Observed {
        Observed {
            sessions,
            enumerations: asked.into_iter().map(|(ip, count, last, port, to)| Enumeration {
                ip, count, reply_port: Some(port), last: last.clone(), first: last, to: vec![to],
                dialect: Some(port), answers_refused: count % 2, ..Enumeration::default()
            }).collect(),
            machines: machines.into_iter().map(|(seat, ip, frames, closed)| Machine {
                mac: mac(seat), ips: vec![ip], frames, dhcp_asked: frames % 5, last_seen: 990.0,
                ports_closed: if closed { vec!["tcp/2300".into(), "udp/47624".into(), "tcp/".into()] } else { vec![] },
                ipx_framing: closed.then(|| "llc".into()), ..Machine::default()
            }).collect(),
            system_players: systems.iter().map(|(seat, game, certainty)| SystemPlayer {
                id: format!("{seat:08x}"), session: Some(format!("game {game}")), instance: Some(id(*seat)),
                certainty: *certainty, ..SystemPlayer::default()
            }).collect(),
            players: systems.into_iter().map(|(seat, game, certainty)| Player {
                id: format!("{seat:08x}"), session: Some(format!("game {game}")), system_id: Some(format!("{seat:08x}")),
                certainty, ..Player::default()
            }).collect(),
            ..Observed::default()
        }
    }
}

fn status(node: &str, observed: Observed, seed: u64) -> AgentStatus {
    let state = ["live", "starting", "stopped", "failed"][usize::try_from(seed % 4).unwrap()];
    let instances = (0..4u8).filter(|seat| format!("node-{}", seat % 2) == node).map(|seat| -> InstanceStatus {
        serde_json::from_value(serde_json::json!({
            "id": id(seat), "lan": "party", "seat": seat, "node": node, "mac": mac(seat), "ip": "10.98.0.1", "host_name": "",
            "state": state, "since": 0.0,
            "link": !seed.is_multiple_of(3), "viewers": {"thumb": 0, "full": 0},
            "pairs": if seed.is_multiple_of(5) { serde_json::json!([]) } else { serde_json::json!([
                {"peer": mac(0), "tx_frames": seed, "tx_bytes": seed, "rx_frames": seed % 7, "rx_bytes": 3, "rx_broadcasts": seed}
            ]) },
        }))
        .unwrap()
    });
    AgentStatus {
        node: node.into(),
        pid: 1,
        version: String::new(),
        at: 1000.0,
        instances: instances.map(Arc::new).collect(),
        lans: Vec::new(),
        reachability: Vec::new(),
        fabric_problems: Vec::new(),
        tunnel: None,
        snapshot_problem: None,
        foreign: Vec::new(),
        observed: BTreeMap::from([("party".to_owned(), observed)]),
        observer: None,
    }
}

proptest! {
    #[test]
    fn any_words_of_agents_give_a_ladder_with_its_rules(a in observed(), b in observed(), seed in any::<u64>(), silent in any::<bool>()) {
        let (first, second) = (status("node-0", a, seed), status("node-1", b, seed / 7));
        let words = [
            AgentWord { node: "node-0", status: Some(&first), silent_for: None },
            AgentWord { node: "node-1", status: Some(&second), silent_for: silent.then_some(5.0) },
        ];
        let facts = Facts::gather(1000.0, places(), &words);
        let found = faults(&facts);
        prop_assert!(found.len() <= FAULTS_MAX);
        prop_assert!(found.iter().all(|one| !one.ok), "{found:?}");
        for from in 0..4 {
            for to in 0..4 {
                let one = diagnose(&facts, &id(from), &id(to)).unwrap();
                prop_assert_eq!(one.ladder.len(), 9);
                prop_assert!(one.ladder.windows(2).all(|pair| pair[0].rung < pair[1].rung));
                let failed: Vec<Rung> =
                    one.ladder.iter().filter(|state| state.result == RungResult::Failed).map(|state| state.rung).collect();
                prop_assert!(failed.len() <= 1, "{:?}", one.ladder);
                if let [failed] = failed[..] {
                    prop_assert!(!one.ok && one.rung == failed, "{one:?}");
                    let above = one.ladder.iter().filter(|state| state.rung > failed);
                    prop_assert!(above.clone().all(|state| state.result == RungResult::Unreached), "{:?}", one.ladder);
                } else {
                    prop_assert!(one.ladder.iter().all(|state| state.result != RungResult::Unreached), "{:?}", one.ladder);
                }
                prop_assert!(!one.sentence.is_empty());
            }
        }
    }
}

#[test]
fn a_seat_that_does_not_exist_has_no_diagnosis() {
    let facts = Facts::gather(1.0, places(), &[]);
    assert_eq!(doctor(&facts, Some("instance-9"), None), None);
    assert_eq!(doctor(&facts, Some("instance-0"), Some("instance-9")), None);
    let nothing_heard = doctor(&facts, None, None).unwrap();
    assert!(nothing_heard.ok && nothing_heard.diagnosis.is_empty());
    assert_eq!(doctor(&facts, Some("instance-0"), None).unwrap().diagnosis[0].cause, "not-heard");
}

fn at_home(session: Session) -> Observed {
    let machine =
        |seat: u8| Machine { mac: mac(seat), ips: vec![format!("10.98.0.{}", seat + 1)], ..Machine::default() };
    Observed { sessions: vec![session], machines: (0..4).map(machine).collect(), ..Observed::default() }
}

fn seen(host: &str, at: f64, former: &[&str], system: &str) -> Observed {
    at_home(Session {
        name: Some("game".into()),
        transport: "tcp".into(),
        instance_guid_wire: Some("01".repeat(16)),
        host_ip: Some(host.into()),
        host_system_id: Some(system.into()),
        former_hosts: former.iter().map(|id| (*id).to_owned()).collect(),
        certainty: Certainty::Announced,
        evidence: Some(Evidence { at, frame: 1, what: String::new(), node: None, port: None }),
        ..Session::default()
    })
}

fn merged(a: Observed, b: Observed) -> Facts {
    let (first, second) = (status("node-0", a, 1), status("node-1", b, 1));
    let words = [
        AgentWord { node: "node-0", status: Some(&first), silent_for: None },
        AgentWord { node: "node-1", status: Some(&second), silent_for: None },
    ];
    Facts::gather(1000.0, places(), &words)
}

#[test]
fn the_hosts_own_node_is_believed() {
    // Seat 1 is on node-0. The other node's word is newer and wrong about nothing but the name's end.
    let mut other = seen("10.98.0.1", 999.0, &[], "1");
    other.sessions[0].certainty = Certainty::GoneBySilence;
    let facts = merged(seen("10.98.0.1", 990.0, &[], "1"), other);
    let sessions = &facts.lans["party"].seen.sessions;
    assert_eq!(sessions.len(), 1);
    assert_eq!(
        (sessions[0].certainty, sessions[0].host_instance.as_deref()),
        (Certainty::Announced, Some("instance-0"))
    );
    assert_eq!(sessions[0].evidence.as_ref().unwrap().node.as_deref(), Some("node-0"));
}

#[test]
fn two_hosts_at_once_are_an_anomaly_and_a_migration_is_none() {
    let twice = merged(seen("10.98.0.1", 990.0, &[], "1"), seen("10.98.0.2", 995.0, &[], "2"));
    assert_eq!(twice.lans["party"].seen.anomalies[0].kind, "two-hosts-one-guid");
    assert_eq!(faults(&twice).iter().filter(|one| one.cause == "two-hosts").count(), 1);
    let moved = merged(seen("10.98.0.1", 990.0, &[], "1"), seen("10.98.0.2", 995.0, &["1"], "2"));
    assert!(moved.lans["party"].seen.anomalies.is_empty());
    assert_eq!(moved.lans["party"].seen.sessions[0].host_ip.as_deref(), Some("10.98.0.2"), "the newest of two homes");
    let long_ago = merged(seen("10.98.0.1", 500.0, &[], "1"), seen("10.98.0.2", 995.0, &[], "2"));
    assert!(long_ago.lans["party"].seen.anomalies.is_empty(), "an old word is no second host");
}

#[test]
fn an_agent_that_came_late_adds_nobody_twice() {
    let who = |id: &str, seat: u8, session: Option<&str>, at: f64| Player {
        id: id.to_owned(),
        name: session.map(|_| format!("player {seat}")),
        ip: Some(format!("10.98.0.{}", seat + 1)),
        session: session.map(str::to_owned),
        certainty: Certainty::Inferred,
        evidence: Some(Evidence { at, frame: 1, what: String::new(), node: None, port: None }),
        ..Player::default()
    };
    let system = |id: &str, session: Option<&str>| SystemPlayer {
        id: id.to_owned(),
        session: session.map(str::to_owned),
        ..SystemPlayer::default()
    };
    let mut early = seen("10.98.0.1", 990.0, &[], "1");
    early.players = vec![who("a1", 0, Some("game"), 980.0), who("a2", 1, Some("game"), 981.0)];
    early.system_players = vec![system("51", Some("game"))];
    // The home of the second seat, and of the host of a session that it cannot name: newer words, and fewer.
    let mut late = at_home(Session {
        transport: "tcp".into(),
        host_ip: Some("10.98.0.1".into()),
        certainty: Certainty::Inferred,
        evidence: Some(Evidence { at: 999.0, frame: 1, what: String::new(), node: None, port: None }),
        ..Session::default()
    });
    late.players = vec![who("a1", 0, None, 998.0), who("a2", 1, None, 999.0), who("a3", 2, None, 999.0)];
    late.system_players = vec![system("51", None)];
    let mut hostless = late.clone();
    hostless.sessions[0].host_ip = None;
    for (a, b) in
        [(early.clone(), late.clone()), (late, early.clone()), (early.clone(), hostless.clone()), (hostless, early)]
    {
        let facts = merged(a, b);
        let seen = &facts.lans["party"].seen;
        let names: Vec<_> = seen.sessions.iter().map(|session| session.name.as_deref()).collect();
        assert_eq!(names, [Some("game")]);
        let players: Vec<_> =
            seen.players.iter().map(|p| (p.id.as_str(), p.name.as_deref(), p.session.as_deref())).collect();
        // Whom nobody else knows is kept, and put into no session by guess.
        let want = [("a3", None, None), ("a1", Some("player 0"), Some("game")), ("a2", Some("player 1"), Some("game"))];
        assert_eq!(players, want);
        assert_eq!(seen.system_players.len(), 1);
    }
}

/// It left while its node's agent was being replaced: the new one has only the old one's word that it is in.
#[test]
fn what_an_agent_was_told_by_the_one_before_wins_over_nobody_who_saw() {
    let player = |certainty, what: &str| Player {
        id: "a1".to_owned(),
        ip: Some("10.98.0.1".to_owned()),
        session: Some("game".to_owned()),
        certainty,
        evidence: Some(Evidence { at: 980.0, frame: 1, what: what.to_owned(), node: None, port: None }),
        ..Player::default()
    };
    let seen_by = |player| {
        let mut one = seen("10.98.0.1", 990.0, &[], "1");
        one.players = vec![player];
        one
    };
    let told = || seen_by(player(Certainty::Announced, "CREATEPLAYER, seen by the agent before"));
    let saw = || seen_by(player(Certainty::GoneByMessage, "CREATEPLAYER"));
    let left = || seen_by(player(Certainty::GoneByMessage, "CREATEPLAYER, seen by the agent before"));
    let found = |a, b| merged(a, b).lans["party"].seen.players[0].certainty;
    assert_eq!([found(told(), saw()), found(saw(), told())], [Certainty::GoneByMessage; 2]);
    assert_eq!([found(told(), told())], [Certainty::Announced], "nobody knows better");
    assert_eq!([found(told(), left()), found(left(), told())], [Certainty::GoneByMessage; 2], "it saw this itself");
}
