//! Sessions against each other over a network in memory: order is kept between two machines, and between pairs it is
//! whatever the seed says.
use super::{Event, Link, Phase, Session, TCP_PORT};
use crate::rng::Rng;
use core::net::{Ipv4Addr, SocketAddrV4};
use std::collections::VecDeque;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Tcp,
    Udp,
    Query,
}

type Parcel = (Ipv4Addr, Ipv4Addr, Kind, Vec<u8>);

/// What one machine sends, until the network takes it.
struct Outbox {
    me: Ipv4Addr,
    sent: Vec<Parcel>,
}

impl Link for Outbox {
    fn tcp(&mut self, to: SocketAddrV4, bytes: &[u8]) {
        assert!(to.port() == TCP_PORT || *to.ip() == STRANGER, "{to}");
        assert_ne!(*to.ip(), self.me, "talks to itself");
        self.sent.push((self.me, *to.ip(), Kind::Tcp, bytes.to_vec()));
    }

    fn udp(&mut self, to: SocketAddrV4, bytes: &[u8]) {
        self.sent.push((self.me, *to.ip(), Kind::Udp, bytes.to_vec()));
    }

    fn broadcast(&mut self, bytes: &[u8]) {
        self.sent.push((self.me, Ipv4Addr::BROADCAST, Kind::Query, bytes.to_vec()));
    }

    fn hang_up(&mut self, _: Ipv4Addr) {}
}

const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 200);

fn ip(seat: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 98, 0, seat as u8 + 1)
}

struct World {
    /// `None` while switched off.
    seats: Vec<Option<Session>>,
    wires: Vec<VecDeque<Parcel>>,
    rng: Rng,
    now: u64,
    heard: Vec<(usize, Vec<u8>)>,
    lost: usize,
}

impl World {
    fn new(seats: usize, seed: u64) -> Self {
        Self {
            seats: (0..seats).map(|_| None).collect(),
            wires: (0..seats * seats).map(|_| VecDeque::new()).collect(),
            rng: Rng::new(seed),
            now: 0,
            heard: Vec::new(),
            lost: 0,
        }
    }

    fn boot_all(&mut self, seats: usize) {
        for seat in 0..seats {
            self.boot(seat);
        }
    }

    fn boot(&mut self, seat: usize) {
        let seed = self.now * 16 + seat as u64;
        let mut session = Session::new(&format!("seat {seat}"), [seat as u8; 4], seed);
        if seat == 0 {
            session.host("Loco Party");
        } else {
            session.search(self.now);
        }
        self.seats[seat] = Some(session);
        let count = self.seats.len();
        for other in 0..count {
            self.wires[seat * count + other].clear();
            self.wires[other * count + seat].clear();
        }
    }

    fn act<R>(&mut self, seat: usize, act: impl FnOnce(&mut Session, u64, &mut Outbox) -> R) -> Option<R> {
        let mut outbox = Outbox { me: ip(seat), sent: Vec::new() };
        let now = self.now;
        let result = act(self.seats[seat].as_mut()?, now, &mut outbox);
        let count = self.seats.len();
        for parcel in outbox.sent {
            for to in (0..count).filter(|to| *to != seat && (parcel.1 == ip(*to) || parcel.2 == Kind::Query)) {
                self.wires[seat * count + to].push_back(parcel.clone());
            }
        }
        self.autoplay(seat);
        Some(result)
    }

    fn autoplay(&mut self, seat: usize) {
        let Some(session) = self.seats[seat].as_mut() else { return };
        let mut join = false;
        while let Some(event) = session.next_event() {
            join |= event == Event::Found;
            self.lost += usize::from(event == Event::Lost);
        }
        if join && session.phase() == Phase::Searching {
            let found = *session.found().next().unwrap();
            self.act(seat, |s, now, link| s.join(&found, now, link));
        }
    }

    fn deliver(&mut self) -> bool {
        let busy: Vec<_> = (0..self.wires.len()).filter(|w| !self.wires[*w].is_empty()).collect();
        if busy.is_empty() {
            return false;
        }
        let wire = busy[self.rng.range(0, busy.len() as i32) as usize];
        let to = wire % self.seats.len();
        let (from, _, kind, bytes) = self.wires[wire].pop_front().unwrap();
        let payload = self.act(to, |s, now, link| match kind {
            Kind::Query => {
                s.query(from, &bytes, now, link);
                None
            }
            Kind::Udp => s.datagram(from, &bytes, now, link).map(|(_, p)| p.to_vec()),
            Kind::Tcp => s.message(from, &bytes, now, link).map(|(_, p)| p.to_vec()),
        });
        match payload {
            Some(Some(payload)) => self.heard.push((to, payload)),
            None if kind == Kind::Tcp => {
                // A machine that is off resets the connection, sooner or later.
                let seat = (0..self.seats.len()).find(|s| ip(*s) == from).unwrap();
                self.act(seat, |s, now, link| s.lost(ip(to), now, link));
            }
            _ => {}
        }
        true
    }

