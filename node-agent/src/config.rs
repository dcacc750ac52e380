//! What the agent is told at its start: flags or environment, checked before anything is opened. The only module that
//! reads them, and the only one that reads the token's file.
use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    num::NonZeroU16,
    ops::RangeInclusive,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Parser, Subcommand};
use model::{LanName, NodeName};

/// Longest token taken, in bytes: a file that holds more is not a token.
const TOKEN_BYTES_MAX: u64 = 4096;
/// The bits of `capability.h`: links and namespaces.
const CAPABILITIES: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// The per-node agent of Loco: LAN ports, pictures and input of the instances of one node.
#[derive(Debug, Parser)]
#[command(name = "node-agent", version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// This node's name in the snapshot.
    #[arg(long, env = "LOCO_NODE", value_name = "NAME", required = true)]
    node: Option<NodeName>,
    /// The directory of the cluster: a JSON file that is followed while the agent runs.
    #[arg(long, env = "LOCO_SNAPSHOT", value_name = "FILE", required = true)]
    snapshot: Option<PathBuf>,
    /// Where seat sockets and the fabric's namespace are kept; absolute.
    #[arg(long, env = "LOCO_RUN_DIR", value_name = "DIR", required = true)]
    run_dir: Option<PathBuf>,
    /// Address and port of the HTTP API.
    #[arg(long, env = "LOCO_LISTEN", value_name = "IP:PORT", required = true)]
    listen: Option<SocketAddr>,
    /// This node's address on the underlay: browsers send and receive media there, other nodes their frames.
    #[arg(long, env = "LOCO_MEDIA_IP", value_name = "IP", required = true)]
    media_ip: Option<Ipv4Addr>,
    /// UDP ports for media, first-last, one per viewer.
    #[arg(long, env = "LOCO_MEDIA_PORTS", value_name = "FIRST-LAST", default_value = "14900-14999")]
    media_ports: PortRange,
    /// File that holds the bearer token of the API; readable by its owner only.
    #[arg(long, env = "LOCO_TOKEN_FILE", value_name = "FILE", required = true)]
    token_file: Option<PathBuf>,
    /// UDP port of VXLAN, the same on all nodes.
    #[arg(long, env = "LOCO_VXLAN_PORT", value_name = "PORT", default_value = "14789")]
    vxlan_port: NonZeroU16,
    /// Kernel (ELF) with which KVM is proven to run guests; without it guests run without KVM.
    #[arg(long, env = "LOCO_KVM_PROBE", value_name = "FILE")]
    kvm_probe: Option<PathBuf>,
    /// Memory in bytes for the last frames of all ports together, for captures; 0: none are kept.
    #[arg(long, env = "LOCO_CAPTURE_BYTES", value_name = "BYTES", default_value = "16777216")]
    capture_bytes: usize,
    #[command(flatten)]
    ipx_relay: IpxRelayArgs,
}

/// The relay for DOSBox, DOSBox-X and `IPXWrapper`; see docs/ipx-relay.md.
#[derive(Debug, clap::Args)]
struct IpxRelayArgs {
    /// Join the clients of DOSBox's IPX tunnel at this address and UDP port, usually 213, to a LAN; off without. Whoever can
    /// send there can speak IPX on that LAN.
    #[arg(long = "ipx-relay", env = "LOCO_IPX_RELAY", value_name = "IP:PORT", requires = "lan")]
    address: Option<SocketAddrV4>,
    /// The LAN that the IPX relay joins.
    #[arg(long = "ipx-relay-lan", env = "LOCO_IPX_RELAY_LAN", value_name = "NAME", requires = "address")]
    lan: Option<LanName>,
    /// Framing of the relay's IPX on the LAN: `auto` (as heard there), `ethernet_ii`, `raw_802_3`, `llc` (802.2) or `snap`.
    #[arg(long = "ipx-relay-framing", env = "LOCO_IPX_RELAY_FRAMING", value_name = "FRAMING", default_value_t)]
    framing: ipxnet::Framing,
    /// Let NetBIOS and Windows' file sharing over IPX pass the relay.
    #[arg(long = "ipx-relay-netbios", env = "LOCO_IPX_RELAY_NETBIOS")]
    netbios: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Removes what agents of this run directory left in the kernel, and the directory. Guests that still run are cut off.
    Uninstall {
        /// The run directory that the agent was started with; absolute.
        #[arg(long, env = "LOCO_RUN_DIR", value_name = "DIR")]
        run_dir: PathBuf,
    },
}

