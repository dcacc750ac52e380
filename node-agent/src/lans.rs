//! The LANs of this node, whatever joins their guests: the kernel's devices (`crates/fabric`), the agent's own switch
//! (`crates/switch`), or nothing but QEMU.
//!
//! ```text
//!            ┌ vxlan, macvlan ─> fabric (needs capabilities; absent where no LAN is of such a mode) ─┐
//!  spec ─────┼ socket ─────────> switch (needs none) ───────────────────────────────────────────────┼─> one FabricStatus
//!            └ user ───────────> nobody: the guest is alone ────────────────────────────────────────┘
//! ```
//! **Invariant.** A mode is told only as it was read back: of the kernel's devices, or of the switch that has the LAN. That of a LAN of
//! mode `user` is its QEMUs' to tell (`status`).
use std::{os::fd::OwnedFd, sync::Arc};

use fabric::{
    Encryption, Fabric, FabricError, FabricSpec, FabricStatus, LanSpec, LanStatus, OpenPort, PeerStatus, PortStatus,
    full_frame_problems,
};
use model::{InstanceId, NetworkMode};
use switch::{Sight, Switch, SwitchConfig, SwitchError, SwitchStatus};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Dropping it ends the switch's and the fabric's threads and changes nothing in the kernel.
#[derive(Debug)]
pub(crate) struct Lans {
    fabric: Option<Arc<Fabric>>,
    switch: Arc<Switch>,
    encrypts: bool,
    spec: watch::Sender<Arc<FabricSpec>>,
    status: watch::Receiver<FabricStatus>,
    /// Never read where there is no fabric; it keeps the channel open.
    _no_kernel: watch::Sender<FabricStatus>,
    _merging: AbortOnDropHandle<()>,
}

impl Lans {
    /// `told` gets the status; `fabric`: `None` where no LAN needs the kernel; `encrypts`: no frame may leave the node in the clear.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) async fn start(
        fabric: Option<Arc<Fabric>>,
        config: SwitchConfig,
        encrypts: bool,
        sight: Box<dyn Sight>,
        told: watch::Sender<FabricStatus>,
    ) -> Result<Self, SwitchError> {
        let switch = Arc::new(Switch::start(config, sight).await?);
        let (no_kernel, nothing) = watch::channel(FabricStatus::default());
        let (spec, specs) = watch::channel(Arc::default());
        let status = told.subscribe();
        let merging = Merging {
            has_kernel: fabric.is_some(),
            encrypts,
            kernel: fabric.as_ref().map_or(nothing, |fabric| fabric.status()),
            switch: switch.status(),
            specs,
            told,
        };
        let merging = AbortOnDropHandle::new(tokio::spawn(merging.run()));
        Ok(Self { fabric, switch, encrypts, spec, status, _no_kernel: no_kernel, _merging: merging })
    }

    /// What the node must have from now on.
    pub(crate) fn set_spec(&self, spec: FabricSpec) {
        if self.encrypts {
            let mut without = spec.clone();
            without.lans.retain(|_, lan| lan.mode != NetworkMode::Socket);
            self.switch.set_spec(&without);
        } else {
            self.switch.set_spec(&spec);
        }
        if let Some(fabric) = &self.fabric {
            let mut kernels = spec.clone();
            kernels.lans.retain(|_, lan| is_kernels(lan));
            fabric.set_spec(kernels);
        }
        self.spec.send_replace(Arc::new(spec));
    }

    /// The newest status of all LANs. Closed when the fabric's or the switch's thread has ended.
    pub(crate) fn status(&self) -> watch::Receiver<FabricStatus> {
        self.status.clone()
    }

    pub(crate) const fn switch(&self) -> &Arc<Switch> {
        &self.switch
    }

    /// Where there is none, no LAN had a mode of the kernel's when the agent was started.
    pub(crate) const fn kernel(&self) -> Option<&Arc<Fabric>> {
        self.fabric.as_ref()
    }

    pub(crate) async fn open_tap(&self, instance: &InstanceId) -> Result<OpenPort, FabricError> {
        match &self.fabric {
            Some(fabric) => fabric.open_tap(instance).await,
            None => Err(FabricError::NoPort(instance.clone())),
        }
    }

    pub(crate) async fn plug(&self, instance: &InstanceId, cable: OwnedFd) -> Result<(), SwitchError> {
        self.switch.plug(instance, cable).await
    }

    /// Ends both threads, for another agent to take over; nothing changes in the kernel, and frames of guests wait in their cables.
    pub(crate) async fn end(&self) {
        self.switch.end().await;
        if let Some(fabric) = &self.fabric {
            fabric.end().await;
        }
    }
}

