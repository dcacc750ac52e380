//! `loco lan check`: whether this machine can be a node. Facts are read first, then judged; nothing that others see is changed.
use std::{
    fmt::Write as _,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use anyhow::Result;
use clap::Args;
use nix::errno::Errno;
use serde::Serialize;

use super::{
    Answer, FormFlag,
    devices::{self, Devices},
};

/// What VXLAN puts around a frame of 1514 octets: IPv4, UDP, VXLAN; the outer Ethernet header does not count for an MTU.
const UNDERLAY_MTU: u32 = 1550;
/// Capabilities that an agent needs, by their numbers (capability.h).
const CAPABILITIES: [(u8, &str); 4] =
    [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct CheckFlags {
    /// This node's underlay address; else that of the default route
    #[arg(long, value_name = "IP")]
    address: Option<Ipv4Addr>,
    /// The agents' --vxlan-port
    #[arg(long, default_value_t = 14789)]
    port: u16,
    /// Another node: whether its UDP port can be reached from here
    #[arg(long, value_name = "IP")]
    peer: Vec<Ipv4Addr>,
    #[command(flatten)]
    form: FormFlag,
}

/// How serious it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Ok,
    /// It works, with something lost; or it could not be found out.
    Warning,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    /// What was found, and the remedy where one is needed.
    detail: String,
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Finding>,
}

fn finding(what: &'static str, verdict: Verdict, detail: impl Into<String>) -> Finding {
    Finding { what, verdict, detail: detail.into() }
}

pub(super) fn run(flags: &CheckFlags) -> Result<Answer> {
    let release = read("/proc/sys/kernel/osrelease");
    let mut checks = vec![
        kernel(&release),
        types(Path::new("/sys/kernel/btf/vmlinux").exists()),
        offload(&release),
        tun(Path::new("/dev/net/tun").exists()),
        capabilities(&fs::read_to_string("/proc/self/status").unwrap_or_default()),
        firewall(&read("/proc/sys/net/bridge/bridge-nf-call-iptables")),
    ];
    checks.extend(makes(&devices::ask()));
    let address = flags.address.or_else(own_address);
    checks.push(mtu(address, address.and_then(link_of)));
    checks.push(port(flags.port, UdpSocket::bind((Ipv4Addr::UNSPECIFIED, flags.port)).map(drop)));
    for peer in &flags.peer {
        checks.push(reach(*peer, flags.port, knock(*peer, flags.port)));
    }
    let report = Report { ok: checks.iter().all(|check| check.verdict != Verdict::Failed), checks };
    Answer::said(flags.form.output, &report, report.ok, || words(&report))
}

fn words(report: &Report) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let word = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
        };
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{word:<9}{:<18}{}", check.what, check.detail);
    }
    let verdict = if report.ok { "This machine can be a node." } else { "This machine cannot be a node yet." };
    let _infallible = writeln!(text, "{verdict}");
    text
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Major and minor number of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn kernel(release: &str) -> Finding {
    match version(release) {
        Some(version) if version >= (6, 6) => {
            finding("kernel", Verdict::Ok, format!("{release} (tcx: programs are replaced without a gap)"))
        }
        Some(version) if version >= (5, 15) => finding(
            "kernel",
            Verdict::Warning,
            format!("{release} has no tcx: a new agent's first frames are not counted; 6.6 has it"),
        ),
        Some(_) => finding("kernel", Verdict::Failed, format!("{release} is too old; use 5.15 or newer, best 6.6")),
        None => finding("kernel", Verdict::Warning, "its release cannot be read"),
    }
}

/// The observers' programs and the guard are fitted to the kernel by its own types (BTF).
fn types(there: bool) -> Finding {
    if there {
        finding("eBPF types", Verdict::Ok, "/sys/kernel/btf/vmlinux is there")
    } else {
        finding(
            "eBPF types",
            Verdict::Warning,
            "/sys/kernel/btf/vmlinux is missing (CONFIG_DEBUG_INFO_BTF): games are neither seen nor guests guarded, and LANs play",
        )
    }
}

/// The mode `socket` needs none of them; `user` neither.
fn makes(asked: &Result<Devices>) -> Vec<Finding> {
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => {
            return vec![finding("devices", Verdict::Warning, format!("not asked for: {error:#}"))];
        }
    };
    let lacks = |module: &str, errno: Errno, then: &str| {
        format!("the kernel made none ({}): `modprobe {module}`, or {then}", errno.desc())
    };
    let one = |what, got: Option<Errno>, lacking: Verdict, module, then: &str| match got {
        None => finding(what, Verdict::Ok, "the kernel makes them"),
        Some(errno) => finding(what, lacking, lacks(module, errno, then)),
    };
    let socket = "give LANs the mode socket, which needs none";
    vec![
        one("bridges", asked.bridge, Verdict::Failed, "bridge", socket),
        one("tunnels", asked.vxlan, Verdict::Failed, "vxlan", socket),
        one("macvtaps", asked.macvtap, Verdict::Warning, "macvtap", "do without the mode macvlan"),
        match asked.wireguard {
            None => finding("WireGuard", Verdict::Ok, "the kernel has it"),
            Some(_) => finding(
                "WireGuard",
                Verdict::Ok,
                "not the kernel's: with `encryption: wireguard` the agent does it itself, at the cost of some processor time",
            ),
        },
    ]
}

