//! Whole games in memory: what they draw, and what they do with each other's trains.
use super::{Config, Game, Layers, Notice};
use crate::art::canvas::{HEIGHT, Rect, WIDTH};
use crate::art::damage::Damage;
use crate::input::{Event, Key};
use crate::rng::Rng;
use crate::session::Link;
use crate::text::Text;
use core::net::{Ipv4Addr, SocketAddrV4};
use std::collections::VecDeque;

/// What a game sends; TCP and datagrams to the game's own port are kept apart from questions.
#[derive(Default)]
struct Outbox(Vec<(Ipv4Addr, Sent)>);

enum Sent {
    Tcp(Vec<u8>),
    Udp(Vec<u8>),
    Query(Vec<u8>),
}

impl Link for Outbox {
    fn tcp(&mut self, to: SocketAddrV4, bytes: &[u8]) {
        self.0.push((*to.ip(), Sent::Tcp(bytes.to_vec())));
    }

    fn udp(&mut self, to: SocketAddrV4, bytes: &[u8]) {
        self.0.push((*to.ip(), Sent::Udp(bytes.to_vec())));
    }

    fn broadcast(&mut self, bytes: &[u8]) {
        self.0.push((Ipv4Addr::BROADCAST, Sent::Query(bytes.to_vec())));
    }

    fn hang_up(&mut self, _: Ipv4Addr) {}
}

fn ip(seat: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 98, 0, seat as u8 + 1)
}

fn game(seat: u8, autoplay: bool) -> Game {
    let mut game =
        Game::new(Config { seat, name: Text::of(format_args!("P{seat}")), autoplay, seed: u64::from(seat) + 7 });
    game.set_address(Some(ip(usize::from(seat))));
    game
}

/// Games on one network without delay.
struct Party {
    games: Vec<Game>,
    now: u64,
    lines: Vec<(usize, String)>,
    under_way: VecDeque<(usize, Ipv4Addr, Sent)>,
}

impl Party {
    fn new(seats: u8) -> Self {
        Self {
            games: (0..seats).map(|s| game(s, true)).collect(),
            now: 1000,
            lines: Vec::new(),
            under_way: VecDeque::new(),
        }
    }

    fn act(&mut self, seat: usize, act: impl FnOnce(&mut Game, &mut Outbox)) {
        let mut outbox = Outbox::default();
        act(&mut self.games[seat], &mut outbox);
        while let Some(notice) = self.games[seat].take_notice() {
            if let Notice::Line(line) = notice {
                self.lines.push((seat, line.to_string()));
            }
        }
        self.under_way.extend(outbox.0.into_iter().map(|(to, sent)| (seat, to, sent)));
    }

    fn deliver(&mut self) {
        while let Some((from, to, sent)) = self.under_way.pop_front() {
            for other in (0..self.games.len()).filter(|o| *o != from && (to == ip(*o) || to == Ipv4Addr::BROADCAST)) {
                self.act(other, |game, link| match &sent {
                    Sent::Tcp(bytes) => game.message(ip(from), bytes, link),
                    Sent::Udp(bytes) => game.datagram(ip(from), bytes, link),
                    Sent::Query(bytes) => game.query(ip(from), bytes, link),
                });
            }
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += 50;
            let now = self.now;
            for seat in 0..self.games.len() {
                self.act(seat, |game, link| game.tick(now, link));
                self.deliver();
            }
        }
    }

    /// Where each train is, by home: how many towns show it.
    fn shown(&self) -> [usize; 9] {
        let mut shown = [0; 9];
        for train in self.games.iter().flat_map(|g| g.depot.trains()).flatten() {
            shown[usize::from(train.home)] += 1;
        }
        shown
    }
}

#[test]
fn nine_towns_exchange_trains_and_none_is_lost_or_doubled() {
    let mut party = Party::new(9);
    party.run(8_000);
    assert_eq!(party.games.iter().map(|g| g.session.players()).collect::<Vec<_>>(), [9; 9]);
    for _ in 0..30 {
        party.run(10_000);
        assert!(party.shown().iter().all(|n| *n <= 1), "a train is in two towns: {:?}", party.shown());
    }
    let crossings = party.lines.iter().filter(|(_, l)| l.starts_with("train") && l.contains(" in ")).count();
    assert!(crossings > 60, "{crossings} crossings in five minutes");
    assert!(!party.lines.iter().any(|(_, l)| l.contains("built") || l.contains("back")), "{:?}", party.lines);
    // Every town sends trains, not only a lively few.
    for seat in 0..9 {
        assert!(party.lines.iter().any(|(s, l)| *s == seat && l.contains(" out ")), "seat {seat} never sent a train");
    }
}

