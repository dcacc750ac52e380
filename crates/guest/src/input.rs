//! What a person does, as QMP's `input-send-event` takes it.
//!
//! A batch is one command, so its events reach the guest's devices together and in order. The pointer is relative
//! (PS/2): Windows 98 has no driver for a tablet, and absolute events go nowhere without one.
use qapi::qmp::{self, InputAxis, InputBtnEvent, InputKeyEvent, InputMoveEvent, KeyValue, QKeyCode};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::qmp::{Qmp, QmpError};

pub use qapi::qmp::{InputButton as Button, InputEvent};

/// Longest batch that is sent as one command; QEMU's PS/2 queues hold 256 bytes, at most 6 for each key.
pub const BATCH_EVENTS_MAX: usize = 40;

/// A key by QEMU's name (see [`crate::keymap::qcode`]); `None` if QEMU has no such key.
pub fn key(qcode: &str, down: bool) -> Option<InputEvent> {
    let code: QKeyCode = qcode.parse().ok()?;
    Some(InputKeyEvent { down, key: KeyValue::from(code) }.into())
}

/// A button by the DOM's number: 0 left, 1 middle, 2 right, 3 back, 4 forward.
pub fn button(dom_button: u8, down: bool) -> Option<InputEvent> {
    let button = match dom_button {
        0 => Button::left,
        1 => Button::middle,
        2 => Button::right,
        3 => Button::side,
        4 => Button::extra,
        _ => return None,
    };
    Some(press(button, down))
}

/// One notch of the wheel: a press and a release. Positive `dy` is towards the user, as in the DOM; 0 is nothing.
pub fn wheel(dy: i32) -> Vec<InputEvent> {
    let button = match dy {
        0 => return Vec::new(),
        ..0 => Button::wheel_up,
        1.. => Button::wheel_down,
    };
    vec![press(button, true), press(button, false)]
}

/// Relative motion in counts of the mouse. An axis without motion makes no event.
pub fn rel(dx: i32, dy: i32) -> Vec<InputEvent> {
    [(InputAxis::x, dx), (InputAxis::y, dy)]
        .into_iter()
        .filter(|(_, value)| *value != 0)
        .map(|(axis, value)| InputEvent::rel(InputMoveEvent { axis, value: value.into() }.into()))
        .collect()
}

fn press(button: Button, down: bool) -> InputEvent {
    InputBtnEvent { button, down }.into()
}

impl<S: AsyncRead + AsyncWrite + Unpin> Qmp<S> {
    /// Gives a batch to the guest's devices, in order; more than [`BATCH_EVENTS_MAX`] events go as several commands.
    ///
    /// # Errors
    /// See [`QmpError`]. A refused batch has been given in part at most: release what was held.
    pub async fn send_input(&mut self, events: &[InputEvent]) -> Result<(), QmpError> {
        for batch in events.chunks(BATCH_EVENTS_MAX) {
            self.execute(qmp::input_send_event { device: None, head: None, events: batch.to_vec() }).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn events_as_qemu_reads_them() {
        let mut events = vec![key("a", true).unwrap(), button(2, false).unwrap()];
        events.extend(rel(-3, 0));
        events.extend(rel(0, 0));
        events.extend(wheel(-1));
        expect![[r#"
            {"type":"key","data":{"down":true,"key":{"type":"qcode","data":"a"}}}
            {"type":"btn","data":{"button":"right","down":false}}
            {"type":"rel","data":{"axis":"x","value":-3}}
            {"type":"btn","data":{"button":"wheel-up","down":true}}
            {"type":"btn","data":{"button":"wheel-up","down":false}}"#]]
        .assert_eq(&events.iter().map(|e| serde_json::to_string(e).unwrap()).collect::<Vec<_>>().join("\n"));
        assert!(key("KeyA", true).is_none() && button(5, true).is_none());
    }
}
