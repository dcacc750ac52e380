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
use directory::{Source, SourceArgs};
use model::{LanName, NodeName};

mod privileges;

pub use privileges::{check_capabilities, check_mounts, needs_kernel};

/// Longest token taken, in bytes: a file that holds more is not a token.
const TOKEN_BYTES_MAX: u64 = 4096;
/// Seats of a node unless said otherwise: one LAN's.
const SLOTS: u16 = 9;
/// More guests than any node of today runs.
const SLOTS_MAX: u16 = 256;

/// The per-node agent of Loco: LAN ports, pictures and input of the instances of one node.
#[derive(Debug, Parser)]
#[command(name = "node-agent", version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// This node's name in the snapshot.
    #[arg(long, env = "LOCO_NODE", value_name = "NAME", required = true)]
    node: Option<NodeName>,
    #[command(flatten)]
    source: SourceArgs,
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
    /// Card of this node on which guests of LANs of mode `macvlan` are put; the one with --media-ip without.
    #[arg(long, env = "LOCO_MACVLAN_PARENT", value_name = "LINK")]
    macvlan_parent: Option<LinkName>,
    /// UDP port of the agents' own switches (LANs of mode `socket`), the same on all nodes.
    #[arg(long, env = "LOCO_SWITCH_PORT", value_name = "PORT", default_value = "14790")]
    switch_port: NonZeroU16,
    /// What protects the frames between nodes of LANs of mode `vxlan`, the same on all nodes: `none`, or `wireguard`, the kernel's
    /// where it has it, else this process's own.
    #[arg(long, env = "LOCO_ENCRYPTION", value_name = "KIND", default_value = "none")]
    encryption: EncryptionKind,
    /// UDP port of WireGuard on this node.
    #[arg(long, env = "LOCO_WIREGUARD_PORT", value_name = "PORT", default_value_t = WIREGUARD_PORT)]
    wireguard_port: NonZeroU16,
    /// Kernel (ELF) with which KVM is proven to run guests; without it guests run without KVM.
    #[arg(long, env = "LOCO_KVM_PROBE", value_name = "FILE")]
    kvm_probe: Option<PathBuf>,
    /// Memory in bytes for the last frames of all ports together, for captures; 0: none are kept.
    #[arg(long, env = "LOCO_CAPTURE_BYTES", value_name = "BYTES", default_value = "16777216")]
    capture_bytes: usize,
    /// Seats that the kubelet is offered as `loco.dev/seat`; 0: none, and runners come in by a directory of their instance's
    /// name. 9 with --kubernetes, else 0.
    #[arg(long, env = "LOCO_SLOTS", value_name = "COUNT")]
    slots: Option<u16>,
    /// The kubelet's directory, with device-plugins and pod-resources in it.
    #[arg(long, env = "LOCO_KUBELET_DIR", value_name = "DIR", default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// Where another agent has the run directory, do all that disturbs nobody, wait until it ends, and take over; without, that
    /// is an error. For whoever replaces an agent by starting the next one first, as the chart's `DaemonSet` does.
    #[arg(long, env = "LOCO_STAND_BY")]
    stand_by: bool,
    /// Unix socket at which `node-agent probe` hears how far this agent is; in a directory of its own container.
    #[arg(long, env = "LOCO_PROBE_SOCKET", value_name = "FILE")]
    probe_socket: Option<PathBuf>,
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
    /// Makes what only a privileged process may: the LANs' network namespace with its sysctls, and a file system for what is
    /// pinned, both mounted below the run directory. For an init container, so that the agent itself needs fewer rights.
    Prepare {
        /// The run directory that the agent is started with; absolute, and mounted with mountPropagation Bidirectional.
        #[arg(long, env = "LOCO_RUN_DIR", value_name = "DIR")]
        run_dir: PathBuf,
    },
    /// Checks that the encoders of pictures and sound are there: for whoever builds an image
    CheckEncoders,
    /// Asks the agent of this container whether it has started: it serves, or stands by for one that does. Exit code 0 = yes.
    Probe {
        /// The agent's --probe-socket.
        #[arg(long, env = "LOCO_PROBE_SOCKET", value_name = "FILE")]
        socket: PathBuf,
        /// Whether it is ready: one that serves must lack nothing. As `/readyz`, but of this very process.
        #[arg(long)]
        ready: bool,
    },
}

/// What the kernel takes as the name of a link (`dev_valid_name`).
#[derive(Debug, Clone, PartialEq, Eq)]
struct LinkName(String);

