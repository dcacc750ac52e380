//! Each fact that a capture's JSON states.
use std::collections::BTreeSet;

use api::observe::{Certainty, Observed, Step};
use serde_json::{Value, json};

use crate::support::{facts, frames, observed};

fn of(name: &str) -> (Observed, Value, Value) {
    let observed = observed(&frames(name));
    let json = serde_json::to_value(&observed).unwrap();
    (observed, json, facts(name))
}

/// Every key of `want`'s objects is in `got`'s with the same value, row by row, in any order.
#[track_caller]
fn rows(got: &Value, want: &Value) {
    let (got, want) = (got.as_array().unwrap(), want.as_array().unwrap());
    assert_eq!(got.len(), want.len(), "{got:#?}");
    for row in want {
        let same = |got: &Value| row.as_object().unwrap().iter().all(|(key, value)| got[key] == *value);
        assert!(got.iter().any(same), "{row:#} is not in {got:#?}");
    }
}

#[test]
fn three_peers() {
    let (observed, got, mut want) = of("dplay4-3peer");
    let session = want["sessions"][0].as_object_mut().unwrap();
    // Flags as words, and the numbers of players in all answers: the last one counts.
    for words in ["keepalive", "migrate_host", "current_players_seen_in_replies"] {
        session.remove(words);
    }
    session.insert("current_players".to_owned(), json!(2));
    session.insert("transport".to_owned(), json!("tcp"));
    rows(&got["sessions"], &want["sessions"]);
    rows(&got["enumerations"], &want["enumerations"]);
    rows(&got["players"], &want["players"]);
    rows(&got["user_messages"], &want["user_messages"]);
    assert_eq!(got["join_order"], want["join_order"]);
    assert_eq!(
        got["leave_order"],
        json!([{"name": "Carol", "evidence": "TCP FIN, then DELETEPLAYER"}, {"name": "Bob", "evidence": "TCP FIN"}])
    );
    rows(
        &got["system_players"],
        &json!([
            {"id": "5e4126ff", "ip": "192.168.99.11", "dialect": 11, "host": true, "session": "Loco Town"},
            {"id": "5e4426e0", "ip": "192.168.99.12", "dialect": 11, "host": false, "session": "Loco Town"},
            {"id": "5e4626e2", "ip": "192.168.99.13", "dialect": 11, "host": false, "session": "Loco Town"},
        ]),
    );
    // As tshark counts them, but for the two CREATEPLAYER of which it makes something else.
    assert_eq!(
        got["dplay_commands"],
        json!({
            "ADDFORWARD": 1, "ADDFORWARDACK": 1, "ADDFORWARDREQUEST": 2, "CREATEPLAYER": 3, "DELETEPLAYER": 2,
            "ENUMSESSIONS": 2, "ENUMSESSIONSREPLY": 2, "PING": 4, "PINGREPLY": 4, "REQUESTPLAYERID": 4,
            "REQUESTPLAYERREPLY": 4, "SUPERENUMPLAYERSREPLY": 2,
        })
    );
    assert_eq!(observed.frames, 133);
    assert_eq!(observed.classes.values().sum::<u64>(), 133);
    assert_eq!(observed.anomalies, []);
    let certainty = |name: &str| {
        observed.players.iter().find(|player| player.name.as_deref() == Some(name)).map(|player| player.certainty)
    };
    assert_eq!(certainty("Alice"), Some(Certainty::Announced));
    assert_eq!(certainty("Bob"), Some(Certainty::GoneByFin));
    assert_eq!(certainty("Carol"), Some(Certainty::GoneByMessage));
}

#[test]
fn three_peers_step_by_step() {
    let (observed, ..) = of("dplay4-3peer");
    let steps = |mac: &str| {
        let timeline = observed.timelines.iter().find(|timeline| timeline.mac == mac).unwrap();
        assert_eq!(timeline.session.as_deref(), Some("Loco Town"));
        timeline.steps.iter().map(|step| (step.step, step.evidence.frame)).collect::<Vec<_>>()
    };
    let bob = [
        (Step::Frame, 1),
        (Step::Address, 1),
        (Step::Asks, 1),
        (Step::IsAnswered, 5),
        (Step::Linked, 8),
        (Step::PlayerId, 12),
        (Step::Joined, 16),
        (Step::Plays, 24),
    ];
    assert_eq!(steps("02:00:00:00:00:12"), bob);
    assert_eq!(steps("02:00:00:00:00:11"), [(Step::Frame, 2), (Step::Address, 2), (Step::Plays, 25)]);
    let machine = observed.machines.iter().find(|machine| machine.mac == "02:00:00:00:00:12").unwrap();
    assert_eq!(machine.ports_open, ["tcp/2300", "udp/2350"]);
    assert_eq!(machine.arp.get("192.168.99.13").map(String::as_str), Some("02:00:00:00:00:13"));
    let lag =
        observed.lags.iter().find(|lag| (lag.from.as_str(), lag.to.as_str()) == ("192.168.99.12", "192.168.99.11"));
    let lag = lag.expect("Bob's data was acknowledged by the host");
    // Frames 10 and 11 are 13 µs apart, 14 and 15 9 µs, …: the capture was made on the machine.
    assert!(lag.samples >= 8 && lag.rtt_ms.is_some_and(|rtt| (0.005..0.05).contains(&rtt)), "{lag:?}");
    assert!(lag.guest_ms.is_none() && lag.fabric_ms.is_none(), "one point does not tell them apart");
}

