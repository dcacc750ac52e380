//! Who may play, and what is held down: pure rules, with the time passed in.
//!
//! ```text
//!          take (play, admin)                       take by another, if the holder is idle for 20 s
//!   free ---------------------> held by a session ------------------------------------------------> held by the other
//!    ^                                |
//!    +--- give, bye, session gone ----+          whoever loses it: everything it held is released first
//! ```
//! **Invariant.** Whatever went down comes up: by the browser, because a `held` report does not list it, because no
//! report came for 1.5 s, or because the lease left its holder.
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{InputEvent, MouseButton, message::PointerTotals};
use crate::{Role, SessionId};

/// After this long without input the controls can be taken from their holder.
pub(crate) const IDLE: Duration = Duration::from_secs(20);
/// How long anything stays down without a `held` report; the browser reports every 500 ms.
pub(crate) const HELD_FOR: Duration = Duration::from_millis(1500);
/// More keys than anybody has fingers are not pressed.
const HELD_MAX: usize = 64;

/// The controls of one instance.
#[derive(Debug, Default)]
pub(crate) struct Controls {
    lease: Option<Lease>,
    keys: BTreeSet<String>,
    buttons: BTreeSet<MouseButton>,
    deadline: Option<Instant>,
}

#[derive(Debug)]
struct Lease {
    holder: SessionId,
    last_input: Instant,
}

/// Why `take` was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("this token may watch, not play")]
    Role,
    #[error("somebody else has the controls and uses them")]
    Taken,
}

impl Controls {
    pub(crate) fn holder(&self) -> Option<&SessionId> {
        self.lease.as_ref().map(|lease| &lease.holder)
    }

    /// How the lease looks to `session`.
    pub(crate) fn word_for(&self, session: &SessionId) -> &'static str {
        match self.holder() {
            None => "free",
            Some(holder) if holder == session => "you",
            Some(_) => "other",
        }
    }

    /// Takes the lease, and gives back what must be released for the holder before.
    pub(crate) fn take(&mut self, session: &SessionId, role: Role, now: Instant) -> Result<Vec<InputEvent>, Refused> {
        if !role.may_play() {
            return Err(Refused::Role);
        }
        let releases = match &mut self.lease {
            Some(lease) if lease.holder == *session => {
                lease.last_input = now;
                return Ok(Vec::new());
            }
            Some(lease) if now.saturating_duration_since(lease.last_input) < IDLE => return Err(Refused::Taken),
            _ => self.release_all(),
        };
        self.lease = Some(Lease { holder: session.clone(), last_input: now });
        Ok(releases)
    }

    /// Gives the lease back, if `session` has it; also when the session ends. What must be released comes back.
    pub(crate) fn give(&mut self, session: &SessionId) -> Vec<InputEvent> {
        if self.holder() != Some(session) {
            return Vec::new();
        }
        self.lease = None;
        self.release_all()
    }

    /// Whether input of `session` counts; it keeps the lease alive.
    pub(crate) fn accepts(&mut self, session: &SessionId, now: Instant) -> bool {
        match &mut self.lease {
            Some(lease) if lease.holder == *session => {
                lease.last_input = now;
                true
            }
            _ => false,
        }
    }

    /// A key of the holder. A press repeated is passed on: PS/2 keyboards repeat, and the browser does it for them.
    pub(crate) fn key(&mut self, code: String, down: bool, now: Instant) -> Option<InputEvent> {
        if down {
            if self.held() >= HELD_MAX && !self.keys.contains(&code) {
                return None;
            }
            self.start_clock(now);
            self.keys.insert(code.clone());
        } else if !self.keys.remove(&code) {
            return None;
        }
        Some(InputEvent::Key { code, down })
    }

    pub(crate) fn button(&mut self, button: MouseButton, down: bool, now: Instant) -> Option<InputEvent> {
        if down {
            self.start_clock(now);
            self.buttons.insert(button);
        } else if !self.buttons.remove(&button) {
            return None;
        }
        Some(InputEvent::Button { button, down })
    }

    /// The holder's report of all that is down: anything else comes up.
    pub(crate) fn report(&mut self, codes: &[String], buttons: &[MouseButton], now: Instant) -> Vec<InputEvent> {
        let mut releases: Vec<_> = self.keys.extract_if(.., |k| !codes.contains(k)).map(up).collect();
        releases.extend(self.buttons.extract_if(.., |b| !buttons.contains(b)).map(button_up));
        self.deadline = (self.held() > 0).then(|| now + HELD_FOR);
        releases
    }

    /// When [`Self::expire`] should be called, if nothing else happens.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Releases everything, if reports stopped coming.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<InputEvent> {
        if self.deadline.is_some_and(|deadline| deadline <= now) { self.release_all() } else { Vec::new() }
    }

    pub(crate) fn release_all(&mut self) -> Vec<InputEvent> {
        self.deadline = None;
        let mut releases: Vec<_> = std::mem::take(&mut self.keys).into_iter().map(up).collect();
        releases.extend(std::mem::take(&mut self.buttons).into_iter().map(button_up));
        releases
    }

    fn held(&self) -> usize {
        self.keys.len() + self.buttons.len()
    }

    fn start_clock(&mut self, now: Instant) {
        // Only the first press starts it. Later ones do not renew it: a browser that no longer reports is not trusted.
        self.deadline.get_or_insert(now + HELD_FOR);
    }
}

