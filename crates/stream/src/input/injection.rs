//! What the agent must give to QMP, in order.
use std::{sync::Arc, time::SystemTime};

/// A button, by the DOM's `MouseEvent.button` numbering 0, 1, 2, 3, 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MouseButton {
    Left,
    Middle,
    Right,
    Back,
    Forward,
}

impl MouseButton {
    /// From the DOM's number; `None` if there is no such button.
    pub const fn from_dom(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Left,
            1 => Self::Middle,
            2 => Self::Right,
            3 => Self::Back,
            4 => Self::Forward,
            _ => return None,
        })
    }

    /// The name that QMP's `InputButton` uses.
    pub const fn qmp(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Middle => "middle",
            Self::Right => "right",
            Self::Back => "side",
            Self::Forward => "extra",
        }
    }
}

/// One event for the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputEvent {
    /// `KeyboardEvent.code`, such as `KeyA`: bounded and ASCII, but not checked against a key map.
    Key {
        code: String,
        down: bool,
    },
    Button {
        button: MouseButton,
        down: bool,
    },
    /// Guest pixels, relative; positive is right and down.
    Move {
        dx: i32,
        dy: i32,
    },
    /// Notches; positive scrolls down.
    Wheel {
        dy: i32,
    },
}

/// Called once with the time at which QMP has confirmed the input.
pub(crate) type Done = Arc<dyn Fn(SystemTime) + Send + Sync>;

/// Events that must reach the guest together and after all earlier injections.
pub struct Injection {
    pub events: Vec<InputEvent>,
    /// The browser's number of this input, if it wants a trace.
    pub n: Option<u64>,
    /// When the message left the data channel.
    pub received: SystemTime,
    done: Option<Done>,
}

impl Injection {
    pub(crate) fn new(events: Vec<InputEvent>, n: Option<u64>, received: SystemTime, done: Option<Done>) -> Self {
        Self { events, n, received, done }
    }

    /// The agent says that QMP has confirmed all events. Not calling it only costs the trace its stamp.
    pub fn injected(&self) {
        if let Some(done) = &self.done {
            done(SystemTime::now());
        }
    }
}

impl std::fmt::Debug for Injection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Injection").field("events", &self.events).field("n", &self.n).finish_non_exhaustive()
    }
}
