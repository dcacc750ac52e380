//! Who is in the tunnel: UDP addresses and their nodes.
//!
//! A node is its client's UDP address as DOSBox's server writes it, wherever that can be a station's address on Ethernet.
//! It cannot where the first byte is odd, which on Ethernet is a group's (127.0.0.1, 203.…), nor where somebody on the LAN
//! has it, nor where it looks like a seat's MAC: else a forged sender could take a guest's frames. Such a client gets another
//! first byte. Clients take any node, so nothing is lost but the habit of reading the address from it.
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::Instant,
};

use wire::{MacAddr, ipxnet::node_of};

use crate::{Traffic, guard::Bucket, segment::Stations};

/// The relay's own node, from which it pings; as ipxbox has it.
pub const OWN_NODE: MacAddr = MacAddr([0x02, 0xff, 0xff, 0xff, 0x00, 0x00]);
/// The start of every seat's MAC ([`model::Lan::identity`]).
const SEATS: [u8; 2] = [0x02, 0x4c];

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) node: MacAddr,
    pub(crate) since: Instant,
    pub(crate) heard: Instant,
    pub(crate) pinged: Option<Instant>,
    pub(crate) bucket: Bucket,
    pub(crate) sent: Traffic,
    pub(crate) received: Traffic,
    pub(crate) dropped: u64,
}

/// Clients by address and by node; both tables always say the same.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    by_address: BTreeMap<SocketAddrV4, Client>,
    by_node: BTreeMap<MacAddr, SocketAddrV4>,
}

impl Clients {
    pub(crate) fn len(&self) -> usize {
        self.by_address.len()
    }

    pub(crate) fn behind(&self, ip: Ipv4Addr) -> usize {
        self.by_address.range(SocketAddrV4::new(ip, 0)..=SocketAddrV4::new(ip, u16::MAX)).count()
    }

    pub(crate) fn get_mut(&mut self, address: SocketAddrV4) -> Option<&mut Client> {
        self.by_address.get_mut(&address)
    }

    pub(crate) fn address_of(&self, node: MacAddr) -> Option<SocketAddrV4> {
        self.by_node.get(&node).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SocketAddrV4, &Client)> {
        self.by_address.iter().map(|(address, client)| (*address, client))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (SocketAddrV4, &mut Client)> {
        self.by_address.iter_mut().map(|(address, client)| (*address, client))
    }

    pub(crate) fn insert(&mut self, address: SocketAddrV4, node: MacAddr, bucket: Bucket, now: Instant) {
        let client = Client {
            node,
            since: now,
            heard: now,
            pinged: None,
            bucket,
            sent: Traffic::default(),
            received: Traffic::default(),
            dropped: 0,
        };
        self.by_node.insert(node, address);
        if let Some(old) = self.by_address.insert(address, client)
            && old.node != node
        {
            self.by_node.remove(&old.node);
        }
    }

    /// Forgets those that `leaves` says, and tells who they were.
    pub(crate) fn remove_if(&mut self, mut leaves: impl FnMut(&Client) -> bool) -> Vec<(SocketAddrV4, Client)> {
        let gone: Vec<_> = self.by_address.extract_if(.., |_, client| leaves(client)).collect();
        for (_, client) in &gone {
            self.by_node.remove(&client.node);
        }
        gone
    }

    /// The node that a client at `address` gets; `None` where it cannot be a client's, or there is none left for it.
    pub(crate) fn node_for(&self, address: SocketAddrV4, stations: &Stations) -> Option<MacAddr> {
        let ip = address.ip();
        if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || address.port() == 0 {
            return None;
        }
        let natural = node_of(address);
        let [_, rest @ ..] = natural.0;
        let [a, b, c, d, e] = rest;
        // Locally administered, one station's: bits 1 and 0 are 1 and 0.
        let others = (0..64).map(|n| MacAddr([n << 2 | 2, a, b, c, d, e]));
        std::iter::once(natural).chain(others).find(|node| {
            !node.is_group()
                && *node != OWN_NODE
                && !node.0.starts_with(&SEATS)
                && !stations.knows(*node)
                && !self.by_node.contains_key(node)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rate;

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    #[track_caller]
    fn node(clients: &Clients, stations: &Stations, address: &str, want: Option<[u8; 6]>) {
        assert_eq!(clients.node_for(at(address), stations), want.map(MacAddr));
    }

    #[test]
    fn nodes_are_dosboxs_where_ethernet_takes_them() {
        let (clients, stations) = (Clients::default(), Stations::default());
        node(&clients, &stations, "192.168.98.12:36845", Some([192, 168, 98, 12, 0x8f, 0xed]));
        node(&clients, &stations, "127.0.0.1:47069", Some([2, 0, 0, 1, 0xb7, 0xdd]));
        node(&clients, &stations, "203.0.113.5:213", Some([2, 0, 113, 5, 0, 213]));
        // A seat's MAC, and the relay's own node.
        node(&clients, &stations, "2.76.0.16:26628", Some([6, 76, 0, 16, 0x68, 4]));
        node(&clients, &stations, "2.255.255.255:1", Some([2, 255, 255, 255, 0, 1]));
        for nobody in ["0.0.0.0:7", "224.0.0.1:7", "255.255.255.255:7", "10.0.0.1:0"] {
            node(&clients, &stations, nobody, None);
        }
    }

    #[test]
    fn nobody_gets_a_node_that_is_taken() {
        let (now, mut clients, mut stations) = (Instant::now(), Clients::default(), Stations::default());
        let bucket = Bucket::new(Rate { per_second: 1, burst: 1 }, now);
        stations.hear(MacAddr([10, 0, 0, 9, 0x80, 1]), None, now);
        node(&clients, &stations, "10.0.0.9:32769", Some([2, 0, 0, 9, 0x80, 1]));
        for first in (0..64).map(|n| n << 2 | 2) {
            let taken = MacAddr([first, 0, 0, 9, 0x80, 1]);
            clients.insert(SocketAddrV4::new(Ipv4Addr::new(1, 1, 1, first), 5), taken, bucket, now);
        }
        node(&clients, &stations, "10.0.0.9:32769", None);
        assert_eq!(clients.remove_if(|client| client.node.0[0] == 6).len(), 1);
        node(&clients, &stations, "10.0.0.9:32769", Some([6, 0, 0, 9, 0x80, 1]));
    }

    #[test]
    fn clients_behind_one_address_are_counted() {
        let (now, mut clients) = (Instant::now(), Clients::default());
        let bucket = Bucket::new(Rate { per_second: 1, burst: 1 }, now);
        for address in ["10.0.0.1:1", "10.0.0.1:65535", "10.0.0.2:1", "10.0.0.0:9"] {
            clients.insert(at(address), node_of(at(address)), bucket, now);
        }
        assert_eq!(clients.behind(Ipv4Addr::new(10, 0, 0, 1)), 2);
    }
}