/// Kernels to 5.7 spoil the check sums of what comes out of a tunnel over an underlay behind NAT.
fn offload(release: &str) -> Finding {
    match version(release) {
        Some(version) if version > (5, 7) => finding("checksum offload", Verdict::Ok, "sound in this kernel"),
        _ => finding(
            "checksum offload",
            Verdict::Warning,
            "kernels to 5.7 may spoil check sums in a tunnel: `ethtool -K LINK tx-checksum-ip-generic off` on the underlay's link",
        ),
    }
}

fn tun(there: bool) -> Finding {
    if there {
        finding("taps", Verdict::Ok, "/dev/net/tun is there")
    } else {
        finding("taps", Verdict::Failed, "/dev/net/tun is missing; load it: `modprobe tun`")
    }
}

fn capabilities(status: &str) -> Finding {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(bits) = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else {
        return finding("rights", Verdict::Warning, "this process's capabilities cannot be read");
    };
    let missing: Vec<_> = CAPABILITIES.iter().filter(|(bit, _)| bits >> bit & 1 == 0).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        finding("rights", Verdict::Ok, "root's, as an agent needs them")
    } else {
        finding("rights", Verdict::Failed, format!("{} missing; run this, and the agent, as root", missing.join(", ")))
    }
}

fn firewall(value: &str) -> Finding {
    match value {
        "1" => finding(
            "bridge firewall",
            Verdict::Ok,
            "bridge-nf-call-iptables is 1 on this machine; the LAN's own namespace has 0, so it does no harm",
        ),
        "" => finding("bridge firewall", Verdict::Ok, "br_netfilter is not loaded"),
        _ => finding("bridge firewall", Verdict::Ok, "bridge-nf-call-iptables is 0"),
    }
}

/// The address from which packets go to the default route; none is sent.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Documentation's network (RFC 5737): connecting a UDP socket only looks the route up.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// The link with the address, and its MTU.
fn link_of(address: Ipv4Addr) -> Option<(String, u32)> {
    let mut links = nix::ifaddrs::getifaddrs().ok()?;
    let found = links.find(|link| {
        link.address.as_ref().and_then(|found| found.as_sockaddr_in()).is_some_and(|found| found.ip() == address)
    })?;
    let mtu = read(&format!("/sys/class/net/{}/mtu", found.interface_name)).parse().ok()?;
    Some((found.interface_name, mtu))
}

fn mtu(address: Option<Ipv4Addr>, link: Option<(String, u32)>) -> Finding {
    match (address, link) {
        (_, Some((link, mtu))) if mtu >= UNDERLAY_MTU => {
            finding("underlay", Verdict::Ok, format!("{link} has MTU {mtu}"))
        }
        (_, Some((link, mtu))) => finding(
            "underlay",
            Verdict::Warning,
            format!(
                "{link} has MTU {mtu}: full frames go in two fragments; {UNDERLAY_MTU} or more on all nodes spares that"
            ),
        ),
        (Some(address), None) => finding(
            "underlay",
            Verdict::Failed,
            format!("no link has the address {address}; give this node's own: --address IP"),
        ),
        (None, None) => {
            finding("underlay", Verdict::Warning, "there is no default route; give this node's address: --address IP")
        }
    }
}

fn port(port: u16, bound: io::Result<()>) -> Finding {
    match bound {
        Ok(()) => finding("VXLAN port", Verdict::Ok, format!("UDP {port} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => finding(
            "VXLAN port",
            Verdict::Warning,
            format!(
                "UDP {port} is in use: fine if an agent runs here, else free it (`ss -lunp`) or give all agents another --vxlan-port"
            ),
        ),
        Err(error) => finding("VXLAN port", Verdict::Failed, format!("UDP {port} cannot be used: {error}")),
    }
}

/// What became of a datagram to the peer's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Knock {
    /// Nothing came back: somebody listens there, or a firewall is silent.
    Silence,
    /// ICMP port unreachable: the way is open, and nobody listens.
    Refused,
    NoWay,
}

