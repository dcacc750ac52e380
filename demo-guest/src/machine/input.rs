//! PS/2 keyboard (scan code set 1 by the controller's translation) and mouse (3-byte packets).
use super::port::{inb, outb};
use demo_guest::input::{Decoder, Event};

const DATA: u16 = 0x60;
const STATUS: u16 = 0x64;

fn wait_writable() {
    for _ in 0..100_000 {
        if inb(STATUS) & 2 == 0 {
            return;
        }
    }
}

fn command(value: u8) {
    wait_writable();
    outb(STATUS, value);
}

fn mouse(value: u8) {
    command(0xd4);
    wait_writable();
    outb(DATA, value);
    // The acknowledge (0xfa) is read here so that it is not taken for a packet.
    for _ in 0..100_000 {
        if inb(STATUS) & 1 != 0 {
            inb(DATA);
            return;
        }
    }
}

/// The controller with its decoder.
#[derive(Debug, Default)]
pub struct Input(Decoder);

impl Input {
    /// Both ports on with interrupts, translation on, mouse reporting.
    pub fn start() -> Self {
        command(0xae);
        command(0xa8);
        command(0x20);
        for _ in 0..100_000 {
            if inb(STATUS) & 1 != 0 {
                break;
            }
        }
        let config = inb(DATA) & !0x30 | 0x43;
        command(0x60);
        wait_writable();
        outb(DATA, config);
        mouse(0xf6);
        mouse(0xf4);
        Self::default()
    }

    /// The next event, if the controller holds one.
    pub fn poll(&mut self) -> Option<Event> {
        loop {
            let status = inb(STATUS);
            if status & 1 == 0 {
                return None;
            }
            let byte = inb(DATA);
            let event = if status & 0x20 == 0 { self.0.key(byte) } else { self.0.mouse(byte) };
            if event.is_some() {
                return event;
            }
        }
    }
}
