//! The game: one town, its trains, the session with the other towns, the person at the keyboard or the timetable.
//!
//! ```text
//! bytes, time --> Session --events, payloads--> Game <--- keys, mouse (menu.rs)
//!                                                | Depot: trains
//!                                                v
//!                        view.rs: layers, damage --> frame buffer      notices --> serial line, sound card
//! ```
pub mod depot;
mod menu;
pub mod message;
#[cfg(test)]
mod tests;
mod view;

use crate::art::town::Light;
use crate::art::train::{Pose, Puff};
use crate::board::{Side, Square};
use crate::input::Event as Input;
use crate::mark::{Mark, Scene};
use crate::rng::Rng;
use crate::session::{Event, Found, Link, Phase, Session};
use crate::sound::Effect;
use crate::text::Text;
use crate::track::Journey;
use core::net::Ipv4Addr;
use depot::{Depot, Happening};
use menu::Screen;
use message::{LONGEST, Message, Train};
pub use view::Layers;
use view::View;

/// What the session is called.
pub const TITLE: &str = "Loco Party";
/// Without a key or button for so long, the timetable takes over again, in ms.
const HUMAN: u64 = 60_000;
/// A town builds its train anew if nobody has shown it for so long, in ms.
const MISSING: u64 = 20_000;
/// Milliseconds between two frames while something moves: 25 a second; 30 in the scenes of the benches.
const FRAME: u64 = 40;
const BENCH_FRAME: u64 = 33;

/// What the command line says.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// 0 to 8.
    pub seat: u8,
    pub name: Text<24>,
    /// Host, search, join and send trains without a person.
    pub autoplay: bool,
    /// Must differ between boots.
    pub seed: u64,
}

/// What the machine has to do for the game.
#[derive(Clone, Copy, Debug)]
pub enum Notice {
    /// A line for the serial port, without "LOCO ".
    Line(Text<64>),
    Sound(Effect),
}

const NOTICES: usize = 16;

/// See the module's documentation.
#[derive(Debug)]
pub struct Game {
    config: Config,
    session: Session,
    depot: Depot,
    address: Option<Ipv4Addr>,
    square: Square,
    light: Light,
    screen: Screen,
    mark: Mark,
    view: View,
    rng: Rng,
    now: u64,
    human_until: u64,
    depart_at: u64,
    here_at: u64,
    coming_at: u64,
    frame_at: u64,
    ticked: u64,
    /// When our own train was last heard of, and its newest count.
    own_seen: u64,
    own_hops: u16,
    /// Who comes out of which tunnel soon: until when the lamp is amber.
    coming: [u64; 4],
    puffs: [Option<Puff>; 6],
    puff_at: u64,
    pointer: Option<(i32, i32)>,
    buttons: u8,
    players_said: usize,
    found_said: usize,
    notices: [Option<Notice>; NOTICES],
}

impl Game {
    pub fn new(config: Config) -> Self {
        let seat = config.seat.min(8);
        let square = Square::new(seat).unwrap_or(Square::new(0).expect("the board has squares"));
        let mut depot = Depot::default();
        depot.build(Train { home: seat, hops: 0 });
        Self {
            config: Config { seat, ..config },
            session: Session::new(config.name.as_str(), [seat, seat, 0, 0], config.seed),
            depot,
            address: None,
            square,
            light: Light::Day,
            screen: Screen::Menu { focus: 0 },
            mark: Mark::default(),
            view: View::default(),
            rng: Rng::new(config.seed ^ u64::from(seat) << 32),
            now: 0,
            human_until: 0,
            depart_at: 0,
            here_at: 0,
            coming_at: 0,
            frame_at: 0,
            ticked: 0,
            own_seen: 0,
            own_hops: 0,
            coming: [0; 4],
            puffs: [None; 6],
            puff_at: 0,
            pointer: None,
            buttons: 0,
            players_said: 0,
            found_said: 0,
            notices: [None; NOTICES],
        }
    }

