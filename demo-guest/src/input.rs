//! Keyboard and mouse bytes to events. Pure: the controller is in the binary.

/// Keys that the game knows. Every other key is [`Key::Other`], so that the measuring mark still sees its press.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Escape,
    Enter,
    Space,
    Tab,
    Up,
    Down,
    Left,
    Right,
    /// F1 = 1.
    Function(u8),
    /// A letter or digit, lower case.
    Char(u8),
    Other,
}

/// What a person did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Key {
        key: Key,
        down: bool,
    },
    /// Relative motion in pixels, and the buttons held: 1 left, 2 right, 4 middle.
    Mouse {
        dx: i32,
        dy: i32,
        buttons: u8,
    },
}

/// State of both byte streams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decoder {
    extended: bool,
    /// Bytes of a Pause key (`e1 1d 45 e1 9d c5`) still to swallow.
    pause: u8,
    packet: [u8; 3],
    filled: usize,
}

impl Decoder {
    /// One byte of scan code set 1.
    pub fn key(&mut self, byte: u8) -> Option<Event> {
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        match byte {
            0xe0 => {
                self.extended = true;
                return None;
            }
            0xe1 => {
                self.pause = 2;
                return None;
            }
            // Acknowledge, resend, self-test, echo, overrun: the controller talking, no key.
            0xfa | 0xfe | 0xaa | 0xee | 0xff | 0 => return None,
            _ => {}
        }
        let extended = core::mem::take(&mut self.extended);
        let code = byte & 0x7f;
        // Print Screen and the arrows wrap themselves in fake shifts.
        if extended && matches!(code, 0x2a | 0x36) {
            return None;
        }
        Some(Event::Key { key: translate(code, extended), down: byte & 0x80 == 0 })
    }

    /// One byte of a mouse packet.
    pub fn mouse(&mut self, byte: u8) -> Option<Event> {
        // Bit 3 of the first byte is always set: anything else means that we are out of step.
        if self.filled == 0 && byte & 8 == 0 {
            return None;
        }
        self.packet[self.filled] = byte;
        self.filled += 1;
        if self.filled < 3 {
            return None;
        }
        self.filled = 0;
        let [head, x, y] = self.packet;
        let signed = |value: u8, sign: u8| i32::from(value) - if head & sign == 0 { 0 } else { 256 };
        Some(Event::Mouse { dx: signed(x, 0x10), dy: -signed(y, 0x20), buttons: head & 7 })
    }
}

fn translate(code: u8, extended: bool) -> Key {
    const ROWS: [(u8, &[u8]); 4] =
        [(0x02, b"1234567890"), (0x10, b"qwertyuiop"), (0x1e, b"asdfghjkl"), (0x2c, b"zxcvbnm")];
    match code {
        0x01 => Key::Escape,
        0x0f => Key::Tab,
        0x1c => Key::Enter,
        0x39 => Key::Space,
        // Without the prefix these are the arrows of the number block: as good.
        0x48 => Key::Up,
        0x50 => Key::Down,
        0x4b => Key::Left,
        0x4d => Key::Right,
        0x3b..=0x44 if !extended => Key::Function(code - 0x3b + 1),
        0x57 => Key::Function(11),
        0x58 => Key::Function(12),
        _ if extended => Key::Other,
        _ => ROWS
            .iter()
            .find_map(|(first, letters)| letters.get(usize::from(code.wrapping_sub(*first))))
            .map_or(Key::Other, |letter| Key::Char(*letter)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Decoder, Event, Key};

    #[track_caller]
    fn keys(bytes: &[u8], want: &[(Key, bool)]) {
        let mut decoder = Decoder::default();
        let got: Vec<_> = bytes.iter().filter_map(|b| decoder.key(*b)).collect();
        let want: Vec<_> = want.iter().map(|&(key, down)| Event::Key { key, down }).collect();
        assert_eq!(got, want, "{bytes:x?}");
    }

    #[test]
    fn scan_codes() {
        keys(&[0x1e, 0x9e], &[(Key::Char(b'a'), true), (Key::Char(b'a'), false)]);
        keys(&[0xe0, 0x4b, 0xe0, 0xcb], &[(Key::Left, true), (Key::Left, false)]);
        keys(&[0x58, 0xd8, 0x43], &[(Key::Function(12), true), (Key::Function(12), false), (Key::Function(9), true)]);
        // A Pause key is no press of anything else, and the next key is whole.
        keys(&[0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5, 0x1c], &[(Key::Enter, true)]);
        keys(&[0xe0, 0x2a, 0xe0, 0x37], &[(Key::Other, true)]);
        keys(&[0xfa], &[]);
    }

    #[test]
    fn mouse_packets_and_resynchronisation() {
        let mut decoder = Decoder::default();
        let got: Vec<_> = [0x00, 0x19, 0xff, 0x02, 0x28, 0x05, 0xfe].iter().filter_map(|b| decoder.mouse(*b)).collect();
        assert_eq!(got, [Event::Mouse { dx: -1, dy: -2, buttons: 1 }, Event::Mouse { dx: 5, dy: 2, buttons: 0 },]);
    }
}
