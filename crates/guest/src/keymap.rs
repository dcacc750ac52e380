//! From a browser's `KeyboardEvent.code` (a physical key) to QEMU's name for the same key (`QKeyCode`).
//!
//! Physical on both sides, so the guest's own keyboard layout decides what a key writes, as on a real machine. The
//! pairs follow keycodemapdb, from which QEMU generates its own tables; `ContextMenu` really is `compose` there.
//! **Invariant.** No two codes share a QEMU key: the table can be read backwards, and a held-key list is unambiguous.

/// QEMU's key name for a `KeyboardEvent.code`; `None` for keys that a PC keyboard does not have (`Fn`, `Eject`, …).
pub fn qcode(code: &str) -> Option<&'static str> {
    TABLE.binary_search_by(|(name, _)| name.cmp(&code)).ok().map(|index| TABLE[index].1)
}

/// All known codes, in order.
pub fn codes() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(code, _)| *code)
}

/// Sorted by code, for the binary search (a test says so).
const TABLE: &[(&str, &str)] = &[
    ("Again", "again"),
    ("AltLeft", "alt"),
    ("AltRight", "alt_r"),
    ("ArrowDown", "down"),
    ("ArrowLeft", "left"),
    ("ArrowRight", "right"),
    ("ArrowUp", "up"),
    ("AudioVolumeDown", "volumedown"),
    ("AudioVolumeMute", "audiomute"),
    ("AudioVolumeUp", "volumeup"),
    ("Backquote", "grave_accent"),
    ("Backslash", "backslash"),
    ("Backspace", "backspace"),
    ("BracketLeft", "bracket_left"),
    ("BracketRight", "bracket_right"),
    ("BrowserBack", "ac_back"),
    ("BrowserFavorites", "ac_bookmarks"),
    ("BrowserForward", "ac_forward"),
    ("BrowserHome", "ac_home"),
    ("BrowserRefresh", "ac_refresh"),
    ("CapsLock", "caps_lock"),
    ("Comma", "comma"),
    ("ContextMenu", "compose"),
    ("ControlLeft", "ctrl"),
    ("ControlRight", "ctrl_r"),
    ("Convert", "henkan"),
    ("Copy", "copy"),
    ("Cut", "cut"),
    ("Delete", "delete"),
    ("Digit0", "0"),
    ("Digit1", "1"),
    ("Digit2", "2"),
    ("Digit3", "3"),
    ("Digit4", "4"),
    ("Digit5", "5"),
    ("Digit6", "6"),
    ("Digit7", "7"),
    ("Digit8", "8"),
    ("Digit9", "9"),
    ("End", "end"),
    ("Enter", "ret"),
    ("Equal", "equal"),
    ("Escape", "esc"),
    ("F1", "f1"),
    ("F10", "f10"),
    ("F11", "f11"),
    ("F12", "f12"),
    ("F13", "f13"),
    ("F14", "f14"),
    ("F15", "f15"),
    ("F16", "f16"),
    ("F17", "f17"),
    ("F18", "f18"),
    ("F19", "f19"),
    ("F2", "f2"),
    ("F20", "f20"),
    ("F21", "f21"),
    ("F22", "f22"),
    ("F23", "f23"),
    ("F24", "f24"),
    ("F3", "f3"),
    ("F4", "f4"),
    ("F5", "f5"),
    ("F6", "f6"),
    ("F7", "f7"),
    ("F8", "f8"),
    ("F9", "f9"),
    ("Find", "find"),
    ("Help", "help"),
    ("Hiragana", "hiragana"),
    ("Home", "home"),
    ("Insert", "insert"),
    ("IntlBackslash", "less"),
    ("IntlRo", "ro"),
    ("IntlYen", "yen"),
    ("KanaMode", "katakanahiragana"),
    ("KeyA", "a"),
    ("KeyB", "b"),
    ("KeyC", "c"),
    ("KeyD", "d"),
    ("KeyE", "e"),
    ("KeyF", "f"),
    ("KeyG", "g"),
    ("KeyH", "h"),
    ("KeyI", "i"),
    ("KeyJ", "j"),
    ("KeyK", "k"),
    ("KeyL", "l"),
    ("KeyM", "m"),
    ("KeyN", "n"),
    ("KeyO", "o"),
    ("KeyP", "p"),
    ("KeyQ", "q"),
    ("KeyR", "r"),
    ("KeyS", "s"),
    ("KeyT", "t"),
    ("KeyU", "u"),
    ("KeyV", "v"),
    ("KeyW", "w"),
    ("KeyX", "x"),
    ("KeyY", "y"),
    ("KeyZ", "z"),
    ("Lang1", "lang1"),
    ("Lang2", "lang2"),
    ("LaunchApp1", "computer"),
    ("LaunchApp2", "calculator"),
    ("LaunchMail", "mail"),
    ("MediaPlayPause", "audioplay"),
    ("MediaSelect", "mediaselect"),
    ("MediaStop", "audiostop"),
    ("MediaTrackNext", "audionext"),
    ("MediaTrackPrevious", "audioprev"),
    ("MetaLeft", "meta_l"),
    ("MetaRight", "meta_r"),
    ("Minus", "minus"),
    ("NonConvert", "muhenkan"),
    ("NumLock", "num_lock"),
    ("Numpad0", "kp_0"),
    ("Numpad1", "kp_1"),
    ("Numpad2", "kp_2"),
    ("Numpad3", "kp_3"),
    ("Numpad4", "kp_4"),
    ("Numpad5", "kp_5"),
    ("Numpad6", "kp_6"),
    ("Numpad7", "kp_7"),
    ("Numpad8", "kp_8"),
    ("Numpad9", "kp_9"),
    ("NumpadAdd", "kp_add"),
    ("NumpadComma", "kp_comma"),
    ("NumpadDecimal", "kp_decimal"),
    ("NumpadDivide", "kp_divide"),
    ("NumpadEnter", "kp_enter"),
    ("NumpadEqual", "kp_equals"),
    ("NumpadMultiply", "kp_multiply"),
    ("NumpadSubtract", "kp_subtract"),
    ("Open", "open"),
    ("PageDown", "pgdn"),
    ("PageUp", "pgup"),
    ("Paste", "paste"),
    ("Pause", "pause"),
    ("Period", "dot"),
    ("Power", "power"),
    ("PrintScreen", "print"),
    ("Props", "props"),
    ("Quote", "apostrophe"),
    ("ScrollLock", "scroll_lock"),
    ("Semicolon", "semicolon"),
    ("ShiftLeft", "shift"),
    ("ShiftRight", "shift_r"),
    ("Slash", "slash"),
    ("Sleep", "sleep"),
    ("Space", "spc"),
    ("Tab", "tab"),
    ("Undo", "undo"),
    ("WakeUp", "wake"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use qapi::qmp::QKeyCode;

    use super::*;

    /// The 105 keys of a European PC keyboard, row by row, as the specification of `KeyboardEvent.code` names them.
    const BOARD_105: &str = "Escape F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 F11 F12 PrintScreen ScrollLock Pause \
        Backquote Digit1 Digit2 Digit3 Digit4 Digit5 Digit6 Digit7 Digit8 Digit9 Digit0 Minus Equal Backspace \
        Tab KeyQ KeyW KeyE KeyR KeyT KeyY KeyU KeyI KeyO KeyP BracketLeft BracketRight \
        CapsLock KeyA KeyS KeyD KeyF KeyG KeyH KeyJ KeyK KeyL Semicolon Quote Backslash Enter \
        ShiftLeft IntlBackslash KeyZ KeyX KeyC KeyV KeyB KeyN KeyM Comma Period Slash ShiftRight \
        ControlLeft MetaLeft AltLeft Space AltRight MetaRight ContextMenu ControlRight \
        Insert Home PageUp Delete End PageDown ArrowUp ArrowLeft ArrowDown ArrowRight \
        NumLock NumpadDivide NumpadMultiply NumpadSubtract Numpad7 Numpad8 Numpad9 NumpadAdd \
        Numpad4 Numpad5 Numpad6 Numpad1 Numpad2 Numpad3 NumpadEnter Numpad0 NumpadDecimal";

    #[test]
    fn a_full_board_is_there() {
        let keys: Vec<&str> = BOARD_105.split_whitespace().collect();
        assert_eq!(keys.len(), 105);
        let missing: Vec<_> = keys.into_iter().filter(|code| qcode(code).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
        for intl in ["IntlRo", "IntlYen", "Convert", "NonConvert", "KanaMode", "Lang1", "Lang2"] {
            assert!(qcode(intl).is_some(), "{intl}");
        }
    }

    #[test]
    fn sorted_unique_and_known_to_qemu() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        let mut seen = BTreeSet::new();
        for (code, key) in TABLE {
            assert!(key.parse::<QKeyCode>().is_ok(), "QEMU has no key `{key}`");
            assert!(seen.insert(key), "`{key}` is there twice; again for {code}");
            assert_eq!(qcode(code), Some(*key));
        }
    }

    #[test]
    fn others_are_refused() {
        for code in ["", "Fn", "keya", "KeyA ", "Unidentified", "a"] {
            assert_eq!(qcode(code), None);
        }
    }
}
