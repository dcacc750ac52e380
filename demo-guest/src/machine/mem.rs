//! `memcpy` and its like: the compiler calls them, and the prebuilt core of a hosted target has none of its own.
//! String moves are what TCG translates best: 8 bytes a turn, then the tail.
#![expect(unsafe_code, reason = "C ABI symbols that the compiler itself calls")]
use core::arch::asm;

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(dst: *mut u8, value: i32, len: usize) -> *mut u8 {
    let pattern = u64::from(value as u8) * 0x0101_0101_0101_0101;
    // SAFETY: the caller owns `len` bytes at `dst`; len / 8 quads and len % 8 bytes are stored.
    unsafe {
        asm!("rep stosq", "mov rcx, {tail}", "rep stosb", tail = in(reg) len & 7,
            inout("rcx") len >> 3 => _, inout("rdi") dst => _, in("rax") pattern, options(nostack));
    }
    dst
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(dst: *mut u8, src: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller owns `len` bytes at both places, which do not overlap (or `dst` is below `src`).
    unsafe {
        asm!("rep movsq", "mov rcx, {tail}", "rep movsb", tail = in(reg) len & 7,
            inout("rcx") len >> 3 => _, inout("rdi") dst => _, inout("rsi") src => _, options(nostack));
    }
    dst
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(dst: *mut u8, src: *const u8, len: usize) -> *mut u8 {
    if (dst as usize).wrapping_sub(src as usize) >= len {
        // SAFETY: `dst` is below `src` or beyond its end: copying upwards is right.
        return unsafe { memcpy(dst, src, len) };
    }
    // SAFETY: the caller owns both ranges; copied downwards from the last byte, and the direction flag is put back.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") len => _, inout("rdi") dst.wrapping_add(len).wrapping_sub(1) => _,
            inout("rsi") src.wrapping_add(len).wrapping_sub(1) => _, options(nostack));
    }
    dst
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    for i in 0..len {
        // SAFETY: the caller owns `len` bytes at both. Volatile, or the loop is compiled into a call of memcmp.
        let (x, y) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: same contract.
    unsafe { memcmp(a, b, len) }
}
