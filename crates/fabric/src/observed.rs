//! What is in the namespace, in the words of the plan. Pure data; `kernel` fills it in.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use model::{MacAddr, NetworkMode, Seat, Vni};

use crate::{FdbEntry, LanSpec, PortCounters, PortSpec};

/// Every link of the namespace, by name, and what lies beneath it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Observed {
    pub(crate) links: BTreeMap<String, Link>,
    pub(crate) parent: Parent,
}

/// The node's own card, over which the guests of LANs of mode `macvlan` are on the real LAN.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Parent {
    /// No LAN of such a mode has a seat here, so nobody looked.
    #[default]
    Unasked,
    /// No guest can be put on it: why, one sentence with the remedy.
    Unfit(String),
    Fit(Nic),
}

/// A card that takes guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nic {
    pub(crate) name: String,
    /// Its number in the node's namespace.
    pub(crate) index: u32,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) kind: LinkKind,
    pub(crate) mac: MacAddr,
    pub(crate) mtu: u32,
    /// Administratively up.
    pub(crate) up: bool,
    /// For a tap or a macvtap: somebody holds it open.
    pub(crate) carrier: bool,
    /// Takes frames for all groups, and not only for those that somebody on this machine joined.
    pub(crate) all_groups: bool,
    /// Name of the bridge it is a port of.
    pub(crate) master: Option<String>,
    /// Rows of the device's own forwarding table (VXLAN only).
    pub(crate) fdb: BTreeSet<FdbEntry>,
    pub(crate) counters: PortCounters,
}

impl Link {
    /// Whether a port is plugged into that LAN; over the node's card there is but one to be in.
    pub(crate) fn is_in(&self, lan: &LanSpec) -> bool {
        lan.mode == NetworkMode::Macvlan || self.master.as_ref() == Some(&OurName::Bridge(lan.vni).text())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkKind {
    Bridge {
        stp: bool,
        mcast_snooping: bool,
    },
    Vxlan(Tunnel),
    Tap,
    Macvtap {
        /// Number of the link that it lies over, in the node's namespace.
        parent: Option<u32>,
        submode: Submode,
    },
    /// Not something this program makes; the text is the kernel's word for it.
    Other(String),
}

/// What devices over one card do with each other's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submode {
    /// They meet, within the card.
    Bridge,
    /// There is but one, which has the card for itself: the kernel lets it become nothing else.
    Passthru,
    Other,
}

/// What of a VXLAN device cannot be changed once it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tunnel {
    pub(crate) vni: u32,
    pub(crate) local: Option<Ipv4Addr>,
    pub(crate) port: u16,
    pub(crate) learning: bool,
    /// Its UDP socket is in the namespace that is meant for it: the node's, or the encrypted tunnel's.
    pub(crate) at_home: bool,
}

/// Of the names of stations.
pub(crate) const STATION_PREFIX: &str = "locoix";

/// The tap of a program of this node that is a station of the LAN itself (see [`crate::Fabric::open_station`]). Whoever
/// opens it makes it, and it goes with its last fd, so the plan only keeps it plugged. Public for whoever looks at its frames.
pub fn station_name(vni: Vni) -> String {
    format!("{STATION_PREFIX}{:06x}", vni.get())
}

/// The VXLAN device of a LAN, for whoever looks at its frames.
pub fn tunnel_name(vni: Vni) -> String {
    OurName::Vxlan(vni).text()
}

/// Whether a port's device is a macvtap, by the name that this crate gave it. It is the node's side of the guest's cable where a tap is
/// the guest's own: what the guest sends goes *out* of it, for whoever looks at its frames.
pub fn is_macvtap(device: &str) -> bool {
    matches!(OurName::parse(device), Some(OurName::Macvtap(..)))
}

/// What a name of ours stands for. The kernel takes 15 characters; the longest of ours, a tap's, has exactly that.
///
/// A port is called after its guest's card, which is the seat that the guest was started for. One that moves to another LAN keeps its name:
/// where it is plugged in says its bridge, as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OurName {
    Bridge(Vni),
    Vxlan(Vni),
    Tap(Vni, Seat),
    Macvtap(Vni, Seat),
}

