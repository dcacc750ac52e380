//! The command line that QEMU hands over (`-append`), by the PVH start-info block.
#![expect(unsafe_code, reason = "a physical address handed over by the boot loader")]

/// Physical address of `hvm_start_info`, stored by boot.s from EBX.
#[unsafe(no_mangle)]
#[used]
static mut START_INFO: u32 = 0;

/// Longest command line that is read, in bytes.
const LONGEST: usize = 1024;

/// The words of `-append`; empty without any, or if they are not UTF-8.
pub fn command_line() -> &'static str {
    // SAFETY: written once by boot.s before any Rust ran.
    let info = unsafe { (&raw const START_INFO).read_volatile() } as usize;
    if info == 0 {
        return "";
    }
    // SAFETY: xen/include/public/arch-x86/hvm/start_info.h: `cmdline_paddr` is the u64 at 24; memory is identity-mapped.
    let text = unsafe { ((info + 24) as *const u64).read_unaligned() } as usize as *const u8;
    if text.is_null() {
        return "";
    }
    // SAFETY: zero-terminated by the boot loader, and never written again.
    let len = (0..LONGEST).find(|&i| unsafe { text.add(i).read() } == 0).unwrap_or(LONGEST);
    // SAFETY: the same bytes, just counted.
    core::str::from_utf8(unsafe { core::slice::from_raw_parts(text, len) }).unwrap_or("")
}
