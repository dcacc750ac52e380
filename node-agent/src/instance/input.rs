//! From a browser's keys to QMP's: which QEMU events an injection becomes. Pure.
use guest::input::{self, InputEvent};
use stream::InputEvent as Wish;

/// The events for one command, and the wishes that this machine has no way to fulfil.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) events: Vec<InputEvent>,
    /// Keys that a PC keyboard does not have: named in the log, never guessed.
    pub(crate) unknown: Vec<String>,
}

/// Maps wishes in their order.
pub(crate) fn batch(wishes: &[Wish]) -> Batch {
    let mut batch = Batch::default();
    for wish in wishes {
        match wish {
            Wish::Key { code, down } => match guest::qcode(code).and_then(|name| input::key(name, *down)) {
                Some(event) => batch.events.push(event),
                None => batch.unknown.push(code.clone()),
            },
            Wish::Button { button, down } => batch.events.extend(input::button(dom_number(*button), *down)),
            Wish::Move { dx, dy } => batch.events.extend(input::rel(*dx, *dy)),
            Wish::Wheel { dy } => {
                // One command per notch would be absurd for a hurled wheel; nobody scrolls further in one message.
                let notches = dy.unsigned_abs().min(WHEEL_NOTCHES_MAX);
                batch.events.extend((0..notches).flat_map(|_| input::wheel(*dy)));
            }
        }
    }
    batch
}

/// Notches taken from one message.
const WHEEL_NOTCHES_MAX: u32 = 10;

const fn dom_number(button: stream::MouseButton) -> u8 {
    match button {
        stream::MouseButton::Left => 0,
        stream::MouseButton::Middle => 1,
        stream::MouseButton::Right => 2,
        stream::MouseButton::Back => 3,
        stream::MouseButton::Forward => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_keeps_its_order_and_names_what_has_no_key() {
        let key = |code: &str, down| Wish::Key { code: code.into(), down };
        let wishes = [
            key("KeyA", true),
            key("Fn", true),
            Wish::Move { dx: 3, dy: 0 },
            Wish::Button { button: stream::MouseButton::Right, down: true },
            Wish::Wheel { dy: -2 },
            key("KeyA", false),
        ];
        let batch = batch(&wishes);
        assert_eq!(batch.unknown, ["Fn"]);
        let text: Vec<_> = batch.events.iter().map(|e| format!("{e:?}").to_lowercase()).collect();
        assert_eq!(text.len(), 1 + 1 + 1 + 4 + 1, "{text:?}");
        assert!(text[0].contains("down: true") && text[7].contains("down: false"), "{text:?}");
        assert!(text[2].contains("right") && text[3].contains("wheel"), "{text:?}");
    }

    #[test]
    fn every_dom_button_reaches_qemu_and_a_hurled_wheel_is_bounded() {
        for number in 0..5 {
            let button = stream::MouseButton::from_dom(number).unwrap();
            assert_eq!(dom_number(button), number);
            assert_eq!(batch(&[Wish::Button { button, down: true }]).events.len(), 1);
        }
        assert_eq!(batch(&[Wish::Wheel { dy: i32::MIN }]).events.len(), 20);
    }
}