const fn is_kernels(lan: &LanSpec) -> bool {
    lan.mode.needs_kernel()
}

struct Merging {
    has_kernel: bool,
    encrypts: bool,
    kernel: watch::Receiver<FabricStatus>,
    switch: watch::Receiver<SwitchStatus>,
    specs: watch::Receiver<Arc<FabricSpec>>,
    told: watch::Sender<FabricStatus>,
}

impl Merging {
    /// Ends, and with it the status, when one of its sources has ended.
    async fn run(mut self) {
        loop {
            let merged = {
                let (kernel, switch) = (self.kernel.borrow_and_update(), self.switch.borrow_and_update());
                let mut all = merge(self.has_kernel.then_some(&*kernel), &switch, &self.specs.borrow_and_update());
                if self.encrypts {
                    all.problems.extend(refused(&self.specs.borrow()));
                }
                all
            };
            self.told.send_if_modified(|old| {
                let differs = *old != merged;
                *old = merged;
                differs
            });
            let changed = tokio::select! {
                changed = self.kernel.changed() => changed,
                changed = self.switch.changed() => changed,
                changed = self.specs.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

/// One status of all LANs; `kernel` is `None` where this agent has no fabric.
fn merge(kernel: Option<&FabricStatus>, switch: &SwitchStatus, spec: &FabricSpec) -> FabricStatus {
    let mut all = kernel.cloned().unwrap_or_else(|| FabricStatus {
        passes: switch.spec_seen,
        spec_seen: switch.spec_seen,
        ..FabricStatus::default()
    });
    all.spec_seen = all.spec_seen.min(switch.spec_seen);
    for lan in spec.lans.values() {
        if is_kernels(lan) {
            if kernel.is_none() {
                all.lans.insert(lan.name.clone(), lan_status(lan, None));
                if !lan.ports.is_empty() {
                    all.problems.push(format!(
                        "LAN `{}` has the mode `{}`, for which this agent was not started, as no LAN had such a mode then; start it \
                         again, as root or with CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN",
                        lan.name, lan.mode
                    ));
                }
            }
            continue;
        }
        let ours = switch.lans.get(&lan.name).filter(|_| lan.mode == NetworkMode::Socket);
        let mode = ours.filter(|ours| ours.meshed).map(|_| NetworkMode::Socket);
        all.lans.insert(lan.name.clone(), lan_status(lan, mode));
        let Some(ours) = ours else { continue };
        all.peers.extend(ours.peers.iter().map(|(node, peer)| PeerStatus {
            lan: lan.name.clone(),
            node: node.clone(),
            vtep: peer.address,
            alive: peer.alive,
            rtt: peer.rtt,
            loss: peer.loss,
            full_frames: peer.full_frames,
        }));
        for (seat, port) in &lan.ports {
            let told = switch.ports.get(&port.instance);
            let status = PortStatus {
                lan: lan.name.clone(),
                seat: *seat,
                mac: port.identity.mac,
                // There is no device.
                tap: String::new(),
                exists: told.is_some(),
                carrier: told.map(|told| told.plugged),
                counters: told.map(|told| told.counters),
                address_in_use: told.and_then(|told| told.address_in_use),
                guard: lan.guard,
            };
            all.ports.insert(port.instance.clone(), status);
        }
    }
    all.reachability.extend(switch.reachability.iter().cloned());
    all.problems.extend(switch.problems.iter().cloned());
    let switched = all.peers.iter().filter(|peer| switch.lans.contains_key(&peer.lan)).cloned().collect::<Vec<_>>();
    all.problems.extend(full_frame_problems(&switched));
    all
}

/// LANs whose frames would leave this node in the clear although it encrypts: those of the agents' own switches.
fn refused(spec: &FabricSpec) -> impl Iterator<Item = String> + '_ {
    let lans = spec.lans.values().filter(|lan| lan.mode == NetworkMode::Socket && !lan.ports.is_empty());
    lans.map(|lan| {
        format!(
            "LAN `{}` has the mode `socket`, which cannot be encrypted, and this agent was started with --encryption wireguard: its guests are \
             not joined; give it the mode `vxlan`, or start all agents with --encryption none",
            lan.name
        )
    })
}

/// `mode` of a LAN that is not the kernel's; its frames between nodes are those of the switch, in the clear.
fn lan_status(lan: &LanSpec, mode: Option<NetworkMode>) -> LanStatus {
    let encryption = (mode == Some(NetworkMode::Socket)).then_some(Encryption::None);
    LanStatus { vni: lan.vni, mode, encryption, seats: lan.seats, bridge_mac: lan.bridge_mac }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fabric::PortCounters;

    use super::*;

    /// One LAN of each mode, each with a seat here.
    fn spec() -> FabricSpec {
        let lan = |n: u8, mode: &str| {
            format!(r#"{{"name":"{mode}","vni":{n},"mode":"{mode}","subnet":"10.98.{n}.0/24","seats":9}}"#)
        };
        let instance = |mode: &str| format!(r#"{{"id":"i-{mode}","lan":"{mode}","seat":0,"node":"a"}}"#);
        let modes = ["vxlan", "socket", "user"];
        let lans: Vec<_> = (1..).zip(modes).map(|(n, mode)| lan(n, mode)).collect();
        let text = format!(
            r#"{{"version":1,"lans":[{}],"nodes":[{{"name":"a","underlay_ip":"10.99.0.11","agent_url":"u"}}],"instances":[{}]}}"#,
            lans.join(","),
            modes.map(instance).join(",")
        );
        FabricSpec::from_snapshot(&api::snapshot::parse(&text).unwrap(), &"a".parse().unwrap())
    }

    fn switch() -> SwitchStatus {
        let vni = spec().lans.values().find(|lan| lan.mode == NetworkMode::Socket).unwrap().vni;
        let lan = switch::LanStatus {
            vni,
            seats: 9,
            meshed: true,
            peers: BTreeMap::new(),
            foreign: Vec::new(),
            foreign_totals: switch::ForeignTotals::default(),
        };
        let port = switch::PortStatus {
            lan: "socket".parse().unwrap(),
            seat: model::Seat(0),
            plugged: true,
            counters: PortCounters { tx_frames: 7, ..PortCounters::default() },
            refused: BTreeMap::new(),
            address_in_use: None,
        };
        SwitchStatus {
            spec_seen: 3,
            lans: [("socket".parse().unwrap(), lan)].into(),
            ports: [("i-socket".parse().unwrap(), port)].into(),
            ..SwitchStatus::default()
        }
    }

    fn mode(status: &FabricStatus, lan: &str) -> Option<NetworkMode> {
        status.lans[&lan.parse().unwrap()].mode
    }

    #[test]
    fn a_mode_is_that_of_what_joins_the_guests_now() {
        let kernel = FabricStatus { spec_seen: 2, ..FabricStatus::default() };
        let all = merge(Some(&kernel), &switch(), &spec());
        assert_eq!((mode(&all, "socket"), mode(&all, "user")), (Some(NetworkMode::Socket), None));
        assert_eq!((all.ports.len(), all.spec_seen, all.problems.len()), (1, 2, 0));
        let port = &all.ports[&"i-socket".parse().unwrap()];
        assert_eq!((port.carrier, port.counters.unwrap().tx_frames), (Some(true), 7));
        // A switch that cannot listen joins nobody.
        let mut deaf = switch();
        deaf.lans.values_mut().for_each(|lan| lan.meshed = false);
        assert_eq!(mode(&merge(Some(&kernel), &deaf, &spec()), "socket"), None);
        assert_eq!(mode(&merge(Some(&kernel), &SwitchStatus::default(), &spec()), "socket"), None);
    }

    #[test]
    fn without_a_fabric_a_lan_of_the_kernels_is_a_problem_in_words() {
        let all = merge(None, &switch(), &spec());
        assert_eq!((all.spec_seen, all.passes, mode(&all, "vxlan")), (3, 3, None));
        assert!(all.problems[0].contains("`vxlan`") && all.problems[0].contains("CAP_NET_ADMIN"), "{:?}", all.problems);
    }
}
