//! The merge: directory + what each agent last said -> what the page and the API show. Pure, but for the task at the end.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{
    agent::{InstanceStatus, State},
    gateway::{Instance, LiveInstances, LiveStats, Wall},
};
use directory::Directory;
use doctor::Facts;
use model::{PlacedInstance, Snapshot};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use crate::{
    agents::{AgentView, AgentViews, now},
    discovery::on_wall,
    lan::{Kept, connectivity::Meter, merge as lan},
};

/// Changes within this time go out as one event.
const COALESCE: Duration = Duration::from_millis(100);
/// The same at most with many instances, where putting a wall together takes longer. What a person sees within a second has
/// this, and the time to find out, and the time to send it.
const COALESCE_MANY: Duration = Duration::from_millis(600);
/// Putting walls together takes at most one part in so many of the time, up to that.
const SHARE: u32 = 8;
/// An event goes out at least this often, so that a reader knows that the gateway lives.
const BEAT: Duration = Duration::from_secs(2);

/// Everything that is shown, at one moment, and what it was made of.
pub fn merge(
    directory: &Directory,
    mode: &str,
    agents: &AgentViews,
    active: &[String],
    at: f64,
    meter: &mut Meter,
) -> (Wall, Facts) {
    let snapshot = &directory.snapshot;
    let instances: Vec<Instance> =
        snapshot.instances().filter_map(|placed| instance(snapshot, placed, agents, at)).collect();
    let facts = lan::facts(snapshot, agents, at, meter);
    let lan = lan::status(snapshot, agents, &instances, &facts, meter);
    (Wall { at, directory: on_wall(directory, mode), instances, lan, active: active.to_vec() }, facts)
}

fn instance(snapshot: &Snapshot, placed: &PlacedInstance, agents: &AgentViews, at: f64) -> Option<Instance> {
    // A checked snapshot always has the LAN and the seat; were it ever not so, the instance has no identity to show.
    let identity = snapshot.identity(placed)?;
    let agent = agents.get(&placed.node);
    let status = agent.and_then(|view| status_of(view, placed)).map(shown);
    Some(Instance {
        id: placed.id.to_string(),
        name: format!("Seat {}", placed.seat.0 + 1),
        lan: placed.lan.to_string(),
        seat: placed.seat.0,
        node: placed.node.to_string(),
        mac: identity.mac.to_string(),
        ip: identity.ip.to_string(),
        state: status.as_ref().map_or(State::Starting, |s| s.state),
        agent_silent_for: agent.and_then(|view| view.silent_for(at)),
        status,
    })
}

/// Classes, pairs and the stream's lag are shown merged, in the LAN status: said twice they would make up half of every event.
fn shown(status: &Arc<InstanceStatus>) -> Arc<InstanceStatus> {
    if status.stream.is_none() && status.classes.is_empty() && status.pairs.is_empty() {
        return Arc::clone(status);
    }
    let whole = InstanceStatus::clone(status);
    Arc::new(InstanceStatus { stream: None, classes: BTreeMap::new(), pairs: Vec::new(), ..whole })
}

fn status_of<'a>(view: &'a AgentView, placed: &PlacedInstance) -> Option<&'a Arc<InstanceStatus>> {
    view.status.as_deref()?.instances.iter().find(|status| status.id == placed.id.as_str())
}

/// `/api/instances/live`.
pub fn live(wall: &Wall, agents: &AgentViews, mode: &str) -> LiveInstances {
    let mut stats = LiveStats::default();
    for instance in &wall.instances {
        stats.total += 1;
        match (instance.state, instance.agent_silent_for) {
            (State::Live, None) => stats.ready += 1,
            (State::Live, Some(_)) | (State::Recovering, _) => stats.degraded += 1,
            _ => stats.not_ready += 1,
        }
    }
    LiveInstances {
        mode: mode.to_owned(),
        last_update: agents.values().filter_map(|view| view.heard_at).reduce(f64::max),
        stats,
        instances: wall.instances.clone(),
    }
}

