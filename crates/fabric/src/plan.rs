//! What to change: pure, ordered, remove before add.
//!
//! **Invariants.** From any observed state one pass arrives at the desired one, and a second pass has no steps (property
//! tests below). Only links that are ours by name and kind appear in a step. A tap with carrier is never deleted, and as
//! long as there is one, its LAN keeps its bridge and tunnel.
//!
//! **Learning.** The VXLAN device learns nothing: its table is the directory's, so a frame never goes to a node by hearsay.
//! The *bridge* does learn, on taps and on the tunnel port: that table is soft state which the traffic itself repairs while no
//! agent lives, and an unknown address is flooded, which costs a frame on other taps but loses none. Static rows there
//! would be wrong exactly when a guest moves while its agent is away.
//!
//! **Moves.** A guest that moves to another LAN takes its port along: a port is called after the guest's card, so that it is the same one
//! wherever it was when the plan is made, and a single step plugs it into the bridge of the other LAN.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use model::{MacAddr, NetworkMode, Vni};

use crate::{
    FabricSpec, FdbEntry, LanSpec,
    observed::{Link, LinkKind, Observed, OurName, Parent, STATION_PREFIX, Submode, Tunnel, station_name},
    spec::Away,
};

/// Inner MTU of all links: what the guests' cards have. The outer packet may be fragmented (DF is not set).
pub(crate) const MTU: u32 = 1500;

/// One change of the kernel's state. Links are named, as a link made by an earlier step has no index yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    RemoveFdb {
        vxlan: String,
        entry: FdbEntry,
    },
    DeleteLink {
        name: String,
    },
    CreateBridge {
        name: String,
        mac: MacAddr,
    },
    CreateVxlan {
        name: String,
        mac: MacAddr,
        tunnel: Tunnel,
    },
    CreateTap {
        name: String,
    },
    /// Over the link with the number `parent` of the node's namespace, in bridge mode.
    CreateMacvtap {
        name: String,
        mac: MacAddr,
        parent: u32,
        mtu: u32,
    },
    /// Bridge mode: devices over one card meet.
    JoinCard {
        name: String,
    },
    /// Frames for all groups come in: the kernel does not know which ones a guest has joined.
    TakeAllGroups {
        name: String,
    },
    /// STP and multicast snooping off.
    QuietBridge {
        name: String,
    },
    SetMac {
        name: String,
        mac: MacAddr,
    },
    SetMtu {
        name: String,
        mtu: u32,
    },
    SetMaster {
        name: String,
        bridge: String,
    },
    SetUp {
        name: String,
    },
    AddFdb {
        vxlan: String,
        entry: FdbEntry,
    },
}

impl Step {
    /// What is mended by this step, if it mends something that was as desired before; `None`: it clears away, or makes.
    pub(crate) fn mends(&self) -> Option<&'static str> {
        match self {
            // A tunnel that must be made anew is counted when it is made.
            Self::DeleteLink { .. } => None,
            Self::CreateBridge { .. }
            | Self::CreateVxlan { .. }
            | Self::CreateTap { .. }
            | Self::CreateMacvtap { .. }
            | Self::JoinCard { .. }
            | Self::TakeAllGroups { .. }
            | Self::SetUp { .. } => Some("link"),
            Self::QuietBridge { .. } => Some("bridge"),
            Self::SetMac { .. } => Some("mac"),
            Self::SetMtu { .. } => Some("mtu"),
            Self::SetMaster { .. } => Some("master"),
            Self::AddFdb { entry, .. } | Self::RemoveFdb { entry, .. } => {
                Some(if entry.mac == MacAddr::ZERO { "flood" } else { "unicast" })
            }
        }
    }

    /// The link that it changes.
    pub(crate) fn link(&self) -> &str {
        match self {
            Self::RemoveFdb { vxlan, .. } | Self::AddFdb { vxlan, .. } => vxlan,
            Self::DeleteLink { name }
            | Self::CreateBridge { name, .. }
            | Self::CreateVxlan { name, .. }
            | Self::CreateTap { name }
            | Self::CreateMacvtap { name, .. }
            | Self::JoinCard { name }
            | Self::TakeAllGroups { name }
            | Self::QuietBridge { name }
            | Self::SetMac { name, .. }
            | Self::SetMtu { name, .. }
            | Self::SetMaster { name, .. }
            | Self::SetUp { name } => name,
        }
    }

    /// Whether it makes the link.
    pub(crate) const fn creates(&self) -> bool {
        matches!(
            self,
            Self::CreateBridge { .. } | Self::CreateVxlan { .. } | Self::CreateTap { .. } | Self::CreateMacvtap { .. }
        )
    }
}