impl FromStr for LinkName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let odd = |octet: u8| octet.is_ascii_whitespace() || b"/:".contains(&octet);
        if text.is_empty() || text.len() > 15 || [".", ".."].contains(&text) || text.bytes().any(odd) {
            return Err("write a link's name, such as eth0, of at most 15 characters; `ip link` lists them".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum EncryptionKind {
    None,
    Wireguard,
}

/// WireGuard's usual one.
const WIREGUARD_PORT: NonZeroU16 = NonZeroU16::new(fabric::wireguard::PORT).expect("not 0");

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
    /// Where the directory comes from.
    pub source: Source,
    pub run_dir: PathBuf,
    pub listen: SocketAddr,
    pub media_ip: Ipv4Addr,
    pub media_ports: RangeInclusive<u16>,
    pub token: Token,
    pub vxlan_port: u16,
    /// Under LANs of mode `macvlan`; `None`: the card with `media_ip`.
    pub macvlan_parent: Option<String>,
    /// Of the agents' own switches.
    pub switch_port: u16,
    /// UDP port of WireGuard between the nodes; `None`: nothing is encrypted.
    pub wireguard_port: Option<u16>,
    pub kvm_probe: Option<PathBuf>,
    /// Of all ports together; 0: nothing is captured.
    pub capture_bytes: usize,
    /// `None`: no device plugin, and a door per instance.
    pub seats: Option<SeatsOffered>,
    /// `None`: no relay.
    pub ipx_relay: Option<IpxRelay>,
    /// Wait for another agent of the run directory to end, instead of failing.
    pub stand_by: bool,
    /// `None`: no probe can ask.
    pub probe_socket: Option<PathBuf>,
}

/// What the kubelet is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeatsOffered {
    /// At least 1.
    pub slots: u16,
    pub kubelet_dir: PathBuf,
    /// Where the pods are that may take one; `None`: where the followed API says this process is.
    pub namespace: Option<String>,
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
    #[error(
        "this process lacks {name}, which it needs to {used_for}; run it as root, or add it to the container's capabilities"
    )]
    Capability { name: &'static str, used_for: &'static str },
    /// What is mounted there would end with this container, and with it the LANs.
    #[error(
        "--run-dir {run_dir}: a network namespace that is mounted here would end with this container; mount the directory with \
         mountPropagation Bidirectional in a privileged container, or run `node-agent prepare` in a privileged init container",
        run_dir = run_dir.display()
    )]
    Mount { run_dir: PathBuf },
}

impl ConfigError {
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            Self::File { .. } | Self::Capability { .. } | Self::Mount { .. } => 1,
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

/// Where this node's WireGuard key is kept below a run directory.
pub fn wireguard_key(run_dir: &Path) -> PathBuf {
    run_dir.join("wireguard.key")
}

/// Where the observer's maps and programs are pinned below a run directory.
pub fn bpffs(run_dir: &Path) -> PathBuf {
    run_dir.join("bpf")
}

/// What the API said last, for a start while it is away.
pub fn last_known(run_dir: &Path) -> PathBuf {
    run_dir.join("last-known.json")
}

/// What the agent knows of the games that are open, for the next one.
pub fn games(run_dir: &Path) -> PathBuf {
    run_dir.join("games.json")
}

/// What an agent found out about KVM, for the next one.
pub fn kvm_proof(run_dir: &Path) -> PathBuf {
    run_dir.join("kvm-proof")
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
        let namespace = args.source.namespace.clone().filter(|name| !name.is_empty());
        let mut source = args.source.check().map_err(|wrong| usage(wrong.flag, wrong.problem))?;
        let run_dir = checked_run_dir(args.run_dir.ok_or_else(required("--run-dir"))?)?;
        if let Source::Kubernetes(source) = &mut source {
            source.last_known.get_or_insert_with(|| last_known(&run_dir));
        }
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
        match &source {
            Source::File(path) => file("--snapshot", path, "`loco up` writes it; give the path it has")?,
            Source::Kubernetes(args) => {
                file("--lans", &args.lans, "the chart mounts it from the ConfigMap `loco-lans`")?;
            }
        }
        if let Some(path) = &args.kvm_probe {
            file("--kvm-probe", path, "leave the flag out to run guests without KVM")?;
        }
        let seats = offered(args.slots, args.kubelet_dir, namespace, &source)?;
        let token = read_token(&token_file)?;
        Ok(Self {
            node,
            source,
            seats,
            run_dir,
            listen,
            media_ip,
            media_ports: args.media_ports.0,
            token,
            vxlan_port: args.vxlan_port.get(),
            macvlan_parent: args.macvlan_parent.map(|link| link.0),
            switch_port: args.switch_port.get(),
            wireguard_port: (args.encryption == EncryptionKind::Wireguard).then(|| args.wireguard_port.get()),
            kvm_probe: args.kvm_probe,
            ipx_relay: args.ipx_relay.load(),
            capture_bytes: args.capture_bytes,
            stand_by: args.stand_by,
            probe_socket: args.probe_socket,
        })
    }
}

fn offered(
    slots: Option<u16>,
    kubelet_dir: PathBuf,
    namespace: Option<String>,
    source: &Source,
) -> Result<Option<SeatsOffered>, ConfigError> {
    let in_cluster = matches!(source, Source::Kubernetes(_));
    let slots = slots.unwrap_or(if in_cluster { SLOTS } else { 0 });
    if slots > SLOTS_MAX {
        return Err(usage("--slots", format!("{slots} is more than a node has room for; give 0 to {SLOTS_MAX}")));
    }
    if slots == 0 {
        return Ok(None);
    }
    if namespace.is_none() && !in_cluster {
        return Err(usage("--namespace", "is required with --slots: only pods of that namespace get a seat"));
    }
    if !kubelet_dir.is_absolute() {
        let problem = format!("`{}` is not absolute; give the kubelet's --root-dir", kubelet_dir.display());
        return Err(usage("--kubelet-dir", problem));
    }
    Ok(Some(SeatsOffered { slots, kubelet_dir, namespace }))
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

#[cfg(test)]
mod tests;
