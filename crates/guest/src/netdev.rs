//! What a guest's card is plugged into: told to QEMU, and read back from it. Pure.
use std::net::Ipv4Addr;

use model::Subnet;

use crate::argv::FD_NET;

/// What QEMU calls the card's other end.
pub const ID: &str = "net0";

/// What the guest's card is plugged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Netdev {
    /// A tap at [`FD_NET`].
    Tap,
    /// One end of a `SOCK_SEQPACKET` pair at [`FD_NET`]: each packet is a frame, and none is cut or joined.
    Socket,
    /// QEMU's own network, with nobody else in it and no way out: its DHCP gives the guest the seat's own address.
    User { subnet: Subnet, ip: Ipv4Addr },
}

impl Netdev {
    /// The value of `-netdev`.
    pub(crate) fn arg(self) -> String {
        match self {
            Self::Tap => format!("tap,id={ID},fd={FD_NET}"),
            Self::Socket => format!("dgram,id={ID},local.type=fd,local.str={FD_NET}"),
            Self::User { subnet, ip } => {
                let edge = subnet.edge();
                // QEMU wants an address for its name server, too; nothing answers there.
                let below = |address: Ipv4Addr| Ipv4Addr::from_bits(address.to_bits().wrapping_sub(1));
                let names = if below(edge) == ip { below(ip) } else { below(edge) };
                format!("user,id={ID},restrict=on,ipv6=off,net={subnet},host={edge},dns={names},dhcpstart={ip}")
            }
        }
    }
}

/// What the card's other end is, in the words of QEMU's `info network`: `tap`, `dgram`, `user`. `None`: no such word.
pub fn backend(info_network: &str) -> Option<&str> {
    let (_, net0) = info_network.split_once("net0: ")?;
    let kind = net0.lines().next()?.split(',').find_map(|field| field.trim().strip_prefix("type="))?;
    Some(kind).filter(|kind| !kind.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_is_plugged_into_what_the_port_is() {
        assert_eq!(Netdev::Socket.arg(), "dgram,id=net0,local.type=fd,local.str=3");
        let user = |subnet: &str, ip| Netdev::User { subnet: subnet.parse().unwrap(), ip }.arg();
        assert_eq!(
            user("10.98.0.0/24", Ipv4Addr::new(10, 98, 0, 4)),
            "user,id=net0,restrict=on,ipv6=off,net=10.98.0.0/24,host=10.98.0.254,dns=10.98.0.253,dhcpstart=10.98.0.4"
        );
        let last = user("10.98.0.0/28", Ipv4Addr::new(10, 98, 0, 13));
        assert!(last.ends_with("host=10.98.0.14,dns=10.98.0.12,dhcpstart=10.98.0.13"), "{last}");
    }

    #[test]
    fn qemu_says_what_the_card_is_on() {
        let said = |netdev| {
            format!("pcnet.0: index=0,type=nic,model=pcnet,macaddr=02:4c:00:10:68:01\r\n \\ net0: index=0,{netdev}\r\n")
        };
        assert_eq!(backend(&said("type=dgram,fd=4 unix")), Some("dgram"));
        assert_eq!(backend(&said("type=user,net=10.98.0.0,restrict=on")), Some("user"));
        assert_eq!(backend(&said("type=tap,fd=3")), Some("tap"));
        assert_eq!(backend("pcnet.0: index=0,type=nic"), None);
    }
}
