//! Who looks at what the agent's own switch moves: the counts and events that taps have from eBPF, and the ring of the last frames.
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use capture::{Source, write::Direction};
use model::{InstanceId, LanName};
use switch::{Sight, Way};
use traffic::SoftTraffic;

/// On the switch's thread: a frame costs a classification and two copies at most.
pub(crate) struct Eyes {
    pub(crate) traffic: SoftTraffic,
    /// `None`: this node captures nothing.
    pub(crate) captures: Option<Arc<Source>>,
    /// For a frame whose passwords are to be made zero.
    pub(crate) copy: Vec<u8>,
}

const fn way(way: Way) -> traffic::Way {
    match way {
        Way::In => traffic::Way::In,
        Way::Out => traffic::Way::Out,
    }
}

impl Sight for Eyes {
    fn keep(&mut self, ports: &BTreeSet<InstanceId>, lans: &BTreeSet<LanName>) {
        self.traffic.keep(ports, lans);
        if let Some(captures) = &self.captures {
            captures.set_fed(ports.iter().map(ToString::to_string).collect());
        }
    }

    fn guest(&mut self, instance: &InstanceId, direction: Way, frame: &[u8]) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.traffic.guest(at, instance, way(direction), frame);
        if let Some(captures) = &self.captures {
            self.copy.clear();
            self.copy.extend_from_slice(frame);
            let direction = match direction {
                Way::In => Direction::Outbound,
                Way::Out => Direction::Inbound,
            };
            captures.feed(instance.as_str(), at, direction, &mut self.copy);
        }
    }

    fn node(&mut self, lan: &LanName, direction: Way, frame: &[u8]) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.traffic.node(at, lan, way(direction), frame);
    }

    fn tick(&mut self) {
        self.traffic.publish();
    }
}
