//! `Am79C970A` PCnet-PCI with 32-bit descriptors (software style 2): rings in memory, one doorbell.
#![expect(unsafe_code, reason = "descriptor rings that the card reads and writes by DMA")]
use super::FRAME;
use crate::machine::port::{inb, inl, inw, outw};

/// Descriptors; both counts are powers of two, as the init block holds their logarithms.
const RX: usize = 64;
const TX: usize = 16;
/// Descriptor word 1: the card owns it; a frame with errors; start and end of packet.
const OWN: u32 = 1 << 31;
const ERROR: u32 = 1 << 30;
const WHOLE: u32 = 3 << 24;
const PATIENCE: u32 = 100_000;

#[repr(C, align(16))]
struct Rings {
    init: [u32; 8],
    rx: [[u32; 4]; RX],
    tx: [[u32; 4]; TX],
    rx_data: [[u8; FRAME]; RX],
    tx_data: [[u8; FRAME]; TX],
}
static mut RINGS: Rings =
    Rings { init: [0; 8], rx: [[0; 4]; RX], tx: [[0; 4]; TX], rx_data: [[0; FRAME]; RX], tx_data: [[0; FRAME]; TX] };

/// Twelve-bit two's complement of a length, with the four ones above it that the card demands.
const fn length(bytes: usize) -> u32 {
    (bytes as u32).wrapping_neg() & 0xffff
}

#[derive(Debug)]
pub struct Pcnet {
    io: u16,
    irq: u8,
    mac: [u8; 6],
    rx_at: usize,
    tx_at: usize,
}

impl Pcnet {
    /// Resets and starts the card; `None` if it never reports "initialised". Call once: it takes the static rings.
    pub fn start(io: u16, irq: u8) -> Option<Self> {
        // A read of the reset register in both widths resets whichever mode the card is in.
        inl(io + 0x18);
        inw(io + 0x14);
        let mut card = Self { io, irq, mac: [0; 6], rx_at: 0, tx_at: 0 };
        for (i, byte) in card.mac.iter_mut().enumerate() {
            *byte = inb(io + i as u16);
        }
        // BCR20: software style 2.
        outw(io + 0x12, 20);
        outw(io + 0x16, 2);
        let m = card.mac;
        // SAFETY: called once, before the card knows of the rings; afterwards they are reached by raw pointers only.
        let init = unsafe {
            let rings = &mut *(&raw mut RINGS);
            for (descriptor, data) in rings.rx.iter_mut().zip(&rings.rx_data) {
                *descriptor = [data.as_ptr() as u32, OWN | length(FRAME), 0, 0];
            }
            for (descriptor, data) in rings.tx.iter_mut().zip(&rings.tx_data) {
                *descriptor = [data.as_ptr() as u32, 0, 0, 0];
            }
            rings.init = [
                RX.ilog2() << 20 | TX.ilog2() << 28,
                u32::from_le_bytes([m[0], m[1], m[2], m[3]]),
                u32::from(m[4]) | u32::from(m[5]) << 8,
                0,
                0,
                rings.rx.as_ptr() as u32,
                rings.tx.as_ptr() as u32,
                0,
            ];
            rings.init.as_ptr() as u32
        };
        card.csr(1, init as u16);
        card.csr(2, (init >> 16) as u16);
        // CSR3: receive interrupts only. CSR4: no transmit polling, automatic padding, no timer interrupts.
        card.csr(3, 0x5b00);
        card.csr(4, 0x1915);
        card.csr(0, 1);
        (0..PATIENCE).find(|_| inw(io + 0x10) & 0x100 != 0)?;
        card.csr(0, 0x0142);
        Some(card)
    }

    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    pub fn irq(&self) -> u8 {
        self.irq
    }

    pub fn acknowledge(&mut self) {
        self.csr(0, 0x7f40);
    }

    fn csr(&self, index: u16, value: u16) {
        outw(self.io + 0x12, index);
        outw(self.io + 0x10, value);
    }

    pub fn receive(&mut self, buffer: &mut [u8; FRAME]) -> Option<usize> {
        loop {
            let at = self.rx_at;
            // SAFETY: `at < RX`. Volatile, because the card changes the descriptor; a frame is copied only after the card
            // has given up ownership, and the descriptor goes back only after the copy.
            unsafe {
                let descriptor = (&raw mut RINGS.rx).cast::<[u32; 4]>().add(at).cast::<u32>();
                let status = descriptor.add(1).read_volatile();
                if status & OWN != 0 {
                    return None;
                }
                let len = (descriptor.add(2).read_volatile() as usize & 0xfff).saturating_sub(4).min(FRAME);
                let whole = status & (ERROR | WHOLE) == WHOLE;
                if whole {
                    let data = (&raw const RINGS.rx_data).cast::<[u8; FRAME]>().add(at);
                    core::ptr::copy_nonoverlapping(data.cast::<u8>(), buffer.as_mut_ptr(), len);
                }
                descriptor.add(2).write_volatile(0);
                descriptor.add(1).write_volatile(OWN | length(FRAME));
                self.rx_at = (at + 1) % RX;
                if whole {
                    return Some(len);
                }
            }
        }
    }

    pub fn send(&mut self, buffer: &[u8; FRAME], len: usize) {
        let at = self.tx_at;
        // SAFETY: `at < TX`, `len <= FRAME`; the buffer is written only while the card does not own its descriptor.
        unsafe {
            let descriptor = (&raw mut RINGS.tx).cast::<[u32; 4]>().add(at).cast::<u32>();
            if (0..PATIENCE).all(|_| descriptor.add(1).read_volatile() & OWN != 0) {
                return;
            }
            let data = (&raw mut RINGS.tx_data).cast::<[u8; FRAME]>().add(at);
            core::ptr::copy_nonoverlapping(buffer.as_ptr(), data.cast::<u8>(), len);
            descriptor.add(2).write_volatile(0);
            descriptor.add(1).write_volatile(OWN | WHOLE | length(len));
        }
        self.tx_at = (at + 1) % TX;
        // Doorbell: transmit demand, interrupts stay enabled.
        self.csr(0, 0x48);
    }
}