    pub fn take_notice(&mut self) -> Option<Notice> {
        let notice = self.notices[0]?;
        self.notices.rotate_left(1);
        self.notices[NOTICES - 1] = None;
        Some(notice)
    }

    /// The machine takes notices after each call; a seventeenth in one call is dropped.
    fn notice(&mut self, notice: Notice) {
        if let Some(place) = self.notices.iter_mut().find(|n| n.is_none()) {
            *place = Some(notice);
        }
    }

    fn say(&mut self, line: core::fmt::Arguments) {
        self.notice(Notice::Line(Text::of(line)));
    }

    /// DHCP or the command line gave an address, or DHCP took it away.
    pub fn set_address(&mut self, address: Option<Ipv4Addr>) {
        self.address = address;
        self.view.bar_changed();
    }

    /// Wake-ups a second that the game needs now.
    pub fn pace(&self) -> u32 {
        match self.mark.scene() {
            Scene::Box | Scene::Full => 60,
            Scene::Game if self.animated() => 50,
            Scene::Still | Scene::Game => 20,
        }
    }

    fn animated(&self) -> bool {
        self.depot.moving().is_some() || self.puffs.iter().any(Option::is_some)
    }

    /// Says good-bye; the machine is about to be switched off.
    pub fn leave(&mut self, link: &mut impl Link) {
        self.session.leave(link);
        self.say(format_args!("leaving"));
    }

    /// A datagram at the query port.
    pub fn query(&mut self, from: Ipv4Addr, bytes: &[u8], link: &mut impl Link) {
        self.session.query(from, bytes, self.now, link);
        self.session_events(link);
    }

    /// A datagram at the game's own port.
    pub fn datagram(&mut self, from: Ipv4Addr, bytes: &[u8], link: &mut impl Link) {
        let heard = self.session.datagram(from, bytes, self.now, link);
        self.heard(heard, link);
    }

    /// A whole message of a TCP stream.
    pub fn message(&mut self, from: Ipv4Addr, bytes: &[u8], link: &mut impl Link) {
        let heard = self.session.message(from, bytes, self.now, link);
        self.heard(heard, link);
    }

    /// The connection to or from a machine broke.
    pub fn lost(&mut self, ip: Ipv4Addr, link: &mut impl Link) {
        self.session.lost(ip, self.now, link);
        self.session_events(link);
    }

    fn heard(&mut self, heard: Option<(usize, &[u8])>, link: &mut impl Link) {
        if let Some((place, message)) = heard.and_then(|(place, bytes)| Some((place, Message::decode(bytes)?))) {
            self.understand(place, message, link);
        }
        self.session_events(link);
    }

    fn understand(&mut self, place: usize, message: Message, link: &mut impl Link) {
        match message {
            Message::Out { train, side } => {
                if self.depot.arrive(train, Side::ALL[usize::from(side)]) {
                    self.tell(Some(place), Message::Taken { train }, link);
                    self.see_own(train);
                }
            }
            Message::Taken { train } => self.depot.taken(train),
            Message::Light { night } => self.set_light(if night { Light::Night } else { Light::Day }),
            Message::Here { trains } => {
                for train in trains.into_iter().flatten() {
                    self.depot.disown(train);
                    self.see_own(train);
                }
            }
            Message::Coming { side, progress } => {
                let until = &mut self.coming[usize::from(side)];
                if progress < 255 && *until < self.now {
                    self.view.notes_changed();
                }
                *until = self.now + 1500;
            }
        }
    }

    fn see_own(&mut self, train: Train) {
        if train.home == self.config.seat {
            self.own_seen = self.now;
            self.own_hops = self.own_hops.max(train.hops);
        }
    }

    fn set_light(&mut self, light: Light) {
        if self.light != light {
            self.light = light;
            self.view.town_changed();
        }
    }

