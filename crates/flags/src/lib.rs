//! The flags of `up`, once: `loco up` obeys them, `cargo xtask up` checks them before it builds anything.
//!
//! **Invariant.** Whatever this crate refuses is wrong usage (exit code 2) and was found without side effects. What
//! depends on the machine's present state (root, a port in use, QEMU's version) is `loco`'s to find, exit code 1.
#![forbid(unsafe_code)]

use std::{
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use clap::{Args, value_parser};

/// Flags of `up`. Units and ranges are in the help texts, which people read.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct UpFlags {
    /// Nodes to play: each is a network namespace with a node agent of its own (1 to 16)
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u8).range(1..=16))]
    pub nodes: u8,

    /// Guests, spread evenly over the nodes (1 to 254)
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = value_parser!(u8).range(1..=254))]
    pub guests: u8,

    /// LANs that the guests are divided over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u8).range(1..=16))]
    pub lans: u8,

    /// Port of the page, on 127.0.0.1
    #[arg(long, value_name = "PORT", default_value_t = 8080, value_parser = value_parser!(u16).range(1..))]
    pub port: u16,

    /// Return once every picture is live; the last line of standard output is the page's URL with its token
    #[arg(long)]
    pub detach: bool,

    /// Disk image that every guest boots, each on an overlay of its own; the file itself is never written
    #[arg(long, value_name = "FILE", conflicts_with = "kernel")]
    pub disk: Option<PathBuf>,

    /// CD image put into every guest's drive, and booted if there is no --disk, or an empty one
    #[arg(long, value_name = "FILE", conflicts_with = "kernel")]
    pub cdrom: Option<PathBuf>,

    /// Kernel that every guest boots instead of the demo game (multiboot or Linux boot protocol)
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,

    /// How the guests of a LAN are joined: `vxlan`, the kernel's bridge and tunnel; `macvlan`, over the nodes' own cards, as machines
    /// of the real LAN; `socket`, the agents' own switch, without a device in the kernel; `user`, not at all: each guest is alone
    /// (docs/fabric.md)
    #[arg(long, default_value = "vxlan", value_parser = mode)]
    pub mode: String,

    /// What protects the frames between the nodes: `none`, or `wireguard`: the kernel's, where it has it, else the agents' own
    #[arg(long, default_value = "none", value_parser = encryption)]
    pub encryption: String,

    /// The demo game waits for a person instead of playing by itself
    #[arg(long)]
    pub no_autoplay: bool,

    /// Join DOSBox, DOSBox-X and `IPXWrapper` to the (first) LAN by IPX: the first node listens at this UDP port (DOSBox's own is 213)
    #[arg(long, value_name = "PORT", value_parser = relay_port)]
    pub ipx_relay: Option<u16>,

    /// Give every guest a VNC socket in its work directory as well, to compare with
    #[arg(long)]
    pub vnc: bool,

    /// Keep the guests' overlay disks in this directory, and use those that are there already
    #[arg(long, value_name = "DIR", requires = "disk")]
    pub keep_disks: Option<PathBuf>,

    /// Seconds that --detach waits for the pictures before it gives up and cleans up
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = value_parser!(u16).range(1..))]
    pub timeout: u16,
}

/// Wrong usage: exit code 2. Names the flag and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    #[error("--{flag} {path}: {why}; name a readable disk image, kernel or block device")]
    File { flag: &'static str, path: String, why: String },
    #[error("--keep-disks {path}: {why}; name a directory, or one that can be made")]
    Directory { path: String, why: String },
    #[error(
        "--mode socket cannot be encrypted: its agents send frames to one another themselves; use --mode vxlan, or --encryption none"
    )]
    NotEncrypted,
    #[error("--lans {lans} is more than --guests {guests}; give every LAN at least one guest")]
    EmptyLan { lans: u8, guests: u8 },
    #[error(
        "--lans {0} --mode macvlan: all guests over one card are on the one real LAN; use --lans 1, or another mode"
    )]
    OneRealLan(u8),
    #[error("--ipx-relay needs --mode vxlan: in mode {0} the nodes have no station on the LAN")]
    Relay(String),
}

fn mode(text: &str) -> Result<String, String> {
    match text {
        "vxlan" | "macvlan" | "socket" | "user" => Ok(text.to_owned()),
        _ => Err("the modes are vxlan, macvlan, socket and user".to_owned()),
    }
}

fn encryption(text: &str) -> Result<String, String> {
    match text {
        "none" | "wireguard" => Ok(text.to_owned()),
        _ => Err("write none or wireguard".to_owned()),
    }
}

/// Ports at which a node's other parts listen by UDP.
fn relay_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("write a port from 1 to 65535; DOSBox's own is 213".to_owned()),
        Ok(port @ (14789 | 14900..=14999)) => {
            Err(format!("the nodes use {port} themselves; take another, such as 213"))
        }
        Ok(port) => Ok(port),
    }
}

