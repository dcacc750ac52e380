//! IDT, the two 8259s at vectors 0x20 and 0x28, and the PIT.
//!
//! **Invariant.** Interrupts are open only inside [`sleep`]; everything else runs with them closed, so there is no
//! concurrency anywhere. A PCI interrupt masks its own line (level-triggered); [`open`] unmasks it once the card is quiet.
#![expect(unsafe_code, reason = "the IDT is memory that the processor reads")]
use super::port::{inb, outb};
use core::arch::asm;

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Gate {
    low: u16,
    selector: u16,
    ist: u8,
    kind: u8,
    middle: u16,
    high: u32,
    zero: u32,
}

const ABSENT: Gate = Gate { low: 0, selector: 0, ist: 0, kind: 0, middle: 0, high: 0, zero: 0 };
static mut IDT: [Gate; 48] = [ABSENT; 48];

/// Counted by the timer interrupt; only its existence is used (wake-up), time comes from [`super::clock`].
#[unsafe(no_mangle)]
#[used]
static mut TICKS: u64 = 0;

unsafe extern "C" {
    fn isr_timer();
    fn isr_master();
    fn isr_slave();
    static exception_table: [u64; 32];
}

#[repr(C, packed)]
struct IdtRegister {
    limit: u16,
    base: u64,
}

/// Loads the IDT, starts the PICs with timer, keyboard, cascade and mouse open, and the timer at `hz`.
pub fn start(hz: u32) {
    // SAFETY: called once from `kmain` before anything else uses the IDT; single processor, interrupts closed.
    unsafe {
        let idt = (&raw mut IDT).cast::<Gate>();
        let set = |vector: usize, address: u64| {
            idt.add(vector).write(Gate {
                low: address as u16,
                selector: 8,
                ist: 0,
                kind: 0x8e,
                middle: (address >> 16) as u16,
                high: (address >> 32) as u32,
                zero: 0,
            });
        };
        for (vector, stub) in exception_table.iter().enumerate() {
            set(vector, *stub);
        }
        for vector in 0x20..0x30 {
            let stub: unsafe extern "C" fn() = match vector {
                0x20 => isr_timer,
                0x21..0x28 => isr_master,
                _ => isr_slave,
            };
            set(vector, stub as *const () as usize as u64);
        }
        let register = IdtRegister { limit: 48 * 16 - 1, base: &raw const IDT as u64 };
        asm!("lidt [{}]", in(reg) &raw const register, options(nostack));
    }
    // ICW1-4, then the masks: timer 0, keyboard 1, cascade 2 open on the master; mouse 12 on the slave.
    for (port, value) in [
        (0x20, 0x11),
        (0xa0, 0x11),
        (0x21, 0x20),
        (0xa1, 0x28),
        (0x21, 4),
        (0xa1, 2),
        (0x21, 1),
        (0xa1, 1),
        (0x21, 0xf8),
        (0xa1, 0xef),
    ] {
        outb(port, value);
    }
    set_rate(hz);
}

/// Wake-ups a second; the PIT's divider allows 19..=1000 here.
pub fn set_rate(hz: u32) {
    let divider = 1_193_182 / hz.clamp(19, 1000);
    outb(0x43, 0x34);
    outb(0x40, divider as u8);
    outb(0x40, (divider >> 8) as u8);
}

/// Unmasks a line of the slave PIC (8..=15).
pub fn open(irq: u8) {
    if !(8..16).contains(&irq) {
        return;
    }
    let (mask, bit) = (inb(0xa1), 1 << (irq - 8));
    if mask & bit != 0 {
        outb(0xa1, mask & !bit);
    }
}

/// Waits for the next interrupt. `sti` takes effect after `hlt` has begun: a pending one cannot be missed.
pub fn sleep() {
    // SAFETY: the stubs preserve every register; the block may use the stack, so no red zone lies under it.
    unsafe { asm!("sti", "hlt", "cli") }
}

/// For ever.
pub fn halt() -> ! {
    loop {
        // SAFETY: closed interrupts and a halt: nothing runs any more.
        unsafe { asm!("cli", "hlt") }
    }
}
