//! The card as smoltcp wants it: one frame at a time, through one buffer each way.
use crate::nic::{FRAME, Nic};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// Whole 32-bit words, for the string moves of the ne2k.
#[repr(align(8))]
struct Buffer([u8; FRAME]);

/// A card with its two buffers.
pub struct Port {
    nic: Nic,
    received: Buffer,
    sending: Buffer,
    frames: u64,
}

impl Port {
    pub fn new(nic: Nic) -> Self {
        Self { nic, received: Buffer([0; FRAME]), sending: Buffer([0; FRAME]), frames: 0 }
    }

    pub fn irq(&self) -> u8 {
        self.nic.irq()
    }

    /// Frames received and sent so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// See [`Nic::acknowledge`].
    pub fn acknowledge(&mut self) {
        self.nic.acknowledge();
    }
}

pub struct Received<'a>(&'a [u8]);

pub struct Sending<'a> {
    nic: &'a mut Nic,
    buffer: &'a mut [u8; FRAME],
    frames: &'a mut u64,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let result = f(&mut self.buffer[..len]);
        self.nic.send(self.buffer, len);
        *self.frames += 1;
        result
    }
}

impl Device for Port {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        let len = self.nic.receive(&mut self.received.0)?;
        self.frames += 1;
        let sending = Sending { nic: &mut self.nic, buffer: &mut self.sending.0, frames: &mut self.frames };
        Some((Received(&self.received.0[..len]), sending))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending { nic: &mut self.nic, buffer: &mut self.sending.0, frames: &mut self.frames })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities.max_burst_size = self.nic.burst();
        capabilities
    }
}
