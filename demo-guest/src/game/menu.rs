//! The screens that a person goes through, by keys or mouse: what they offer, where it stands, what it does.
use super::{Game, Light, Message, Notice, TITLE};
use crate::art::canvas::{Canvas, Rect};
use crate::art::panel::{self, FADED, GREEN, INK};
use crate::art::train::livery;
use crate::art::{font, town};
use crate::board::{Side, Square};
use crate::input::Key;
use crate::session::{Link, Phase};
use crate::sound::Effect;
use crate::text::Text;
use crate::track::{ACROSS, DOWN, Journey, TOWN_HEIGHT};

/// Which screen lies over the town, and what is chosen on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    Town,
    Menu { focus: usize },
    Search { focus: usize },
    Board { focus: usize },
}

/// What a menu's line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Back,
    Host,
    Search,
    Board,
    Light,
    Leave,
}

const OUTSIDE: [Choice; 4] = [Choice::Host, Choice::Search, Choice::Board, Choice::Light];
const PLAYING: [Choice; 4] = [Choice::Back, Choice::Board, Choice::Light, Choice::Leave];

impl Choice {
    fn label(self) -> &'static str {
        match self {
            Self::Back => "Back to the town",
            Self::Host => "Host a game",
            Self::Search => "Search for games",
            Self::Board => "Station board",
            Self::Light => "Day or night",
            Self::Leave => "Leave the game",
        }
    }
}

const MENU: Rect = Rect { x0: 190, y0: 132, x1: 450, y1: 356 };
const SEARCH: Rect = Rect { x0: 160, y0: 132, x1: 480, y1: 366 };
const BOARD: Rect = Rect { x0: 150, y0: 64, x1: 490, y1: 398 };
/// The game's name above a menu.
const HEAD: Rect = Rect { x0: 108, y0: 8, x1: 532, y1: 92 };
/// Sessions that are listed.
const LISTED: usize = 3;

/// The places of a menu's lines.
fn line(index: usize) -> Rect {
    Rect::new(MENU.x0 + 22, MENU.y0 + 54 + index as i32 * 42, 216, 34)
}

fn found_line(index: usize) -> Rect {
    Rect::new(SEARCH.x0 + 20, SEARCH.y0 + 88 + index as i32 * 38, 280, 32)
}

fn board_cell(index: usize) -> Rect {
    Rect::new(BOARD.x0 + 17 + index as i32 % 3 * 104, BOARD.y0 + 54 + index as i32 / 3 * 78, 98, 72)
}

const BOARD_BACK: Rect = Rect { x0: 240, y0: 354, x1: 400, y1: 386 };

/// Where a click sends a train, by side.
fn mouth(side: Side) -> Rect {
    match side {
        Side::North => Rect::new(DOWN - 60, 0, 120, 60),
        Side::East => Rect::new(576, ACROSS - 60, 64, 120),
        Side::South => Rect::new(DOWN - 60, TOWN_HEIGHT - 46, 120, 46),
        Side::West => Rect::new(0, ACROSS - 60, 64, 120),
    }
}

impl Screen {
    /// The parts of the picture that it covers: trains run beneath.
    pub(super) fn covers(self) -> [Rect; 2] {
        let shadow = |r: Rect| r.grow(12);
        match self {
            Self::Town => [Rect::EMPTY; 2],
            Self::Menu { .. } => [shadow(MENU), HEAD],
            Self::Search { .. } => [shadow(SEARCH), HEAD],
            Self::Board { .. } => [shadow(BOARD), Rect::EMPTY],
        }
    }
}

impl Game {
    pub(super) fn open(&mut self, screen: Screen) {
        if screen != self.screen {
            let both = [self.screen.covers(), screen.covers()];
            both.into_iter().flatten().for_each(|r| self.view.base_changed(r));
            self.screen = screen;
        }
    }

    fn choices(&self) -> [Choice; 4] {
        if self.is_playing() { PLAYING } else { OUTSIDE }
    }

    /// Lines of the search screen: sessions, then "back".
    fn search_lines(&self) -> usize {
        self.session.found().take(LISTED).count() + 1
    }

