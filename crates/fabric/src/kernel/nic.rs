//! The node's own card, for LANs of mode `macvlan`: found, and judged whether guests can be put on it.
use std::{fs::File, net::Ipv4Addr, path::Path, thread};

use futures_util::TryStreamExt;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use nix::sched::{CloneFlags, setns};

use super::{Kernel, name_of};
use crate::{
    macvtap,
    observed::{Nic, Parent},
};

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sought<'a> {
    /// As the agent was told; `None`: the one with the underlay's address.
    pub(crate) name: Option<&'a str>,
    pub(crate) local: Ipv4Addr,
}

impl Kernel {
    /// The card over which guests of mode `macvlan` are put.
    pub(crate) async fn parent(&self, sought: Sought<'_>) -> Result<Parent, rtnetlink::Error> {
        let link = match sought.name {
            Some(name) => self.node_link(name).await?,
            None => self.underlay_link(sought.local).await?,
        };
        let Some(link) = link else { return Ok(Parent::Unfit(missing(sought))) };
        let wireless = name_of(&link).is_some_and(|name| self.is_wireless(link.header.index, &name));
        Ok(judge(&link, wireless))
    }

    /// A link of the node's namespace.
    async fn node_link(&self, name: &str) -> Result<Option<LinkMessage>, rtnetlink::Error> {
        let mut links = Box::pin(self.node.link().get().match_name(name).execute());
        match links.try_next().await {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENODEV => Ok(None),
            found => found,
        }
    }

    /// Asked once for each card: what a link is made of does not change.
    fn is_wireless(&self, index: u32, name: &str) -> bool {
        if let Some((_, wireless)) = self.wireless.get().filter(|(known, _)| *known == index) {
            return wireless;
        }
        let wireless = has_radio(&self.node_namespace, name);
        self.wireless.set(Some((index, wireless)));
        wireless
    }
}

/// Whether a link of `namespace` is a station of a wireless network, as sysfs tells. Where it cannot be asked it is taken for none: then the
/// kernel takes the guests, and the access point does not.
fn has_radio(namespace: &File, name: &str) -> bool {
    thread::scope(|scope| {
        let look = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            macvtap::in_private_mounts(|| {
                macvtap::mount_sysfs()?;
                let link = Path::new("/sys/class/net").join(name);
                Ok(["phy80211", "wireless"].iter().any(|part| link.join(part).exists()))
            })?
        });
        let looked: std::io::Result<bool> = look.join().unwrap_or(Ok(false));
        looked.unwrap_or_else(|error| {
            tracing::debug!(name, %error, "it is not known whether the card is wireless");
            false
        })
    })
}

fn missing(sought: Sought<'_>) -> String {
    match sought.name {
        Some(name) => format!(
            "this node has no card `{name}`, so the guests of LANs of mode macvlan have no way; bring it back, or start the agent with another --macvlan-parent"
        ),
        None => format!(
            "no card of this node has the address {}, so the guests of LANs of mode macvlan have no way; give it back, or name the card by --macvlan-parent",
            sought.local
        ),
    }
}

/// Whether guests can be put on a card, by what the kernel says of it.
fn judge(link: &LinkMessage, wireless: bool) -> Parent {
    let Some(name) = name_of(link) else { return Parent::Unfit("the node's card has no name".to_owned()) };
    let mut nic = Nic { name, index: link.header.index, mtu: 0, up: link.header.flags.contains(LinkFlags::Up) };
    let (mut is_port, mut is_over_another) = (false, false);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => nic.mtu = *mtu,
            LinkAttribute::Controller(master) => is_port = *master != 0,
            LinkAttribute::LinkInfo(infos) => {
                let over = |info: &LinkInfo| matches!(info, LinkInfo::Kind(InfoKind::MacVlan | InfoKind::MacVtap));
                is_over_another = infos.iter().any(over);
            }
            _ => {}
        }
    }
    let name = &nic.name;
    let unfit = if link.header.link_layer_type != LinkLayerType::Ether {
        format!(
            "`{name}` is no Ethernet card, so it takes no frames of guests; name one by --macvlan-parent, or give the LAN the mode vxlan"
        )
    } else if is_port {
        format!(
            "`{name}` is a port of a bridge or bond, which has all its frames; name that bridge or bond itself by --macvlan-parent, or take `{name}` out of it"
        )
    } else if is_over_another {
        format!("`{name}` is itself one of several over a card; name that card by --macvlan-parent")
    } else if wireless {
        format!(
            "`{name}` is wireless, and an access point (802.11) takes frames of one address for each station, so guests would not be heard; name a card with a cable by --macvlan-parent, or give the LAN the mode vxlan"
        )
    } else {
        return Parent::Fit(nic);
    };
    Parent::Unfit(unfit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(changes: impl FnOnce(&mut LinkMessage)) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.header.link_layer_type = LinkLayerType::Ether;
        link.header.flags = LinkFlags::Up;
        link.attributes = vec![LinkAttribute::IfName("eth0".to_owned()), LinkAttribute::Mtu(1500)];
        changes(&mut link);
        link
    }

    #[test]
    fn a_card_with_a_cable_takes_guests() {
        let nic = Nic { name: "eth0".to_owned(), index: 7, mtu: 1500, up: true };
        assert_eq!(judge(&link(|_| {}), false), Parent::Fit(nic));
    }

    #[test]
    fn a_card_that_takes_no_guests_is_refused_with_the_remedy() {
        let told = |link: &LinkMessage, wireless, want: &str| match judge(link, wireless) {
            Parent::Unfit(why) => assert!(why.contains(want) && why.contains("--macvlan-parent"), "{why}"),
            other => panic!("{other:?}"),
        };
        told(&link(|_| {}), true, "802.11");
        told(&link(|link| link.attributes.push(LinkAttribute::Controller(3))), false, "port of a bridge or bond");
        told(&link(|link| link.header.link_layer_type = LinkLayerType::None), false, "no Ethernet card");
        let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::MacVlan)]);
        told(&link(|link| link.attributes.push(kind)), false, "name that card");
        let sought = Sought { name: Some("eth9"), local: Ipv4Addr::LOCALHOST };
        assert!(missing(sought).contains("no card `eth9`"));
    }
}
