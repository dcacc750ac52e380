//! From the game's state to pixels, redrawing only what has changed.
//!
//! Three layers of a whole screen each: **town** (drawn once per square and light), **base** (town, notes, status bar,
//! menus), **work** (base, trains, steam, pointer, mark), which the machine copies to the frame buffer where it changed.
use super::{BENCH_FRAME, FRAME, Game};
use crate::art::canvas::{Canvas, HEIGHT, Rect, WIDTH};
use crate::art::damage::Damage;
use crate::art::font::{self, Style};
use crate::art::panel::{self, Status};
use crate::art::town;
use crate::art::train::{Pose, Puff};
use crate::board::{Side, Square};
use crate::input::Event as Input;
use crate::mark::{COUNTER, SQUARE, Scene};
use crate::session::Phase;
use crate::text::Text;
use crate::track::{ACROSS, DOWN, Journey, Route};

/// The pictures; each is a whole screen.
#[derive(Debug)]
pub struct Layers<'a> {
    pub town: &'a mut [u32],
    pub base: &'a mut [u32],
    pub work: &'a mut [u32],
}

/// What is on the screen now, and what has to be drawn again.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    town: bool,
    base: Damage,
    pose: Option<Pose>,
    puffs: [Option<Puff>; 6],
    pointer: Option<(i32, i32)>,
    scene: Scene,
    moved_box: Rect,
    asked: u32,
    panel: bool,
    mark: bool,
    status: (Phase, usize),
}

impl Default for View {
    fn default() -> Self {
        Self {
            town: true,
            base: Damage::default(),
            pose: None,
            puffs: [None; 6],
            pointer: None,
            scene: Scene::Game,
            moved_box: Rect::EMPTY,
            asked: 0,
            panel: false,
            mark: false,
            status: (Phase::Idle, 0),
        }
    }
}

impl View {
    pub(super) fn town_changed(&mut self) {
        self.town = true;
    }

    pub(super) fn everything_changed(&mut self) {
        self.base.add(Rect::SCREEN);
    }

    pub(super) fn base_changed(&mut self, rect: Rect) {
        self.base.add(rect);
    }

    pub(super) fn bar_changed(&mut self) {
        self.base.add(panel::BAR);
    }

    pub(super) fn notes_changed(&mut self) {
        for side in Side::ALL {
            self.base.add(note_place(side));
        }
    }

    pub(super) fn panel_changed(&mut self) {
        self.panel = true;
    }

    /// The search screen counts its questions.
    pub(super) fn search_asked(&mut self, asked: u32) {
        if self.asked != asked {
            self.asked = asked;
            self.panel = true;
        }
    }
}

/// Where the neighbour's name stands, beside its tunnel. Wide enough for any name.
fn note_place(side: Side) -> Rect {
    let (w, h) = (132, 26);
    match side {
        Side::North => Rect::new(DOWN + 62, 6, w, h),
        Side::East => Rect::new(636 - w, ACROSS - 84, w, h),
        Side::South => Rect::new(DOWN + 62, 416, w, h),
        Side::West => Rect::new(4, ACROSS - 84, w, h),
    }
}

impl Game {
    /// To be called with every event before [`Game::input`]: the press of a key or button inverts the mark in `work`;
    /// what the machine has to show at once.
    pub fn press(&mut self, input: &Input, work: &mut [u32]) -> Option<Damage> {
        if !self.is_press(input) || !self.mark.press() {
            return None;
        }
        self.mark.count();
        self.mark.draw(&mut Canvas::new(work));
        let mut damage = Damage::default();
        damage.add(SQUARE);
        damage.add(COUNTER);
        Some(damage)
    }

