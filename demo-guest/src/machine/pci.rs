//! PCI configuration space, mechanism 1, bus 0 only: the `pc` machine has no other bus.
use super::port::{inl, outl};

/// A function on bus 0: `device << 3 | function`.
#[derive(Clone, Copy, Debug)]
pub struct Function(u32);

impl Function {
    /// The first function for which `wanted(device << 16 | vendor, class)` holds; `class` is class, subclass, interface.
    pub fn find(wanted: impl Fn(u32, u32) -> bool) -> Option<Self> {
        (0..256).map(Self).find(|f| {
            let id = f.read(0);
            id != u32::MAX && wanted(id, f.read(8) >> 8)
        })
    }

    pub fn read(self, register: u32) -> u32 {
        outl(0xcf8, 0x8000_0000 | self.0 << 8 | register);
        inl(0xcfc)
    }

    pub fn write(self, register: u32, value: u32) {
        outl(0xcf8, 0x8000_0000 | self.0 << 8 | register);
        outl(0xcfc, value);
    }

    /// Base of an I/O-port BAR.
    pub fn io_base(self, bar: u32) -> u16 {
        (self.read(0x10 + bar * 4) & !3) as u16
    }

    /// The line that the firmware routed this function's interrupt to.
    pub fn irq(self) -> u8 {
        self.read(0x3c) as u8
    }

    /// Command register: 1 port I/O, 4 bus master.
    pub fn enable(self, bits: u32) {
        self.write(4, self.read(4) | bits);
    }
}
