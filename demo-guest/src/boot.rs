//! Entry point, page tables, interrupt stubs: see boot.s.
#![expect(unsafe_code, reason = "the first instructions of a machine")]
core::arch::global_asm!(include_str!("boot.s"), options(att_syntax));
