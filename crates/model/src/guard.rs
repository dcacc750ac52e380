//! What the ports of a LAN let through: the rules, as the directory says them. Who applies them: the eBPF program at each tap
//! (`ebpf/`), and the switch in user space (`crates/switch`), with one meaning (`wire::guard`).

/// Which rules hold in a LAN. The lengths of Ethernet always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Only the seat's own source address.
    pub own_source: bool,
    /// No DHCP server and no router among the guests.
    pub no_servers: bool,
    /// Broadcasts and multicasts that a guest may send; `None`: any number.
    pub broadcasts: Option<Rate>,
}

/// A token bucket. A rate of 0 lets nothing through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    /// At most so many at once.
    pub burst: u32,
}

impl Default for Rules {
    /// IPX games send every move to all: a few hundred frames a second. Ten times that is a storm.
    fn default() -> Self {
        Self { own_source: true, no_servers: true, broadcasts: Some(Rate { per_second: 2_000, burst: 4_000 }) }
    }
}