    /// Draws what has changed into `work`, at most at the frame rate where something moves; what to show.
    pub fn render(&mut self, layers: &mut Layers) -> Damage {
        let mut damage = Damage::default();
        if core::mem::take(&mut self.view.town) {
            town::draw(&mut Canvas::new(layers.town), self.square, self.light);
            self.view.everything_changed();
        }
        let status = (self.session.phase(), self.session.players());
        if status != self.view.status {
            self.view.status = status;
            self.view.bar_changed();
            self.view.panel_changed();
        }
        if core::mem::take(&mut self.view.panel) {
            self.screen.covers().into_iter().for_each(|r| self.view.base.add(r));
        }
        let base = core::mem::take(&mut self.view.base);
        for rect in base.rects() {
            let mut canvas = Canvas::new(layers.base);
            canvas.set_clip(*rect);
            canvas.copy(layers.town, *rect);
            self.draw_base(&mut canvas);
            damage.add(*rect);
        }
        if self.view.mark != self.mark.is_on() {
            self.view.mark = self.mark.is_on();
            damage.add(SQUARE);
            damage.add(COUNTER);
        }
        if self.view.scene != self.mark.scene() {
            match self.view.scene {
                Scene::Full => damage.add(Rect::SCREEN),
                Scene::Box => damage.add(self.view.moved_box),
                Scene::Game | Scene::Still => {}
            }
            self.view.scene = self.mark.scene();
            self.view.moved_box = self.mark.box_rect();
        }
        if self.now >= self.frame_at {
            let bench = matches!(self.view.scene, Scene::Box | Scene::Full);
            let interval = if bench { BENCH_FRAME } else { FRAME };
            // Keep the rhythm, unless we have fallen behind.
            self.frame_at = if self.now > self.frame_at + interval { self.now } else { self.frame_at } + interval;
            self.animate(&mut damage);
        }
        if self.view.pointer != self.pointer {
            for (x, y) in self.view.pointer.into_iter().chain(self.pointer) {
                damage.add(panel::pointer_bounds(x, y));
            }
            self.view.pointer = self.pointer;
        }
        if damage.is_empty() {
            return damage;
        }
        if self.mark.is_on() {
            self.mark.count();
            damage.add(COUNTER);
        }
        if self.view.scene == Scene::Full {
            damage.add(Rect::SCREEN);
            self.shifted(layers);
        } else {
            for rect in damage.rects() {
                self.compose(layers, *rect);
            }
        }
        damage
    }

    /// What moves by itself: its old and new places are damaged.
    fn animate(&mut self, damage: &mut Damage) {
        match self.view.scene {
            Scene::Still => {}
            Scene::Full => {
                self.mark.advance();
                damage.add(Rect::SCREEN);
            }
            Scene::Box => {
                self.mark.advance();
                damage.add(self.view.moved_box);
                self.view.moved_box = self.mark.box_rect();
                damage.add(self.view.moved_box);
            }
            Scene::Game => {
                let pose = self.pose();
                if pose != self.view.pose {
                    for shown in [self.view.pose, pose].into_iter().flatten() {
                        shown.bounds().into_iter().for_each(|r| damage.add(r.intersect(town::OPEN)));
                    }
                    self.view.pose = pose;
                }
                if self.puffs != self.view.puffs {
                    let both = self.puffs.iter().chain(&self.view.puffs).flatten();
                    both.for_each(|p| damage.add(p.bounds().intersect(town::OPEN)));
                    self.view.puffs = self.puffs;
                }
            }
        }
    }

    /// The train that is on the screen: the moving one, else the standing one.
    fn pose(&self) -> Option<Pose> {
        if let Some(run) = self.depot.moving() {
            return Some(Pose::new(&run.route, run.head(), usize::from(run.train.home), self.light));
        }
        let train = self.depot.standing()?;
        // Standing is the beginning of any way out.
        Some(Pose::new(&Route::of(Journey::Lap), 0, usize::from(train.home), self.light))
    }

