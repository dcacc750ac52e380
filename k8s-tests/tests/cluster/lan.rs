//! The segment: what guests of different nodes send each other, and what the wall says of it.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use api::{
    MOVED_TO,
    agent::State,
    lan::LanRole,
    observe::{Player, Session},
};
use tokio::time::{Instant, sleep};

use crate::harness::{
    LANS_SEATS, LONG, SOON, Wall,
    commands::{kubectl, run},
    measured,
    peers::{Peers, RATE},
    scenario, scenario_undone, until,
};

/// Frames of one class at a port, as an agent's metrics have them.
fn tap_frames(metrics: &str, instance: &str, class: &str, direction: &str) -> u64 {
    let line = metrics.lines().find(|line| {
        line.starts_with("loco_tap_frames_total{")
            && line.contains(&format!("instance=\"{instance}\""))
            && line.contains(&format!("class=\"{class}\""))
            && line.contains(&format!("direction=\"{direction}\""))
    });
    // A count of frames is written without a fraction.
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

/// The classes that the peers' kinds are counted under at the taps.
const CLASSES: [&str; 9] = [
    "other",
    "arp",
    "dplay_udp",
    "dplay_tcp",
    "dplay_query",
    "ipx_ethernet_ii",
    "ipx_raw_802_3",
    "ipx_llc",
    "ipx_snap",
];

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn frames_of_every_kind_cross_nodes_and_are_counted_at_the_taps() {
    scenario("lan-frames", async |wall| {
        let peers = Peers::on_each_node(wall).await?;
        let places = wall.places().await?;
        let reports = peers.reports().await?;
        let nodes: BTreeSet<String> =
            wall.instances().await?.into_iter().filter(|i| i.lan == "probe").map(|i| i.node).collect();
        ensure!(nodes.len() == places.len(), "the peers are on {nodes:?}, so frames need not cross nodes");
        let at_taps = async || -> Result<BTreeMap<(String, &str, &str), u64>> {
            let mut text = String::new();
            for place in &places {
                text.push_str(&wall.agent_metrics(place).await?);
            }
            let mut counts = BTreeMap::new();
            for name in &peers.names {
                for class in CLASSES {
                    for direction in ["tx", "rx"] {
                        counts.insert((name.clone(), class, direction), tap_frames(&text, name, class, direction));
                    }
                }
            }
            Ok(counts)
        };
        let before = at_taps().await?;
        peers.flow(RATE).await?;
        until(SOON, "100 frames of each kind from each peer", async || {
            for report in peers.reports().await? {
                ensure!(report.sent.len() >= 11, "{} sends {} kinds", report.instance, report.sent.len());
                let slowest = report.sent.iter().map(|row| row.frames).min().unwrap_or(0);
                ensure!(slowest >= 100, "{} has sent {slowest}", report.instance);
            }
            Ok(())
        })
        .await?;
        let all = peers.nothing_lost().await?;
        measured("lan-frames", "frames of 11 kinds that arrived, none lost or doubled", all, "frames");
        // The eBPF program at each tap saw at least what the peer counted itself. Counters are published in steps.
        let counted = peers.reports().await?;
        until(SOON, "the taps' counts", async || {
            let after = at_taps().await?;
            for report in &counted {
                let sent: u64 = report.sent.iter().map(|row| u64::from(row.frames)).sum();
                let came: u64 = report.received.iter().map(|row| u64::from(row.frames)).sum();
                for (direction, told) in [("tx", sent), ("rx", came)] {
                    let at_tap: u64 = CLASSES
                        .iter()
                        .map(|class| {
                            let key = (report.instance.clone(), *class, direction);
                            after[&key].saturating_sub(before[&key])
                        })
                        .sum();
                    ensure!(at_tap >= told, "{} {direction}: the tap has {at_tap}, the peer {told}", report.instance);
                }
                for class in CLASSES {
                    let key = (report.instance.clone(), class, "rx");
                    ensure!(after[&key] > before[&key], "no {class} was counted at the tap of {}", report.instance);
                }
            }
            Ok(())
        })
        .await?;
        let strays: u64 = counted.iter().map(|report| report.strays).sum();
        measured("lan-frames", "frames for one that came to another", strays, "frames");
        ensure!(reports.len() == peers.names.len());
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn dhcp_gives_each_seat_its_own_identity() {
    scenario("dhcp-identity", async |wall| {
        let peers = Peers::on_each_node(wall).await?;
        let reports = peers.reports().await?;
        let mut addresses = BTreeSet::new();
        for (index, report) in reports.iter().enumerate() {
            let (port, lease) = (report.port.as_ref().context("no port")?, report.lease.as_ref().context("no lease")?);
            ensure!(usize::from(port.seat) == index, "{} sits on seat {}", report.instance, port.seat);
            ensure!(port.lan == "probe", "{} is on LAN {}", report.instance, port.lan);
            ensure!(lease.ip == port.ip, "{}: DHCP gave {}, the seat is {}", report.instance, lease.ip, port.ip);
            ensure!(lease.ip.octets() == [10, 98, 1, u8::try_from(index)? + 1], "{} has {}", report.instance, lease.ip);
            ensure!(lease.host_name.as_deref() == Some(&port.host_name), "the name is {:?}", lease.host_name);
            ensure!(addresses.insert(lease.ip), "{} was given twice", lease.ip);
        }
        // And the wall says the same, from what was seen.
        until(SOON, "the addresses in lan-status", async || {
            let status = wall.lan_status().await?;
            for report in &reports {
                let known = status.instances.get(&report.instance).context("not in lan-status")?;
                let lease = report.lease.as_ref().context("no lease")?;
                ensure!(known.ip == Some(lease.ip), "{}: {:?}", report.instance, known.ip);
            }
            Ok(())
        })
        .await
    })
    .await;
}

/// Waits until nine guests play in one session, and checks that they are on several nodes and one of them is its host.
pub(crate) async fn one_session_over_nodes(wall: &Wall) -> Result<()> {
    let status = until(LONG, "nine players in `Loco Party`", async || {
        let status = wall.lan_status().await?;
        // Agents tell of the games before as well, and of who was in them.
        let open = |it: &&Session| it.name.as_deref() == Some("Loco Party") && it.certainty.is_alive();
        let open = status.sessions.iter().filter(open).count();
        ensure!(open == 1, "{open} sessions of that name: {:?}", status.sessions);
        // Those that were seen to be made, not what the host says of itself.
        let plays = |it: &&Player| it.session.as_deref() == Some("Loco Party") && it.certainty.is_alive();
        let players = status.players.iter().filter(plays).count();
        ensure!(players == LANS_SEATS, "{players} players");
        let joined = status.instances.values().filter(|instance| {
            let role = instance.directplay.as_ref().map(|dplay| dplay.role);
            instance.lan == "party" && matches!(role, Some(LanRole::Host | LanRole::Joined))
        });
        ensure!(joined.count() == LANS_SEATS, "not everybody is a player: {:?}", status.players);
        Ok(status)
    })
    .await?;
    let nodes: BTreeSet<_> = status.instances.values().filter(|i| i.lan == "party").map(|i| i.node.as_str()).collect();
    ensure!(nodes.len() >= 2, "all players are on {nodes:?}: nothing crossed a node");
    let hosts = status
        .instances
        .values()
        .filter(|instance| instance.directplay.as_ref().is_some_and(|dplay| dplay.role == LanRole::Host));
    ensure!(hosts.count() == 1, "one of them is the host");
    Ok(())
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn nine_guests_form_one_directplay_session_over_nodes() {
    scenario("directplay", one_session_over_nodes).await;
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn lan_status_says_what_was_measured() {
    scenario("lan-status", async |wall| {
        let nodes = wall.places().await?;
        until(LONG, "a LAN on which everybody reaches everybody", async || {
            let status = wall.lan_status().await?;
            ensure!(status.network_mode.as_deref() == Some("vxlan"), "the mode is {:?}", status.network_mode);
            for instance in status.instances.values().filter(|instance| instance.lan == "party") {
                ensure!(instance.link.as_deref() == Some("up"), "a link is {:?}", instance.link);
                ensure!(instance.ip.is_some(), "{} has no address", instance.mac);
                ensure!(
                    instance.counters.is_some_and(|c| c.tx_frames > 0 && c.rx_frames > 0),
                    "{:?}",
                    instance.counters
                );
            }
            // Each node asks each guest over the segment: also those of other nodes.
            for node in &nodes {
                for seat in 0..LANS_SEATS {
                    let to = format!("instance-{seat}");
                    let row = status.connectivity.iter().find(|row| row.from == node.name && row.to == to);
                    let row = row.with_context(|| format!("{} never asked {to}", node.name))?;
                    ensure!(row.reachable, "{} does not reach {to}", node.name);
                    ensure!(row.rtt_ms.is_some(), "{} to {to} has no time", node.name);
                }
            }
            // The peers speak all framings at once, which the doctor rightly finds odd.
            let complaint = status.diagnosis.iter().find(|diagnosis| diagnosis.from.starts_with("instance-"));
            ensure!(complaint.is_none(), "the doctor complains: {complaint:?}");
            Ok(())
        })
        .await
    })
    .await;
}

/// The pod that goes to the other LAN and comes home again.
const MOVED: &str = "instance-3";
/// A seat of the LAN `probe` on which no test peer sits.
const AWAY: u8 = 7;
/// Frames are counted for so long: a game's players tell each other something several times a second.
const LISTEN: Duration = Duration::from_secs(5);
/// Until all that came before is in an agent's metrics: it reads the counters of the kernel, and tells them, once a second each.
const COUNTED: Duration = Duration::from_secs(3);

/// The gateway has the pod at this seat, and its node says that its port is there, has a link, and its picture is live.
async fn live_at(wall: &Wall, lan: &str, seat: u8) -> Result<()> {
    let instances = wall.instances().await?;
    let guest = instances.iter().find(|instance| instance.id == MOVED).context("it is no instance")?;
    ensure!((guest.lan.as_str(), guest.seat) == (lan, seat), "{MOVED} is on seat {} of {}", guest.seat, guest.lan);
    let node = guest.status.as_deref().context("its node says nothing")?;
    ensure!((node.lan.as_str(), node.seat) == (lan, seat), "its node has it on seat {} of {}", node.seat, node.lan);
    ensure!(node.link == Some(true) && node.state == State::Live, "{:?}, link {:?}", node.state, node.link);
    Ok(())
}

/// Who the pod is, and how often its containers were started.
async fn pod_itself(wall: &Wall) -> Result<(Option<String>, i32)> {
    let pod = wall.pods().get(MOVED).await?;
    let containers = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
    Ok((pod.metadata.uid, containers.iter().map(|container| container.restart_count).sum()))
}

/// Frames of the game that come to the pod's tap within [`LISTEN`].
async fn game_heard(wall: &Wall) -> Result<u64> {
    let came = async || -> Result<u64> {
        let mut text = String::new();
        for place in wall.places().await? {
            text.push_str(&wall.agent_metrics(&place).await?);
        }
        Ok(["dplay_udp", "dplay_tcp", "dplay_query"].map(|class| tap_frames(&text, MOVED, class, "rx")).iter().sum())
    };
    let before = came().await?;
    sleep(LISTEN).await;
    Ok(came().await?.saturating_sub(before))
}

/// `note`: what `kubectl annotate` is told.
async fn annotate(wall: &Wall, note: &str) -> Result<()> {
    run(kubectl().args(["-n", &wall.namespace, "annotate", "--overwrite", "pod", MOVED, note])).await.map(drop)
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn a_guest_goes_to_another_lan_and_comes_home_and_its_pod_is_not_restarted() {
    let away = async |wall: &Wall| {
        one_session_over_nodes(wall).await?;
        let pod = pod_itself(wall).await?;
        let at_home = game_heard(wall).await?;
        ensure!(at_home > 0, "{MOVED} hears nothing of the game that it is in");

        let begin = Instant::now();
        annotate(wall, &format!("{MOVED_TO}=probe/{AWAY}")).await?;
        until(SOON, "the guest in the other LAN", async || live_at(wall, "probe", AWAY).await).await?;
        measured("move", "annotated, until it is live in the other LAN", took(begin)?, "ms");
        sleep(COUNTED).await;
        let leaked = game_heard(wall).await?;
        measured("move", "frames of its old game that came in 5 s: at home", at_home, "frames");
        measured("move", "… in the other LAN", leaked, "frames");
        ensure!(leaked == 0, "{leaked} frames of LAN party came to {MOVED}, which is in LAN probe");

        let begin = Instant::now();
        annotate(wall, &format!("{MOVED_TO}-")).await?;
        until(SOON, "the guest at home", async || live_at(wall, "party", 3).await).await?;
        measured("move", "without the annotation, until it is live at home", took(begin)?, "ms");
        one_session_over_nodes(wall).await?;
        measured("move", "… until it plays with the others again", took(begin)?, "ms");
        let now = pod_itself(wall).await?;
        ensure!(now == pod, "the pod was {pod:?} and is {now:?}: it was started anew");
        Ok(())
    };
    scenario_undone("move", away, async |wall| {
        annotate(wall, &format!("{MOVED_TO}-")).await?;
        until(SOON, "the guest at home", async || live_at(wall, "party", 3).await).await
    })
    .await;
}

fn took(begin: Instant) -> Result<u64> {
    Ok(begin.elapsed().as_millis().try_into()?)
}