    fn tell(&self, place: Option<usize>, message: Message, link: &mut impl Link) {
        let mut bytes = [0; LONGEST];
        let len = message.encode(&mut bytes);
        self.session.tell(place, &bytes[..len], link);
    }

    fn hint(&self, place: Option<usize>, message: Message, link: &mut impl Link) {
        let mut bytes = [0; LONGEST];
        let len = message.encode(&mut bytes);
        self.session.hint(place, &bytes[..len], link);
    }

    /// The machine on the square beyond a side, if someone plays there.
    fn neighbour(&self, side: Side) -> Option<usize> {
        let square = self.square.neighbour(side)?;
        self.session
            .machines()
            .find(|(_, m)| m.plays() && usize::from(m.data[1]) == square.index())
            .map(|(place, _)| place)
    }

    fn is_playing(&self) -> bool {
        matches!(self.session.phase(), Phase::Playing { .. })
    }

    fn is_human(&self) -> bool {
        !self.config.autoplay || self.now < self.human_until
    }

    fn session_events(&mut self, link: &mut impl Link) {
        while let Some(event) = self.session.next_event() {
            match event {
                Event::Found => {
                    let count = self.session.found().count();
                    if count != self.found_said {
                        self.found_said = count;
                        self.say(format_args!("found {count}"));
                    }
                    self.view.panel_changed();
                }
                Event::Joined => {
                    let host = self.session.phase() == Phase::Playing { host: true };
                    self.say(format_args!("{}", if host { "hosting" } else { "joined" }));
                    self.open(Screen::Town);
                    self.settle(link);
                    self.own_seen = self.now;
                }
                Event::Failed | Event::Lost => {
                    self.say(format_args!("{}", if event == Event::Lost { "lost" } else { "not joined" }));
                    self.open(Screen::Search { focus: 0 });
                }
                Event::Arrived(place) => {
                    let name = self.session.machine(place).map_or(Text::EMPTY, |m| m.name);
                    self.say(format_args!("arrived {name}"));
                    self.settle(link);
                }
                Event::Changed(_) => self.settle(link),
                Event::Gone(_, name) => {
                    self.say(format_args!("gone {name}"));
                    for side in Side::ALL {
                        if self.neighbour(side).is_none() {
                            self.depot.neighbour_gone(side);
                        }
                    }
                }
            }
            self.view.bar_changed();
            self.view.notes_changed();
            if let Screen::Board { .. } = self.screen {
                self.view.panel_changed();
            }
        }
        let players = if self.is_playing() { self.session.players() } else { 0 };
        if players != self.players_said {
            self.players_said = players;
            self.say(format_args!("players={players}"));
        }
    }

    /// Two players on one square: the one whose seat it is stays, otherwise the lower seat; the other moves on.
    fn settle(&mut self, link: &mut impl Link) {
        let here = self.square.index() as u8;
        let other = self.session.machines().find(|(_, m)| m.plays() && m.data[1] == here).map(|(_, m)| m.data[0]);
        let Some(other) = other else { return };
        let ours = self.config.seat;
        let stays = ours == here || (other != here && ours < other);
        if stays {
            return;
        }
        let taken = |square: &Square| {
            self.session.machines().any(|(_, m)| m.plays() && usize::from(m.data[1]) == square.index())
        };
        if let Some(free) = Square::all().find(|s| !taken(s)) {
            self.move_to(free, link);
        }
    }

    /// Takes another square of the board.
    fn move_to(&mut self, square: Square, link: &mut impl Link) {
        if square != self.square {
            self.square = square;
            self.session.set_data([self.config.seat, square.index() as u8, 0, 0], link);
            self.say(format_args!("square {}", square.index()));
            self.view.town_changed();
        }
    }

