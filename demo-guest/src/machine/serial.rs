//! COM1, 8N1 as the firmware left it: one line per event, for people and tests. Output only.
use super::port::{inb, outb};
use core::fmt;

const COM1: u16 = 0x3f8;

/// The port as a `fmt::Write`.
#[derive(Debug)]
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // Bounded: with nobody reading the pipe, the game must go on; a lost character is the lesser harm.
            let mut patience = 10_000;
            while inb(COM1 + 5) & 0x20 == 0 && patience > 0 {
                patience -= 1;
            }
            outb(COM1, byte);
        }
        Ok(())
    }
}

/// Writes one line to the serial port.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {{
        use core::fmt::Write as _;
        // `Serial` never fails; there would be nobody to tell.
        writeln!($crate::machine::serial::Serial, $($arg)*).unwrap_or(());
    }};
}
