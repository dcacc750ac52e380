//! The text messages of the data channels: a pure parser, and what the agent says back.
//!
//! Everything a browser sends is bounded here: lengths, counts, ranges. What does not parse is refused with a reason
//! and changes nothing.
use serde::{Deserialize, Serialize};

use super::MouseButton;
use crate::Tier;

/// Longer messages are refused unread; the longest proper one, `held` with all of a keyboard, has some 500 bytes.
pub(crate) const MESSAGE_MAX: usize = 4096;
const CODE_MAX: usize = 32;
const HELD_MAX: usize = 64;
/// Pointer totals and wheel notches beyond this are nonsense.
const TOTAL_MAX: f64 = 1e9;
const WHEEL_MAX: f64 = 16.0;

/// A checked message of the channel `keys`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FromBrowser {
    /// `None` pauses the picture.
    Tier(Option<Tier>),
    Take,
    Give,
    Key {
        code: String,
        down: bool,
        n: Option<u64>,
    },
    Button {
        button: MouseButton,
        down: bool,
        n: Option<u64>,
    },
    Wheel {
        dy: i32,
    },
    Home {
        x: u32,
        y: u32,
    },
    Held {
        codes: Vec<String>,
        buttons: Vec<MouseButton>,
    },
    KeyFrame,
    Trace {
        on: bool,
    },
    Bye,
}

/// A checked message of the channel `pointer`: totals in guest pixels since the channel opened or the last `home`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PointerTotals {
    pub(crate) x: i64,
    pub(crate) y: i64,
    /// Grows with every message; older ones are ignored.
    pub(crate) sequence: u64,
}

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadMessage {
    #[error("a message of {0} bytes is longer than {MESSAGE_MAX}")]
    Long(usize),
    #[error("not a known message: {0}")]
    Form(String),
    #[error("`{0}` is no KeyboardEvent.code")]
    Code(String),
    #[error("{0} is no MouseEvent.button")]
    Button(u8),
    #[error("{0} keys and buttons are more than anybody holds")]
    Held(usize),
    #[error("{0} is out of range")]
    Number(String),
}

#[derive(Deserialize)]
#[serde(tag = "t", rename_all = "lowercase", deny_unknown_fields)]
enum RawKeys {
    Tier {
        tier: RawTier,
    },
    Take {},
    Give {},
    Key {
        code: String,
        down: bool,
        #[serde(default)]
        n: Option<u64>,
    },
    Button {
        button: u8,
        down: bool,
        #[serde(default)]
        n: Option<u64>,
    },
    Wheel {
        dy: f64,
    },
    Home {
        x: f64,
        y: f64,
    },
    Held {
        codes: Vec<String>,
        buttons: Vec<u8>,
    },
    Keyframe {},
    Trace {
        on: bool,
    },
    Bye {},
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawTier {
    Thumb,
    Full,
    None,
}

#[derive(Deserialize)]
#[serde(tag = "t", rename_all = "lowercase", deny_unknown_fields)]
enum RawPointer {
    Move { x: f64, y: f64, s: u64 },
}

impl FromBrowser {
    pub(crate) fn parse(message: &[u8]) -> Result<Self, BadMessage> {
        Ok(match json(message)? {
            RawKeys::Tier { tier: RawTier::Thumb } => Self::Tier(Some(Tier::Thumb)),
            RawKeys::Tier { tier: RawTier::Full } => Self::Tier(Some(Tier::Full)),
            RawKeys::Tier { tier: RawTier::None } => Self::Tier(None),
            RawKeys::Take {} => Self::Take,
            RawKeys::Give {} => Self::Give,
            RawKeys::Key { code, down, n } => Self::Key { code: checked_code(code)?, down, n },
            RawKeys::Button { button, down, n } => Self::Button { button: checked_button(button)?, down, n },
            RawKeys::Wheel { dy } => {
                let dy = ranged(dy, WHEEL_MAX)?;
                Self::Wheel { dy: i32::try_from(dy).expect("at most WHEEL_MAX") }
            }
            RawKeys::Home { x, y } => Self::Home { x: pixel(x)?, y: pixel(y)? },
            RawKeys::Held { codes, buttons } => {
                let count = codes.len() + buttons.len();
                if count > HELD_MAX {
                    return Err(BadMessage::Held(count));
                }
                let codes = codes.into_iter().map(checked_code).collect::<Result<_, _>>()?;
                Self::Held { codes, buttons: buttons.into_iter().map(checked_button).collect::<Result<_, _>>()? }
            }
            RawKeys::Keyframe {} => Self::KeyFrame,
            RawKeys::Trace { on } => Self::Trace { on },
            RawKeys::Bye {} => Self::Bye,
        })
    }
}

impl PointerTotals {
    pub(crate) fn parse(message: &[u8]) -> Result<Self, BadMessage> {
        let RawPointer::Move { x, y, s } = json(message)?;
        Ok(Self { x: ranged(x, TOTAL_MAX)?, y: ranged(y, TOTAL_MAX)?, sequence: s })
    }
}

fn json<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Result<T, BadMessage> {
    if message.len() > MESSAGE_MAX {
        return Err(BadMessage::Long(message.len()));
    }
    serde_json::from_slice(message).map_err(|e| BadMessage::Form(e.to_string()))
}

fn checked_code(code: String) -> Result<String, BadMessage> {
    let ok = (1..=CODE_MAX).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric());
    if ok { Ok(code) } else { Err(BadMessage::Code(code.chars().take(CODE_MAX).collect())) }
}

