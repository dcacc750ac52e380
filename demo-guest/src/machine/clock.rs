//! The ACPI power-management timer of the PIIX4: 3.579545 MHz, exact whatever the PIT loses while the host is busy.
use super::pci::Function;
use super::port::{inl, inw, outw};

/// Device id of the PIIX4's power-management function.
const PIIX4_PM: u32 = 0x7113_8086;
/// Power-button bits in PM1 status and PM1 enable (ACPI 4.8.3.1).
const PWRBTN: u16 = 1 << 8;
/// PM1 control: `SLP_EN` with `SLP_TYP` 0, which the PIIX4 calls soft off.
const SOFT_OFF: u16 = 1 << 13;

/// Time, the power button and the power switch: all are registers of one PCI function.
#[derive(Debug)]
pub struct Power {
    base: u16,
    last: u32,
    total: u64,
}

impl Power {
    pub fn new() -> Self {
        let base = Function::find(|id, _| id == PIIX4_PM).map_or(0x600, |f| (f.read(0x40) & 0xffc0) as u16);
        // QEMU sets the status bit only while the enable bit is set. The SCI itself stays masked at the PIC: polled.
        outw(base + 2, inw(base + 2) | PWRBTN);
        Self { base, last: inl(base + 8) & 0xff_ffff, total: 0 }
    }

    /// Microseconds since `new`. The counter has 24 bits: call at least every 4.6 s.
    pub fn micros(&mut self) -> u64 {
        let now = inl(self.base + 8) & 0xff_ffff;
        self.total += u64::from(now.wrapping_sub(self.last) & 0xff_ffff);
        self.last = now;
        // 3.579545 MHz = 715909 ticks in 200 ms; the product stays below 2^64 for 2900 years.
        self.total * 200_000 / 715_909
    }

    /// True once for each press of the power button.
    pub fn button(&self) -> bool {
        if inw(self.base) & PWRBTN == 0 {
            return false;
        }
        outw(self.base, PWRBTN);
        true
    }

    /// Switches the machine off; returns only if there is no such switch.
    pub fn off(&self) {
        outw(self.base + 4, SOFT_OFF);
    }
}