impl OurName {
    /// What a guest is plugged into, in a LAN of the kernel's.
    pub(crate) const fn port(lan: &LanSpec, port: &PortSpec) -> Self {
        let (vni, seat) = (port.card.vni(), port.card.seat());
        match lan.mode {
            NetworkMode::Macvlan => Self::Macvtap(vni, seat),
            NetworkMode::Vxlan | NetworkMode::Socket | NetworkMode::User => Self::Tap(vni, seat),
        }
    }

    pub(crate) const fn is_port(self) -> bool {
        matches!(self, Self::Tap(..) | Self::Macvtap(..))
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::Bridge(vni) => format!("locobr{:06x}", vni.get()),
            Self::Vxlan(vni) => format!("locovx{:06x}", vni.get()),
            Self::Tap(vni, seat) => format!("locot{:06x}-{}", vni.get(), seat.0),
            Self::Macvtap(vni, seat) => format!("locom{:06x}-{}", vni.get(), seat.0),
        }
    }

    /// Only what [`OurName::text`] writes, to the letter: `locobr1` is somebody else's.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let vni = |hex: &str| u32::from_str_radix(hex, 16).ok().and_then(|raw| Vni::new(raw).ok());
        let name = if let Some(hex) = text.strip_prefix("locobr") {
            Self::Bridge(vni(hex)?)
        } else if let Some(hex) = text.strip_prefix("locovx") {
            Self::Vxlan(vni(hex)?)
        } else if let Some(port) = text.strip_prefix("locot") {
            let (hex, seat) = port.split_once('-')?;
            Self::Tap(vni(hex)?, Seat(seat.parse().ok()?))
        } else {
            let (hex, seat) = text.strip_prefix("locom")?.split_once('-')?;
            Self::Macvtap(vni(hex)?, Seat(seat.parse().ok()?))
        };
        (name.text() == text).then_some(name)
    }

    pub(crate) const fn vni(self) -> Vni {
        match self {
            Self::Bridge(vni) | Self::Vxlan(vni) | Self::Tap(vni, _) | Self::Macvtap(vni, _) => vni,
        }
    }

    /// Whether a link of that kind is what we would have made under this name.
    pub(crate) const fn fits(self, kind: &LinkKind) -> bool {
        matches!(
            (self, kind),
            (Self::Bridge(_), LinkKind::Bridge { .. })
                | (Self::Vxlan(_), LinkKind::Vxlan(_))
                | (Self::Tap(..), LinkKind::Tap)
                | (Self::Macvtap(..), LinkKind::Macvtap { .. })
        )
    }
}

impl Observed {
    /// Our links: name and kind are ours.
    pub(crate) fn ours(&self) -> impl Iterator<Item = (OurName, &Link)> {
        self.links.iter().filter_map(|(text, link)| {
            let name = OurName::parse(text)?;
            name.fits(&link.kind).then_some((name, link))
        })
    }

    pub(crate) fn our(&self, name: OurName) -> Option<&Link> {
        self.links.get(&name.text()).filter(|link| name.fits(&link.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_and_read_back() {
        for raw in [1, 4200, 0x00ff_ffff] {
            let vni = Vni::new(raw).unwrap();
            for name in [
                OurName::Bridge(vni),
                OurName::Vxlan(vni),
                OurName::Tap(vni, Seat(0)),
                OurName::Tap(vni, Seat(253)),
                OurName::Macvtap(vni, Seat(253)),
            ] {
                let text = name.text();
                assert!(text.len() <= 15, "{text}");
                assert_eq!(OurName::parse(&text), Some(name));
            }
        }
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for other in [
            "lo",
            "eth0",
            "locobr",
            "locobr1",
            "locobr00106G",
            "locobr001068x",
            "locot001068-",
            "locot001068-00",
            "locot001068-256",
            "locom001068-01",
            "locovx000000",
            "locobr00ABCD",
        ] {
            assert_eq!(OurName::parse(other), None, "{other}");
        }
    }
}
