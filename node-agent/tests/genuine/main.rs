//! Programs that share no line with this project, on ports of a real LAN between two nodes: Wine's DirectPlay joins the demo
//! game, Samba's nmbd says who it is, and the agents must see what those programs themselves say.
//!
//! `cargo xtask test --genuine` makes the Debian folder that they live in. A nightly test: not among the privileged ones.
#![expect(clippy::unwrap_used, reason = "tests, and helpers of tests")]

mod lan;
#[path = "../privileged/rig.rs"]
#[allow(dead_code, reason = "the privileged tests use the rest of it")]
mod rig;

use std::{fs::File, path::Path, process::Command, time::Duration};

use api::observe::{Certainty, Observed, Player};
use lan::{Lan, Peer};

/// Of the demo game (`demo-guest/src/session`).
const GAME: &str = "{4C4A3C91-7A52-4D0E-9B1F-6C6974746C65}";

fn player<'a>(observed: &'a Observed, name: &str) -> Option<&'a Player> {
    observed.players.iter().find(|player| player.name.as_deref() == Some(name))
}

/// `KEY=VALUE` of a line that a peer said; the last key goes to the end of the line.
fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!(" {key}=")).unwrap_or_else(|| panic!("no {key} in {line}"));
    if key == "name" { rest } else { rest.split(' ').next().unwrap() }
}

