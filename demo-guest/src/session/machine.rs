//! The other machines of a session.
use crate::text::Text;
use core::net::{Ipv4Addr, SocketAddrV4};
use wire::dplay::{Id, Player, SpAddresses};

/// Machines besides our own.
pub const MACHINES: usize = 8;

/// A player's name.
pub type Name = Text<24>;

/// How far a machine has come, from the host's view. A peer hears only of known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has a system id; given up at that time if nothing follows.
    Asked {
        until: u64,
    },
    /// The others are being told; a bit for each place whose answer is missing.
    Forwarding {
        waiting: u8,
        until: u64,
    },
    Known,
}

/// One machine with its one player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    pub(super) tcp: SocketAddrV4,
    pub(super) udp: SocketAddrV4,
    pub(super) system: Id,
    pub(super) player: Id,
    pub(super) stage: Stage,
    pub(super) heard: u64,
    pub(super) pinged: u64,
    pub name: Name,
    /// The game's own.
    pub data: [u8; 4],
}

impl Machine {
    pub(super) fn new(tcp: SocketAddrV4, system: Id, stage: Stage, now: u64) -> Self {
        Self {
            tcp,
            udp: SocketAddrV4::new(*tcp.ip(), super::UDP_PORT),
            system,
            player: Id::NONE,
            stage,
            heard: now,
            pinged: 0,
            name: Name::EMPTY,
            data: [0; 4],
        }
    }

    pub fn ip(&self) -> Ipv4Addr {
        *self.tcp.ip()
    }

    /// Does it have a player yet?
    pub fn plays(&self) -> bool {
        self.player != Id::NONE
    }

    pub(super) fn known(&self) -> bool {
        !matches!(self.stage, Stage::Asked { .. })
    }

    pub(super) fn addresses(&self) -> SpAddresses {
        SpAddresses { tcp: self.tcp, udp: self.udp }
    }

    pub(super) fn listen_at(&mut self, addresses: SpAddresses) {
        self.tcp = addresses.tcp;
        self.udp = addresses.udp;
    }

    /// Takes over what a record says of its player.
    pub(super) fn take_player(&mut self, player: &Player) {
        self.player = player.id;
        self.name = player.short_name.map_or(Name::EMPTY, Name::of);
        if let Some(data) = player.data.first_chunk() {
            self.data = *data;
        }
    }
}

/// The machines by place; a place stays the same as long as the machine is there.
#[derive(Debug, Default)]
pub(super) struct Table([Option<Machine>; MACHINES]);

impl Table {
    pub(super) fn get(&self, place: usize) -> Option<&Machine> {
        self.0.get(place)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Machine> {
        self.0.get_mut(place)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Machine)> {
        self.0.iter().enumerate().filter_map(|(i, m)| Some((i, m.as_ref()?)))
    }

    fn find(&self, wanted: impl Fn(&Machine) -> bool) -> Option<usize> {
        self.iter().find(|(_, m)| wanted(m)).map(|(i, _)| i)
    }

    pub(super) fn by_ip(&self, ip: Ipv4Addr) -> Option<usize> {
        self.find(|m| m.ip() == ip)
    }

    pub(super) fn by_system(&self, id: Id) -> Option<usize> {
        self.find(|m| m.system == id)
    }

    pub(super) fn by_player(&self, id: Id) -> Option<usize> {
        self.find(|m| id != Id::NONE && m.player == id)
    }

    /// `None` when all places are taken.
    pub(super) fn add(&mut self, machine: Machine) -> Option<usize> {
        let place = self.0.iter().position(Option::is_none)?;
        self.0[place] = Some(machine);
        Some(place)
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<Machine> {
        self.0.get_mut(place)?.take()
    }
}
