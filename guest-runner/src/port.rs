//! The place on the LAN that an agent gave: what QEMU is started with, and what of it goes back to the agent.
//!
//! ```text
//!  tap:     agent ── tap ──> QEMU
//!  macvtap: agent ── macvtap ──> QEMU;  its hold: kept here
//!  socket:  QEMU ══ pair ══ cable: kept here, a copy of it to each agent that comes
//!  user:    QEMU alone
//! ```
//! **Invariants.** A macvtap's hold is open here for as long as QEMU runs on it, and no longer: by it everybody sees that the port is held. A cable is made once for each start of QEMU. Its agent's end is open here for as long as QEMU runs, so what the guest
//! sends while no agent is there waits in the socket's buffer, and what that cannot take waits in QEMU: nothing is lost.
use std::os::fd::OwnedFd;

use guest::argv::Netdev;
use model::MacAddr;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use seat::{PortKind, Welcome};

/// Bytes that may wait in one direction of a cable, as far as the kernel lets everybody (`net.core.wmem_max`): some 500 small frames,
/// each of which costs 768. What the guest sends beyond waits in QEMU; what the agent sends beyond is lost, and it counts that.
const CABLE_BYTES: usize = 212_992;

/// A place on the LAN, until QEMU has it.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) welcome: Welcome,
    pub(crate) mac: MacAddr,
    pub(crate) netdev: Netdev,
    /// The tap, or QEMU's end of the cable.
    pub(crate) net: Option<OwnedFd>,
    pub(crate) kvm: Option<OwnedFd>,
}

/// What follows from a Welcome.
#[derive(Debug)]
pub(crate) struct Plugged {
    pub(crate) granted: Granted,
    /// To be kept while QEMU runs.
    pub(crate) kept: Kept,
}

/// What a runner keeps open for as long as QEMU runs.
#[derive(Debug)]
pub(crate) enum Kept {
    Nothing,
    /// The agent's end of the cable; a copy of it goes to each agent that comes.
    Cable(OwnedFd),
    /// That the macvtap is held.
    Hold(#[expect(dead_code, reason = "it is its being open that counts")] OwnedFd),
}

/// Takes an agent's Welcome apart. `Err`: why it is no place on a LAN.
pub(crate) fn plug(welcome: &Welcome, fds: Vec<OwnedFd>) -> Result<Plugged, String> {
    let unusable = |what: &str| format!("the agent's Welcome lacks {what}; are both of one release?");
    let mac = MacAddr::parse(&welcome.mac).ok_or_else(|| unusable("a MAC address"))?;
    let mut fds = fds.into_iter();
    let mut take = |what| fds.next().ok_or_else(|| unusable(what));
    let (netdev, net, kept) = match welcome.port {
        PortKind::Tap => (Netdev::Tap, Some(take("a tap")?), Kept::Nothing),
        // QEMU knows no difference between the two.
        PortKind::Macvtap => (Netdev::Tap, Some(take("a macvtap")?), Kept::Hold(take("the hold of its macvtap")?)),
        PortKind::Socket => {
            let (qemu, agent) = cable().map_err(|error| format!("a cable for the guest could not be made: {error}"))?;
            (Netdev::Socket, Some(qemu), Kept::Cable(agent))
        }
        PortKind::User => {
            let subnet = welcome.subnet.as_deref().and_then(|subnet| subnet.parse().ok());
            let subnet = subnet.ok_or_else(|| unusable("the LAN's subnet"))?;
            (Netdev::User { subnet, ip: welcome.ip }, None, Kept::Nothing)
        }
    };
    let kvm = fds.next().filter(|_| welcome.kvm);
    Ok(Plugged { granted: Granted { welcome: welcome.clone(), mac, netdev, net, kvm }, kept })
}

fn cable() -> nix::Result<(OwnedFd, OwnedFd)> {
    let ends = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    for end in [&ends.0, &ends.1] {
        // A kernel that grants less has a shorter queue, and nothing else is different.
        setsockopt(end, sockopt::SndBuf, &CABLE_BYTES).ok();
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(port: PortKind) -> Welcome {
        Welcome {
            lan: "party".into(),
            seat: 3,
            mac: "02:4c:00:10:68:04".into(),
            ip: [10, 98, 0, 4].into(),
            host_name: "LOCO1068-4".into(),
            kvm: true,
            port,
            subnet: Some("10.98.0.0/24".into()),
        }
    }

    fn fds(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect()
    }

    #[test]
    fn each_kind_of_port_has_its_descriptors() {
        let tap = plug(&welcome(PortKind::Tap), fds(2)).unwrap();
        assert_eq!((tap.granted.net.is_some(), tap.granted.kvm.is_some()), (true, true));
        assert!(matches!(tap.kept, Kept::Nothing), "{tap:?}");
        let macvtap = plug(&welcome(PortKind::Macvtap), fds(3)).unwrap();
        assert_eq!((macvtap.granted.netdev, macvtap.granted.net.is_some()), (Netdev::Tap, true));
        assert!(macvtap.granted.kvm.is_some() && matches!(macvtap.kept, Kept::Hold(_)), "{macvtap:?}");
        let socket = plug(&welcome(PortKind::Socket), fds(1)).unwrap();
        assert_eq!((socket.granted.netdev, socket.granted.kvm.is_some()), (Netdev::Socket, true));
        assert!(socket.granted.net.is_some() && matches!(socket.kept, Kept::Cable(_)), "{socket:?}");
        let user = plug(&welcome(PortKind::User), fds(1)).unwrap();
        assert_eq!((user.granted.net.is_none(), user.granted.kvm.is_some()), (true, true));
        assert!(matches!(user.kept, Kept::Nothing), "{user:?}");
    }

    #[test]
    fn a_welcome_that_lacks_something_is_refused_in_words() {
        assert!(plug(&welcome(PortKind::Tap), Vec::new()).unwrap_err().contains("a tap"));
        assert!(plug(&welcome(PortKind::Macvtap), fds(1)).unwrap_err().contains("the hold"));
        let nowhere = Welcome { subnet: None, ..welcome(PortKind::User) };
        assert!(plug(&nowhere, Vec::new()).unwrap_err().contains("subnet"));
    }
}