/// What a pass has mended: for each link that had to be made anew once, for each other link everything about it. `station`s come
/// and go with the programs that hold them, so plugging them in mends nothing.
pub(crate) fn mended(steps: &[Step]) -> impl Iterator<Item = &'static str> + '_ {
    let made: BTreeSet<&str> = steps.iter().filter(|step| step.creates()).map(Step::link).collect();
    steps
        .iter()
        .filter(move |step| step.creates() || !made.contains(step.link()))
        .filter(|step| !step.link().starts_with(STATION_PREFIX))
        .filter_map(Step::mends)
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// What no step can mend: sentences with remedies.
    pub(crate) problems: Vec<String>,
}

/// This node's end of all tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vtep {
    pub(crate) local: Ipv4Addr,
    pub(crate) port: u16,
}

impl Vtep {
    fn tunnel(self, vni: Vni) -> Tunnel {
        Tunnel { vni: vni.get(), local: Some(self.local), port: self.port, learning: false, at_home: true }
    }
}

/// `away`: who gets no floods for now.
pub(crate) fn plan(spec: &FabricSpec, vtep: Vtep, observed: &Observed, away: &Away) -> Plan {
    let mut plan = Plan::default();
    plan.check_directory(spec, vtep);
    let blocked = plan.blocked(spec, observed);
    let ports: Ports = spec
        .lans
        .values()
        .flat_map(|lan| lan.ports.values().map(|port| (OurName::port(lan, port), (lan.vni, lan.mode))))
        .collect();
    let held = held(&ports, observed, &blocked);
    let of_mode = |mode| spec.lans.values().filter(move |lan| lan.mode == mode);
    let active: Vec<&LanSpec> = of_mode(NetworkMode::Vxlan)
        .filter(|lan| !blocked.contains(&lan.vni))
        .filter(|lan| !lan.ports.is_empty() || held.contains(&lan.vni))
        .collect();
    let over_card: Vec<&LanSpec> =
        of_mode(NetworkMode::Macvlan).filter(|lan| !blocked.contains(&lan.vni) && !lan.ports.is_empty()).collect();
    let wanted: BTreeSet<OurName> = active.iter().chain(&over_card).flat_map(|lan| names(lan)).collect();

    // A port is of the LAN that its guest is in now, whatever seat it is called after.
    let is_blocked = |name: OurName| blocked.contains(&ports.get(&name).map_or(name.vni(), |(vni, _)| *vni));
    let removed = plan.remove(observed, &wanted, &held, vtep, is_blocked);
    for lan in &active {
        plan.prune_fdb(lan, observed, &removed, away);
    }
    if observed.links.get("lo").is_some_and(|lo| !lo.up) {
        plan.steps.push(Step::SetUp { name: "lo".to_owned() });
    }
    for lan in active {
        plan.build(lan, vtep, observed, &removed, away);
    }
    if !over_card.is_empty() {
        plan.build_over_card(&over_card, observed, &removed);
    }
    plan
}

/// The LAN of each port that is to be here, and its mode.
type Ports = BTreeMap<OurName, (Vni, NetworkMode)>;

/// LANs that a guest still uses which the directory does not place here, or where it cannot be built: of its tap's name, and of the
/// bridge it is on.
fn held(ports: &Ports, observed: &Observed, blocked: &BTreeSet<Vni>) -> BTreeSet<Vni> {
    let placed = |name| match name {
        OurName::Tap(..) => {
            ports.get(&name).is_some_and(|(vni, mode)| *mode == NetworkMode::Vxlan && !blocked.contains(vni))
        }
        // It needs no bridge.
        OurName::Macvtap(..) | OurName::Bridge(_) | OurName::Vxlan(_) => true,
    };
    observed
        .ours()
        .filter(|(name, link)| name.is_port() && link.carrier && !placed(*name))
        .flat_map(|(name, link)| [Some(name), link.master.as_deref().and_then(OurName::parse)])
        .flatten()
        .map(OurName::vni)
        .collect()
}

fn names(lan: &LanSpec) -> impl Iterator<Item = OurName> {
    let of_all =
        [OurName::Bridge(lan.vni), OurName::Vxlan(lan.vni)].into_iter().filter(|_| lan.mode == NetworkMode::Vxlan);
    of_all.chain(lan.ports.values().map(|port| OurName::port(lan, port)))
}