#[test]
fn a_town_that_starts_again_gets_its_train_back() {
    let mut party = Party::new(4);
    party.run(60_000);
    party.games[2] = game(2, true);
    party.run(60_000);
    assert_eq!(party.shown()[..4], [1, 1, 1, 1], "after {:?}", party.lines.iter().rev().take(20).collect::<Vec<_>>());
}

/// A game with its pictures.
struct Screen {
    game: Game,
    pictures: [Vec<u32>; 3],
    now: u64,
}

impl Screen {
    fn new(seat: u8) -> Self {
        let mut screen =
            Self { game: game(seat, false), pictures: [(); 3].map(|()| vec![0; WIDTH * HEIGHT]), now: 5000 };
        screen.render();
        screen
    }

    fn render(&mut self) -> Damage {
        let [town, base, work] = &mut self.pictures;
        self.game.render(&mut Layers { town, base, work })
    }

    fn pass(&mut self, ms: u64) -> Damage {
        self.now += ms;
        self.game.tick(self.now, &mut Outbox::default());
        self.render()
    }

    fn input(&mut self, event: Event) {
        self.game.press(&event, &mut self.pictures[2]);
        self.game.input(event, &mut Outbox::default());
    }

    fn key(&mut self, key: Key) {
        self.input(Event::Key { key, down: true });
    }
}

#[test]
fn a_still_town_draws_nothing() {
    let mut screen = Screen::new(4);
    for _ in 0..200 {
        assert!(screen.pass(50).is_empty());
    }
}

#[test]
fn a_moving_train_changes_few_rows() {
    let mut screen = Screen::new(4);
    screen.key(Key::Enter);
    screen.key(Key::Space);
    screen.pass(1000);
    let (mut frames, mut rows) = (0, 0);
    for _ in 0..200 {
        let damage = screen.pass(40);
        let mut touched = [false; HEIGHT];
        for rect in damage.rects() {
            touched[rect.y0 as usize..rect.y1 as usize].fill(true);
        }
        frames += usize::from(!damage.is_empty());
        rows += touched.iter().filter(|t| **t).count();
    }
    assert!(frames > 150, "{frames} frames");
    assert!(rows / frames < 130, "{} rows a frame", rows / frames);
}

/// What is drawn piece by piece is what a whole redraw would show.
#[test]
fn partial_drawing_equals_drawing_everything() {
    const KEYS: [Key; 9] = [
        Key::Up,
        Key::Down,
        Key::Left,
        Key::Right,
        Key::Enter,
        Key::Space,
        Key::Escape,
        Key::Char(b'b'),
        Key::Char(b'n'),
    ];
    for seed in 0..9 {
        let mut rng = Rng::new(seed);
        let mut screen = Screen::new(seed as u8 % 9);
        for step in 0..120 {
            match rng.range(0, 4) {
                0 => screen.key(KEYS[rng.range(0, 9) as usize]),
                1 => {
                    let (dx, dy) = (rng.range(-60, 60), rng.range(-50, 50));
                    screen.input(Event::Mouse { dx, dy, buttons: rng.range(0, 2) as u8 });
                }
                _ => {}
            }
            screen.pass(40 * rng.range(1, 4) as u64);
            let partial = screen.pictures[2].clone();
            screen.game.view.everything_changed();
            screen.render();
            if partial != screen.pictures[2] {
                let at = (0..partial.len()).find(|i| partial[*i] != screen.pictures[2][*i]).unwrap();
                panic!("seed {seed} step {step}: differs at {}, {}; {:?}", at % WIDTH, at / WIDTH, screen.game.screen);
            }
        }
    }
}

#[test]
fn in_a_bench_scene_a_press_changes_the_mark_and_the_counter_only() {
    let mut screen = Screen::new(0);
    screen.key(Key::Function(12));
    screen.key(Key::Function(9));
    screen.pass(50);
    for key in [Key::Enter, Key::Escape, Key::Char(b'b'), Key::Other] {
        let before = screen.pictures[2].clone();
        screen.key(key);
        assert!(screen.pass(50).is_empty());
        let changed = |i: &usize| before[*i] != screen.pictures[2][*i];
        let inside = |i: usize| {
            let (x, y) = ((i % WIDTH) as i32, (i / WIDTH) as i32);
            Rect::new(0, 0, 64, 64).contains(x, y) || Rect::new(64, 0, 256, 16).contains(x, y)
        };
        assert!((0..before.len()).filter(changed).all(inside), "{key:?}");
        assert!((0..64 * WIDTH).filter(|i| i % WIDTH < 64).all(|i| changed(&i)), "{key:?}");
    }
}