    /// Time passes. Call at every wake-up.
    pub fn tick(&mut self, now: u64, link: &mut impl Link) {
        let elapsed = now.saturating_sub(self.ticked);
        self.now = now;
        // The session and the timetable need no more than the idle rate.
        self.session.tick(now, link);
        self.session_events(link);
        self.ticked = now;
        if matches!(self.mark.scene(), Scene::Game) {
            self.run_trains(elapsed, link);
            self.timetable(link);
        }
        self.gossip(link);
        for side in Side::ALL {
            let until = &mut self.coming[side.index()];
            if *until != 0 && now > *until {
                *until = 0;
                self.view.notes_changed();
            }
        }
        if let (Screen::Search { .. }, asked) = (self.screen, self.session.asked()) {
            self.view.search_asked(asked);
        }
    }

    fn run_trains(&mut self, elapsed: u64, link: &mut impl Link) {
        let mut all = [None; 4];
        let mut count = 0;
        self.depot.tick(self.now, elapsed, |h| {
            if let Some(place) = all.get_mut(count) {
                *place = Some(h);
                count += 1;
            }
        });
        for happening in all.into_iter().flatten() {
            match happening {
                Happening::Leaves(train, side) => {
                    self.say(format_args!("train {} out {}", train.home, side.word()));
                    if let Some(place) = self.neighbour(side) {
                        self.tell(Some(place), Message::Out { train, side: side.opposite() as u8 }, link);
                    } else {
                        self.depot.neighbour_gone(side);
                    }
                }
                Happening::Enters(train, side) => self.say(format_args!("train {} in {}", train.home, side.word())),
                Happening::Arrives(..) => {
                    self.notice(Notice::Sound(Effect::Bell));
                    self.plan_departure();
                }
                Happening::Returns(train, side) => self.say(format_args!("train {} back {}", train.home, side.word())),
            }
        }
        self.steam(elapsed);
        if self.depot.knows(self.config.seat) {
            self.own_seen = self.now;
        } else if self.now > self.own_seen + MISSING {
            self.own_hops = self.own_hops.wrapping_add(16);
            let home = self.config.seat;
            if self.depot.build(Train { home, hops: self.own_hops }) {
                self.say(format_args!("train {home} built"));
                self.plan_departure();
            }
        }
    }

    fn plan_departure(&mut self) {
        self.depart_at = self.now + self.rng.range(10_000, 20_000) as u64;
    }

    /// Puffs rise from the chimney of a train that moves, and fade.
    fn steam(&mut self, elapsed: u64) {
        for place in &mut self.puffs {
            if let Some(puff) = place {
                puff.age += (elapsed.min(200) / 4) as i32;
                puff.place.1 -= (elapsed.min(200) / 4) as i32;
                puff.place.0 += (elapsed.min(200) / 10) as i32;
                if puff.age >= 256 {
                    *place = None;
                }
            }
        }
        if self.now >= self.puff_at {
            if let Some(run) = self.depot.moving() {
                let chimney = Pose::new(&run.route, run.head(), 0, self.light).chimney();
                let (x, y) = (chimney.0 / crate::art::canvas::SUB, chimney.1 / crate::art::canvas::SUB);
                if crate::art::town::OPEN.grow(-4).contains(x, y)
                    && let Some(place) = self.puffs.iter_mut().find(|p| p.is_none())
                {
                    *place = Some(Puff { place: chimney, age: 0 });
                }
            }
            self.puff_at = self.now + 260;
        }
    }

    /// Sends trains off: now and then by autoplay, and always when another one waits for the platform.
    fn timetable(&mut self, link: &mut impl Link) {
        if self.depot.crowded() {
            self.depart_at = self.depart_at.min(self.now + 2500);
        } else if self.is_human() {
            return self.autoplay_session(link);
        }
        self.autoplay_session(link);
        if self.depot.standing().is_none() || self.depot.moving().is_some() || self.now < self.depart_at {
            return;
        }
        if self.depart_at == 0 {
            // The first departure after boot.
            self.depart_at = self.now + self.rng.range(4000, 14_000) as u64;
            return;
        }
        let sides = Side::ALL.map(|side| self.is_playing() && self.neighbour(side).is_some());
        let count = sides.iter().filter(|there| **there).count() as i32;
        let choice =
            if self.depot.crowded() || self.rng.range(0, 6) > 0 { self.rng.range(0, count.max(1)) } else { count };
        let side = Side::ALL.into_iter().filter(|s| sides[s.index()]).nth(choice as usize);
        self.depart(side.map_or(Journey::Lap, Journey::Out));
        self.plan_departure();
    }

