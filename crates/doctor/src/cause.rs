//! The reasons, their names for programs, and their words for people (docs/doctor.md has the list).
use std::{fmt, net::Ipv4Addr};

use api::lan::Rung;

/// Somebody on the LAN, as people call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// One of our seats, from 1.
    Seat(u16),
    /// A machine that is not ours, by its address.
    Other(String),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seat(number) => write!(f, "seat {number}"),
            Self::Other(address) => f.write_str(address),
        }
    }
}

impl Who {
    /// At the beginning of a sentence.
    fn first(&self) -> String {
        match self {
            Self::Seat(number) => format!("Seat {number}"),
            Self::Other(address) => address.clone(),
        }
    }
}

/// Why not. `a` is the one that does not see the game, `b` the one that has it.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    // Not faults.
    Hosts {
        game: String,
    },
    InGame {
        game: String,
    },
    SeesGame,
    Booting,
    NotHeard,
    InTime,
    AsksNever,
    NoGame,
    NotKnown {
        why: String,
    },
    /// Switched off: a person's decision.
    GuestOff,
    /// Its LAN has the mode `user`: a person's decision, too.
    AloneByMode,
    // Link.
    OtherLan {
        lans: [String; 2],
    },
    AgentSilent {
        node: String,
        seconds: f64,
    },
    GuestStopped {
        detail: Option<String>,
    },
    LinkDown,
    Fabric {
        node: String,
        problem: String,
    },
    ObserverBlind {
        node: String,
        problem: String,
    },
    // Frame.
    NoDriver,
    GuestSilent {
        seconds: f64,
    },
    // Address.
    DhcpUnanswered {
        times: u64,
        /// On the real LAN, where none of ours answers.
        theirs: bool,
    },
    NoAddress,
    WrongSubnet {
        ip: Ipv4Addr,
        subnet: String,
        given: Ipv4Addr,
    },
    DuplicateIp {
        ip: String,
        seats: [Who; 2],
    },
    DuplicateMac {
        mac: String,
        seats: Option<[Who; 2]>,
    },
    // Asks.
    WrongInterface {
        ip: Ipv4Addr,
    },
    WrongAddress {
        to: String,
        host: String,
    },
    TransportMismatch {
        asks: &'static str,
        hosts: &'static str,
    },
    // Reaches.
    FramingMismatch {
        framings: [&'static str; 2],
    },
    UnderlayBlocked {
        nodes: [String; 2],
        /// UDP, of VXLAN, or of WireGuard around it.
        port: u16,
    },
    NodeDead {
        node: String,
        seconds: f64,
    },
    FloodMissing {
        nodes: [String; 2],
    },
    LostAtTap {
        node: String,
    },
    /// Between the cards of two nodes, or within that of one, in mode `macvlan`.
    LostOnRealLan {
        nodes: [String; 2],
    },
    HostOff,
    // Answers.
    NotListening,
    HostRefuses {
        port: String,
    },
    HostStuck {
        seconds: f64,
    },
    HostSilent {
        times: u64,
    },
    AnswerRefused {
        port: u16,
    },
    AnswerUnanswered {
        port: u16,
    },
    AnswerLost {
        nodes: [String; 2],
        /// On the real LAN, which is not ours.
        theirs: bool,
    },
    // Same game.
    OtherGame {
        guid: String,
    },
    OtherVersion {
        asks: u16,
        hosts: u16,
    },
    TwoHosts {
        seats: [Who; 2],
    },
    // Free.
    Full {
        max: u32,
    },
    Closed,
    Password,
    // Joined.
    Refused {
        hresult: String,
    },
    Nat {
        what: String,
    },
    Mtu {
        nodes: [String; 2],
        bytes: u64,
    },
    JoinStuck {
        seconds: f64,
    },
    GuestSlow {
        guest_ms: f64,
        rtt_ms: f64,
    },
}

