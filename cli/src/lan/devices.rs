//! Which of the devices that LANs are made of this kernel makes: it is asked for one of each, in a namespace that nobody else sees
//! and that ends with the question.
use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use nix::errno::Errno;
use rtnetlink::{
    Handle, LinkBridge, LinkMacVtap, LinkVeth, LinkVxlan, LinkWireguard,
    packet_route::link::{LinkMessage, MacVtapMode},
};

use crate::{netns, underlay::speak};

/// What the kernel said to each question: `None`, it made the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Devices {
    pub(super) bridge: Option<Errno>,
    pub(super) vxlan: Option<Errno>,
    pub(super) macvtap: Option<Errno>,
    pub(super) wireguard: Option<Errno>,
}

/// Needs the right to make a namespace.
pub(super) fn ask() -> Result<Devices> {
    netns::inside_a_new_one(|| speak(async |handle| all(&handle).await))
}

async fn all(handle: &Handle) -> Result<Devices> {
    let bridge = made(handle, LinkBridge::new("bridge").build()).await?;
    let vxlan = made(handle, LinkVxlan::new("vxlan", 1).build()).await?;
    // Over a card, which it needs.
    let macvtap = if let Some(errno) = made(handle, LinkVeth::new("card", "cable").build()).await? {
        Some(errno)
    } else {
        let card = handle.link().get().match_name("card").execute().try_next().await?.context("a veth is gone")?;
        made(handle, LinkMacVtap::new("macvtap", card.header.index, MacVtapMode::Bridge).build()).await?
    };
    let wireguard = made(handle, LinkWireguard::new("wireguard").build()).await?;
    Ok(Devices { bridge, vxlan, macvtap, wireguard })
}

async fn made(handle: &Handle, link: LinkMessage) -> Result<Option<Errno>> {
    match handle.link().add(link).execute().await {
        Ok(()) => Ok(None),
        Err(rtnetlink::Error::NetlinkError(error)) => Ok(Some(Errno::from_raw(-error.raw_code()))),
        Err(error) => Err(error.into()),
    }
}