/// First and last port of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange(pub RangeInclusive<u16>);

impl FromStr for PortRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let remedy = "write FIRST-LAST with 1024 <= FIRST <= LAST <= 65535, such as 14900-14999";
        let (first, last) = text.split_once('-').ok_or(remedy)?;
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port >= 1024);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err(remedy.to_owned()),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

/// The bearer token. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Everything an agent needs to know to start.
#[derive(Debug, Clone)]
pub struct Config {
    pub node: NodeName,
    pub snapshot: PathBuf,
    pub run_dir: PathBuf,
    pub listen: SocketAddr,
    pub media_ip: Ipv4Addr,
    pub media_ports: RangeInclusive<u16>,
    pub token: Token,
    pub vxlan_port: u16,
    pub kvm_probe: Option<PathBuf>,
    /// Of all ports together; 0: nothing is captured.
    pub capture_bytes: usize,
    /// `None`: no relay.
    pub ipx_relay: Option<IpxRelay>,
}

/// Where the IPX relay listens and what it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpxRelay {
    pub address: SocketAddrV4,
    pub lan: LanName,
    pub framing: ipxnet::Framing,
    pub netbios: bool,
}

impl IpxRelayArgs {
    fn load(self) -> Option<IpxRelay> {
        let (address, lan) = self.address.zip(self.lan)?;
        Some(IpxRelay { address, lan, framing: self.framing, netbios: self.netbios })
    }
}

/// Why the agent cannot start as it was called.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The call itself is wrong: exit code 2.
    #[error("{flag}: {problem}")]
    Usage { flag: &'static str, problem: String },
    /// The call is fine, the machine is not as it says: exit code 1.
    #[error("{flag} {path}: {problem}", path = path.display())]
    File { flag: &'static str, path: PathBuf, problem: String },
    #[error("this process lacks {0}; run it as root, or grant it")]
    Capability(&'static str),
}

impl ConfigError {
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            Self::File { .. } | Self::Capability(_) => 1,
        }
    }
}

fn usage(flag: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Usage { flag, problem: problem.into() }
}

/// Where the fabric's namespace is mounted below a run directory.
pub fn fabric_netns(run_dir: &Path) -> PathBuf {
    run_dir.join("fabric.netns")
}

/// Where the observer's maps and programs are pinned below a run directory.
pub fn bpffs(run_dir: &Path) -> PathBuf {
    run_dir.join("bpf")
}

/// A run directory must be absolute: seat sockets below it are told to other processes.
pub fn checked_run_dir(run_dir: PathBuf) -> Result<PathBuf, ConfigError> {
    if run_dir.is_absolute() && run_dir != Path::new("/") {
        Ok(run_dir)
    } else {
        Err(usage(
            "--run-dir",
            format!("`{}` is not a place of our own; give an absolute path, such as /run/loco", run_dir.display()),
        ))
    }
}

impl Config {
    /// Checks all flags, then the files they name, and opens nothing but those files.
    pub fn load(args: Args) -> Result<Self, ConfigError> {
        let required = |flag| move || usage(flag, "is required");
        let node = args.node.ok_or_else(required("--node"))?;
        let snapshot = args.snapshot.ok_or_else(required("--snapshot"))?;
        let run_dir = checked_run_dir(args.run_dir.ok_or_else(required("--run-dir"))?)?;
        let listen = args.listen.ok_or_else(required("--listen"))?;
        let media_ip = args.media_ip.ok_or_else(required("--media-ip"))?;
        let token_file = args.token_file.ok_or_else(required("--token-file"))?;
        if media_ip.is_unspecified() || media_ip.is_multicast() || media_ip.is_broadcast() {
            return Err(usage(
                "--media-ip",
                format!("{media_ip} is not an address that others can reach; give this node's own"),
            ));
        }
        let file = |flag, path: &Path, remedy: &str| match std::fs::metadata(path) {
            Ok(meta) if meta.is_file() => Ok(()),
            Ok(_) => {
                Err(ConfigError::File { flag, path: path.to_owned(), problem: format!("is not a file; {remedy}") })
            }
            Err(error) => Err(ConfigError::File { flag, path: path.to_owned(), problem: format!("{error}; {remedy}") }),
        };
        file("--snapshot", &snapshot, "`loco up` writes it; give the path it has")?;
        if let Some(path) = &args.kvm_probe {
            file("--kvm-probe", path, "leave the flag out to run guests without KVM")?;
        }
        let token = read_token(&token_file)?;
        Ok(Self {
            node,
            snapshot,
            run_dir,
            listen,
            media_ip,
            media_ports: args.media_ports.0,
            token,
            vxlan_port: args.vxlan_port.get(),
            kvm_probe: args.kvm_probe,
            ipx_relay: args.ipx_relay.load(),
            capture_bytes: args.capture_bytes,
        })
    }
}