fn checked_button(number: u8) -> Result<MouseButton, BadMessage> {
    MouseButton::from_dom(number).ok_or(BadMessage::Button(number))
}

fn ranged(number: f64, max: f64) -> Result<i64, BadMessage> {
    #[expect(clippy::cast_possible_truncation, reason = "the range was just checked")]
    if number.abs() <= max { Ok(number.round() as i64) } else { Err(BadMessage::Number(number.to_string())) }
}

fn pixel(number: f64) -> Result<u32, BadMessage> {
    let whole = ranged(number, f64::from(crate::frame::MAX_SIDE))?;
    u32::try_from(whole).map_err(|_| BadMessage::Number(number.to_string()))
}

/// What the agent says on the channel `keys`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub(crate) enum ToBrowser {
    Hello {
        session: String,
        lease: &'static str,
        width: u32,
        height: u32,
    },
    Lease {
        lease: &'static str,
    },
    Screen {
        width: u32,
        height: u32,
    },
    State {
        state: &'static str,
    },
    Trace(TraceReport),
    Stats {
        tier: &'static str,
        frames: u64,
        bitrate_bps: u64,
        target_bps: u64,
    },
    /// A message of the browser was refused; nothing else happened.
    Error {
        message: String,
    },
    /// The agent ends the session.
    Bye {
        reason: String,
    },
}

/// Stages of one input, in milliseconds since the epoch by the node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct TraceReport {
    pub(crate) n: u64,
    pub(crate) received: f64,
    /// When the agent said that QMP had confirmed it; `received` if the picture was faster than the confirmation.
    pub(crate) injected: f64,
    pub(crate) damage: f64,
    pub(crate) encode_start: f64,
    pub(crate) encode_end: f64,
    pub(crate) sent: f64,
    /// RTP time stamp of the frame's packets.
    pub(crate) rtp: u32,
}

