//! The only module that speaks netlink: reads the namespace into [`Observed`] and performs single [`Step`]s.
//!
//! Sockets: one in the fabric's namespace, one in the node's, and one in the tunnels' home, which is the node's or the encrypted
//! underlay's. VXLAN devices are asked for over the last with the first as their place, in one message: the kernel puts the device
//! into the fabric and keeps its UDP socket at home
//! (`vxlan_newlink` takes the sender's namespace as the link's). A crash cannot leave one half way. Macvtaps likewise, over the
//! node's: the number of the card is one of the node's.
use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd,
    path::Path,
    sync::Arc,
};

use futures_util::{StreamExt, TryStreamExt};
use model::MacAddr;
use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        BridgeStpState, InfoBridge, InfoData, InfoKind, InfoMacVtap, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
        LinkMessage, MacVtapMode, Stats64, VxlanDf,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    nsid::{NsidAttribute, NsidMessage},
};
use rtnetlink::{Handle, LinkBridge, LinkMacVtap, LinkMessageBuilder, LinkUnspec, LinkVxlan, MulticastGroup};
use tokio::sync::Notify;

use crate::{
    FabricError, FdbEntry, PortCounters, UnderlayStatus, is_macvtap, macvtap, netns,
    observed::{Link, LinkKind, Observed, Submode, Tunnel},
    plan::{MTU, Step},
    tap::{self, TapError},
};

mod nic;

pub(crate) use nic::Sought;

/// Hop limit of the outer packets: the nodes may be some routers apart.
const TTL: u8 = 64;
/// `IFLA_TUN_TYPE` and its value for a tap (`linux/if_link.h`, `linux/if_tun.h`).
const IFLA_TUN_TYPE: u16 = 3;
const IFF_TAP: u8 = 2;
/// `NUD_PERMANENT | NUD_NOARP`: what `bridge fdb append … self permanent` sends.
const PERMANENT: u16 = 0xc0;

#[derive(Debug)]
pub(crate) struct Kernel {
    fabric: Handle,
    /// Of the underlay.
    node: Handle,
    /// Where the tunnels' UDP sockets are to be: the node's, or the encrypted tunnel's.
    home: Handle,
    home_namespace: File,
    namespace: File,
    node_namespace: File,
    /// The card that was looked at last, by its number in the node's namespace, and whether it is wireless.
    wireless: Cell<Option<(u32, bool)>>,
    writes: Cell<u64>,
    vxlan_port: u16,
}

/// A netlink socket in the calling thread's namespace. Needs a tokio runtime on this thread.
pub(crate) fn connect() -> Result<Handle, FabricError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(FabricError::OpenNetlink)?;
    tokio::spawn(connection);
    Ok(handle)
}

impl Kernel {
    /// `node`: the underlay's namespace; `home`: the one for the tunnels' sockets, with a netlink socket in it, if it is another.
    /// Leaves the calling thread inside the fabric's namespace. Needs a tokio runtime on this thread.
    pub(crate) fn open(
        netns: &Path,
        node: (File, Handle),
        home: Option<(File, Handle)>,
        vxlan_port: u16,
    ) -> Result<Self, FabricError> {
        let (node_namespace, node) = node;
        let (home_namespace, home) = match home {
            Some(home) => home,
            None => (node_namespace.try_clone().map_err(FabricError::OpenNetlink)?, node.clone()),
        };
        let namespace = netns::enter(netns)?;
        let fabric = connect()?;
        let (wireless, writes) = (Cell::new(None), Cell::new(0));
        Ok(Self { fabric, node, home, home_namespace, namespace, node_namespace, wireless, writes, vxlan_port })
    }

    pub(crate) fn writes(&self) -> u64 {
        self.writes.get()
    }

    pub(crate) fn count_write(&self) {
        self.writes.set(self.writes.get() + 1);
    }