/// A GUID's text as the bytes on the wire.
fn wire(guid: &str) -> String {
    let digits: String = guid.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_lowercase();
    let octets: Vec<&str> = (0..16).map(|at| &digits[2 * at..2 * at + 2]).collect();
    [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map(|at| octets[at]).concat()
}

fn join(lan: &Lan, seat: u8, seconds: u32, name: &str) -> Peer {
    lan.peer(seat, &["wine", "/opt/peer.exe", "join", GAME, &seconds.to_string(), name])
}

#[test]
#[ignore = "genuine: run by `cargo xtask test --genuine`"]
fn wine_finds_joins_and_plays_the_demo_game_and_the_observer_sees_what_wine_says() {
    let lan = Lan::new(&[0, 1, 0, 1]);
    let _hosts = [lan.demo(0, 0), lan.demo(1, 1)];
    lan.until("the demo guests play", 0, |seen| {
        ["LOCO1068-1", "LOCO1068-2"].iter().all(|name| player(seen, name).is_some()) && seen.sessions.len() == 1
    });

    let mut wilma = join(&lan, 2, 3600, "Wilma");
    let found = wilma.says("FOUND");
    let created = wilma.says("CREATED");
    let listed = [wilma.says("PLAYER"), wilma.nth("PLAYER", 1), wilma.nth("PLAYER", 2)];
    // Both nodes: one sees Wine at its own tap, the other in the tunnel.
    for node in [0, 1] {
        let seen = lan.until("Wine's player", node, |seen| player(seen, "Wilma").is_some_and(|p| p.session.is_some()));
        let session = &seen.sessions[0];
        let guid = session.instance_guid_wire.clone().unwrap_or_default();
        assert_eq!((seen.sessions.len(), guid), (1, wire(value(&found, "instance"))), "node {node}");
        assert_eq!(session.app_guid_wire, Some(wire(GAME)));
        assert_eq!(session.name.as_deref(), Some(value(&found, "name")));
        assert_eq!(session.flags.as_deref(), Some(&*format!("0x{}", value(&found, "flags"))));
        assert_eq!(session.max_players.unwrap().to_string(), value(&found, "max"));
        for line in &listed {
            let seen = player(&seen, value(line, "name")).unwrap_or_else(|| panic!("{line}: {:#?}", seen.players));
            assert_eq!(seen.id, value(line, "id"), "{line}");
        }
        let wilma = player(&seen, "Wilma").unwrap();
        assert_eq!(wilma.id, value(&created, "id"));
        assert_eq!((wilma.ip.as_deref(), wilma.instance.as_deref()), (Some("10.98.0.3"), Some("instance-2")));
        assert_eq!((wilma.certainty, wilma.host), (Certainty::Announced, false));
        assert_eq!(session.host_instance.as_deref(), Some("instance-0"));
        assert_eq!(session.dialect, Some(11));
        assert!(seen.anomalies.is_empty(), "node {node}: {:#?}", seen.anomalies);
    }
    // The game itself took it as one of its own, and speaks with it.
    lan.demo_says(0, "LOCO players=3");
    wilma.says("HEARD");

    // A second one of Wine's, behind the other node's tap: Wine must see Wine, too.
    let fred = join(&lan, 3, 8, "Fred");
    let fred_id = value(&fred.says("CREATED"), "id").to_owned();
    wilma.says(&format!("SYSTEM type=0003 id={fred_id}"));
    wilma.says(&format!("HEARD from={fred_id}"));
    let seen = lan.until("a fourth player", 0, |seen| player(seen, "Fred").is_some());
    assert_eq!(player(&seen, "Fred").unwrap().id, fred_id);

    // One ends by itself, as every Wine does, without a message; the other one is killed, in the middle of a connection.
    // The host then says it to the rest, so a message is the last word on both.
    let left = |name: &'static str, first: &'static str| {
        move |seen: &Observed| {
            let mut left = seen.leave_order.iter().filter(|left| left.name == name);
            left.next().is_some_and(|left| left.evidence.starts_with(first))
        }
    };
    fred.says("CLOSED");
    lan.until("Fred is gone by FIN", 0, left("Fred", "TCP FIN"));
    wilma.kill();
    lan.until("Wilma is gone by what her machine's kernel says", 0, left("Wilma", "TCP "));

    // The same from the port's capture, as `loco observe` reads it.
    let file = lan.pcap(2);
    if let Some(keep) = std::env::var_os("LOCO_GENUINE_KEEP") {
        std::fs::copy(&file, Path::new(&keep).join("wine-demo.pcapng")).unwrap();
    }
    let read = offline(&file);
    assert_eq!(player(&read, "Wilma").unwrap().id, value(&created, "id"));
    assert_eq!(read.sessions[0].instance_guid_wire, Some(wire(value(&found, "instance"))));
    let order: Vec<_> = read.leave_order.iter().map(|left| left.name.as_str()).collect();
    assert_eq!(order, ["Fred", "Wilma"]);
}

/// What the model makes of a capture.
fn offline(file: &Path) -> Observed {
    let mut observer = observe::Observer::default();
    for record in capture::Reader::new(File::open(file).unwrap()).unwrap() {
        let record = record.unwrap();
        let ethernet = record.ethernet().unwrap();
        let (at, wire_len) = (record.at, u32::try_from(ethernet.bytes.len()).unwrap());
        let point = observe::Point::Wire;
        observer.frame(&observe::Frame { at, point, bytes: &ethernet.bytes, wire_len });
    }
    observer.finish();
    observer.observed()
}

#[test]
#[ignore = "genuine: run by `cargo xtask test --genuine`"]
fn wine_cannot_host_yet() {
    // The day that this fails the test above gets a session that Wine hosts and the demo guests join.
    let lan = Lan::new(&[0]);
    let host = lan.peer(0, &["wine", "/opt/peer.exe", "host", GAME, "1", "Wine's"]);
    assert_eq!(host.says("FAILED"), "FAILED call=Open(CREATE) result=80004001", "E_NOTIMPL");
}

#[test]
#[ignore = "genuine: run by `cargo xtask test --genuine`"]
fn sambas_names_and_workgroup_are_seen_on_both_nodes() {
    let lan = Lan::new(&[0, 1]);
    let config = "printf '[global]\\nnetbios name = SIDING\\nworkgroup = LOCOTOWN\\nserver string = a shed\\n\
                  disable netbios = no\\nlocal master = yes\\npreferred master = yes\\nos level = 65\\n' > /etc/samba/smb.conf\n\
                  mkdir -p /run/samba && exec nmbd --foreground --no-process-group --debug-stdout";
    let _nmbd = lan.peer_as(0, "0", &["sh", "-c", config]);
    for node in [0, 1] {
        let named = |seen: &Observed| {
            seen.machines.iter().any(|machine| {
                machine.instance.as_deref() == Some("instance-0")
                    && machine.name.as_deref() == Some("SIDING")
                    && machine.workgroup.as_deref() == Some("LOCOTOWN")
                    && machine.ips == ["10.98.0.1"]
            })
        };
        lan.until("Samba's name", node, named);
    }
    // Nobody else is there, so it becomes the segment's master browser, after its elections.
    let browsing = |seen: &Observed| {
        let host = seen.netbios.hosts.iter().find(|host| host.name == "SIDING");
        host.is_some_and(|host| serde_json::to_string(host).unwrap().contains("a shed"))
    };
    lan.until("its announcement", 1, browsing);
    // Samba's own tool on the other port finds it: the LAN carries what the model shows.
    let asking = "until nmblookup -B 10.98.0.255 SIDING; do sleep 1; done";
    let lookup = lan.peer(1, &["sh", "-c", asking]);
    lookup.says("10.98.0.1 SIDING<00>");
}

/// So that a missing folder is told with the way to get it.
fn folder() -> std::path::PathBuf {
    let root = std::env::var_os("LOCO_GENUINE_ROOT").expect("run by `cargo xtask test --genuine`, which sets it");
    root.into()
}

/// Long enough for Wine on a busy machine, which starts a dozen programs of its own.
const PATIENCE: Duration = Duration::from_secs(120);

fn shell(line: &str) {
    let status = Command::new("sh").args(["-ec", line]).status().unwrap();
    assert!(status.success(), "`{line}`: {status}");
}
