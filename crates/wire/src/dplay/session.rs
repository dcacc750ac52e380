//! The session description, 80 bytes (MC-DPL4CS 2.2.5 `DPSESSIONDESC2`; protocols.md 1.5).
use super::constants::SessionFlags;
use super::id::{Guid, IdKey};
use crate::bytes::{Reader, Writer};

/// A session, without its name and password: those stand beside it in the messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SessionDescription {
    pub flags: SessionFlags,
    /// This very session. Sessions are told apart by it, never by the host's address.
    pub instance: Guid,
    /// The game.
    pub application: Guid,
    /// 0 = no limit.
    pub max_players: u32,
    /// Ordinary players only, system players do not count.
    pub current_players: u32,
    /// Two pointers of the sender's memory. Trap: Windows leaves rubbish in them. Kept so that a message can be
    /// written again as it was; send 0.
    pub pointers: [u32; 2],
    /// `reserved1`: see [`IdKey`].
    pub id_key: IdKey,
    pub reserved2: u32,
    /// The game's own.
    pub user: [u32; 4],
}

impl SessionDescription {
    pub const LEN: usize = 80;

    /// Reads the 80 bytes at the start of `bytes`; `None` if they are fewer or say another size.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        if r.len()? != Self::LEN {
            return None;
        }
        Some(Self {
            flags: SessionFlags(r.u32()?),
            instance: Guid(r.array()?),
            application: Guid(r.array()?),
            max_players: r.u32()?,
            current_players: r.u32()?,
            pointers: [r.u32()?, r.u32()?],
            id_key: IdKey(r.u32()?),
            reserved2: r.u32()?,
            user: [r.u32()?, r.u32()?, r.u32()?, r.u32()?],
        })
    }

    pub(crate) fn write(&self, to: &mut Writer<'_>) {
        to.len(Self::LEN);
        to.u32(self.flags.0);
        to.bytes(&self.instance.0);
        to.bytes(&self.application.0);
        to.words(&[self.max_players, self.current_players]);
        to.words(&self.pointers);
        to.words(&[self.id_key.0, self.reserved2]);
        to.words(&self.user);
    }
}