const fn up(code: String) -> InputEvent {
    InputEvent::Key { code, down: false }
}

const fn button_up(button: MouseButton) -> InputEvent {
    InputEvent::Button { button, down: false }
}

/// Turns one session's totals into deltas. A lost message costs nothing: the next total holds its movement.
#[derive(Debug, Default)]
pub(crate) struct Pointer {
    last: Option<PointerTotals>,
}

/// No hand moves farther between two messages; a jump beyond it is a mistake or malice.
const DELTA_MAX: i64 = 4096;

impl Pointer {
    /// The movement since the last total, `None` if the message is older than that or nothing moved.
    pub(crate) fn delta(&mut self, totals: PointerTotals) -> Option<(i32, i32)> {
        let (x, y) = match self.last {
            Some(last) if totals.sequence <= last.sequence => return None,
            Some(last) => (last.x, last.y),
            None => (0, 0),
        };
        self.last = Some(totals);
        let clamp = |d: i64| i32::try_from(d.clamp(-DELTA_MAX, DELTA_MAX)).expect("clamped");
        let (dx, dy) = (clamp(totals.x - x), clamp(totals.y - y));
        ((dx, dy) != (0, 0)).then_some((dx, dy))
    }

    /// Totals count from zero again; older messages stay old.
    pub(crate) const fn home(&mut self) {
        if let Some(last) = &mut self.last {
            (last.x, last.y) = (0, 0);
        }
    }
}