impl UpFlags {
    /// Checks what clap cannot: that files are there and readable, and that flags fit each other. Opens nothing for writing.
    pub fn check(&self) -> Result<(), UsageError> {
        for (flag, path) in [("disk", &self.disk), ("cdrom", &self.cdrom), ("kernel", &self.kernel)] {
            if let Some(path) = path {
                check_file(path).map_err(|why| UsageError::File { flag, path: path.display().to_string(), why })?;
            }
        }
        if let Some(dir) = &self.keep_disks
            && dir.exists()
            && !dir.is_dir()
        {
            let why = "is not a directory".to_owned();
            return Err(UsageError::Directory { path: dir.display().to_string(), why });
        }
        if self.ipx_relay.is_some() && self.mode != "vxlan" {
            return Err(UsageError::Relay(self.mode.clone()));
        }
        if self.encryption == "wireguard" && self.mode == "socket" {
            return Err(UsageError::NotEncrypted);
        }
        if self.lans > 1 && self.mode == "macvlan" {
            return Err(UsageError::OneRealLan(self.lans));
        }
        if self.lans > self.guests {
            return Err(UsageError::EmptyLan { lans: self.lans, guests: self.guests });
        }
        Ok(())
    }
}

fn check_file(path: &Path) -> Result<(), String> {
    let meta = fs::metadata(path).map_err(|error| error.to_string())?;
    let kind = meta.file_type();
    // Opening anything else can block (a pipe) or makes no sense (a directory).
    if !kind.is_file() && !kind.is_block_device() {
        return Err("is neither a regular file nor a block device".to_owned());
    }
    if kind.is_file() && meta.len() == 0 {
        return Err("is empty".to_owned());
    }
    fs::File::open(path).map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use proptest::prelude::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        up: UpFlags,
    }

    fn parse(args: &str) -> Result<UpFlags, clap::Error> {
        Cli::try_parse_from(std::iter::once("loco").chain(args.split_whitespace())).map(|cli| cli.up)
    }

    #[track_caller]
    fn refuses(args: &str, want: &str) {
        let error = match parse(args) {
            Err(error) => {
                assert_eq!(error.exit_code(), 2, "{args}");
                error.to_string()
            }
            Ok(flags) => flags.check().unwrap_err().to_string(),
        };
        assert!(error.contains(want), "{args}: {error}");
    }

    #[test]
    fn defaults_are_the_documented_wall() {
        let flags = parse("").unwrap();
        assert_eq!((flags.nodes, flags.guests, flags.lans, flags.port, flags.timeout), (3, 9, 1, 8080, 120));
        assert_eq!(flags.check(), Ok(()));
    }

    #[test]
    fn refuses_wrong_usage_by_the_flags_name() {
        refuses("--guests 0", "--guests");
        refuses("--guests 255", "--guests");
        refuses("--nodes 17", "--nodes");
        refuses("--port 0", "--port");
        refuses("--port 65536", "--port");
        refuses("--port x", "--port");
        refuses("--ipx-relay 0", "--ipx-relay");
        refuses("--ipx-relay 14950", "take another");
        refuses("--disk a --kernel b", "--kernel");
        refuses("--cdrom a --kernel b", "--kernel");
        refuses("--keep-disks d", "--disk");
        refuses("--mode pigeon", "vxlan, macvlan, socket and user");
        refuses("--mode macvlan --ipx-relay 213", "--ipx-relay needs --mode vxlan");
        refuses("--encryption rot13", "none or wireguard");
        refuses("--encryption wireguard --mode socket", "--mode socket cannot be encrypted");
        refuses("--no-such-flag", "--no-such-flag");
        refuses("--lans 2 --mode macvlan", "on the one real LAN");
        refuses("--guests 2 --lans 3", "--lans 3 is more than --guests 2");
    }

    #[test]
    fn refuses_files_that_cannot_be_used() {
        refuses("--disk /does/not/exist", "--disk /does/not/exist: No such file");
        refuses("--kernel /", "neither a regular file nor a block device");
        refuses("--cdrom /dev/null", "--cdrom /dev/null: is neither");
        refuses("--disk /proc/self/status --keep-disks /proc/version", "--disk /proc/self/status: is empty");
    }

    proptest! {
        #[test]
        fn every_wall_in_range_is_taken(nodes in 1_u8..=16, guests in 1_u8..=254, port in 1_u16..) {
            let flags = parse(&format!("--nodes {nodes} --guests {guests} --port {port}")).unwrap();
            prop_assert_eq!((flags.nodes, flags.guests, flags.port), (nodes, guests, port));
            prop_assert!(flags.check().is_ok());
        }
    }
}
