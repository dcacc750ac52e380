//! What an instance is doing, in one word.
use std::fmt;

/// The states that `loco status` and the gateway show. `Live` means that a picture can be streamed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InstanceState {
    /// Expected here; no picture yet.
    Starting,
    /// The guest's picture has arrived and its display connection stands.
    Live,
    /// It was live; runner, guest or display connection is gone and is being brought back.
    Recovering,
    /// It ended by itself and nobody is bringing it back.
    Failed,
    /// It was told to stop.
    Stopped,
}

impl InstanceState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Live => "live",
            Self::Recovering => "recovering",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
