//! Sound Blaster 16 at its factory settings (port 0x220, DMA 1): single-cycle 8-bit DMA, one effect at a time.
//!
//! **Invariants.** Silent unless an effect plays: after the last sample the card stops by itself, so an idle guest costs
//! its host no mixing. A new effect replaces the one that plays. Without a card every call does nothing.
#![expect(unsafe_code, reason = "the card reads the samples by DMA from a static buffer")]
use super::port::{inb, outb};

const BASE: u16 = 0x220;
/// Sample rate in Hz: enough for a whistle, and an effect stays below one 64-KiB DMA page.
pub const RATE: u32 = 11_025;
/// Longest effect in samples.
pub const CAPACITY: usize = 16_384;

/// Aligned to its own size, so it cannot cross a 64-KiB page, which ISA DMA cannot do.
#[repr(align(16384))]
struct DmaBuffer([u8; CAPACITY]);
static mut BUFFER: DmaBuffer = DmaBuffer([0x80; CAPACITY]);

fn ready() -> bool {
    (0..1000).any(|_| inb(BASE + 0xc) & 0x80 == 0)
}

fn dsp(values: &[u8]) {
    for &value in values {
        if ready() {
            outb(BASE + 0xc, value);
        }
    }
}

/// The card, if there is one.
#[derive(Debug)]
pub struct Sound {
    samples: &'static mut [u8; CAPACITY],
}

impl Sound {
    /// Resets the DSP and asks for its version; `None` if nothing answers. Call once.
    pub fn find() -> Option<Self> {
        outb(BASE + 6, 1);
        for _ in 0..20 {
            inb(BASE + 0xe);
        }
        outb(BASE + 6, 0);
        (0..1000).find(|_| inb(BASE + 0xe) & 0x80 != 0)?;
        if inb(BASE + 0xa) != 0xaa {
            return None;
        }
        dsp(&[0xd1]);
        // SAFETY: called once (see above), so this is the only reference; the card only reads the buffer.
        let buffer = unsafe { &mut *(&raw mut BUFFER) };
        Some(Self { samples: &mut buffer.0 })
    }

    /// Plays what `fill` writes (unsigned 8-bit, 11025 Hz); it returns the number of samples.
    pub fn play(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) {
        // Halt what plays, or its DMA would read half of the new samples.
        dsp(&[0xd0]);
        let len = fill(self.samples).min(CAPACITY);
        if len == 0 {
            return;
        }
        let address = self.samples.as_ptr() as usize;
        let last = len - 1;
        // 8237 channel 1: mask, clear flip-flop, single read, address, count, page, unmask.
        for (port, value) in [
            (0x0a, 5),
            (0x0c, 0),
            (0x0b, 0x49),
            (0x02, address as u8),
            (0x02, (address >> 8) as u8),
            (0x03, last as u8),
            (0x03, (last >> 8) as u8),
            (0x83, (address >> 16) as u8),
            (0x0a, 1),
        ] {
            outb(port, value);
        }
        // The previous transfer's interrupt (IRQ 5 is masked at the PIC) is taken down by a read.
        inb(BASE + 0xe);
        // 0x41 sets the rate, 0xc0 is 8-bit single-cycle output, mode 0 is unsigned mono.
        dsp(&[0x41, (RATE >> 8) as u8, RATE as u8, 0xc0, 0, last as u8, (last >> 8) as u8]);
    }
}