    /// Wakes `changed` at every change of a link or of a VXLAN table in the calling thread's namespace, and when the kernel had to drop such
    /// news. Addresses that a bridge learns are no news: every guest's first frame would cost a pass.
    pub(crate) fn watch(changed: Arc<Notify>) -> Result<(), FabricError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Neigh];
        let (connection, handle, mut news) =
            rtnetlink::new_multicast_connection(&groups).map_err(FabricError::OpenNetlink)?;
        tokio::spawn(connection);
        tokio::spawn(async move {
            // The connection ends when its last handle goes.
            let _keep = handle;
            while let Some((message, _)) = news.next().await {
                let matters = match message.payload {
                    NetlinkPayload::InnerMessage(
                        RouteNetlinkMessage::NewNeighbour(row) | RouteNetlinkMessage::DelNeighbour(row),
                    ) => row.header.flags.contains(NeighbourFlags::Own),
                    _ => true,
                };
                if matters {
                    changed.notify_one();
                }
            }
            // The stream ended, so nothing is heard any more; the periodic pass still looks.
            tracing::warn!("no more news from the kernel; changes are seen at the periodic pass only");
        });
        Ok(())
    }

    pub(crate) async fn observe(&self) -> Result<Observed, rtnetlink::Error> {
        let links: Vec<LinkMessage> = self.fabric.link().get().execute().try_collect().await?;
        let mut rows = Box::pin(self.fabric.neighbours().get().set_address_family(AddressFamily::Bridge).execute());
        // A row of the kernel's is hundreds of octets, and there are thousands; what is wanted of it are sixteen.
        let mut table = Vec::new();
        while let Some(row) = rows.try_next().await? {
            table.extend(read_fdb(&row));
        }
        let home = self.home_id().await?;
        let names: BTreeMap<u32, String> =
            links.iter().filter_map(|link| Some((link.header.index, name_of(link)?))).collect();
        let mut observed = Observed::default();
        for link in &links {
            if let Some(name) = names.get(&link.header.index) {
                observed.links.insert(name.clone(), read_link(link, &names, home));
            }
        }
        for (index, entry) in table {
            if let Some(link) = names.get(&index).and_then(|name| observed.links.get_mut(name))
                && matches!(link.kind, LinkKind::Vxlan(_))
            {
                link.fdb.insert(entry);
            }
        }
        if observed.links.keys().any(|name| is_macvtap(name)) {
            let held = macvtap::held();
            let macvtaps = observed.links.iter_mut().filter(|(_, link)| matches!(link.kind, LinkKind::Macvtap { .. }));
            macvtaps.for_each(|(name, link)| link.carrier = held.contains(name));
        }
        Ok(observed)
    }

    /// The node's link with the address `local`; `None`: no link has it.
    pub(crate) async fn underlay(&self, local: Ipv4Addr) -> Result<Option<UnderlayStatus>, rtnetlink::Error> {
        let Some(link) = self.underlay_link(local).await? else { return Ok(None) };
        let mtu = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
        Ok(name_of(&link).zip(mtu).map(|(link, mtu)| UnderlayStatus { link, mtu }))
    }

    async fn underlay_link(&self, local: Ipv4Addr) -> Result<Option<LinkMessage>, rtnetlink::Error> {
        let mut addresses = Box::pin(self.node.address().get().set_address_filter(IpAddr::V4(local)).execute());
        let Some(address) = addresses.try_next().await? else { return Ok(None) };
        let mut links = Box::pin(self.node.link().get().match_index(address.header.index).execute());
        links.try_next().await
    }

    /// By which number the fabric's namespace knows the one for the tunnels' sockets; `None` before the first of them is there.
    async fn home_id(&self) -> Result<Option<i32>, rtnetlink::Error> {
        let mut question = NsidMessage::default();
        let raw = u32::try_from(self.home_namespace.as_raw_fd()).map_err(|_| rtnetlink::Error::RequestFailed)?;
        question.attributes = vec![NsidAttribute::Fd(raw)];
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(question));
        message.header.flags = NLM_F_REQUEST;
        let mut answers = self.fabric.clone().request(message)?;
        let mut id = None;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(told)) => {
                    id = told.attributes.iter().find_map(|attribute| match attribute {
                        NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                        _ => None,
                    });
                }
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(rtnetlink::Error::NetlinkError(error));
                }
                _ => {}
            }
        }
        Ok(id)
    }

    /// Index of a link, asked anew, as it may have been made a moment ago.
    async fn index(&self, name: &str) -> Result<u32, rtnetlink::Error> {
        let mut answer = Box::pin(self.fabric.link().get().match_name(name).execute());
        answer.try_next().await?.map(|link| link.header.index).ok_or(rtnetlink::Error::RequestFailed)
    }

    /// Performs one step. The error is a sentence with the remedy.
    pub(crate) async fn perform(&self, step: &Step) -> Result<(), String> {
        self.count_write();
        if let Step::CreateTap { name } = step {
            return tap::create(name).map_err(|error| tap_problem(name, error));
        }
        self.perform_netlink(step).await.map_err(|error| self.problem(step, &error))
    }

    async fn perform_netlink(&self, step: &Step) -> Result<(), rtnetlink::Error> {
        let set = async |name: &str, change: fn(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>| {
            let link = LinkUnspec::new_with_index(self.index(name).await?);
            self.fabric.link().set(change(link).build()).execute().await
        };
        match step {
            Step::CreateTap { .. } => Ok(()),
            Step::DeleteLink { name } => self.fabric.link().del(self.index(name).await?).execute().await,
            Step::CreateBridge { name, mac } => {
                let bridge = LinkBridge::new(name)
                    .stp_state(BridgeStpState::Disabled)
                    .mcast_snooping(false)
                    .mtu(MTU)
                    .address(mac.0.to_vec())
                    .build();
                self.fabric.link().add(bridge).execute().await
            }
            Step::QuietBridge { name } => {
                let bridge = LinkBridge::new(name)
                    .index(self.index(name).await?)
                    .stp_state(BridgeStpState::Disabled)
                    .mcast_snooping(false)
                    .build();
                // RTM_NEWLINK without CREATE changes the settings of a bridge (RTM_SETLINK takes no kind-specific data).
                self.fabric.link().add(bridge).set_flags(NLM_F_REQUEST | NLM_F_ACK).execute().await
            }
            Step::CreateVxlan { name, mac, tunnel } => {
                let mut vxlan = LinkVxlan::new(name, tunnel.vni)
                    .port(tunnel.port)
                    .learning(tunnel.learning)
                    .ttl(TTL)
                    .df(VxlanDf::Unset)
                    .mtu(MTU)
                    .address(mac.0.to_vec())
                    .setns_by_fd(self.namespace.as_raw_fd());
                if let Some(local) = tunnel.local {
                    vxlan = vxlan.local(local);
                }
                self.home.link().add(vxlan.build()).execute().await
            }
            Step::CreateMacvtap { name, mac, parent, mtu } => {
                let macvtap = LinkMacVtap::new(name, *parent, MacVtapMode::Bridge)
                    .mtu(*mtu)
                    .address(mac.0.to_vec())
                    .setns_by_fd(self.namespace.as_raw_fd());
                self.node.link().add(macvtap.build()).execute().await
            }
            Step::JoinCard { name } => {
                let macvtap = LinkMessageBuilder::<LinkMacVtap>::new(name)
                    .index(self.index(name).await?)
                    .mode(MacVtapMode::Bridge)
                    .build();
                self.fabric.link().add(macvtap).set_flags(NLM_F_REQUEST | NLM_F_ACK).execute().await
            }
            Step::TakeAllGroups { name } => set(name, |link| link.allmulticast(true)).await,
            Step::SetMac { name, mac } => {
                let link = LinkUnspec::new_with_index(self.index(name).await?).address(mac.0.to_vec()).build();
                self.fabric.link().set(link).execute().await
            }
            Step::SetMtu { name, mtu } => {
                let link = LinkUnspec::new_with_index(self.index(name).await?).mtu(*mtu).build();
                self.fabric.link().set(link).execute().await
            }
            Step::SetUp { name } => set(name, LinkMessageBuilder::up).await,
            Step::SetMaster { name, bridge } => {
                let bridge = self.index(bridge).await?;
                let link = LinkUnspec::new_with_index(self.index(name).await?).controller(bridge).build();
                self.fabric.link().set(link).execute().await
            }
            Step::AddFdb { vxlan, entry } => {
                let row = fdb_row(self.index(vxlan).await?, *entry);
                let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(row));
                // rtnetlink's own request knows EXCL and REPLACE only; a second VTEP for one MAC needs APPEND.
                message.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND;
                let mut answers = self.fabric.clone().request(message)?;
                while let Some(answer) = answers.next().await {
                    if let NetlinkPayload::Error(error) = answer.payload
                        && error.code.is_some()
                    {
                        return Err(rtnetlink::Error::NetlinkError(error));
                    }
                }
                Ok(())
            }
            Step::RemoveFdb { vxlan, entry } => {
                let row = fdb_row(self.index(vxlan).await?, *entry);
                self.fabric.neighbours().del(row).execute().await
            }
        }
    }

    fn problem(&self, step: &Step, error: &rtnetlink::Error) -> String {
        let (what, error) = (step.words(), io_error(error));
        let port = self.vxlan_port;
        match (step, error.raw_os_error()) {
            (_, Some(nix::libc::EPERM)) => format!("could not {what}: the agent needs CAP_NET_ADMIN"),
            (Step::SetUp { name } | Step::SetMac { name, .. }, Some(nix::libc::EADDRINUSE)) if is_macvtap(name) => {
                format!(
                    "could not {what}: another device over the card has this seat's MAC; end the other fabric of this node, or give the LAN another VNI"
                )
            }
            (Step::CreateMacvtap { .. }, Some(nix::libc::EBUSY)) => format!(
                "could not {what}: the card's frames are another's already (an ipvlan over it, or a switch that it is a port of); name another card by --macvlan-parent"
            ),
            (Step::CreateMacvtap { .. }, Some(nix::libc::EOPNOTSUPP)) => {
                format!("could not {what}: load the kernel module `macvtap`")
            }
            (Step::SetUp { .. }, Some(nix::libc::EADDRINUSE)) => {
                format!(
                    "could not {what}: UDP port {port} of this node is in use; free it, or give all agents another --vxlan-port"
                )
            }
            (Step::CreateVxlan { .. }, Some(nix::libc::EEXIST)) => format!(
                "could not {what}: this node already has a VXLAN device with that VNI on port {port}; remove the other fabric (`loco down`) or give it another VNI"
            ),
            (Step::CreateVxlan { .. }, Some(nix::libc::EOPNOTSUPP)) => {
                format!("could not {what}: load the kernel module `vxlan`")
            }
            (Step::CreateBridge { .. }, Some(nix::libc::EOPNOTSUPP)) => {
                format!("could not {what}: load the kernel module `bridge`")
            }
            _ => format!("could not {what}: {error}; it is tried again every second"),
        }
    }
}