/// Steps that drive a relative pointer from anywhere on a screen into its corner and then to `x`, `y`.
///
/// A PS/2 packet carries at most 255 a direction and QEMU queues few of them, so that larger steps would be held back
/// and then cancel the way out of the corner. The caller leaves some milliseconds between steps.
pub(crate) fn home_steps(width: u32, height: u32, x: u32, y: u32) -> Vec<(i32, i32)> {
    const STEP: u32 = 120;
    let split = |distance: u32, step: u32| {
        let (done, next) = (distance.min(step * STEP), distance.min((step + 1) * STEP));
        i32::try_from(next - done).expect("at most STEP")
    };
    // Two more than the longest way, for guests that move the pointer less than they are told.
    let back = width.max(height).div_ceil(STEP) + 2;
    let forth = x.min(width).max(y.min(height)).div_ceil(STEP);
    let step = i32::try_from(STEP).expect("small");
    (0..back)
        .map(|_| (-step, -step))
        .chain((0..forth).map(|i| (split(x.min(width), i), split(y.min(height), i))))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(digit: char) -> SessionId {
        digit.to_string().repeat(32).parse().unwrap()
    }

    fn down(code: &str) -> InputEvent {
        InputEvent::Key { code: code.into(), down: true }
    }

    fn released(code: &str) -> InputEvent {
        up(code.into())
    }

    #[test]
    fn the_lease_is_taken_kept_and_given() {
        let (a, b, t) = (id('a'), id('b'), Instant::now());
        let mut c = Controls::default();
        assert_eq!(c.take(&a, Role::View, t), Err(Refused::Role));
        assert_eq!(c.take(&a, Role::Play, t), Ok(vec![]));
        assert_eq!((c.word_for(&a), c.word_for(&b)), ("you", "other"));
        assert_eq!(c.take(&b, Role::Admin, t + IDLE / 2), Err(Refused::Taken), "in use, whoever asks");
        assert!(c.accepts(&a, t + IDLE / 2));
        assert_eq!(c.take(&b, Role::Play, t + IDLE), Err(Refused::Taken), "input renewed it");
        assert!(!c.accepts(&b, t));
        assert_eq!(c.give(&b), []);
        assert_eq!(c.word_for(&a), "you", "only the holder gives it back");
        c.key("KeyA".into(), true, t);
        assert_eq!(c.give(&a), [released("KeyA")]);
        assert_eq!(c.word_for(&a), "free");
    }

    #[test]
    fn an_idle_holder_loses_the_lease_and_its_keys() {
        let (a, b, t) = (id('a'), id('b'), Instant::now());
        let mut c = Controls::default();
        c.take(&a, Role::Play, t).unwrap();
        c.key("ArrowUp".into(), true, t);
        c.button(MouseButton::Left, true, t);
        let releases = c.take(&b, Role::Play, t + IDLE).unwrap();
        assert_eq!(releases, [released("ArrowUp"), button_up(MouseButton::Left)]);
        assert_eq!(c.holder(), Some(&b));
    }

    #[test]
    fn what_is_not_reported_comes_up() {
        let t = Instant::now();
        let mut c = Controls::default();
        for code in ["KeyA", "KeyB"] {
            assert_eq!(c.key(code.into(), true, t), Some(down(code)));
        }
        c.button(MouseButton::Right, true, t);
        let releases = c.report(&["KeyB".into(), "KeyZ".into()], &[], t);
        assert_eq!(releases, [released("KeyA"), button_up(MouseButton::Right)], "and KeyZ is not pressed by a report");
        assert_eq!(c.key("KeyA".into(), false, t), None, "already up");
        assert_eq!(c.report(&[], &[], t), [released("KeyB")]);
        assert_eq!(c.deadline(), None);
    }

    #[test]
    fn everything_comes_up_when_reports_stop() {
        let t = Instant::now();
        let ms = Duration::from_millis;
        let mut c = Controls::default();
        c.key("KeyA".into(), true, t);
        c.key("KeyB".into(), true, t + ms(1000));
        assert_eq!(c.expire(t + ms(1499)), []);
        c.report(&["KeyA".into(), "KeyB".into()], &[], t + ms(1400));
        assert_eq!(c.expire(t + ms(2899)), []);
        assert_eq!(c.expire(t + ms(2900)), [released("KeyA"), released("KeyB")]);
        assert_eq!((c.expire(t + ms(9000)), c.deadline()), (vec![], None));
        c.key("KeyA".into(), true, t);
        c.key("KeyB".into(), true, t + ms(1000));
        assert_eq!(c.expire(t + ms(1500)), [released("KeyA"), released("KeyB")], "presses renew nothing");
    }

    #[test]
    fn totals_become_deltas_and_loss_costs_nothing() {
        let totals = |x, y, sequence| PointerTotals { x, y, sequence };
        let mut p = Pointer::default();
        assert_eq!(p.delta(totals(3, -2, 1)), Some((3, -2)));
        assert_eq!(p.delta(totals(10, 0, 4)), Some((7, 2)), "2 and 3 were lost");
        assert_eq!(p.delta(totals(5, -1, 3)), None, "late");
        assert_eq!(p.delta(totals(10, 0, 5)), None, "no movement");
        p.home();
        assert_eq!(p.delta(totals(1, 1, 6)), Some((1, 1)));
        assert_eq!(p.delta(totals(1_000_000_000, 1, 7)), Some((4096, 0)));
    }

    proptest! {
        #[test]
        fn homing_ends_at_its_goal(
            (w, h) in (1u32..2000, 1u32..2000),
            from in any::<(prop::sample::Index, prop::sample::Index)>(),
            to in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let at = |i: prop::sample::Index, side: u32| u32::try_from(i.index(side as usize)).unwrap();
            let (goal_x, goal_y) = (at(to.0, w), at(to.1, h));
            let (mut x, mut y) = (i64::from(at(from.0, w)), i64::from(at(from.1, h)));
            for (dx, dy) in home_steps(w, h, goal_x, goal_y) {
                prop_assert!(dx.abs() <= 127 && dy.abs() <= 127);
                x = (x + i64::from(dx)).clamp(0, i64::from(w) - 1);
                y = (y + i64::from(dy)).clamp(0, i64::from(h) - 1);
            }
            prop_assert_eq!((x, y), (i64::from(goal_x), i64::from(goal_y)));
        }

        /// Whatever is pressed, reported or left alone: after the last release nothing is down in the guest.
        #[test]
        fn nothing_stays_down(steps in prop::collection::vec((0u8..4, 0u8..3, any::<bool>(), 0u64..900), 0..60)) {
            let (a, mut now) = (id('a'), Instant::now());
            let mut c = Controls::default();
            c.take(&a, Role::Play, now).unwrap();
            let mut guest = BTreeSet::new();
            let mut play = |events: Vec<InputEvent>| for event in events {
                match event {
                    InputEvent::Key { code, down: true } => { guest.insert(code); }
                    InputEvent::Key { code, down: false } => { guest.remove(&code); }
                    _ => {}
                }
            };
            for (what, key, is_down, wait) in steps {
                now += Duration::from_millis(wait);
                play(c.expire(now));
                let code = format!("Key{key}");
                match what {
                    0 | 1 => play(c.key(code, is_down, now).into_iter().collect()),
                    2 => play(c.report(&[code], &[], now)),
                    _ => {}
                }
            }
            play(c.expire(now + HELD_FOR));
            play(c.give(&a));
            prop_assert!(guest.is_empty(), "{guest:?}");
        }
    }
}