    fn compose(&self, layers: &mut Layers, rect: Rect) {
        let mut canvas = Canvas::new(layers.work);
        canvas.set_clip(rect);
        canvas.copy(layers.base, rect);
        canvas.set_clip(rect.intersect(town::OPEN));
        if !canvas.clip().is_empty() {
            if let Some(pose) = &self.view.pose {
                pose.draw(&mut canvas);
            }
            self.view.puffs.iter().flatten().for_each(|p| p.draw(&mut canvas, self.light));
        }
        canvas.set_clip(rect);
        // What lies above the trains.
        let notes = Side::ALL.map(|side| if self.neighbour(side).is_some() { note_place(side) } else { Rect::EMPTY });
        for cover in self.screen.covers().into_iter().chain(notes) {
            canvas.copy(layers.base, cover.intersect(rect));
        }
        if self.view.scene == Scene::Box {
            self.mark.draw_box(&mut canvas);
        }
        if let Some((x, y)) = self.view.pointer {
            panel::pointer(&mut canvas, x, y);
        }
        self.mark.draw(&mut canvas);
    }

    /// The whole picture moved sideways: every row changes.
    fn shifted(&self, layers: &mut Layers) {
        let shift = self.mark.shift();
        for y in 0..HEIGHT {
            let row = y * WIDTH..(y + 1) * WIDTH;
            let (from, to) = (&layers.base[row.clone()], &mut layers.work[row]);
            to[..WIDTH - shift].copy_from_slice(&from[shift..]);
            to[WIDTH - shift..].copy_from_slice(&from[..shift]);
        }
        let mut canvas = Canvas::new(layers.work);
        self.mark.draw(&mut canvas);
    }

    /// Notes, status bar and menus, within the canvas's clip.
    fn draw_base(&self, canvas: &mut Canvas) {
        let clip = canvas.clip();
        for side in Side::ALL {
            if clip.overlaps(note_place(side)) {
                self.draw_note(canvas, side);
            }
        }
        if clip.overlaps(panel::BAR) {
            self.draw_bar(canvas);
        }
        if self.screen.covers().iter().any(|r| r.overlaps(clip)) {
            self.draw_screen(canvas);
        }
    }

    /// The neighbour's name with a signal lamp: green, or amber while a train is coming.
    fn draw_note(&self, canvas: &mut Canvas, side: Side) {
        let Some(name) = self.neighbour(side).and_then(|p| self.session.machine(p)).map(|m| m.name) else { return };
        let style = Style::new(9, 24, panel::CREAM);
        let place = note_place(side);
        let width = (font::width(name.as_str(), style) + 34).min(place.x1 - place.x0);
        let x = if side == Side::East { place.x1 - width } else { place.x0 };
        let pill = Rect::new(x, place.y0 + 1, width, 22);
        canvas.rounded(Rect { y0: pill.y0 + 2, y1: pill.y1 + 2, ..pill }, 11, 0x101418, 90);
        canvas.rounded(pill, 11, 0x203430, 240);
        let lamp = if self.coming[side.index()] > self.now { 0xffb52e } else { 0x5fd38a };
        canvas.disc(crate::art::canvas::at(x + 13, pill.y0 + 11), 100, 0x0c1614);
        canvas.disc(crate::art::canvas::at(x + 13, pill.y0 + 11), 72, lamp);
        font::text(canvas, x + 23, pill.y0 + 6, name.as_str(), style);
    }

    fn draw_bar(&self, canvas: &mut Canvas) {
        let address = self.address.map_or(Text::<20>::of("no address yet"), Text::of);
        let session = match self.session.phase() {
            Phase::Idle => Text::<64>::of("not in a game"),
            Phase::Searching => Text::of("searching"),
            Phase::Joining => Text::of("joining"),
            Phase::Playing { host } => Text::of(format_args!(
                "{}, {} of 9 {}",
                self.session.title(),
                self.session.players(),
                if host { "(host)" } else { "play" }
            )),
        };
        let playing = self.is_playing();
        let squares = core::array::from_fn(|i| {
            let square = Square::new(i as u8).filter(|s| playing || *s == self.square)?;
            self.on_square(square).map(|(home, _)| home)
        });
        let status = Status {
            seat: self.config.seat + 1,
            name: self.config.name.as_str(),
            address: address.as_str(),
            session: session.as_str(),
            squares,
            own: Some(self.square),
        };
        panel::bar(canvas, &status);
    }
}
