//! Machines outside of the cluster that are plugged into a LAN at this node: each is a port like a guest's, whose card is learned.
//!
//! ```text
//!  plug_foreign ──> port without a card ── first frame ──> card bound ── frames ──> guard ──> table
//!                                                └─ somebody has it ──> told why, unplugged
//! ```
//! **Invariants.** A machine has one card, for as long as it is plugged in, and nobody else of the LAN has it. Their number has a
//! bound. What one sends is judged as a guest's. Who left holds nothing: neither card, nor address, nor memory.
use std::{
    cell::RefCell,
    collections::BTreeSet,
    net::Ipv4Addr,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use fabric::{
    LanSpec,
    desk::{Books, Desk},
};
use model::{Identity, InstanceId, MacAddr, Rules, Vni};
use tokio::sync::oneshot;
use wire::class::Octets as _;

use super::{
    ForeignEnd, ForeignPlug, ForeignStatus, ForeignTotals, SwitchError,
    jack::Jack,
    node::{Lan, Node},
    port::FrameSocket,
};
use crate::{
    guard::Guard,
    pool,
    table::{ForeignId, Port, Table, Taken},
};

/// Machines that are plugged into one LAN at one node: as many as usually have a seat there. Full = [`SwitchError::Full`].
pub const FOREIGN_MAX: usize = 9;

/// Addresses that one machine may have declined. Full = they are forgotten: who declines so many is broken.
const DECLINED_MAX: usize = 16;

pub(super) struct ForeignPort {
    plug: ForeignPlug,
    since: SystemTime,
    guard: Guard,
    card: Option<MacAddr>,
    /// Its address, and who gives it to it; `None`: it has not spoken yet, or there is no room.
    desk: Option<(Ipv4Addr, Desk)>,
    /// Its own: others' are about instances.
    books: Books,
    /// Addresses that it found in use by somebody else.
    declined: BTreeSet<Ipv4Addr>,
    ended: oneshot::Sender<ForeignEnd>,
    pub(super) jack: Jack,
}

/// What is judged before the card is known.
const fn any_source(rules: Rules) -> Rules {
    Rules { own_source: false, ..rules }
}

/// Whatever the LAN lets its guests do: a stranger has one card.
const fn own_source(rules: Rules) -> Rules {
    Rules { own_source: true, ..rules }
}

impl ForeignPort {
    fn guard(card: Option<MacAddr>, rules: Rules, now: Duration) -> Guard {
        match card {
            Some(card) => Guard::new(card, own_source(rules), now),
            None => Guard::new(MacAddr::ZERO, any_source(rules), now),
        }
    }

    /// Gives it an address that is not `taken`, if there is one.
    fn set_desk(&mut self, id: ForeignId, lan: &LanSpec, taken: &BTreeSet<Ipv4Addr>) {
        let Some(card) = self.card else { return };
        let is_taken = |ip: Ipv4Addr| taken.contains(&ip) || self.declined.contains(&ip);
        let ip = pool::address(lan.subnet, lan.seats, card, is_taken);
        self.desk = ip.zip(name(id)).map(|(ip, instance)| {
            let MacAddr([_, _, _, a, b, c]) = card;
            let host_name = format!("PLUG-{a:02X}{b:02X}{c:02X}");
            let identity = Identity { mac: card, ip, subnet: lan.subnet, host_name };
            (ip, Desk::new(lan, instance, &identity, Instant::now()))
        });
    }

    fn totals(&self) -> ForeignTotals {
        let refused = self.guard.refused().filter(|(_, count)| *count > 0).collect();
        ForeignTotals { plugged: 1, counters: self.jack.counters, refused }
    }

    fn status(&self) -> ForeignStatus {
        ForeignStatus {
            remote: self.plug.remote.clone(),
            since: self.since,
            card: self.card,
            address_in_use: self.books.addresses.values().next().copied(),
            counters: self.jack.counters,
            refused: self.totals().refused,
        }
    }
}

/// As its desk's books call it.
fn name(id: ForeignId) -> Option<InstanceId> {
    format!("foreign-{}", id.0).parse().ok()
}

pub(super) fn plug_in(
    node: &Rc<RefCell<Node>>,
    plug: ForeignPlug,
    socket: FrameSocket,
) -> Result<oneshot::Receiver<ForeignEnd>, SwitchError> {
    let mut borrowed = node.borrow_mut();
    let now = borrowed.now();
    let vni = borrowed.vni(&plug.lan).ok_or_else(|| SwitchError::NoLan(plug.lan.clone()))?;
    let Some(lan) = borrowed.lans.get_mut(&vni) else { return Err(SwitchError::NoLan(plug.lan)) };
    // Its old connection may be dead without knowing it.
    let again: Vec<_> =
        lan.foreign.iter().filter(|(_, port)| port.plug.machine == plug.machine).map(|(id, _)| *id).collect();
    for id in again {
        lan.end_foreign(id, Some(ForeignEnd::Replaced));
    }
    if lan.foreign.len() >= FOREIGN_MAX {
        return Err(SwitchError::Full(plug.lan));
    }
    let (ended, end) = oneshot::channel();
    tracing::info!(lan = %plug.lan, remote = plug.remote, "a foreign machine is plugged in");
    let mut port = ForeignPort {
        plug,
        since: SystemTime::now(),
        guard: ForeignPort::guard(None, lan.spec.guard, now),
        card: None,
        desk: None,
        books: Books::default(),
        declined: BTreeSet::new(),
        ended,
        jack: Jack::new(now),
    };
    lan.foreign_plugged += 1;
    let id = ForeignId(lan.foreign_plugged);
    port.jack.plug(node, vni, Port::Foreign(id), Rc::new(socket));
    lan.table.plug(id);
    lan.foreign.insert(id, port);
    Ok(end)
}

impl Lan {
    /// Unplugs a machine, and tells it why unless it knows.
    pub(super) fn end_foreign(&mut self, id: ForeignId, why: Option<ForeignEnd>) {
        let Some(port) = self.foreign.remove(&id) else { return };
        self.table.unplug(id);
        self.foreign_gone.add(&ForeignTotals { plugged: 0, ..port.totals() });
        tracing::info!(lan = %self.spec.name, remote = port.plug.remote, ?why, "a foreign machine is unplugged");
        if let Some(why) = why {
            // Who brought it may have gone at the same time.
            drop(port.ended.send(why));
        }
    }

    /// Gives a machine an address that neither another one nor who is `taken` has.
    fn give_address(&mut self, id: ForeignId, mut taken: BTreeSet<Ipv4Addr>) {
        let others = self.foreign.iter().filter(|(other, _)| **other != id);
        taken.extend(others.filter_map(|(_, port)| Some(port.desk.as_ref()?.0)));
        if let Some(port) = self.foreign.get_mut(&id) {
            port.set_desk(id, &self.spec, &taken);
        }
    }

    /// The LAN has got another spec than `old`.
    pub(super) fn keep_foreign(&mut self, old: &LanSpec, now: Duration) {
        let taken = |id: ForeignId, port: &ForeignPort, table: &Table| {
            let card = port.card?;
            table.is_free(id, card).is_err().then_some((id, card))
        };
        let gone: Vec<_> = self.foreign.iter().filter_map(|(id, port)| taken(*id, port, &self.table)).collect();
        for (id, card) in gone {
            self.end_foreign(id, Some(ForeignEnd::CardTaken { card, lan: self.spec.name.clone() }));
        }
        if old.guard != self.spec.guard {
            for port in self.foreign.values_mut() {
                port.guard = ForeignPort::guard(port.card, self.spec.guard, now);
            }
        }
        if (old.subnet, old.seats, old.edge_mac) != (self.spec.subnet, self.spec.seats, self.spec.edge_mac) {
            let mut given = BTreeSet::new();
            for (id, port) in &mut self.foreign {
                port.books = Books::default();
                port.declined.clear();
                port.set_desk(*id, &self.spec, &given);
                given.extend(port.desk.as_ref().map(|(ip, _)| *ip));
            }
        }
    }

    /// The LAN has left the node.
    pub(super) fn end(mut self) {
        while let Some((id, _)) = self.foreign.first_key_value() {
            self.end_foreign(*id, Some(ForeignEnd::NoLan(self.spec.name.clone())));
        }
    }

    pub(super) fn foreign_status(&self) -> (Vec<ForeignStatus>, ForeignTotals) {
        let mut totals = self.foreign_gone.clone();
        self.foreign.values().for_each(|port| totals.add(&port.totals()));
        (self.foreign.values().map(ForeignPort::status).collect(), totals)
    }
}

impl ForeignTotals {
    fn add(&mut self, more: &Self) {
        self.plugged += more.plugged;
        let (sum, more_counters) = (&mut self.counters, more.counters);
        sum.tx_frames += more_counters.tx_frames;
        sum.tx_bytes += more_counters.tx_bytes;
        sum.rx_frames += more_counters.rx_frames;
        sum.rx_bytes += more_counters.rx_bytes;
        sum.rx_dropped += more_counters.rx_dropped;
        for (refusal, count) in &more.refused {
            *self.refused.entry(*refusal).or_default() += count;
        }
    }
}

impl Node {
    pub(super) fn take_from_foreign(&mut self, vni: Vni, id: ForeignId, frame: &[u8]) {
        let now = self.now();
        let Self { lans, books, .. } = self;
        let Some(lan) = lans.get_mut(&vni) else { return };
        // The books know what guests set by hand.
        let of_guests = || books.addresses.values().copied().collect();
        let Some(port) = lan.foreign.get_mut(&id) else { return };
        if port.guard.judge(now, frame).is_err() {
            return;
        }
        if port.card.is_none() {
            let Some(card) = frame.octets::<6>(6).map(MacAddr) else { return };
            if let Err(taken) = lan.table.bind(now, id, card) {
                let end = match taken {
                    Taken::Elsewhere(node) => ForeignEnd::Elsewhere { card, node },
                    Taken::Directory | Taken::Foreign(_) => ForeignEnd::CardTaken { card, lan: lan.spec.name.clone() },
                    Taken::NoCard => ForeignEnd::NoCard { card },
                };
                return lan.end_foreign(id, Some(end));
            }
            tracing::info!(lan = %lan.spec.name, %card, remote = port.plug.remote, "a foreign machine speaks");
            port.card = Some(card);
            port.guard.own(card);
            lan.give_address(id, of_guests());
        }
        let Some(port) = lan.foreign.get_mut(&id) else { return };
        port.jack.took(frame);
        if let Some((_, desk)) = &mut port.desk
            && let Some(answer) = desk.hear(frame, Instant::now(), &mut port.books)
        {
            port.jack.give(now, &answer);
        }
        if let Some((_, declined)) = port.books.conflicts.pop_first() {
            if port.declined.len() >= DECLINED_MAX {
                port.declined.clear();
            }
            port.declined.insert(declined);
            lan.give_address(id, of_guests());
        }
        self.forward(vni, Port::Foreign(id), frame);
    }
}
