//! Two cards that Windows 98 knows out of the box, so that the demo's traffic takes the path that a real guest's takes:
//! RTL8029AS (`ne2k_pci`) and AMD PCnet-PCI (`pcnet`), chosen by what the machine has.
mod ne2k;
mod pcnet;

use crate::machine::pci::Function;
use ne2k::Ne2k;
use pcnet::Pcnet;

/// Room for the longest frame (1514 bytes and the four of the checksum), in whole 32-bit words.
pub const FRAME: usize = 1536;

/// The card of this machine.
#[derive(Debug)]
pub enum Nic {
    Ne2k(Ne2k),
    Pcnet(Pcnet),
}

impl Nic {
    /// The first known card on the bus. Call once: the drivers own static DMA rings.
    pub fn find() -> Option<Self> {
        if let Some(f) = Function::find(|id, _| id == 0x8029_10ec) {
            f.enable(1);
            return Ne2k::start(f.io_base(0), f.irq()).map(Self::Ne2k);
        }
        let f = Function::find(|id, _| id == 0x2000_1022)?;
        f.enable(1 | 4);
        Pcnet::start(f.io_base(0), f.irq()).map(Self::Pcnet)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Ne2k(_) => "ne2k_pci",
            Self::Pcnet(_) => "pcnet",
        }
    }

    pub fn mac(&self) -> [u8; 6] {
        match self {
            Self::Ne2k(card) => card.mac(),
            Self::Pcnet(card) => card.mac(),
        }
    }

    /// Frames the card can hold while the processor is elsewhere: caps the TCP window, or bursts overrun the ring and
    /// TCP crawls on timeouts (measured: 10 against 226 Mbit/s on the ne2k).
    pub fn burst(&self) -> Option<usize> {
        match self {
            Self::Ne2k(_) => Some(8),
            Self::Pcnet(_) => None,
        }
    }

    pub fn irq(&self) -> u8 {
        match self {
            Self::Ne2k(card) => card.irq(),
            Self::Pcnet(card) => card.irq(),
        }
    }

    /// Takes the interrupt line down; call BEFORE draining, then a later frame raises it again.
    pub fn acknowledge(&mut self) {
        match self {
            Self::Ne2k(card) => card.acknowledge(),
            Self::Pcnet(card) => card.acknowledge(),
        }
    }

    /// Moves the next received frame into `buffer`; a damaged one is dropped.
    pub fn receive(&mut self, buffer: &mut [u8; FRAME]) -> Option<usize> {
        match self {
            Self::Ne2k(card) => card.receive(buffer),
            Self::Pcnet(card) => card.receive(buffer),
        }
    }

    /// Sends the first `len` bytes, padded to the Ethernet minimum of 60; dropped if the card stays busy.
    pub fn send(&mut self, buffer: &mut [u8; FRAME], len: usize) {
        let padded = len.clamp(60, FRAME);
        if len < padded {
            buffer[len..padded].fill(0);
        }
        match self {
            Self::Ne2k(card) => card.send(buffer, padded),
            Self::Pcnet(card) => card.send(buffer, padded),
        }
    }
}
