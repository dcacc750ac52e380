//! Every path to measure, and what must live as long as they are used.
use std::{net::Ipv4Addr, os::fd::OwnedFd, path::Path, sync::Arc};

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVxlan};
use testkit::{NetNs, Tap, Underlay};

use crate::{
    ours::{Of, Ours, cable_end},
    qemu::{Qemus, Scratch, cable_netdev, tap_netdev},
    route::{End, Route, macs},
};

async fn index(handle: &Handle, name: &str) -> anyhow::Result<u32> {
    let mut links = Box::pin(handle.link().get().match_name(name).execute());
    Ok(links.try_next().await?.with_context(|| format!("no link {name}"))?.header.index)
}

/// A bridge with taps in the calling thread's namespace, as `ip link` makes them, and a learning VXLAN device if asked for.
async fn bare(taps: &[&str], tunnel: Option<(Ipv4Addr, Ipv4Addr)>) -> anyhow::Result<Vec<OwnedFd>> {
    for family in ["iptables", "ip6tables", "arptables"] {
        let sysctl = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        if Path::new(&sysctl).exists() {
            std::fs::write(sysctl, "0")?;
        }
    }
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    handle.link().add(LinkBridge::new("br").up().build()).execute().await?;
    let bridge = index(&handle, "br").await?;
    let mut fds = Vec::new();
    let mut ports: Vec<String> = taps.iter().map(|name| (*name).to_owned()).collect();
    for name in taps {
        fds.push(Tap::open(name)?);
    }
    if let Some((local, remote)) = tunnel {
        handle
            .link()
            .add(LinkVxlan::new("vx", 77).local(local).remote(remote).port(4790).mtu(1500).build())
            .execute()
            .await?;
        ports.push("vx".to_owned());
    }
    for port in ports {
        let link = LinkUnspec::new_with_index(index(&handle, &port).await?).controller(bridge).up().build();
        handle.link().set(link).execute().await?;
    }
    Ok(fds)
}

pub(crate) struct Rig {
    pub(crate) routes: Vec<Route>,
    _qemus: Qemus,
    _scratch: Scratch,
    _ours: Ours,
    _namespaces: (NetNs, Underlay),
}

/// The seats of a pair, and whether they are on one node.
const SAME: (u8, u8) = (0, 1);
const ACROSS: (u8, u8) = (2, 3);
const QEMU_SAME: (u8, u8) = (4, 5);
const QEMU_ACROSS: (u8, u8) = (6, 7);

fn seat_macs(of: Of, (near, far): (u8, u8)) -> anyhow::Result<[[u8; 6]; 2]> {
    Ok([of.mac(near)?, of.mac(far)?])
}

async fn taps(ours: &Ours, of: Of, name: &'static str, seats: (u8, u8)) -> anyhow::Result<Route> {
    let (near, far) = (ours.tap(of, seats.0.into()).await?, ours.tap(of, seats.1.into()).await?);
    Ok(Route { name, near: End::Tap(near), far: Arc::new(End::Tap(far)), macs: seat_macs(of, seats)? })
}

async fn cables(ours: &Ours, name: &'static str, seats: (u8, u8)) -> anyhow::Result<Route> {
    let (near, far) = (cable_end(ours.cable(seats.0.into()).await?)?, cable_end(ours.cable(seats.1.into()).await?)?);
    Ok(Route { name, near: End::Socket(near), far: Arc::new(End::Socket(far)), macs: seat_macs(Of::Switch, seats)? })
}