impl ToBrowser {
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).expect("numbers, words and strings are JSON")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn parses(text: &str, want: FromBrowser) {
        assert_eq!(FromBrowser::parse(text.as_bytes()), Ok(want));
    }

    #[test]
    fn every_message_of_the_contract() {
        use FromBrowser as M;
        parses(r#"{"t":"tier","tier":"full"}"#, M::Tier(Some(Tier::Full)));
        parses(r#"{"t":"tier","tier":"none"}"#, M::Tier(None));
        parses(r#"{"t":"take"}"#, M::Take);
        parses(r#"{"t":"give"}"#, M::Give);
        parses(
            r#"{"t":"key","code":"KeyA","down":true,"n":12}"#,
            M::Key { code: "KeyA".into(), down: true, n: Some(12) },
        );
        parses(r#"{"t":"key","code":"F12","down":false}"#, M::Key { code: "F12".into(), down: false, n: None });
        let right = M::Button { button: MouseButton::Right, down: true, n: Some(13) };
        parses(r#"{"t":"button","button":2,"down":true,"n":13}"#, right);
        parses(r#"{"t":"wheel","dy":-1}"#, M::Wheel { dy: -1 });
        parses(r#"{"t":"home","x":320,"y":239.6}"#, M::Home { x: 320, y: 240 });
        let held = M::Held { codes: vec!["KeyA".into()], buttons: vec![MouseButton::Left] };
        parses(r#"{"t":"held","codes":["KeyA"],"buttons":[0]}"#, held);
        parses(r#"{"t":"keyframe"}"#, M::KeyFrame);
        parses(r#"{"t":"trace","on":true}"#, M::Trace { on: true });
        parses(r#"{"t":"bye"}"#, M::Bye);
        let totals = PointerTotals { x: -3, y: 70_000, sequence: 9 };
        assert_eq!(PointerTotals::parse(br#"{"t":"move","x":-3,"y":70000.2,"s":9}"#), Ok(totals));
    }

    #[test]
    fn what_is_not_in_the_contract_is_refused() {
        for bad in [
            "",
            "[]",
            r#"{"t":"key"}"#,
            r#"{"t":"key","code":"KeyA","down":true,"x":1}"#,
            r#"{"t":"key","code":"key a","down":true}"#,
            r#"{"t":"key","code":"","down":true}"#,
            r#"{"t":"button","button":5,"down":true}"#,
            r#"{"t":"wheel","dy":17}"#,
            r#"{"t":"home","x":-1,"y":0}"#,
            r#"{"t":"home","x":1e300,"y":0}"#,
            r#"{"t":"tier","tier":"huge"}"#,
            r#"{"t":"take","force":true}"#,
            r#"{"t":"sudo"}"#,
        ] {
            assert!(FromBrowser::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let held = format!(r#"{{"t":"held","codes":[{}"A"],"buttons":[]}}"#, r#""A","#.repeat(HELD_MAX));
        assert_eq!(FromBrowser::parse(held.as_bytes()), Err(BadMessage::Held(HELD_MAX + 1)));
        let long = format!(r#"{{"t":"take"{}}}"#, " ".repeat(MESSAGE_MAX));
        assert_eq!(FromBrowser::parse(long.as_bytes()), Err(BadMessage::Long(long.len())));
        for bad in [r#"{"t":"move","x":1,"y":1}"#, r#"{"t":"move","x":1e10,"y":1,"s":1}"#, r#"{"t":"take"}"#] {
            assert!(PointerTotals::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(FromBrowser::parse(&bytes).is_err() && PointerTotals::parse(&bytes).is_err());
        }
    }

    #[test]
    fn what_the_agent_says_keeps_its_form() {
        let hello = ToBrowser::Hello { session: "a".into(), lease: "free", width: 640, height: 480 };
        assert_eq!(hello.text(), r#"{"t":"hello","session":"a","lease":"free","width":640,"height":480}"#);
        let report = TraceReport {
            n: 12,
            received: 1.5,
            injected: 2.0,
            damage: 3.0,
            encode_start: 4.0,
            encode_end: 5.0,
            sent: 6.0,
            rtp: 7,
        };
        let want = r#"{"t":"trace","n":12,"received":1.5,"injected":2.0,"damage":3.0,"encode_start":4.0,"encode_end":5.0,"sent":6.0,"rtp":7}"#;
        assert_eq!(ToBrowser::Trace(report).text(), want);
    }
}