    /// Runs for so many milliseconds; every player says something each two seconds, as the game does.
    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += 50;
            for seat in 0..self.seats.len() {
                self.act(seat, Session::tick);
                if self.now.is_multiple_of(2000) {
                    self.act(seat, |s, _, link| s.hint(None, b"here", link));
                }
            }
            let mut steps = 0;
            while self.deliver() {
                steps += 1;
                assert!(steps < 20_000, "the machines talk without end");
            }
        }
    }

    #[track_caller]
    fn all_see(&self, seats: &[usize]) {
        for &seat in seats {
            let session = self.seats[seat].as_ref().unwrap();
            assert!(matches!(session.phase(), Phase::Playing { .. }), "seat {seat}: {:?}", session.phase());
            let mut names: Vec<_> = session.machines().map(|(_, m)| m.name.as_str().to_owned()).collect();
            names.sort();
            let want: Vec<_> = seats.iter().filter(|s| **s != seat).map(|s| format!("seat {s}")).collect();
            assert_eq!(names, want, "as seat {seat} sees it");
            for (_, machine) in session.machines() {
                assert_eq!(machine.data[0], machine.ip().octets()[3] - 1, "data of {}", machine.name);
            }
        }
    }
}

const ALL: [usize; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

#[test]
fn nine_that_start_at_once_all_see_each_other() {
    for seed in 0..40 {
        let mut world = World::new(9, seed);
        world.boot_all(9);
        world.run(12_000);
        world.all_see(&ALL);
        assert_eq!(world.lost, 0);
    }
}

#[test]
fn guaranteed_and_unguaranteed_messages_reach_one_or_all() {
    let mut world = World::new(9, 1);
    world.boot_all(9);
    world.run(12_000);
    world.heard.clear();
    world.act(4, |s, _, link| s.tell(None, b"to all", link));
    let place = world.seats[4].as_ref().unwrap().machines().find(|(_, m)| m.name.as_str() == "seat 7").unwrap().0;
    world.act(4, |s, _, link| s.tell(Some(place), b"to seven", link));
    while world.deliver() {}
    let mut all: Vec<_> = world.heard.iter().filter(|(_, p)| p == b"to all").map(|(to, _)| *to).collect();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 5, 6, 7, 8]);
    let one: Vec<_> = world.heard.iter().filter(|(_, p)| p == b"to seven").map(|(to, _)| *to).collect();
    assert_eq!(one, [7]);
}

#[test]
fn a_seat_that_starts_again_takes_its_own_place() {
    for seed in 0..20 {
        let mut world = World::new(9, seed);
        world.boot_all(9);
        world.run(12_000);
        world.boot(3);
        world.run(10_000);
        world.all_see(&ALL);
        assert_eq!(world.lost, 0, "the others must not notice more than a player that leaves and comes");
    }
}

#[test]
fn a_seat_that_stays_away_is_given_up_by_all() {
    let mut world = World::new(5, 3);
    world.boot_all(5);
    world.run(12_000);
    world.seats[2] = None;
    world.run(20_000);
    world.all_see(&[0, 1, 3, 4]);
}

#[test]
fn all_find_a_host_that_starts_again() {
    for seed in 0..20 {
        let mut world = World::new(9, seed);
        world.boot_all(9);
        world.run(12_000);
        world.boot(0);
        world.run(25_000);
        world.all_see(&ALL);
        assert_eq!(world.lost, 8);
    }
}

#[test]
fn leaving_is_seen_at_once() {
    let mut world = World::new(4, 9);
    world.boot_all(4);
    world.run(12_000);
    world.act(1, |s, _, link| s.leave(link));
    while world.deliver() {}
    world.all_see(&[0, 2, 3]);
    assert_eq!(world.seats[1].as_ref().unwrap().phase(), Phase::Idle);
}

#[test]
fn the_host_that_leaves_sends_the_others_searching() {
    let mut world = World::new(3, 9);
    world.boot_all(3);
    world.run(8_000);
    world.act(0, |s, _, link| s.leave(link));
    while world.deliver() {}
    for seat in [1, 2] {
        assert_eq!(world.seats[seat].as_ref().unwrap().phase(), Phase::Searching);
    }
}

#[test]
fn the_tenth_is_refused_and_goes_on_searching() {
    let mut world = World::new(10, 5);
    world.boot_all(9);
    world.run(12_000);
    world.boot(9);
    world.run(8_000);
    world.all_see(&ALL);
    assert!(matches!(world.seats[9].as_ref().unwrap().phase(), Phase::Searching | Phase::Joining));
}

#[test]
fn noise_neither_panics_nor_changes_a_session() {
    let mut world = World::new(3, 2);
    world.boot_all(3);
    world.run(8_000);
    let mut rng = Rng::new(4);
    for round in 0..4000 {
        let mut bytes: Vec<u8> = (0..rng.range(0, 160)).map(|_| rng.draw() as u8).collect();
        if round % 2 == 0 && bytes.len() >= 28 {
            let len = bytes.len() as u32;
            bytes[..4].copy_from_slice(&(0xfab0_0000 | len).to_le_bytes());
            bytes[4..6].copy_from_slice(&[2, 0]);
            bytes[20..24].copy_from_slice(b"play");
            bytes[25] = 0;
            bytes[24] %= 0x39;
        }
        for seat in 0..3 {
            world.act(seat, |s, now, link| {
                s.query(STRANGER, &bytes, now, link);
                s.datagram(STRANGER, &bytes, now, link);
                s.message(STRANGER, &bytes, now, link);
            });
        }
    }
    world.wires.iter_mut().for_each(VecDeque::clear);
    world.run(9_000);
    world.all_see(&[0, 1, 2]);
}