#[test]
fn rarer_messages() {
    let (observed, got, want) = of("syn-dplay4");
    let session = &got["sessions"][0];
    assert_eq!(got["sessions"].as_array().unwrap().len(), 1);
    for key in ["name", "max_players", "current_players", "host_ip"] {
        assert_eq!(session[key], want["sessions"][0][key], "{key}");
    }
    assert_eq!((session["flags"].as_str(), session["dialect"].as_u64()), (Some("0x00000044"), Some(9)));
    assert_eq!(session["host_system_id"], want["sessions"][0]["new_host_system_id"]);
    let renamed = observed.players.iter().find(|player| json!(player.id) == want["renamed"]["id"]).unwrap();
    assert_eq!(
        (json!(renamed.name), json!(renamed.long)),
        (want["renamed"]["short"].clone(), want["renamed"]["long"].clone())
    );
    assert_eq!(got["leave_order"], json!([{"name": "Bob", "evidence": "DELETEPLAYER"}]));
    assert_eq!(want["deleted_player"], json!(renamed.id));
    assert_eq!(got["chat"], json!([{"from": "Bob", "text": want["chat"]}]));
    assert_eq!(json!(observed.dplay_commands.get("PACKET2_DATA")), want["packet2"]["parts"]);
    rows(&got["user_messages"], &json!([{"src": "10.98.0.1", "dst": "10.98.0.2", "udp": want["raw_udp"], "tcp": 0}]));
    assert_eq!(observed.dplay_commands.get("PING"), Some(&1), "in a frame of the DirectPlay protocol");
}

#[test]
fn a_tunnel() {
    let (observed, got, want) = of("dosbox-ipxnet");
    assert_eq!(got["ipxnet"]["server"], want["server"]);
    assert_eq!(got["ipxnet"]["registrations"], want["registrations"]);
    rows(&got["ipxnet"]["clients"], &want["clients"]);
    let nodes: BTreeSet<_> = observed.ipx.stations.iter().map(|station| station.node.as_str()).collect();
    let own = want["server_own_node"].as_str().unwrap();
    assert_eq!(nodes, BTreeSet::from(["c0a8620c8fed", "c0a8620dc9d2", own]));
    assert!(observed.ipx.stations.iter().all(|station| station.mac.is_none() && station.framing.is_none()));
    assert_eq!(got["ipx"]["framings"], json!({"ethernet_ii": 0, "raw_802_3": 0, "llc": 0, "snap": 0}));
    assert_eq!(observed.classes.get("icmp"), Some(&20));
    assert_eq!(observed.anomalies, []);
    assert!(observed.sessions.is_empty() && observed.user_messages.is_empty());
}

#[test]
fn names() {
    let (observed, got, want) = of("netbios-nmbd");
    for host in want["hosts"].as_array().unwrap() {
        let mut row = host.clone();
        let row = row.as_object_mut().unwrap();
        assert!(row.remove("left_at_frame").is_some());
        row.remove("role");
        row.insert("left".to_owned(), json!(true));
        row.insert("workgroup".to_owned(), want["workgroup"].clone());
        let same = |got: &&Value| row.iter().all(|(key, value)| got[key] == *value);
        assert!(got["netbios"]["hosts"].as_array().unwrap().iter().any(|got| same(&got)), "{row:#?} {got:#}");
    }
    assert_eq!(observed.netbios.hosts.len(), 2, "neither the workgroup's names nor NICHTDA are hosts");
    let machine = observed.machines.iter().find(|machine| machine.ips == ["192.168.98.12"]).unwrap();
    assert_eq!((machine.name.as_deref(), machine.workgroup.as_deref()), (Some("LOCOKID1"), Some("LOCOLAN")));
    assert!(observed.timelines.iter().any(|timeline| {
        timeline.mac == machine.mac
            && timeline.steps.iter().any(|step| step.step == Step::Name && step.evidence.frame == 22)
    }));
    // Before the end they were there.
    let before = crate::support::observed(&frames("netbios-nmbd")[..77]);
    assert!(before.netbios.hosts.iter().all(|host| !host.left));
}

#[test]
fn four_framings() {
    let (observed, got, want) = of("syn-ipx-eth");
    assert_eq!(got["ipx"]["framings"], json!({"ethernet_ii": 2, "raw_802_3": 2, "llc": 5, "snap": 2}));
    rows(&got["ipx"]["sap"], &json!([want["sap"]]));
    let [session] = &observed.sessions[..] else { panic!("{:?}", observed.sessions) };
    assert_eq!((json!(session.name), session.transport.as_str()), (want["dplay_session"].clone(), "ipx"));
    assert_eq!(session.host_ipx.as_deref(), Some("00000000:020000000001"));
    rows(&got["enumerations"], &json!([{"ip": "00000000:020000000002", "count": 4, "answered_by": ["IPX Stadt"]}]));
    rows(
        &got["netbios"]["hosts"],
        &json!([{"name": want["nbipx"], "node": "020000000002", "suffixes": ["00"], "left": false}]),
    );
    rows(
        &got["ipx"]["stations"],
        &json!([
            {"node": "020000000001", "mac": "02:00:00:00:00:01", "framing": "snap"},
            {"node": "020000000002", "mac": "02:00:00:00:00:02", "framing": "llc"},
            {"node": "020000000009", "mac": "02:00:00:00:00:09", "framing": "llc"},
        ]),
    );
}