impl Plan {
    /// What is wrong with the directory itself, as seen from this node.
    fn check_directory(&mut self, spec: &FabricSpec, vtep: Vtep) {
        match spec.underlay_ip {
            None => self.problems.push("the directory does not list this node; add it, or start the agent with the name that is listed".to_owned()),
            Some(listed) if listed != vtep.local => self.problems.push(format!(
                "the directory says this node is at {listed}, but its agent was started with {}; other nodes send to the former: make them equal",
                vtep.local
            )),
            Some(_) => {}
        }
        for lan in spec.lans.values().filter(|lan| !lan.mode.needs_kernel() && !lan.ports.is_empty()) {
            self.problems.push(format!(
                "LAN `{}` has the mode {}, which is none of the kernel's; set it to vxlan or macvlan",
                lan.name, lan.mode
            ));
        }
    }

    /// LANs for which a link of somebody else sits on a name of ours.
    fn blocked(&mut self, spec: &FabricSpec, observed: &Observed) -> BTreeSet<Vni> {
        let mut blocked = BTreeSet::new();
        for lan in spec.lans.values() {
            for name in names(lan).map(OurName::text) {
                if let Some(link) = observed.links.get(&name)
                    && !OurName::parse(&name).is_some_and(|ours| ours.fits(&link.kind))
                {
                    blocked.insert(lan.vni);
                    let kind = link.kind.word();
                    self.problems.push(format!("link `{name}` is in the way: it is of kind {kind} and was not made by loco; rename or delete it"));
                }
            }
        }
        blocked
    }

    /// Deletes what is ours and not wanted, and tunnels that must be made anew. Returns the names of all that go.
    fn remove(
        &mut self,
        observed: &Observed,
        wanted: &BTreeSet<OurName>,
        held: &BTreeSet<Vni>,
        vtep: Vtep,
        is_blocked: impl Fn(OurName) -> bool,
    ) -> BTreeSet<String> {
        let mut removed = BTreeSet::new();
        // Taps first: a bridge goes after its ports.
        let mut ours: Vec<_> = observed.ours().filter(|(name, _)| !is_blocked(*name)).collect();
        ours.sort_by_key(|(name, _)| !name.is_port());
        for (name, link) in ours {
            let text = name.text();
            let goes = match (&link.kind, wanted.contains(&name)) {
                (LinkKind::Tap | LinkKind::Macvtap { .. }, false) if link.carrier => {
                    self.problems.push(format!(
                        "tap `{text}` is held by a guest that the directory does not place here; stop that guest, or list it again"
                    ));
                    false
                }
                (LinkKind::Vxlan(tunnel), true) => *tunnel != vtep.tunnel(name.vni()),
                (LinkKind::Macvtap { .. }, true) => self.is_astray(&text, link, &observed.parent),
                (_, true) => false,
                (LinkKind::Tap | LinkKind::Macvtap { .. }, false) => true,
                // The directory does not know this LAN any more, but a guest still uses it.
                (_, false) => !held.contains(&name.vni()),
            };
            if goes {
                self.steps.push(Step::DeleteLink { name: text.clone() });
                removed.insert(text);
            }
        }
        removed
    }

    /// Whether a macvtap must be made anew: it is over another card than the one of now, or has one for itself.
    fn is_astray(&mut self, name: &str, link: &Link, parent: &Parent) -> bool {
        let (LinkKind::Macvtap { parent: at, submode }, Parent::Fit(nic)) = (&link.kind, parent) else { return false };
        let astray = *at != Some(nic.index) || *submode == Submode::Passthru;
        if astray && link.carrier {
            self.problems.push(format!(
                "`{name}` is not over `{}`, and a guest holds it; restart that guest's runner: `loco instance restart ID`",
                nic.name
            ));
        }
        astray && !link.carrier
    }

    /// Creates and corrects the ports of the LANs whose guests are on the real LAN: there is nothing else of theirs.
    fn build_over_card(&mut self, lans: &[&LanSpec], observed: &Observed, removed: &BTreeSet<String>) {
        let nic = match &observed.parent {
            Parent::Fit(nic) => nic,
            Parent::Unfit(problem) => return self.problems.push(problem.clone()),
            // Nothing is known, so nothing is changed.
            Parent::Unasked => return,
        };
        if !nic.up {
            self.problems.push(format!(
                "the card `{0}` is down, so no frame of the LANs of mode macvlan leaves this node; set it up: `ip link set {0} up`",
                nic.name
            ));
        }
        if nic.mtu < MTU {
            self.problems.push(format!(
                "the card `{}` has an MTU of {}, so full frames of the guests ({MTU}) are lost; raise it to {MTU}",
                nic.name, nic.mtu
            ));
        }
        for (lan, port) in lans.iter().flat_map(|lan| lan.ports.values().map(move |port| (lan, port))) {
            let ours = OurName::port(lan, port);
            let (name, mac) = (ours.text(), port.identity.mac);
            let link = observed.our(ours).filter(|_| !removed.contains(&name));
            match link {
                None => {
                    self.steps.push(Step::CreateMacvtap { name: name.clone(), mac, parent: nic.index, mtu: nic.mtu });
                }
                Some(link) => {
                    if matches!(link.kind, LinkKind::Macvtap { submode: Submode::Other, .. }) {
                        self.steps.push(Step::JoinCard { name: name.clone() });
                    }
                    if link.mac != mac {
                        self.steps.push(Step::SetMac { name: name.clone(), mac });
                    }
                }
            }
            if link.is_none_or(|link| !link.all_groups) {
                self.steps.push(Step::TakeAllGroups { name: name.clone() });
            }
            self.mtu_and_up(&name, link, nic.mtu);
        }
    }