impl Cause {
    /// For programs; stable.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hosts { .. } => "hosts",
            Self::InGame { .. } => "in-game",
            Self::SeesGame => "sees-game",
            Self::Booting => "booting",
            Self::NotHeard => "not-heard",
            Self::InTime => "in-time",
            Self::AsksNever => "asks-never",
            Self::NoGame => "no-game",
            Self::NotKnown { .. } => "not-known",
            Self::GuestOff => "guest-off",
            Self::AloneByMode => "alone-by-mode",
            Self::OtherLan { .. } => "other-lan",
            Self::AgentSilent { .. } => "agent-silent",
            Self::GuestStopped { .. } => "guest-stopped",
            Self::LinkDown => "link-down",
            Self::Fabric { .. } => "fabric",
            Self::ObserverBlind { .. } => "observer-blind",
            Self::NoDriver => "no-driver",
            Self::GuestSilent { .. } => "guest-silent",
            Self::DhcpUnanswered { .. } => "dhcp-unanswered",
            Self::NoAddress => "no-address",
            Self::WrongSubnet { .. } => "wrong-subnet",
            Self::DuplicateIp { .. } => "duplicate-ip",
            Self::DuplicateMac { .. } => "duplicate-mac",
            Self::WrongInterface { .. } => "wrong-interface",
            Self::WrongAddress { .. } => "wrong-address",
            Self::TransportMismatch { .. } => "transport-mismatch",
            Self::FramingMismatch { .. } => "framing-mismatch",
            Self::UnderlayBlocked { .. } => "underlay-blocked",
            Self::NodeDead { .. } => "node-dead",
            Self::FloodMissing { .. } => "flood-missing",
            Self::LostAtTap { .. } => "lost-at-tap",
            Self::LostOnRealLan { .. } => "lost-on-real-lan",
            Self::HostOff => "host-off",
            Self::NotListening => "not-listening",
            Self::HostRefuses { .. } => "host-refuses",
            Self::HostStuck { .. } => "host-stuck",
            Self::HostSilent { .. } => "host-silent",
            Self::AnswerRefused { .. } => "answer-refused",
            Self::AnswerUnanswered { .. } => "answer-unanswered",
            Self::AnswerLost { .. } => "answer-lost",
            Self::OtherGame { .. } => "other-game",
            Self::OtherVersion { .. } => "other-version",
            Self::TwoHosts { .. } => "two-hosts",
            Self::Full { .. } => "full",
            Self::Closed => "closed",
            Self::Password => "password",
            Self::Refused { .. } => "refused",
            Self::Nat { .. } => "nat",
            Self::Mtu { .. } => "mtu",
            Self::JoinStuck { .. } => "join-stuck",
            Self::GuestSlow { .. } => "guest-slow",
        }
    }

    /// All is well: `ok` of the diagnosis.
    pub fn is_well(&self) -> bool {
        matches!(self, Self::Hosts { .. } | Self::InGame { .. } | Self::SeesGame | Self::InTime)
    }

    /// A real fault, that is shown without being asked for.
    pub fn is_fault(&self) -> bool {
        !self.is_well()
            && !matches!(
                self,
                Self::Booting
                    | Self::NotHeard
                    | Self::AsksNever
                    | Self::NoGame
                    | Self::NotKnown { .. }
                    | Self::GuestOff
                    | Self::AloneByMode
                    | Self::OtherLan { .. }
            )
    }

    /// The answer in one sentence.
    pub fn sentence(&self, a: &Who, b: &Who) -> String {
        let (first, b_first) = (a.first(), b.first());
        match self {
            Self::Hosts { game } => format!("{first} hosts “{game}”."),
            Self::InGame { game } => format!("{first} is in “{game}”."),
            Self::SeesGame => format!("{first} sees the game of {b} and has not joined it."),
            Self::Booting => format!("{first} is starting."),
            Self::NotHeard => format!("Nothing was heard of {a} yet."),
            Self::InTime => format!("{first} has just asked; the answer is still in time."),
            Self::AsksNever => format!("{first} is on the LAN but has not asked for a game."),
            Self::NoGame => format!("{first} asks, nobody answers: no game is open."),
            Self::NotKnown { why } => format!("What {a} and {b} lack is not known: {why}."),
            Self::GuestOff => format!("{first} is switched off."),
            Self::AloneByMode => {
                format!("{first} is alone: its LAN has the mode user, in which no guest meets another.")
            }
            Self::OtherLan { lans: [mine, other] } => {
                format!("{first} is on the LAN {mine}, {b} on {other}: they cannot hear each other.")
            }
            Self::AgentSilent { node, seconds } => {
                format!("The agent on {node} has been silent for {seconds:.0} s: what {a} does is not known.")
            }
            Self::GuestStopped { detail: Some(detail) } => format!("{first} is off: {detail}"),
            Self::GuestStopped { detail: None } => format!("{first} is off: its guest has stopped."),
            Self::LinkDown => format!("The cable of {a} is out: nothing holds its tap."),
            Self::Fabric { node, problem } => format!("The LAN on {node} is not as it should be: {problem}."),
            Self::ObserverBlind { node, problem } => {
                format!("{node} does not see all frames of {a}: {problem}.")
            }
            Self::NoDriver => {
                format!("{first} is silent: its network card has never sent a frame. The driver is missing.")
            }
            Self::GuestSilent { seconds } => silent(&first, *seconds),
            Self::DhcpUnanswered { times, .. } => {
                format!("{first} asked for an address {times} times; nobody answered.")
            }
            Self::NoAddress => format!("{first} sends frames but has no address and asks for none."),
            Self::WrongSubnet { ip, subnet, .. } => format!("{first} uses {ip}, which is not in {subnet}."),
            Self::DuplicateIp { ip, seats: [one, other] } => format!("{} both claim {ip}.", both(one, other)),
            Self::DuplicateMac { mac, seats: Some([one, other]) } => {
                format!("{} both send from the card address {mac}.", both(one, other))
            }
            Self::DuplicateMac { mac, seats: None } => {
                format!("Somebody else on the LAN sends from the card address of {a}, {mac}.")
            }
            Self::WrongInterface { ip } => {
                format!("{first} asks by another interface: its questions come from {ip}, which is not of this LAN.")
            }
            Self::WrongAddress { to, host } => {
                format!("{first} asks {to} only, and {b} is {host}.")
            }
            Self::TransportMismatch { asks, hosts } => {
                format!("{first} asks by {asks}, {b} hosts by {hosts}: they cannot hear each other.")
            }
            Self::FramingMismatch { framings: [mine, other] } => {
                format!("{first} speaks {mine}, {b} {other}: they cannot hear each other.")
            }
            Self::UnderlayBlocked { nodes: [from, to], .. } | Self::FloodMissing { nodes: [from, to] } => {
                format!("{first} asks, and {from} to {to} loses it.")
            }
            Self::NodeDead { node, seconds } => {
                format!("{first} asks, and {node} has been gone for {seconds:.0} s with all its seats.")
            }
            Self::LostAtTap { node } => format!("{first} asks, and {node} loses it on the way to {b}."),
            Self::LostOnRealLan { nodes } => format!("{first} asks, and {} loses it.", real_way(nodes, b)),
            Self::HostOff => format!("{first} asks, and {b} is off."),
            Self::NotListening | Self::HostRefuses { .. } => format!("{b_first} refuses the connection."),
            Self::HostStuck { seconds } => silent(&b_first, *seconds),
            Self::HostSilent { times } => {
                format!("{first} asked {times} times; {b} got it and does not answer.")
            }
            Self::AnswerRefused { port } => {
                format!("{b_first} answers, and {a} refuses it: nothing takes it at TCP {port}.")
            }
            Self::AnswerUnanswered { port } => {
                format!("{b_first} answers, and {a} drops it: TCP {port} is closed without a word, as a firewall does.")
            }
            Self::AnswerLost { nodes, .. } => format!("{b_first} answers, and {}.", loses(nodes, a)),
            Self::OtherGame { guid } => format!("{first} asks for another game ({guid}) than {b} hosts."),
            Self::OtherVersion { asks, hosts } => {
                format!("{first} speaks DirectPlay dialect {asks}, {b} hosts with {hosts}.")
            }
            Self::TwoHosts { seats: [one, other] } => {
                format!("{} both host one and the same session.", both(one, other))
            }
            Self::Full { max } => format!("The game is full: all {max} stations are taken."),
            Self::Closed => "The game takes no new players.".to_owned(),
            Self::Password => "The game has a password.".to_owned(),
            Self::Refused { hresult } => format!("{b_first} refused {a}: {}.", hresult_words(hresult)),
            Self::Nat { what } => format!("{first} and {b} know each other by other addresses than they have: {what}."),
            Self::Mtu { nodes: [from, to], bytes } => {
                format!("Small frames pass from {from} to {to}, those of {bytes} bytes are lost.")
            }
            Self::JoinStuck { seconds } => {
                format!("{first} began to join {seconds:.0} s ago and did not arrive.")
            }
            Self::GuestSlow { guest_ms, rtt_ms } => {
                format!("{first} is slow: {guest_ms:.0} of {rtt_ms:.0} ms are its own.")
            }
        }
    }

    /// What to do; nothing where nothing is to be done.
    pub fn remedy(&self, a: &Who, b: &Who) -> Option<String> {
        let text = match self {
            Self::Hosts { .. } | Self::InGame { .. } | Self::Booting | Self::InTime => return None,
            Self::SeesGame => "Join it in the game.".to_owned(),
            Self::NotHeard => "Wait until its agent has answered; `loco status` shows who does.".to_owned(),
            Self::NotKnown { .. } => "Ask again while it looks for games.".to_owned(),
            Self::AsksNever => "In the game: binoculars.".to_owned(),
            Self::NoGame => "Open a game at one seat.".to_owned(),
            Self::OtherLan { .. } => "Move one of them in the directory.".to_owned(),
            Self::AgentSilent { node, .. } => {
                format!("Look at the agent's log on {node}; it is started again by itself.")
            }
            Self::GuestOff | Self::GuestStopped { .. } => "Start it.".to_owned(),
            Self::AloneByMode => "Give the LAN the mode vxlan or socket.".to_owned(),
            Self::HostOff => format!("Start {b}."),
            Self::LinkDown => format!("Restart the guest of {a}."),
            Self::Fabric { node, .. } => {
                format!("`loco lan check` on {node} names the object; the agent repairs its own.")
            }
            Self::ObserverBlind { node, .. } => {
                format!("Give the agent on {node} CAP_BPF and CAP_PERFMON, or raise the event limits; see its log.")
            }
            Self::NoDriver => "Install the RTL8029 driver. We put the driver disk in drive D.".to_owned(),
            Self::GuestSilent { .. } => format!("Look at the screen of {a}; reset it if it stands still."),
            Self::HostStuck { .. } => format!("Look at the screen of {b}; reset it if it stands still."),
            Self::DhcpUnanswered { theirs: true, .. } => {
                "Look at the LAN's own DHCP server; one on the guest's node itself does not reach it in mode macvlan.".to_owned()
            }
            Self::DhcpUnanswered { .. } => {
                "Renew: run winipcfg in the guest. The agent's log says why its DHCP does not answer.".to_owned()
            }
            Self::NoAddress => format!("Bind TCP/IP to the card of {a} and let it take its address by DHCP."),
            Self::WrongSubnet { given, .. } => format!("Let it take its address by DHCP, or set {given}."),
            Self::DuplicateIp { seats: [_, other], .. } => format!("Change one: the registry hive of {other}."),
            Self::DuplicateMac { .. } => {
                "Give each guest the card address of its seat; the directory has them.".to_owned()
            }
            Self::WrongInterface { .. } => {
                format!("Remove the dial-up adapter and other cards of {a}, or make this card the first.")
            }
            Self::WrongAddress { host, .. } => format!("Leave the address empty, or type {host}."),
            Self::TransportMismatch { hosts, .. } => format!("In the game of {a}: choose {hosts}."),
            Self::FramingMismatch { framings: [_, other] } => {
                format!("Set the frame type of {a} to {other}: Network, IPX/SPX, Advanced.")
            }
            Self::NodeDead { node, .. } => format!("Bring {node} back, or move its seats."),
            Self::FloodMissing { nodes: [from, to] } => {
                format!("`loco lan check` on {from}: {to} is missing in its flood list; the agent puts it back.")
            }
            Self::LostAtTap { node } => format!("`loco lan check` on {node}: is the tap of {b} in the bridge?"),
            Self::LostOnRealLan { nodes: [from, to] } if from == to => {
                format!("`loco lan show` says whether the port of {b} on {to} is there.")
            }
            Self::AnswerLost { nodes: [from, to], .. } if from == to => format!("`loco lan check` on {from}."),
            Self::LostOnRealLan { .. } | Self::AnswerLost { theirs: true, .. } => {
                "Join both cards to one LAN, and let its switch take several addresses at a port (port security, a hypervisor's MAC filter).".to_owned()
            }
            Self::UnderlayBlocked { port, .. } => format!("Open UDP {port} between the nodes."),
            Self::AnswerLost { .. } => "Open UDP 14789 between the nodes.".to_owned(),
            Self::NotListening | Self::HostRefuses { .. } => {
                format!("{} must leave its lobby and open again.", b.first())
            }
            Self::HostSilent { .. } => format!("{} must leave its lobby and open again.", b.first()),
            Self::AnswerRefused { .. } => {
                format!("Leave the game at {a} and start it again: its old port is still held.")
            }
            Self::AnswerUnanswered { port } => format!("Open TCP {port} and 2300-2400 in the firewall of {a}."),
            Self::OtherGame { .. } | Self::OtherVersion { .. } => "Install the same version.".to_owned(),
            Self::TwoHosts { seats: [_, other] } => format!("{} must leave its lobby and open again.", other.first()),
            Self::Full { .. } => "Wait until a station is free, or open another game.".to_owned(),
            Self::Closed => format!("Let {b} open the game for new players."),
            Self::Password => format!("Ask {b} for the password and type it in the game."),
            Self::Refused { .. } => format!("Try again; if it stays so, {b} must leave its lobby and open again."),
            Self::Nat { .. } => {
                "Put both on the LAN itself: DirectPlay 4 does not pass address translation.".to_owned()
            }
            Self::Mtu { .. } => "Raise the MTU between the nodes to 1550, or let fragments pass.".to_owned(),
            Self::JoinStuck { .. } => format!("Cancel at {a} and join again."),
            Self::GuestSlow { .. } => "Give its node more processor time: fewer guests, or KVM.".to_owned(),
        };
        Some(text)
    }

    /// The rung that it breaks.
    pub fn rung(&self) -> Rung {
        match self {
            Self::Booting
            | Self::NotHeard
            | Self::GuestOff
            | Self::AloneByMode
            | Self::OtherLan { .. }
            | Self::AgentSilent { .. }
            | Self::GuestStopped { .. }
            | Self::LinkDown
            | Self::Fabric { .. }
            | Self::ObserverBlind { .. } => Rung::Link,
            Self::NoDriver | Self::GuestSilent { .. } => Rung::Frame,
            Self::DhcpUnanswered { .. }
            | Self::NoAddress
            | Self::WrongSubnet { .. }
            | Self::DuplicateIp { .. }
            | Self::DuplicateMac { .. } => Rung::Address,
            Self::AsksNever
            | Self::WrongInterface { .. }
            | Self::WrongAddress { .. }
            | Self::TransportMismatch { .. } => Rung::Asks,
            Self::FramingMismatch { .. }
            | Self::UnderlayBlocked { .. }
            | Self::NodeDead { .. }
            | Self::FloodMissing { .. }
            | Self::LostAtTap { .. }
            | Self::LostOnRealLan { .. }
            | Self::HostOff
            | Self::NotKnown { .. } => Rung::Reaches,
            Self::NoGame
            | Self::InTime
            | Self::NotListening
            | Self::HostRefuses { .. }
            | Self::HostStuck { .. }
            | Self::HostSilent { .. }
            | Self::AnswerRefused { .. }
            | Self::AnswerUnanswered { .. }
            | Self::AnswerLost { .. } => Rung::Answers,
            Self::OtherGame { .. } | Self::OtherVersion { .. } | Self::TwoHosts { .. } => Rung::SameGame,
            Self::Full { .. } | Self::Closed | Self::Password => Rung::Free,
            Self::Hosts { .. }
            | Self::InGame { .. }
            | Self::SeesGame
            | Self::Refused { .. }
            | Self::Nat { .. }
            | Self::Mtu { .. }
            | Self::JoinStuck { .. }
            | Self::GuestSlow { .. } => Rung::Joined,
        }
    }
}

