//! The Bochs VBE display (`-vga std`): 640x480, 32 bits, linear frame buffer.
#![expect(unsafe_code, reason = "the frame buffer is memory of the card")]
use super::pci::Function;
use super::port::outw;
use demo_guest::art::canvas::{HEIGHT, WIDTH};

/// Sets the mode and gives the pixels; `None` without a display card.
///
/// Called by `kmain` once, and by the crash screen, which never returns to the other owner.
pub fn start() -> Option<&'static mut [u32]> {
    let card = Function::find(|_, class| class >> 16 == 3)?;
    let base = (card.read(0x10) & !15) as usize;
    // Index 0x1ce, data 0x1cf: off, width, height, depth, on + linear.
    for (index, value) in [(4, 0), (1, WIDTH as u16), (2, HEIGHT as u16), (3, 32), (4, 0x41)] {
        outw(0x1ce, index);
        outw(0x1cf, value);
    }
    // SAFETY: BAR 0 of the card is its memory (16 MiB), identity-mapped; nothing else is put there.
    Some(unsafe { core::slice::from_raw_parts_mut(base as *mut u32, WIDTH * HEIGHT) })
}