    fn prune_fdb(&mut self, lan: &LanSpec, observed: &Observed, removed: &BTreeSet<String>, away: &Away) {
        let name = OurName::Vxlan(lan.vni);
        let Some(link) = observed.our(name).filter(|_| !removed.contains(&name.text())) else { return };
        for entry in link.fdb.difference(&lan.fdb(away)) {
            self.steps.push(Step::RemoveFdb { vxlan: name.text(), entry: *entry });
        }
    }

    /// Creates and corrects the links of one LAN.
    fn build(&mut self, lan: &LanSpec, vtep: Vtep, observed: &Observed, removed: &BTreeSet<String>, away: &Away) {
        let there = |name: OurName| observed.our(name).filter(|_| !removed.contains(&name.text()));
        let (bridge, vxlan) = (OurName::Bridge(lan.vni), OurName::Vxlan(lan.vni));

        let link = there(bridge);
        match link {
            None => self.steps.push(Step::CreateBridge { name: bridge.text(), mac: lan.bridge_mac }),
            Some(link) => {
                if link.kind != (LinkKind::Bridge { stp: false, mcast_snooping: false }) {
                    self.steps.push(Step::QuietBridge { name: bridge.text() });
                }
                if link.mac != lan.bridge_mac {
                    self.steps.push(Step::SetMac { name: bridge.text(), mac: lan.bridge_mac });
                }
            }
        }
        self.mtu_and_up(&bridge.text(), link, MTU);

        let link = there(vxlan);
        match link {
            None => self.steps.push(Step::CreateVxlan {
                name: vxlan.text(),
                mac: lan.vxlan_mac,
                tunnel: vtep.tunnel(lan.vni),
            }),
            Some(link) if link.mac != lan.vxlan_mac => {
                self.steps.push(Step::SetMac { name: vxlan.text(), mac: lan.vxlan_mac });
            }
            Some(_) => {}
        }
        let known = link.map(|link| link.fdb.clone()).unwrap_or_default();
        for entry in lan.fdb(away).difference(&known) {
            self.steps.push(Step::AddFdb { vxlan: vxlan.text(), entry: *entry });
        }
        self.port_of(bridge, &vxlan.text(), link);

        for port in lan.ports.values() {
            let tap = OurName::port(lan, port);
            let link = there(tap);
            if link.is_none() {
                self.steps.push(Step::CreateTap { name: tap.text() });
            }
            self.port_of(bridge, &tap.text(), link);
        }

        let station = station_name(lan.vni);
        let link = observed.links.get(&station).filter(|link| link.kind == LinkKind::Tap);
        if link.is_some() {
            self.port_of(bridge, &station, link);
        }
    }

    fn port_of(&mut self, bridge: OurName, name: &str, link: Option<&Link>) {
        let bridge = bridge.text();
        if link.and_then(|link| link.master.as_ref()) != Some(&bridge) {
            self.steps.push(Step::SetMaster { name: name.to_owned(), bridge });
        }
        self.mtu_and_up(name, link, MTU);
    }

    /// A link that is made in this pass is made with the right MTU.
    fn mtu_and_up(&mut self, name: &str, link: Option<&Link>, mtu: u32) {
        if link.is_some_and(|link| link.mtu != mtu) {
            self.steps.push(Step::SetMtu { name: name.to_owned(), mtu });
        }
        if link.is_none_or(|link| !link.up) {
            self.steps.push(Step::SetUp { name: name.to_owned() });
        }
    }
}

impl LinkKind {
    fn word(&self) -> &str {
        match self {
            Self::Bridge { .. } => "bridge",
            Self::Vxlan(_) => "vxlan",
            Self::Tap => "tap",
            Self::Macvtap { .. } => "macvtap",
            Self::Other(word) => word,
        }
    }
}

#[cfg(test)]
mod tests;
