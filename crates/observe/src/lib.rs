//! What happens on a LAN, from its frames alone: machines, sessions, players, each with the frame that shows it.
//!
//! ```text
//!  frame ─> link ─┬─ ARP, DHCP ──────────────────────────────────> machines ─> timelines
//!                 ├─ IPv4 ─ fragments ─┬─ UDP ─┬─ NetBIOS ───────> netbios
//!                 │                    │       ├─ tunnel ─┐
//!                 │                    │       └─ DirectPlay 8 ──> dplay8
//!                 │                    └─ TCP ─ stream ─┐ │
//!                 └─ IPX in four framings ──────────────┼─┴──────> ipx stations
//!                                                       └────────> dplay: sessions ─> machines ─> players
//!  observed() <─ report of each
//! ```
//! The same model reads a capture and follows a running segment (docs/observer.md, docs/adr/0014).
//!
//! **Invariants.** Pure: frames and times in, state out; no clock, no I/O. No frame makes it panic. What it remembers is
//! bounded by [`Limits`]. No password is kept.
#![forbid(unsafe_code)]

mod anomalies;
mod dplay;
mod dplay8;
mod fragments;
mod ipx;
mod lag;
mod limits;
mod link;
mod machines;
mod netbios;
mod stamp;
mod stream;
mod table;
mod tcp;

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use api::observe::{Netbios, Observed};
use wire::{MacAddr, class::TrafficClass};

use crate::{
    anomalies::{Anomalies, Kind, Who},
    dplay::Games,
    dplay8::Dplay8,
    fragments::Pieces,
    ipx::{Stations, Tunnel},
    machines::Machines,
    netbios::Names,
    stamp::Stamp,
    tcp::Tcp,
};
pub use crate::{dplay::Memory, limits::Limits};

/// A port of a node: where an instance plugs into the LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

/// Where a frame was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// Somewhere on the wire: in a capture.
    Wire,
    /// Came from the guest at this port into the LAN.
    FromGuest(PortId),
    /// Went to the guest at this port. Tells nothing new but when it arrived.
    ToGuest(PortId),
    /// Came from another node.
    Overlay,
    /// Came from the node itself, which gives out addresses, to a guest of its own.
    Edge,
    /// Came from a client of the node's IPX tunnel.
    Relay,
}

/// A frame, from the destination MAC on, without check sequence.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Since the epoch.
    pub at: Duration,
    pub point: Point,
    pub bytes: &'a [u8],
    /// Length on the wire in bytes, where `bytes` may be its front only.
    pub wire_len: u32,
}

/// The model of one LAN.
#[derive(Debug, Clone)]
pub struct Observer {
    limits: Limits,
    frames: u64,
    now: Duration,
    /// When gaps in streams were last looked at.
    swept: Duration,
    classes: BTreeMap<TrafficClass, u64>,
    fragments: Pieces<FragmentKey>,
    tcp: Tcp,
    games: Games,
    dplay8: Dplay8,
    stations: Stations,
    tunnel: Tunnel,
    names: Names,
    machines: Machines,
    anomalies: Anomalies,
}

/// Source, destination, protocol, identification (RFC 791 3.2).
type FragmentKey = (Ipv4Addr, Ipv4Addr, u8, u16);

/// RFC 791 3.2 recommends 15 s; stacks of the time keep fragments for up to 60.
const FRAGMENT_AGE: Duration = Duration::from_secs(30);

/// How often gaps in streams are looked at, by the frames' times.
const SWEEP: Duration = Duration::from_secs(1);

