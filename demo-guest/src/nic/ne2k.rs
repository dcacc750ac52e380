//! RTL8029AS: a DP8390 core with 16 KiB of memory behind a remote-DMA port. Register names are the data sheet's.
use super::FRAME;
use crate::machine::port::{inb, inl, inw, outb, read_words, write_words};

/// Page of the transmit buffer (one frame), first page of the receive ring, and one past its last.
const TX_PAGE: u8 = 0x40;
const RX_FIRST: u8 = 0x46;
const RX_END: u8 = 0x80;
const DATA: u16 = 0x10;
const RESET: u16 = 0x1f;
const PATIENCE: u32 = 100_000;

/// Commands: page 0 and 1, stopped and running, remote read and write, transmit.
const STOP: u8 = 0x21;
const STOP_PAGE1: u8 = 0x61;
const RUN: u8 = 0x22;
const RUN_PAGE1: u8 = 0x62;
const READ: u8 = 0x0a;
const WRITE: u8 = 0x12;
const TRANSMIT: u8 = 0x26;

#[derive(Debug)]
pub struct Ne2k {
    io: u16,
    irq: u8,
    mac: [u8; 6],
    /// Page of the next frame to read.
    next: u8,
}

impl Ne2k {
    /// Resets and starts the card; `None` if it does not come out of reset.
    pub fn start(io: u16, irq: u8) -> Option<Self> {
        outb(io + RESET, inb(io + RESET));
        (0..PATIENCE).find(|_| inb(io + 7) & 0x80 != 0)?;
        let mut card = Self { io, irq, mac: [0; 6], next: RX_FIRST + 1 };
        // DCR word-wide, no remote count, monitor mode while it is set up, loopback, all status bits cleared.
        card.write(&[(0, STOP), (14, 0x49), (10, 0), (11, 0), (12, 0x20), (13, 2), (7, 0xff), (15, 0)]);
        // The station PROM holds every byte twice.
        card.remote_dma(0, 12, READ);
        for byte in &mut card.mac {
            *byte = inw(io + DATA) as u8;
        }
        card.write(&[(4, TX_PAGE), (1, RX_FIRST), (2, RX_END), (3, RX_FIRST), (0, STOP_PAGE1)]);
        for (i, byte) in card.mac.iter().enumerate() {
            outb(io + 1 + i as u16, *byte);
        }
        for multicast in 8..16 {
            outb(io + multicast, 0xff);
        }
        outb(io + 7, RX_FIRST + 1);
        // Own address and broadcasts; interrupts on receive and on overflow.
        card.write(&[(0, RUN), (7, 0xff), (13, 0), (12, 4), (15, 0x11)]);
        Some(card)
    }

    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    pub fn irq(&self) -> u8 {
        self.irq
    }

    pub fn acknowledge(&mut self) {
        outb(self.io + 7, 0x7f);
    }

    fn write(&self, registers: &[(u16, u8)]) {
        for (register, value) in registers {
            outb(self.io + register, *value);
        }
    }

    fn remote_dma(&self, address: u16, len: u16, command: u8) {
        self.write(&[
            (10, len as u8),
            (11, (len >> 8) as u8),
            (8, address as u8),
            (9, (address >> 8) as u8),
            (0, command),
        ]);
    }

    /// The boundary register trails the reader by one page: equal to it would mean "full".
    fn set_boundary(&self, next: u8) {
        outb(self.io + 3, if next == RX_FIRST { RX_END - 1 } else { next - 1 });
    }

    pub fn receive(&mut self, buffer: &mut [u8; FRAME]) -> Option<usize> {
        outb(self.io, RUN_PAGE1);
        let current = inb(self.io + 7);
        outb(self.io, RUN);
        if current == self.next {
            return None;
        }
        let start = u16::from(self.next) << 8;
        self.remote_dma(start, 4, READ);
        let header = inl(self.io + DATA);
        let (next, len) = ((header >> 8) as u8, (header >> 16) as usize);
        if !(RX_FIRST..RX_END).contains(&next) || !(18..=1522).contains(&len) {
            // The ring is broken (overrun): start it anew where the card writes.
            self.next = current;
            self.set_boundary(current);
            return None;
        }
        let (payload, words) = (len - 4, (len - 4).next_multiple_of(4));
        // The card wraps the remote DMA at the end of the ring by itself.
        self.remote_dma(start + 4, words as u16, READ);
        read_words(self.io + DATA, &mut buffer[..words]);
        self.next = next;
        self.set_boundary(next);
        Some(payload)
    }

    pub fn send(&mut self, buffer: &[u8; FRAME], len: usize) {
        if (0..PATIENCE).all(|_| inb(self.io) & 4 != 0) {
            return;
        }
        let words = len.next_multiple_of(4);
        self.remote_dma(u16::from(TX_PAGE) << 8, words as u16, WRITE);
        write_words(self.io + DATA, &buffer[..words]);
        self.write(&[(5, len as u8), (6, (len >> 8) as u8), (0, TRANSMIT)]);
    }
}