    pub(super) fn key(&mut self, key: Key, link: &mut impl Link) {
        match key {
            Key::Char(b'n') => return self.choose(Choice::Light, link),
            Key::Char(b'b') if self.screen == Screen::Town => return self.choose(Choice::Board, link),
            _ => {}
        }
        let step = |focus: usize, count: usize| match key {
            Key::Down | Key::Right | Key::Tab => Some((focus + 1) % count),
            Key::Up | Key::Left => Some((focus + count - 1) % count),
            _ => None,
        };
        let enter = matches!(key, Key::Enter | Key::Space);
        match self.screen {
            Screen::Town => {
                let side = match key {
                    Key::Up => Side::North,
                    Key::Right => Side::East,
                    Key::Down => Side::South,
                    Key::Left => Side::West,
                    Key::Escape => return self.open(Screen::Menu { focus: 0 }),
                    _ if enter => return self.depart(Journey::Lap),
                    _ => return,
                };
                self.send_to(side);
            }
            Screen::Menu { focus } => {
                if let Some(focus) = step(focus, 4) {
                    self.open(Screen::Menu { focus });
                } else if enter {
                    self.choose(self.choices()[focus], link);
                } else if key == Key::Escape && self.is_playing() {
                    self.open(Screen::Town);
                }
            }
            Screen::Search { focus } => {
                if let Some(focus) = step(focus, self.search_lines()) {
                    self.open(Screen::Search { focus });
                } else if enter {
                    self.pick_session(focus, link);
                } else if key == Key::Escape {
                    self.pick_session(usize::MAX, link);
                }
            }
            Screen::Board { focus } => {
                let moved = match key {
                    Key::Left => Some(Side::West),
                    Key::Right => Some(Side::East),
                    Key::Up => Some(Side::North),
                    Key::Down => Some(Side::South),
                    _ => None,
                };
                let next = Square::new(focus as u8).zip(moved).and_then(|(square, side)| square.neighbour(side));
                if let Some(square) = next {
                    self.open(Screen::Board { focus: square.index() });
                } else if enter {
                    self.pick_square(focus, link);
                } else if key == Key::Escape {
                    self.close_board();
                }
            }
        }
    }

    /// The pointer has moved to `x`, `y`; perhaps with a click.
    pub(super) fn point(&mut self, x: i32, y: i32, click: bool, link: &mut impl Link) {
        let over = |count: usize, place: fn(usize) -> Rect| (0..count).find(|i| place(*i).contains(x, y));
        match self.screen {
            Screen::Town if click => {
                if panel::MINI_BOARD.grow(4).contains(x, y) {
                    self.choose(Choice::Board, link);
                } else if panel::BAR.contains(x, y) {
                    self.open(Screen::Menu { focus: 0 });
                } else if let Some(side) = Side::ALL.into_iter().find(|s| mouth(*s).contains(x, y)) {
                    self.send_to(side);
                } else if Rect::new(110, 260, 230, 130).contains(x, y) {
                    self.depart(Journey::Lap);
                }
            }
            Screen::Town => {}
            Screen::Menu { .. } => {
                if let Some(focus) = over(4, line) {
                    self.open(Screen::Menu { focus });
                    if click {
                        self.choose(self.choices()[focus], link);
                    }
                }
            }
            Screen::Search { .. } => {
                if let Some(focus) = over(self.search_lines(), found_line) {
                    self.open(Screen::Search { focus });
                    if click {
                        self.pick_session(focus, link);
                    }
                }
            }
            Screen::Board { .. } => {
                if click && BOARD_BACK.contains(x, y) {
                    self.close_board();
                } else if let Some(focus) = over(9, board_cell) {
                    self.open(Screen::Board { focus });
                    if click {
                        self.pick_square(focus, link);
                    }
                }
            }
        }
    }

    /// A person sends the standing train into a tunnel; without a tunnel there, nothing happens.
    fn send_to(&mut self, side: Side) {
        if self.square.neighbour(side).is_some() {
            self.depart(Journey::Out(side));
        }
    }

    fn choose(&mut self, choice: Choice, link: &mut impl Link) {
        self.notice(Notice::Sound(Effect::Click));
        match choice {
            Choice::Back => self.open(Screen::Town),
            Choice::Host => self.session.host(TITLE),
            Choice::Search => {
                self.session.search(self.now);
                self.say(format_args!("searching"));
                self.open(Screen::Search { focus: 0 });
            }
            Choice::Board => self.open(Screen::Board { focus: self.square.index() }),
            Choice::Light => {
                let light = if self.light == Light::Day { Light::Night } else { Light::Day };
                self.set_light(light);
                self.tell(None, Message::Light { night: light == Light::Night }, link);
            }
            Choice::Leave => {
                self.session.leave(link);
                self.say(format_args!("left"));
                self.open(Screen::Menu { focus: 0 });
                self.view.everything_changed();
            }
        }
    }

    fn pick_session(&mut self, index: usize, link: &mut impl Link) {
        self.notice(Notice::Sound(Effect::Click));
        let found = self.session.found().take(LISTED).nth(index).copied();
        if let Some(found) = found {
            self.session.join(&found, self.now, link);
        } else {
            self.session.leave(link);
            self.open(Screen::Menu { focus: 0 });
        }
        self.view.panel_changed();
    }

    fn pick_square(&mut self, index: usize, link: &mut impl Link) {
        let taken = self.session.machines().any(|(_, m)| m.plays() && usize::from(m.data[1]) == index);
        if let Some(square) = Square::new(index as u8).filter(|_| !taken) {
            self.notice(Notice::Sound(Effect::Click));
            self.move_to(square, link);
            self.close_board();
        }
    }

    fn close_board(&mut self) {
        self.open(if self.is_playing() { Screen::Town } else { Screen::Menu { focus: 0 } });
    }