impl Step {
    fn words(&self) -> String {
        match self {
            Self::RemoveFdb { vxlan, entry } => format!("remove {} to {} from `{vxlan}`", entry.mac, entry.vtep),
            Self::DeleteLink { name } => format!("delete link `{name}`"),
            Self::CreateBridge { name, .. } => format!("create bridge `{name}`"),
            Self::CreateVxlan { name, tunnel, .. } => format!("create VXLAN device `{name}` (VNI {})", tunnel.vni),
            Self::CreateTap { name } => format!("create tap `{name}`"),
            Self::CreateMacvtap { name, parent, .. } => {
                format!("create macvtap `{name}` over the node's link {parent}")
            }
            Self::JoinCard { name } => format!("let `{name}` meet the others over its card"),
            Self::TakeAllGroups { name } => format!("let `{name}` take frames of all groups"),
            Self::QuietBridge { name } => format!("turn off STP and multicast snooping of `{name}`"),
            Self::SetMac { name, mac } => format!("give `{name}` the MAC {mac}"),
            Self::SetMtu { name, mtu } => format!("set the MTU of `{name}` to {mtu}"),
            Self::SetMaster { name, bridge } => format!("plug `{name}` into `{bridge}`"),
            Self::SetUp { name } => format!("set `{name}` up"),
            Self::AddFdb { vxlan, entry } => format!("send {} to {} through `{vxlan}`", entry.mac, entry.vtep),
        }
    }
}

