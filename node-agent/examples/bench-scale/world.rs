//! The other nodes, as far as an agent can tell: a socket for each VTEP, which answers the agent's questions and counts broadcasts.
//!
//! ```text
//!  agent's namespace                         world's namespace
//!  eth0 10.200.0.1 ─────── veth ─────── w0 10.200.0.2 ; 10.201.0.0/16 is local: 10.201.0.1:14789, 10.201.0.2:14789, …
//! ```
use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, ensure};
use fabric::probe::Probe;
use testkit::NetNs;
use tokio::{net::UdpSocket, runtime::Runtime, task::JoinHandle};

use crate::broadcast::ETHERTYPE;

/// VXLAN's, of all agents here.
const PORT: u16 = 14789;
/// VXLAN's header: RFC 7348, section 5.
const HEADER_LEN: usize = 8;
/// Longest frame, with its header, and room to notice longer ones.
const DATAGRAM_MAX: usize = 2048;

pub(crate) const HERE: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);

pub(crate) fn vtep(node: usize) -> Ipv4Addr {
    let octet = |number: usize| u8::try_from(number).expect("a few hundred nodes");
    Ipv4Addr::new(10, 201, octet(node / 250), octet(node % 250 + 1))
}

pub(crate) struct World {
    /// The agent's.
    pub(crate) node: NetNs,
    stations: Vec<JoinHandle<()>>,
    heard: Arc<AtomicU64>,
    runtime: Runtime,
    _netns: NetNs,
}

impl World {
    pub(crate) fn new(vteps: usize) -> anyhow::Result<Self> {
        let (node, netns) = (NetNs::new("scale")?, NetNs::new("world")?);
        let path = node.path().display().to_string();
        let run = |netns: &NetNs, line: &str| -> anyhow::Result<()> {
            let status = netns.run(|| Command::new("ip").args(line.split(' ')).status())??;
            ensure!(status.success(), "ip {line}: {status}");
            Ok(())
        };
        for line in [
            &format!("link add w0 type veth peer name eth0 netns {path}"),
            "link set lo up",
            "link set w0 up",
            "addr add 10.200.0.2/30 dev w0",
            "route add local 10.201.0.0/16 dev lo",
        ] {
            run(&netns, line)?;
        }
        for line in [
            "link set lo up",
            "link set eth0 up",
            "addr add 10.200.0.1/30 dev eth0",
            "route add 10.201.0.0/16 via 10.200.0.2",
        ] {
            run(&node, line)?;
        }
        // Its threads are born into the world's namespace.
        let runtime =
            netns.run(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build())??;
        let mut world = Self { node, stations: Vec::new(), heard: Arc::default(), runtime, _netns: netns };
        for node in 0..vteps {
            let station = world.station(node)?;
            world.stations.push(station);
        }
        Ok(world)
    }

    fn station(&self, node: usize) -> anyhow::Result<JoinHandle<()>> {
        let address = SocketAddr::from((vtep(node), PORT));
        let bound = self.runtime.spawn(UdpSocket::bind(address));
        let socket = self.runtime.block_on(bound)?.with_context(|| format!("listen on {address}"))?;
        Ok(self.runtime.spawn(answer(socket, Arc::clone(&self.heard))))
    }

    /// The node says nothing any more.
    pub(crate) fn silence(&mut self, node: usize) -> anyhow::Result<()> {
        self.stations[node].abort();
        let ended = self.runtime.block_on(&mut self.stations[node]);
        ensure!(ended.is_err_and(|error| error.is_cancelled()), "node {node} was silent already");
        Ok(())
    }

    pub(crate) fn revive(&mut self, node: usize) -> anyhow::Result<()> {
        self.stations[node] = self.station(node)?;
        Ok(())
    }

    /// Broadcasts of the bench, by all nodes together.
    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }
}

async fn answer(socket: UdpSocket, heard: Arc<AtomicU64>) {
    let mut buffer = [0; DATAGRAM_MAX];
    // An error here is an ICMP message about an answer that nobody took.
    loop {
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else { continue };
        let Some((header, frame)) = buffer[..len].split_at_checked(HEADER_LEN) else { continue };
        if let Some(question) = Probe::parse(frame).filter(|probe| !probe.is_answer) {
            let answer = [header, &question.answer().frame(frame.len())].concat();
            socket.send_to(&answer, (from.ip(), PORT)).await.ok();
        } else if frame.get(12..14) == Some(&ETHERTYPE) {
            heard.fetch_add(1, Ordering::Relaxed);
        }
    }
}