fn read_token(path: &Path) -> Result<Token, ConfigError> {
    let refuse = |problem: String| ConfigError::File { flag: "--token-file", path: path.to_owned(), problem };
    let meta = std::fs::metadata(path)
        .map_err(|error| refuse(format!("{error}; write the token into it: `openssl rand -hex 32`")))?;
    if !meta.is_file() || meta.len() > TOKEN_BYTES_MAX {
        return Err(refuse(format!("is not a token; it must be a file of at most {TOKEN_BYTES_MAX} bytes")));
    }
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o027 != 0 {
        return Err(refuse(format!("has mode {mode:04o}, so others can read or change it; chmod 600 it")));
    }
    let text =
        std::fs::read_to_string(path).map_err(|error| refuse(format!("{error}; it must hold one line of text")))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(refuse("is empty; write the token into it: `openssl rand -hex 32`".to_owned()));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refuse(
            "holds blanks or characters that no HTTP header carries; use letters and digits".to_owned(),
        ));
    }
    Ok(Token::new(token))
}

/// Whether this process may do what an agent does, before anything is touched.
pub fn check_capabilities() -> Result<(), ConfigError> {
    // Unreadable means a kernel without procfs: then the first system call that is refused says it.
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return Ok(()) };
    missing_capability(&status).map_or(Ok(()), |name| Err(ConfigError::Capability(name)))
}