/// Keeps the merged wall: a new one on every change (coalesced) and every two seconds.
pub fn start(
    mut directory: watch::Receiver<Directory>,
    mode: &'static str,
    mut agents: watch::Receiver<AgentViews>,
    mut active: watch::Receiver<Vec<String>>,
    kept: Kept,
) -> watch::Receiver<Arc<Wall>> {
    let mut meter = Meter::default();
    let (wall, facts) = merge(&directory.borrow(), mode, &agents.borrow(), &active.borrow(), now(), &mut meter);
    kept.set_facts(facts);
    let (sender, receiver) = watch::channel(Arc::new(wall));
    tokio::spawn(async move {
        let mut took = Duration::ZERO;
        loop {
            tokio::select! {
                changed = directory.changed() => if changed.is_err() { return },
                changed = agents.changed() => if changed.is_err() { return },
                changed = active.changed() => if changed.is_err() { return },
                () = time::sleep(BEAT) => {}
            }
            tokio::select! {
                () = time::sleep((took * SHARE).clamp(COALESCE, COALESCE_MANY)) => {}
                // Who is there is shown sooner than what moves: its source has waited for what comes with it.
                _ = directory.changed() => time::sleep(COALESCE).await,
            }
            let began = Instant::now();
            // Cloned, so that no agent's word waits for the merge: statuses are behind `Arc`s.
            let (directory, agents) = (directory.borrow_and_update().clone(), agents.borrow_and_update().clone());
            let (wall, facts) = merge(&directory, mode, &agents, &active.borrow_and_update(), now(), &mut meter);
            kept.with_history(|history| history.record(&wall.lan, &wall.instances));
            kept.set_facts(facts);
            sender.send_replace(Arc::new(wall));
            took = began.elapsed();
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use api::{
        agent::{AgentStatus, LanOnNode, Viewers},
        lan::Reachability,
    };

    use super::*;

    fn directory() -> Directory {
        let text = r#"{"version":1,"lans":[{"name":"party","vni":4200,"mode":"vxlan","subnet":"10.98.0.0/24","seats":9}],
            "nodes":[{"name":"node-a","underlay_ip":"10.99.0.11","agent_url":"u"},{"name":"node-b","underlay_ip":"10.99.0.12","agent_url":"u"}],
            "instances":[{"id":"instance-0","lan":"party","seat":0,"node":"node-a"},{"id":"instance-1","lan":"party","seat":1,"node":"node-b"}]}"#;
        Directory {
            snapshot: Arc::new(api::snapshot::parse(text).unwrap()),
            loaded_at: Some(1.0),
            ..Directory::default()
        }
    }

    fn status(id: &str, node: &str, state: State) -> InstanceStatus {
        InstanceStatus {
            id: id.into(),
            lan: "party".into(),
            seat: 0,
            node: node.into(),
            mac: String::new(),
            ip: [10, 98, 0, 1].into(),
            host_name: String::new(),
            state,
            since: 0.0,
            detail: None,
            link: Some(true),
            address_in_use: Some([10, 98, 0, 1].into()),
            counters: None,
            picture: None,
            accelerator: None,
            qemu_pid: None,
            runner_pid: None,
            lease: None,
            viewers: Viewers::default(),
            stream: None,
            classes: BTreeMap::new(),
            pairs: Vec::new(),
        }
    }

    fn view(node: &str, id: &str, mode: Option<&str>, connected: bool) -> AgentView {
        let status = AgentStatus {
            node: node.into(),
            pid: 1,
            version: String::new(),
            at: 10.0,
            instances: vec![Arc::new(status(id, node, State::Live))],
            lans: vec![LanOnNode {
                name: "party".into(),
                vni: 4200,
                mode: mode.map(Into::into),
                encryption: None,
                seats: 9,
            }],
            reachability: vec![Reachability {
                from: node.into(),
                to: "instance-0".into(),
                lan: "party".into(),
                reachable: true,
                rtt_ms: Some(0.4),
                last_seen: Some(10.0),
                asked: 4,
                answered: 3,
            }],
            fabric_problems: vec![],
            tunnel: None,
            snapshot_problem: None,
            foreign: Vec::new(),
            observed: BTreeMap::new(),
            observer: None,
        };
        AgentView { url: "u".into(), heard_at: Some(10.0), connected, status: Some(Arc::new(status)), problem: None }
    }

    fn agents(views: impl IntoIterator<Item = (&'static str, AgentView)>) -> AgentViews {
        views.into_iter().map(|(node, view)| (node.parse().unwrap(), view)).collect()
    }

    #[test]
    fn an_instance_that_no_agent_spoke_of_is_starting() {
        let agents = agents([("node-a", view("node-a", "instance-0", Some("vxlan"), true))]);
        let (wall, _) = merge(&directory(), "file", &agents, &[], 10.5, &mut Meter::default());
        let states: Vec<_> = wall.instances.iter().map(|i| (i.id.as_str(), i.state)).collect();
        assert_eq!(states, [("instance-0", State::Live), ("instance-1", State::Starting)]);
        assert_eq!(wall.instances[1].ip, "10.98.0.2");
        assert_eq!(wall.lan.network_mode.as_deref(), Some("vxlan"));
        assert_eq!(wall.lan.connectivity[0].loss, Some(0.25));
        let counts = live(&wall, &agents, "file").stats;
        assert_eq!((counts.total, counts.ready, counts.degraded, counts.not_ready), (2, 1, 0, 1));
    }

    #[test]
    fn a_silent_agents_ports_are_not_shown_as_the_present() {
        let agents = agents([("node-a", view("node-a", "instance-0", Some("vxlan"), false))]);
        let (wall, _) = merge(&directory(), "file", &agents, &[], 14.0, &mut Meter::default());
        assert_eq!(wall.instances[0].agent_silent_for, Some(4.0));
        assert_eq!(wall.lan.instances["instance-0"].link, None);
        assert_eq!(wall.lan.instances["instance-0"].ip, None);
        assert_eq!(wall.lan.network_mode, None);
        assert!(wall.lan.connectivity.is_empty());
        assert_eq!(live(&wall, &agents, "file").stats.degraded, 1);
    }

    #[test]
    fn the_mode_is_what_the_kernels_say() {
        let mode = |a, b| {
            let agents = agents([
                ("node-a", view("node-a", "instance-0", a, true)),
                ("node-b", view("node-b", "instance-1", b, true)),
            ]);
            merge(&directory(), "file", &agents, &[], 10.0, &mut Meter::default()).0.lan.network_mode
        };
        assert_eq!(mode(Some("vxlan"), Some("vxlan")).as_deref(), Some("vxlan"));
        assert_eq!(mode(Some("vxlan"), Some("user")).as_deref(), Some("mixed"));
        assert_eq!(mode(None, None), None);
    }
}
