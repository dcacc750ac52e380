//! Releases that a guest still has to get, so that no key stays down in it. Pure.
//!
//! ```text
//!   release not taken (no monitor, or it broke) ──owe──┐
//!   a guest that somebody else gave input to ──sweep───┴──> owed ──few at a time──> next monitor of the same QEMU
//!   another QEMU ──> owed is forgotten: its keyboard is new
//! ```
//! **Invariants.** Only releases are kept, never presses: a key must not go down when the guest is back a minute later. Each
//! key and button is owed at most once, so the list is bounded by the keyboard.
use stream::{InputEvent, MouseButton};

/// Releases given at once. A PS/2 queue holds 16 bytes and drops what does not fit; a release takes at most 3.
const TOGETHER: usize = 4;

/// What a guest whose history is unknown may hold: what people hold in games and on a desktop.
const SWEPT: &str = "ShiftLeft ShiftRight ControlLeft ControlRight AltLeft AltRight MetaLeft MetaRight ArrowUp ArrowDown \
    ArrowLeft ArrowRight Space Enter Escape Tab Backspace KeyA KeyB KeyC KeyD KeyE KeyF KeyG KeyH KeyI \
    KeyJ KeyK KeyL KeyM KeyN KeyO KeyP KeyQ KeyR KeyS KeyT KeyU KeyV KeyW KeyX KeyY KeyZ Digit0 Digit1 \
    Digit2 Digit3 Digit4 Digit5 Digit6 Digit7 Digit8 Digit9";
const SWEPT_BUTTONS: [MouseButton; 3] = [MouseButton::Left, MouseButton::Middle, MouseButton::Right];

/// Which QEMU a seat leads to, as far as its runner says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Guest {
    /// Another one is another QEMU. 0 = none yet.
    number: u64,
    /// It has run since before this agent knew it: what is down in it is unknown.
    adopted: bool,
    pid: Option<u32>,
}

impl Guest {
    /// A runner was welcomed; `has_port`: its QEMU runs already.
    pub(super) fn greeted(&mut self, has_port: bool) {
        if !has_port || self.pid.is_none() {
            *self = Self { number: self.number + 1, adopted: has_port, pid: None };
        }
    }

    /// This agent welcomed its runner before it ran.
    pub(super) const fn is_new(&self) -> bool {
        !self.adopted
    }

    /// The runner says which process its QEMU is.
    pub(super) fn started(&mut self, pid: u32) {
        if self.pid.is_some_and(|known| known != pid) {
            *self = Self { number: self.number + 1, adopted: true, pid: None };
        }
        self.pid = Some(pid);
    }
}

/// What is owed to the guest in use.
#[derive(Debug, Default)]
pub(super) struct Releases {
    guest: u64,
    owed: Vec<InputEvent>,
}

impl Releases {
    /// A monitor of `guest` stands.
    pub(super) fn lead_to(&mut self, guest: Guest) {
        if guest.number == self.guest {
            return;
        }
        self.guest = guest.number;
        self.owed.clear();
        if guest.adopted {
            let keys = SWEPT.split_whitespace().map(|code| InputEvent::Key { code: code.to_owned(), down: false });
            let buttons = SWEPT_BUTTONS.map(|button| InputEvent::Button { button, down: false });
            self.owed.extend(keys.chain(buttons));
        }
    }

    /// Keeps the releases among events that were not taken.
    pub(super) fn owe(&mut self, events: &[InputEvent]) {
        for event in events {
            let release = match event {
                // A code without a key is never taken; keeping such would leave the bound to the browser.
                InputEvent::Key { code, down: false } => guest::qcode(code).is_some(),
                InputEvent::Button { down, .. } => !down,
                _ => false,
            };
            if release && !self.owed.contains(event) {
                self.owed.push(event.clone());
            }
        }
    }

    /// What to give next, at once; empty = nothing is owed.
    pub(super) fn next(&self) -> &[InputEvent] {
        &self.owed[..self.owed.len().min(TOGETHER)]
    }

    /// [`Self::next`] was given.
    pub(super) fn given(&mut self) {
        self.owed.drain(..self.owed.len().min(TOGETHER));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: &str, down: bool) -> InputEvent {
        InputEvent::Key { code: code.into(), down }
    }

    #[test]
    fn only_releases_are_owed_each_once_and_only_to_the_same_qemu() {
        let mut guest = Guest::default();
        guest.greeted(false);
        guest.started(7);
        let mut releases = Releases::default();
        releases.lead_to(guest);
        assert!(releases.next().is_empty(), "a guest that starts holds nothing");
        let left = |down| InputEvent::Button { button: MouseButton::Left, down };
        let lost = [key("KeyA", true), key("KeyB", false), left(true), left(false), InputEvent::Wheel { dy: 1 }];
        releases.owe(&lost);
        releases.owe(&lost);
        releases.owe(&[key("Fn", false), key("NoSuchKey", false)]);
        assert_eq!(releases.next(), [key("KeyB", false), left(false)]);
        guest.greeted(true);
        guest.started(7);
        releases.lead_to(guest);
        assert_eq!(releases.next().len(), 2, "the same QEMU by a new connection");
        guest.greeted(false);
        guest.started(8);
        releases.lead_to(guest);
        assert!(releases.next().is_empty(), "another QEMU");
    }

    #[test]
    fn an_unknown_guest_is_swept_once_in_small_steps() {
        let all = SWEPT.split_whitespace().count() + SWEPT_BUTTONS.len();
        assert!(SWEPT.split_whitespace().all(|code| guest::qcode(code).is_some()), "all are keys that QEMU has");
        let mut guest = Guest::default();
        guest.greeted(true);
        guest.started(7);
        let mut releases = Releases::default();
        let mut sweep = |guest| {
            releases.lead_to(guest);
            let mut count = 0;
            while !releases.next().is_empty() {
                assert!(releases.next().len() <= TOGETHER);
                count += releases.next().len();
                releases.given();
            }
            count
        };
        assert_eq!(sweep(guest), all);
        guest.greeted(true);
        guest.started(7);
        assert_eq!(sweep(guest), 0, "this agent knows it by now");
        guest.greeted(true);
        guest.started(9);
        assert_eq!(sweep(guest), all, "a QEMU that this agent did not see start");
    }
}