fn missing_capability(proc_status: &str) -> Option<&'static str> {
    let line = proc_status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(line.trim(), 16).ok()?;
    CAPABILITIES.iter().find(|(bit, _)| effective & (1 << bit) == 0).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a good token and a good snapshot.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("loco-config-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("snapshot.json"), "{}").unwrap();
            let place = Self(folder);
            place.token("s3cret\n", 0o600);
            place
        }

        fn token(&self, text: &str, mode: u32) {
            let path = self.0.join("token");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }

        /// All flags, with `change` laid over them: a flag and its value, or `None` to leave it out.
        fn args(&self, change: &[(&str, Option<&str>)]) -> Result<Config, (u8, String)> {
            let path = |name: &str| self.0.join(name).display().to_string();
            let mut flags = vec![
                ("--node", "node-a".to_owned()),
                ("--snapshot", path("snapshot.json")),
                ("--run-dir", "/run/loco-test".to_owned()),
                ("--listen", "127.0.0.1:14780".to_owned()),
                ("--media-ip", "127.0.0.1".to_owned()),
                ("--token-file", path("token")),
            ];
            for (flag, value) in change {
                flags.retain(|(name, _)| name != flag);
                if let Some(value) = value {
                    flags.push((flag, (*value).to_owned()));
                }
            }
            let words = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
            let args = Args::try_parse_from(std::iter::once("node-agent".to_owned()).chain(words))
                .map_err(|error| (u8::try_from(error.exit_code()).unwrap(), error.to_string()))?;
            Config::load(args).map_err(|error| (error.exit_code(), error.to_string()))
        }

        #[track_caller]
        fn refuses(&self, change: &[(&str, Option<&str>)], code: u8, words: &[&str]) {
            let (got, text) = self.args(change).unwrap_err();
            assert_eq!(got, code, "{text}");
            for word in words {
                assert!(text.contains(word), "`{word}` is not in: {text}");
            }
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn good_flags_make_a_config() {
        let config = Place::new("good").args(&[("--media-ports", Some("20000-20003"))]).unwrap();
        assert_eq!(config.token, Token::new("s3cret"));
        assert_eq!(config.media_ports, 20000..=20003);
        assert_eq!(config.vxlan_port, 14789);
        assert_eq!(config.capture_bytes, 16 << 20);
        assert!(!format!("{config:?}").contains("s3cret"), "the token must not reach a log");
    }

    #[test]
    fn wrong_usage_is_named_by_flag_with_exit_code_2() {
        let place = Place::new("usage");
        for flag in ["--node", "--snapshot", "--run-dir", "--listen", "--media-ip", "--token-file"] {
            place.refuses(&[(flag, None)], 2, &[flag]);
        }
        place.refuses(&[("--node", Some("Node A"))], 2, &["--node", "a-z, 0-9"]);
        place.refuses(&[("--listen", Some("14780"))], 2, &["--listen"]);
        place.refuses(&[("--media-ip", Some("0.0.0.0"))], 2, &["--media-ip", "this node's own"]);
        place.refuses(&[("--run-dir", Some("run/loco"))], 2, &["--run-dir", "absolute"]);
        place.refuses(&[("--vxlan-port", Some("0"))], 2, &["--vxlan-port"]);
        for ports in ["14900", "14999-14900", "80-90", "1-x", "65000-65536"] {
            place.refuses(&[("--media-ports", Some(ports))], 2, &["--media-ports", "FIRST-LAST"]);
        }
        place.refuses(&[("--no-such-flag", Some("x"))], 2, &["--no-such-flag"]);
    }

    #[test]
    fn the_ipx_relay_is_off_unless_address_and_lan_are_given() {
        let place = Place::new("ipx");
        assert_eq!(place.args(&[]).unwrap().ipx_relay, None);
        let on = [("--ipx-relay", Some("10.0.0.1:213")), ("--ipx-relay-lan", Some("party"))];
        let relay = IpxRelay {
            address: "10.0.0.1:213".parse().unwrap(),
            lan: "party".parse().unwrap(),
            framing: ipxnet::Framing::Auto,
            netbios: false,
        };
        assert_eq!(place.args(&on).unwrap().ipx_relay, Some(relay));
        for alone in on {
            place.refuses(&[alone], 2, &["--ipx-relay"]);
        }
        place.refuses(
            &[on[0], on[1], ("--ipx-relay-framing", Some("802.3"))],
            2,
            &["--ipx-relay-framing", "raw_802_3"],
        );
        place.refuses(&[("--ipx-relay", Some("[::1]:213")), on[1]], 2, &["--ipx-relay"]);
    }

    #[test]
    fn a_missing_or_unsafe_file_is_a_failed_start_with_its_remedy() {
        let place = Place::new("files");
        place.refuses(&[("--snapshot", Some("/nowhere/snapshot.json"))], 1, &["/nowhere/snapshot.json", "`loco up`"]);
        place.refuses(&[("--kvm-probe", Some("/nowhere/kernel"))], 1, &["--kvm-probe", "without KVM"]);
        place.refuses(&[("--token-file", Some("/nowhere/token"))], 1, &["/nowhere/token", "openssl"]);
        place.refuses(&[("--token-file", Some("/"))], 1, &["is not a token"]);
        place.token("s3cret", 0o644);
        place.refuses(&[], 1, &["mode 0644", "chmod 600"]);
        place.token(" \n", 0o600);
        place.refuses(&[], 1, &["is empty"]);
        place.token("a b", 0o600);
        place.refuses(&[], 1, &["blanks"]);
    }

    #[test]
    fn uninstall_needs_only_the_run_directory() {
        let args = Args::try_parse_from(["node-agent", "uninstall", "--run-dir", "/run/x"]).unwrap();
        assert!(matches!(args.command, Some(Command::Uninstall { run_dir }) if run_dir == Path::new("/run/x")));
        assert!(checked_run_dir("/".into()).is_err());
    }

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        assert_eq!(missing_capability("CapEff:\t000001ffffffffff\n"), None);
        assert_eq!(missing_capability("CapEff:\t0000000000000000\n"), Some("CAP_NET_ADMIN"));
        assert_eq!(missing_capability("CapEff:\t0000000000001000\n"), Some("CAP_SYS_ADMIN"));
    }
}
