//! The way of a frame through the switch: from a guest, a foreign machine or another node, to whoever it is for.
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    time::{Duration, Instant, SystemTime},
};

use model::{InstanceId, Seat, Vni};

use super::{
    Way,
    node::{Eyes, GuestPort, Lan, Node},
    trace::MESH,
};
use crate::{
    FRAME_LEN_MAX, mesh,
    probe::Probe,
    table::{Port, Targets},
};

impl Node {
    /// A frame that came in at a port with a cable.
    pub(super) fn take(&mut self, vni: Vni, port: Port, frame: &[u8]) {
        match port {
            Port::Seat(seat) => self.take_from_guest(vni, seat, frame),
            Port::Foreign(id) => self.take_from_foreign(vni, id, frame),
            Port::Edge | Port::Peer(_) => {}
        }
    }

    fn take_from_guest(&mut self, vni: Vni, seat: Seat, frame: &[u8]) {
        let (now, instant) = (self.now(), Instant::now());
        let Self { lans, eyes, books, .. } = self;
        let Some(port) = lans.get_mut(&vni).and_then(|lan| lan.ports.get_mut(&seat)) else { return };
        eyes.guest(vni, &port.instance, Way::In, frame);
        if port.guard.judge(now, frame).is_err() {
            return;
        }
        port.jack.took(frame);
        if let Some(answer) = port.desk.hear(frame, instant, books) {
            port.give(now, vni, &answer, eyes);
        }
        self.forward(vni, Port::Seat(seat), frame);
    }

    /// A frame of this program for one guest.
    pub(super) fn give_to_guest(&mut self, vni: Vni, instance: &InstanceId, frame: &[u8]) {
        let now = self.now();
        let Self { lans, eyes, .. } = self;
        let mut ports = lans.get_mut(&vni).into_iter().flat_map(|lan| lan.ports.values_mut());
        if let Some(port) = ports.find(|port| port.instance == *instance) {
            port.give(now, vni, frame, eyes);
        }
    }

    /// Sends a frame on to wherever it goes. What comes in at a port with a cable has been judged.
    pub(super) fn forward(&mut self, vni: Vni, from: Port, frame: &[u8]) {
        let now = self.now();
        let Self { lans, mesh, underlay, eyes, books, unsent, .. } = self;
        let Some(Lan { spec, table, round, ports, foreign, .. }) = lans.get_mut(&vni) else { return };
        let mut is_shown = false;
        let mut out = |to: Port| match to {
            Port::Seat(seat) => {
                if let Some(port) = ports.get_mut(&seat) {
                    port.give(now, vni, frame, eyes);
                }
            }
            Port::Foreign(id) => {
                if let Some(port) = foreign.get_mut(&id) {
                    port.jack.give(now, frame);
                }
            }
            Port::Edge => round.note(frame, Instant::now(), SystemTime::now(), books),
            Port::Peer(address) => {
                if !std::mem::replace(&mut is_shown, true) {
                    eyes.sight.node(&spec.name, Way::Out, frame);
                }
                let to = SocketAddrV4::new(address, underlay.port());
                if mesh.as_ref().is_some_and(|mesh| mesh.socket.send(vni, to, frame)) {
                    eyes.watches.note(vni, MESH, Way::Out, frame);
                } else {
                    *unsent += 1;
                }
            }
        };
        match table.forward(now, from, frame) {
            Targets::Nobody => {}
            Targets::One(to) => out(to),
            Targets::Flood { peers } => table.flood(from, peers).for_each(out),
        }
    }

    pub(super) fn datagram(&mut self, from: SocketAddr, datagram: &[u8]) {
        let sender = match from.ip() {
            IpAddr::V4(address) if from.port() == self.underlay.port() => Some(address),
            _ => None,
        };
        let parsed = sender.and_then(|sender| {
            let (vni, frame) = mesh::parse(datagram)?;
            let known = self.lans.get(&vni)?.peers.contains_key(&sender) && frame.len() <= FRAME_LEN_MAX;
            known.then_some((sender, vni, frame))
        });
        let Some((sender, vni, frame)) = parsed else {
            self.strays += 1;
            return;
        };
        if let Some(probe) = Probe::parse(frame) {
            return self.probed(vni, sender, &probe, frame.len());
        }
        if let Some(lan) = self.lans.get(&vni) {
            self.eyes.sight.node(&lan.spec.name, Way::In, frame);
            self.eyes.watches.note(vni, MESH, Way::In, frame);
        }
        self.forward(vni, Port::Peer(sender), frame);
    }

    /// A question of another node's switch is answered in full length; an answer goes into the book.
    fn probed(&mut self, vni: Vni, sender: Ipv4Addr, probe: &Probe, len: usize) {
        let now = self.now();
        let Some(lan) = self.lans.get_mut(&vni) else { return };
        if probe.to != lan.spec.bridge_mac {
            return;
        }
        if !probe.is_answer {
            let to = SocketAddrV4::new(sender, self.underlay.port());
            let answer = probe.answer().frame(len);
            self.unsent += u64::from(!self.mesh.as_ref().is_some_and(|mesh| mesh.socket.send(vni, to, &answer)));
        } else if let Some(book) = lan.peers.get_mut(&sender) {
            book.hear(probe.number, now);
        }
    }

    /// Asks the other nodes' switches whether they are there.
    pub(super) fn probe(&mut self) {
        let now = self.now();
        // Without the mesh nobody is asked, so nobody counts as away.
        let Some(mesh) = &self.mesh else { return };
        for (vni, lan) in &mut self.lans {
            for (address, book) in &mut lan.peers {
                let Some(peer) = lan.spec.peers.get(address) else { continue };
                let to = SocketAddrV4::new(*address, self.underlay.port());
                for (number, len) in book.ask(now) {
                    let probe = Probe { to: peer.bridge_mac, from: lan.spec.bridge_mac, is_answer: false, number };
                    // One that cannot leave is a question without an answer, which is what it says.
                    self.unsent += u64::from(!mesh.socket.send(*vni, to, &probe.frame(len)));
                }
            }
        }
    }

    /// Asks every guest whether it is there.
    pub(super) fn ask(&mut self) {
        let now = Instant::now();
        let rounds: Vec<_> = self.lans.iter().map(|(vni, lan)| (*vni, lan.round.clone())).collect();
        for (vni, round) in rounds {
            let mut questions = Vec::new();
            round.ask(now, &mut self.books, |frame| {
                questions.push(frame.to_vec());
                true
            });
            for frame in &questions {
                self.forward(vni, Port::Edge, frame);
            }
        }
    }
}

impl GuestPort {
    fn give(&mut self, now: Duration, vni: Vni, frame: &[u8], eyes: &mut Eyes) {
        if self.jack.give(now, frame) {
            eyes.guest(vni, &self.instance, Way::Out, frame);
        }
    }
}