    /// Who sits on a square: home of the livery and name.
    pub(super) fn on_square(&self, square: Square) -> Option<(u8, &str)> {
        if square == self.square {
            return Some((self.config.seat, self.config.name.as_str()));
        }
        let on = |m: &crate::session::Machine| m.plays() && usize::from(m.data[1]) == square.index();
        self.session.machines().find(|(_, m)| on(m)).map(|(_, m)| (m.data[0], m.name.as_str()))
    }

    /// Draws the screen over the town.
    pub(super) fn draw_screen(&self, canvas: &mut Canvas) {
        match self.screen {
            Screen::Town => {}
            Screen::Menu { focus } => {
                panel::title(canvas, 320, HEAD.y0 + 8);
                panel::sheet(canvas, MENU, if self.is_playing() { "The game goes on" } else { "What now?" });
                for (i, choice) in self.choices().into_iter().enumerate() {
                    panel::button(canvas, line(i), choice.label(), i == focus);
                }
            }
            Screen::Search { focus } => {
                panel::title(canvas, 320, HEAD.y0 + 8);
                self.draw_search(canvas, focus);
            }
            Screen::Board { focus } => self.draw_board(canvas, focus),
        }
    }

    fn draw_search(&self, canvas: &mut Canvas, focus: usize) {
        panel::sheet(canvas, SEARCH, "Games on this network");
        let middle = i32::midpoint(SEARCH.x0, SEARCH.x1);
        let asked = self.session.asked();
        let state = match self.session.phase() {
            Phase::Joining => Text::<64>::of(format_args!("Joining {} ...", self.session.title())),
            _ if self.address.is_none() => Text::of("Waiting for an address ..."),
            _ if self.session.found().next().is_some() => Text::of("Choose a game:"),
            _ => Text::of(format_args!("Nobody has answered yet. Asked {asked} times.")),
        };
        panel::words(canvas, middle, SEARCH.y0 + 62, state.as_str(), 10, FADED);
        let lines = self.search_lines();
        for (i, found) in self.session.found().take(LISTED).enumerate() {
            let label = Text::<64>::of(format_args!("{}  {} of {}", found.name, found.players, found.max_players));
            panel::button(canvas, found_line(i), label.as_str(), i == focus);
        }
        panel::button(canvas, found_line(lines - 1), "Back", focus + 1 == lines);
    }

    fn draw_board(&self, canvas: &mut Canvas, focus: usize) {
        panel::sheet(canvas, BOARD, "Station board");
        for square in Square::all() {
            let index = square.index();
            let cell = board_cell(index);
            let owner = self.on_square(square);
            let edge = if index == focus { panel::BRASS } else { 0xcdbf9c };
            canvas.rounded(Rect { y0: cell.y0 + 2, y1: cell.y1 + 2, ..cell }, 8, 0x4a4230, 60);
            canvas.frame(cell, 8, 3, edge, 0xfffdf5);
            let meadow = Rect { y1: cell.y0 + 44, ..cell.grow(-4) };
            canvas.rounded(meadow, 5, town::palette(square).grass[0], 256);
            let (x, y) = (i32::midpoint(cell.x0, cell.x1), cell.y0 + 34);
            // A little train in the owner's colours, or an empty track.
            canvas.fill(Rect::new(meadow.x0, y, meadow.x1 - meadow.x0, 2), 0x6b6258);
            for i in 0..9 {
                canvas.fill(Rect::new(meadow.x0 + 4 + i * 10, y + 2, 5, 2), 0x7b5a3f);
            }
            if let Some((home, _)) = owner {
                let colour = livery(usize::from(home));
                canvas.rounded(Rect::new(x - 26, y - 15, 16, 14), 2, colour, 256);
                canvas.rounded(Rect::new(x - 8, y - 12, 16, 11), 2, colour, 256);
                canvas.rounded(Rect::new(x + 10, y - 11, 20, 10), 4, colour, 256);
                canvas.fill(Rect::new(x + 10, y - 20, 11, 12), colour);
                canvas.fill(Rect::new(x + 12, y - 17, 7, 5), 0xd7ecf0);
                canvas.fill(Rect::new(x + 9, y - 22, 13, 3), INK);
                canvas.fill(Rect::new(x + 25, y - 17, 4, 7), INK);
                for wheel in [-22, -14, -4, 4, 14, 24] {
                    canvas.disc(crate::art::canvas::at(x + wheel, y - 1), 44, INK);
                }
            }
            let (name, ink) =
                owner.map_or(("free", FADED), |(_, name)| (name, if square == self.square { GREEN } else { INK }));
            let style = font::Style::new(9, if square == self.square { 28 } else { 20 }, ink);
            font::centred(canvas, x, cell.y0 + 52, name, style);
        }
        panel::button(canvas, BOARD_BACK, "Back", false);
        if self.is_playing() {
            let label = Text::<40>::of(format_args!("{} of 9 play", self.session.players()));
            font::right(canvas, BOARD.x1 - 18, BOARD_BACK.y0 + 11, label.as_str(), font::Style::new(9, 20, FADED));
        }
    }
}