fn knock(peer: Ipv4Addr, port: u16) -> Knock {
    let attempt = || -> io::Result<Knock> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(SocketAddr::from((peer, port)))?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        // No VXLAN: whoever listens there drops it.
        socket.send(&[0])?;
        match socket.recv(&mut [0; 16]) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Knock::Refused),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(Knock::Silence)
            }
            Err(_) => Ok(Knock::NoWay),
            Ok(_) => Ok(Knock::Silence),
        }
    };
    attempt().unwrap_or(Knock::NoWay)
}

fn reach(peer: Ipv4Addr, port: u16, knock: Knock) -> Finding {
    match knock {
        Knock::Silence => finding(
            "peer",
            Verdict::Ok,
            format!("{peer} does not refuse UDP {port}; `loco lan trace` proves that frames pass"),
        ),
        Knock::Refused => finding(
            "peer",
            Verdict::Warning,
            format!("{peer} can be reached, and nobody listens at UDP {port}: start its agent"),
        ),
        Knock::NoWay => {
            finding("peer", Verdict::Failed, format!("there is no way to {peer}; look at the routes and the cable"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(found: &Finding, verdict: Verdict, detail: &str) {
        assert!(found.verdict == verdict && found.detail.contains(detail), "{found:?}");
    }

    #[test]
    fn kernels_are_judged_by_their_release() {
        check(&kernel("6.18.0-rc1+"), Verdict::Ok, "tcx");
        check(&kernel("6.1.0-28-amd64"), Verdict::Warning, "no tcx");
        check(&kernel("5.4.0"), Verdict::Failed, "too old");
        check(&kernel("unknown"), Verdict::Warning, "cannot be read");
        check(&offload("5.7.19"), Verdict::Warning, "ethtool");
        check(&offload("5.10.0"), Verdict::Ok, "sound");
    }

    #[test]
    fn a_missing_right_is_named() {
        check(&capabilities("CapEff:\t000001ffffffffff\n"), Verdict::Ok, "root's");
        check(
            &capabilities("CapEff:\t0000000000001000\n"),
            Verdict::Failed,
            "CAP_NET_RAW, CAP_PERFMON, CAP_BPF missing",
        );
        check(&capabilities(""), Verdict::Warning, "cannot be read");
    }

    #[test]
    fn what_the_kernel_does_not_make_is_told_with_what_to_do() {
        let all = Devices { bridge: None, vxlan: None, macvtap: None, wireguard: None };
        let found = makes(&Ok(all));
        assert!(found.len() == 4 && found.iter().all(|one| one.verdict == Verdict::Ok), "{found:?}");
        let found = makes(&Ok(Devices {
            vxlan: Some(Errno::EOPNOTSUPP),
            macvtap: Some(Errno::EOPNOTSUPP),
            wireguard: Some(Errno::EOPNOTSUPP),
            ..all
        }));
        check(&found[1], Verdict::Failed, "`modprobe vxlan`, or give LANs the mode socket");
        check(&found[2], Verdict::Warning, "modprobe macvtap");
        check(&found[3], Verdict::Ok, "agent does it itself");
        check(&makes(&Err(anyhow::anyhow!("root is needed")))[0], Verdict::Warning, "root is needed");
        check(&types(false), Verdict::Warning, "CONFIG_DEBUG_INFO_BTF");
    }

    #[test]
    #[ignore = "privileged: run by `cargo xtask test --privileged`"]
    fn this_kernel_makes_the_devices_of_lans_and_keeps_none() {
        let links = || fs::read_to_string("/proc/self/net/dev").unwrap();
        let names = |text: &str| {
            text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect::<Vec<_>>()
        };
        let before = names(&links());
        let asked = devices::ask().unwrap();
        assert_eq!((asked.bridge, asked.vxlan, asked.macvtap), (None, None, None));
        assert_eq!(names(&links()), before);
    }

    #[test]
    fn the_underlay_is_told_with_its_remedy() {
        let address = Some(Ipv4Addr::new(10, 0, 0, 1));
        check(&mtu(address, Some(("eth0".into(), 1550))), Verdict::Ok, "1550");
        check(&mtu(address, Some(("eth0".into(), 1500))), Verdict::Warning, "two fragments");
        check(&mtu(address, None), Verdict::Failed, "--address");
        check(&mtu(None, None), Verdict::Warning, "no default route");
        check(&tun(false), Verdict::Failed, "modprobe tun");
        check(&port(7, Err(io::ErrorKind::AddrInUse.into())), Verdict::Warning, "in use");
    }

    #[test]
    fn a_port_that_nobody_has_is_told_from_one_that_listens() {
        let listener = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(knock(Ipv4Addr::LOCALHOST, port), Knock::Silence);
        drop(listener);
        // Another program may have taken it meanwhile; then it is silent.
        assert_ne!(knock(Ipv4Addr::LOCALHOST, port), Knock::NoWay);
        assert_eq!(link_of(Ipv4Addr::LOCALHOST).map(|(link, _)| link).as_deref(), Some("lo"));
    }
}