    fn depart(&mut self, journey: Journey) {
        if self.depot.depart(journey) {
            self.notice(Notice::Sound(Effect::Whistle));
            if self.screen == Screen::Town {
                self.view.notes_changed();
            }
        }
    }

    /// Hosts, searches, joins, and goes back to the town when the person has gone.
    fn autoplay_session(&mut self, link: &mut impl Link) {
        if self.is_human() || self.address.is_none() {
            return;
        }
        match self.session.phase() {
            Phase::Idle if self.config.seat == 0 => self.session.host(TITLE),
            Phase::Idle => {
                self.session.search(self.now);
                self.say(format_args!("searching"));
                self.open(Screen::Search { focus: 0 });
            }
            Phase::Searching => {
                let joinable = |f: &&Found| f.players < f.max_players;
                let found = self.session.found().find(joinable).copied();
                if let Some(found) = found {
                    self.session.join(&found, self.now, link);
                }
            }
            Phase::Playing { .. } if self.screen != Screen::Town => self.open(Screen::Town),
            Phase::Joining | Phase::Playing { .. } => {}
        }
        self.session_events(link);
    }

    /// Tells the other towns which trains are here, and the neighbour who is coming.
    fn gossip(&mut self, link: &mut impl Link) {
        if !self.is_playing() {
            return;
        }
        if self.now >= self.here_at {
            self.here_at = self.now + 2000;
            self.hint(None, Message::Here { trains: self.depot.trains() }, link);
        }
        if self.now >= self.coming_at {
            self.coming_at = self.now + 500;
            if let Some((side, progress)) = self.depot.moving().and_then(|run| match run.journey {
                Journey::Out(side) => Some((side, run.progress())),
                _ => None,
            }) && let Some(place) = self.neighbour(side)
            {
                self.hint(Some(place), Message::Coming { side: side.opposite() as u8, progress }, link);
            }
        }
    }

    /// A key or button that goes down, as opposed to up or moved.
    fn is_press(&self, input: &Input) -> bool {
        match input {
            Input::Key { down, .. } => *down,
            Input::Mouse { buttons, .. } => buttons & !self.buttons != 0,
        }
    }

    /// A person did something. The mark has been inverted before (see [`Game::press`]).
    pub fn input(&mut self, input: Input, link: &mut impl Link) {
        if self.is_press(&input) {
            self.human_until = self.now + HUMAN;
        }
        // In the scenes of the benches a press shows in the mark and does nothing else, or it would be measured, too.
        let measuring = self.mark.scene() != Scene::Game;
        match input {
            Input::Key { key, down: true } => {
                if !self.mark.key(key) && !measuring {
                    self.key(key, link);
                }
            }
            Input::Key { .. } => {}
            Input::Mouse { dx, dy, buttons } => {
                let click = buttons & !self.buttons & 1 != 0;
                self.buttons = buttons;
                if self.pointer.is_none() && (dx, dy) == (0, 0) {
                    // A click before the pointer has ever been seen is meant for nothing.
                    return;
                }
                let (x, y) = self.pointer.unwrap_or((320, 240));
                let (x, y) = ((x + dx).clamp(0, 639), (y + dy).clamp(0, 479));
                self.pointer = Some((x, y));
                if !measuring {
                    self.point(x, y, click, link);
                }
            }
        }
        self.session_events(link);
    }
}