fn silent(who: &str, seconds: f64) -> String {
    format!("{who} has been silent for {seconds:.0} s: its guest does not answer any more.")
}

fn both(one: &Who, other: &Who) -> String {
    match (one, other) {
        (Who::Seat(one), Who::Seat(other)) => format!("Seats {one} and {other}"),
        _ => format!("{} and {other}", one.first()),
    }
}

/// Names and codes of the DirectPlay API's results (MC-DPL4CS 2.2.3 and the API's documentation).
fn hresult_words(hresult: &str) -> String {
    let words = match hresult.to_ascii_lowercase().as_str() {
        "0x8877000a" => "access denied",
        "0x88770028" => "it cannot add a player",
        "0x8877014a" => "it takes no new players",
        "0x88770154" => "the password is wrong",
        "0x88770820" => "the logon was denied",
        _ => return hresult.to_owned(),
    };
    format!("{words} ({hresult})")
}

/// IPX framings as people call them.
pub(crate) fn framing_word(framing: &str) -> &'static str {
    match framing {
        "ethernet_ii" => "Ethernet II",
        "raw_802_3" => "raw 802.3",
        "llc" => "802.2",
        "snap" => "SNAP",
        _ => "another frame type",
    }
}

/// Where between nodes, or within one, what goes to `whom` is lost.
fn loses([from, to]: &[String; 2], whom: &Who) -> String {
    if from == to { format!("{from} loses it on the way to {whom}") } else { format!("{from} to {to} loses it") }
}

/// What lies between the cards of two nodes, in mode `macvlan`.
fn real_way([from, to]: &[String; 2], b: &Who) -> String {
    if from == to {
        format!("the card of {from}, on the way to {b},")
    } else {
        format!("the LAN between the cards of {from} and {to}")
    }
}