pub(crate) fn io_error(error: &rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

fn tap_problem(name: &str, error: TapError) -> String {
    match error {
        TapError::NoTun(error) => FabricError::NoTun(error).to_string(),
        TapError::Busy => FabricError::TapBusy { tap: name.to_owned() }.to_string(),
        TapError::Io(error) => format!("could not create tap `{name}`: {error}; the agent needs CAP_NET_ADMIN"),
    }
}

fn fdb_row(index: u32, entry: FdbEntry) -> NeighbourMessage {
    let mut row = NeighbourMessage::default();
    row.header.family = AddressFamily::Bridge;
    row.header.ifindex = index;
    row.header.state = NeighbourState::Other(PERMANENT);
    // `self`: the device's own table, not the bridge's.
    row.header.flags = NeighbourFlags::Own;
    row.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(entry.mac.0.to_vec()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet(entry.vtep)),
    ];
    row
}

/// A row of a device's own table that has a VTEP.
fn read_fdb(row: &NeighbourMessage) -> Option<(u32, FdbEntry)> {
    if !row.header.flags.contains(NeighbourFlags::Own) {
        return None;
    }
    let mac = row.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(octets) => Some(MacAddr(octets.as_slice().try_into().ok()?)),
        _ => None,
    })?;
    let vtep = row.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(*ip),
        // With AF_BRIDGE the address's family shows in its length only.
        NeighbourAttribute::Destination(NeighbourAddress::Other(octets)) => {
            Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets.as_slice()).ok()?))
        }
        _ => None,
    })?;
    Some((row.header.ifindex, FdbEntry { mac, vtep }))
}

fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// `home`: the number of the namespace for the tunnels' sockets.
fn read_link(message: &LinkMessage, names: &BTreeMap<u32, String>, home: Option<i32>) -> Link {
    let mut link = Link {
        index: message.header.index,
        kind: LinkKind::Other("a device without a kind".to_owned()),
        mac: MacAddr::ZERO,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        all_groups: message.header.flags.contains(LinkFlags::Allmulti),
        master: None,
        fdb: std::collections::BTreeSet::new(),
        counters: PortCounters::default(),
    };
    let (mut parent, mut stats, mut sockets_in) = (None, Stats64::default(), None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(index) => parent = Some(*index),
            LinkAttribute::Address(octets) => {
                link.mac = octets.as_slice().try_into().map(MacAddr).unwrap_or_default();
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Carrier(carrier) => link.carrier = *carrier != 0,
            LinkAttribute::Controller(index) => {
                link.master = Some(names.get(index).cloned().unwrap_or_else(|| format!("link {index}")));
            }
            LinkAttribute::Stats64(counted) => stats = *counted,
            LinkAttribute::LinkInfo(infos) => link.kind = read_kind(infos),
            LinkAttribute::LinkNetNsId(id) => sockets_in = Some(*id),
            _ => {}
        }
    }
    if let LinkKind::Vxlan(tunnel) = &mut link.kind {
        tunnel.at_home = sockets_in.is_some() && sockets_in == home;
    }
    if let LinkKind::Macvtap { parent: over, .. } = &mut link.kind {
        *over = parent;
        link.counters = PortCounters {
            tx_frames: stats.tx_packets,
            tx_bytes: stats.tx_bytes,
            rx_frames: stats.rx_packets,
            rx_bytes: stats.rx_bytes,
            rx_dropped: stats.rx_dropped,
        };
    } else {
        // What the kernel receives from a tap is what the guest sent.
        link.counters = PortCounters {
            tx_frames: stats.rx_packets,
            tx_bytes: stats.rx_bytes,
            rx_frames: stats.tx_packets,
            rx_bytes: stats.tx_bytes,
            rx_dropped: stats.tx_dropped,
        };
    }
    link
}

fn read_kind(infos: &[LinkInfo]) -> LinkKind {
    let kind = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    });
    match (kind, data) {
        (Some(InfoKind::Bridge), Some(InfoData::Bridge(data))) => LinkKind::Bridge {
            stp: data
                .iter()
                .any(|item| matches!(item, InfoBridge::StpState(state) if *state != BridgeStpState::Disabled)),
            mcast_snooping: data.contains(&InfoBridge::MulticastSnooping(true)),
        },
        (Some(InfoKind::Vxlan), Some(InfoData::Vxlan(data))) => {
            let mut tunnel = Tunnel { vni: 0, local: None, port: 0, learning: false, at_home: false };
            for item in data {
                match item {
                    InfoVxlan::Id(vni) => tunnel.vni = *vni,
                    InfoVxlan::Local(local) => tunnel.local = Some(*local),
                    InfoVxlan::Port(port) => tunnel.port = *port,
                    InfoVxlan::Learning(learning) => tunnel.learning = *learning,
                    _ => {}
                }
            }
            LinkKind::Vxlan(tunnel)
        }
        (Some(InfoKind::Tun), Some(InfoData::Tun(data))) => {
            let is_tap = data.iter().any(|item| {
                let mut value = vec![0; item.value_len()];
                item.emit_value(&mut value);
                item.kind() == IFLA_TUN_TYPE && value == [IFF_TAP]
            });
            if is_tap { LinkKind::Tap } else { LinkKind::Other("tun".to_owned()) }
        }
        (Some(InfoKind::MacVtap), Some(InfoData::MacVtap(data))) => {
            let submode = data.iter().find_map(|item| match item {
                InfoMacVtap::Mode(MacVtapMode::Bridge) => Some(Submode::Bridge),
                InfoMacVtap::Mode(MacVtapMode::Passthrough) => Some(Submode::Passthru),
                _ => None,
            });
            LinkKind::Macvtap { parent: None, submode: submode.unwrap_or(Submode::Other) }
        }
        (Some(kind), _) => LinkKind::Other(kind.to_string()),
        (None, _) => LinkKind::Other("a device without a kind".to_owned()),
    }
}
