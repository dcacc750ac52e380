//! x86 port I/O. Safe to call: ports reach emulated devices only, and memory is touched by DMA alone, whose addresses the
//! drivers (`nic`, `machine::sound`) set up from their own statics.
#![expect(unsafe_code, reason = "`in` and `out` exist only as instructions")]
use core::arch::asm;

pub fn outb(port: u16, value: u8) {
    // SAFETY: an `out` changes no memory and no register that Rust knows of.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) }
}

pub fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: as `outb`.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Not `nomem`: the write may start a DMA, so what was stored before has to be in memory.
pub fn outw(port: u16, value: u16) {
    // SAFETY: as `outb`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) }
}

pub fn inw(port: u16) -> u16 {
    let value;
    // SAFETY: as `outb`.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nostack, preserves_flags)) }
    value
}

pub fn outl(port: u16, value: u32) {
    // SAFETY: as `outb`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) }
}

pub fn inl(port: u16) -> u32 {
    let value;
    // SAFETY: as `outb`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags)) }
    value
}

/// Reads whole 32-bit words into `buffer`; a rest of up to three bytes is left as it is.
pub fn read_words(port: u16, buffer: &mut [u8]) {
    let (data, words) = (buffer.as_mut_ptr(), buffer.len() / 4);
    // SAFETY: writes `words * 4 <= buffer.len()` bytes at `data`; the direction flag is clear by the ABI.
    unsafe { asm!("rep insd", in("dx") port, inout("rdi") data => _, inout("rcx") words => _, options(nostack)) }
}

/// Writes whole 32-bit words from `buffer`; a rest of up to three bytes is left out.
pub fn write_words(port: u16, buffer: &[u8]) {
    let (data, words) = (buffer.as_ptr(), buffer.len() / 4);
    // SAFETY: reads `words * 4 <= buffer.len()` bytes at `data`; the direction flag is clear by the ABI.
    unsafe { asm!("rep outsd", in("dx") port, inout("rsi") data => _, inout("rcx") words => _, options(nostack)) }
}