impl Default for Observer {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Observer {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            frames: 0,
            now: Duration::ZERO,
            swept: Duration::ZERO,
            classes: BTreeMap::new(),
            fragments: Pieces::new(limits.fragments, limits.fragment_bytes, FRAGMENT_AGE),
            tcp: Tcp::new(&limits),
            games: Games::new(&limits),
            dplay8: Dplay8::new(&limits),
            stations: Stations::new(&limits),
            tunnel: Tunnel::new(&limits),
            names: Names::new(&limits),
            machines: Machines::new(&limits),
            anomalies: Anomalies::new(limits.anomalies),
        }
    }

    /// Takes a frame. Frames of one segment should come in the order of their times; a little disorder does no harm.
    pub fn frame(&mut self, frame: &Frame<'_>) {
        self.frames += 1;
        self.now = self.now.max(frame.at);
        if frame.at.saturating_sub(self.swept) >= SWEEP {
            self.swept = frame.at;
            let stamp = Stamp { at: frame.at, frame: self.frames, point: Point::Wire };
            self.streams(stamp, |tcp, each| tcp.expire(stamp.at, &mut |event| each(event)));
        }
        self.link(frame);
    }

    /// Time goes on without frames: gaps in streams are given up, silent machines are gone. For a running segment, about
    /// once a second; a capture has no silence but its own.
    pub fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let stamp = Stamp { at: self.now, frame: self.frames, point: Point::Wire };
        self.streams(stamp, |tcp, each| tcp.expire(stamp.at, &mut |event| each(event)));
        let machines = &self.machines;
        self.games.silent(stamp, self.limits.silence, |station| machines.heard(station));
    }

    /// The capture ended: what waits for bytes that never came is given up.
    pub fn finish(&mut self) {
        let stamp = Stamp { at: self.now, frame: self.frames, point: Point::Wire };
        self.streams(stamp, |tcp, each| tcp.flush(stamp.at, &mut |event| each(event)));
    }

    /// The MAC address is that of one of our instances.
    pub fn name(&mut self, mac: MacAddr, instance: &str) {
        self.machines.name(mac, instance);
    }

    /// What evidence calls a port; `port-N` until then.
    pub fn name_port(&mut self, port: PortId, name: &str) {
        self.machines.name_port(port, name);
    }

    /// The machine was switched on: its timeline begins anew.
    pub fn power(&mut self, mac: MacAddr, at: Duration) {
        self.machines.power(mac, Stamp { at, frame: self.frames, point: Point::Wire });
    }

    /// The machine was plugged into another LAN: it is gone from its games here, and its way into one is told there.
    pub fn moved_away(&mut self, mac: MacAddr, at: Duration) {
        let stamp = Stamp { at, frame: self.frames, point: Point::Wire };
        let machines = &self.machines;
        self.games.moved(stamp, |station| machines.mac_of(station) == Some(mac));
        self.machines.moved_away(mac);
    }

    /// The games that stand and have a machine in them of which this holds, by its card or its address, as far as they are known: for the
    /// model after this one. Of a game of others only, nobody here would see the end.
    pub fn memory(&self, is_ours: impl Fn(Option<MacAddr>, Option<Ipv4Addr>) -> bool) -> Memory {
        self.games.memory(|station| is_ours(self.machines.mac_of(station), station.ip()))
    }

    /// Takes over what another model knew of this LAN's games; before the first frame.
    pub fn recall(&mut self, memory: &Memory, now: Duration) {
        self.now = self.now.max(now);
        self.games.recall(memory, now);
    }

    /// Something is wrong with the capture itself, as whoever reads it says.
    pub fn damaged(&mut self, what: &str) {
        let stamp = Stamp { at: self.now, frame: self.frames, point: Point::Wire };
        let text: String = what.chars().take(self.limits.text).collect();
        self.anomalies.note(Kind::Capture, Who::Nobody, stamp, || text);
    }

    /// A frame that cannot be taken apart: of a link type that is not Ethernet's. It counts as a frame.
    pub fn unreadable(&mut self, at: Duration, what: &str) {
        self.frames += 1;
        self.now = self.now.max(at);
        *self.classes.entry(TrafficClass::Malformed).or_default() += 1;
        self.damaged(what);
    }

    /// Entries of all tables, which [`Limits`] bounds.
    pub fn entries(&self) -> usize {
        self.fragments.len()
            + self.tcp.len()
            + self.games.entries()
            + self.dplay8.len()
            + self.stations.len()
            + self.tunnel.len()
            + self.names.len()
            + self.machines.entries()
            + self.anomalies.len()
    }

    /// Bytes of traffic that wait for more, which [`Limits`] bounds.
    pub fn held_bytes(&self) -> usize {
        self.tcp.held() + self.fragments.held() + self.games.held()
    }

    /// What is known by now.
    pub fn observed(&self) -> Observed {
        let (by_ip, by_node) = self.names.by_station();
        let names = |ips: &[Ipv4Addr], nodes: &[MacAddr]| {
            let host =
                ips.iter().find_map(|ip| by_ip.get(ip)).or_else(|| nodes.iter().find_map(|node| by_node.get(node)));
            host.map_or((None, None), |host| (Some(host.name.clone()), host.workgroup.clone()))
        };
        let (machines, timelines) = self.machines.report(names, |key| self.games.session_name(key));
        let mut observed = Observed {
            frames: self.frames,
            classes: self.classes.iter().map(|(class, count)| (class.name().to_owned(), *count)).collect(),
            dplay8: self.dplay8.report(),
            ipxnet: self.tunnel.report(),
            ipx: self.stations.report(),
            netbios: Netbios { hosts: self.names.report(), elections: self.names.elections() },
            anomalies: self.anomalies.report(),
            machines,
            timelines,
            lags: self.machines.lag.report(self.now),
            ..Observed::default()
        };
        self.games.report(&self.machines, &mut observed);
        observed
    }
}