/// Two QEMUs and the netdevs between them.
struct Pair<'a> {
    name: &'static str,
    /// Node of the far one; the near one is on node 0.
    far_node: usize,
    near: (String, Option<&'a OwnedFd>),
    far: (String, Option<&'a OwnedFd>),
    macs: [[u8; 6]; 2],
}

impl Rig {
    pub(crate) async fn build() -> anyhow::Result<Self> {
        let underlay = Underlay::new(2)?;
        let ours = Ours::new(&underlay).await?;
        let (a, b) = (Underlay::address(0), Underlay::address(1));
        let bridge_ns = NetNs::new("bridge")?;
        let mut bridged = bridge_ns.block_on(bare(&["tap0", "tap1"], None))??;
        let mut near = underlay.node(0).block_on(bare(&["tap0"], Some((a, b))))??;
        let mut far = underlay.node(1).block_on(bare(&["tap0"], Some((b, a))))??;
        let bare =
            |name, near, far| Route { name, near: End::Tap(near), far: Arc::new(End::Tap(far)), macs: macs(name) };
        let mut routes = vec![
            bare("bare bridge", bridged.remove(0), bridged.remove(0)),
            taps(&ours, Of::Kernel, "loco, same node", SAME).await?,
            taps(&ours, Of::Guarded, "loco with guard and observer, same node", SAME).await?,
            cables(&ours, "loco mode socket, same node", SAME).await?,
            bare("bare VXLAN", near.remove(0), far.remove(0)),
            taps(&ours, Of::Kernel, "loco, across nodes", ACROSS).await?,
            taps(&ours, Of::Guarded, "loco with guard and observer, across nodes", ACROSS).await?,
            cables(&ours, "loco mode socket, across nodes", ACROSS).await?,
        ];
        let scratch = Scratch(std::env::temp_dir().join(format!("loco-bench-{}", std::process::id())));
        std::fs::create_dir_all(&scratch.0)?;
        let mut qemus = Qemus::default();
        in_qemus(&mut qemus, &ours, &underlay, &scratch.0, &mut routes).await?;
        ours.meshed().await?;
        Ok(Self { routes, _qemus: qemus, _scratch: scratch, _ours: ours, _namespaces: (bridge_ns, underlay) })
    }
}

async fn in_qemus(
    qemus: &mut Qemus,
    ours: &Ours,
    underlay: &Underlay,
    scratch: &Path,
    routes: &mut Vec<Route>,
) -> anyhow::Result<()> {
    let (a, b) = (Underlay::address(0), Underlay::address(1));
    let tap = async |seat: u8| ours.tap(Of::Kernel, seat.into()).await;
    let cable = async |seat: u8| ours.cable(seat.into()).await;
    let (t4, t5, t6, t7) =
        (tap(QEMU_SAME.0).await?, tap(QEMU_SAME.1).await?, tap(QEMU_ACROSS.0).await?, tap(QEMU_ACROSS.1).await?);
    let (c4, c5) = (cable(QEMU_SAME.0).await?, cable(QEMU_SAME.1).await?);
    let (c6, c7) = (cable(QEMU_ACROSS.0).await?, cable(QEMU_ACROSS.1).await?);
    let of_tap = |fd| (tap_netdev(fd), Some(fd));
    let of_cable = |fd| (cable_netdev(fd), Some(fd));
    let dgram = |local: Ipv4Addr, remote: Ipv4Addr| {
        format!(
            "dgram,id=x,local.type=inet,local.host={local},local.port=7001,remote.type=inet,remote.host={remote},remote.port=7001"
        )
    };
    let stream = |server: &str| format!("stream,id=x,server={server},addr.type=inet,addr.host={a},addr.port=7002");
    let mcast = |local: Ipv4Addr| format!("socket,id=x,mcast=239.192.0.1:7003,localaddr={local}");
    let vde_dir = scratch.join("vde");
    qemus.vde_switch(underlay.node(0), &vde_dir)?;
    let vde = || (format!("vde,id=x,sock={}", vde_dir.display()), None);
    let pair = |name, far_node, near, far| Pair { name, far_node, near, far, macs: macs(name) };
    let pairs = [
        Pair {
            macs: seat_macs(Of::Kernel, QEMU_SAME)?,
            ..pair("in QEMU: loco, same node", 0, of_tap(&t4), of_tap(&t5))
        },
        Pair {
            macs: seat_macs(Of::Switch, QEMU_SAME)?,
            ..pair("in QEMU: loco mode socket, same node", 0, of_cable(&c4), of_cable(&c5))
        },
        pair("in QEMU: VDE, same node", 0, vde(), vde()),
        Pair {
            macs: seat_macs(Of::Kernel, QEMU_ACROSS)?,
            ..pair("in QEMU: loco, across nodes", 1, of_tap(&t6), of_tap(&t7))
        },
        Pair {
            macs: seat_macs(Of::Switch, QEMU_ACROSS)?,
            ..pair("in QEMU: loco mode socket, across nodes", 1, of_cable(&c6), of_cable(&c7))
        },
        pair("in QEMU: netdev dgram, across nodes", 1, (dgram(a, b), None), (dgram(b, a), None)),
        pair("in QEMU: netdev stream, across nodes", 1, (stream("on"), None), (stream("off"), None)),
        pair("in QEMU: netdev mcast, across nodes", 1, (mcast(a), None), (mcast(b), None)),
    ];
    for (number, pair) in pairs.into_iter().enumerate() {
        let mut start = |end: &str, node: usize, (netdev, fd): (String, Option<&OwnedFd>)| {
            qemus.start(underlay.node(node), scratch, &format!("{end}{number}"), &netdev, fd)
        };
        let near = start("near", 0, pair.near)?;
        let far = start("far", pair.far_node, pair.far)?;
        routes.push(Route {
            name: pair.name,
            near: End::Socket(near),
            far: Arc::new(End::Socket(far)),
            macs: pair.macs,
        });
    }
    Ok(())
}
