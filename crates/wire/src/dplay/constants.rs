//! Command numbers, dialects, flags and results (MC-DPL4CS 2.2; protocols.md 1.1, 1.3-1.5).
//!
//! All are open newtypes: any value of the wire can be held, because games of later DirectPlay versions send values
//! that no table here knows, and an observer must report them.
use core::fmt;
use core::ops::{BitOr, RangeInclusive};

/// UDP port of session queries (and, on Windows, of the helper process that answers for all games).
pub const QUERY_PORT: u16 = 47624;
/// Where peers look for a free TCP port. Trap: Windows XP and later may announce others, which UPnP mapped.
pub const TCP_PORTS: RangeInclusive<u16> = 2300..=2400;
/// Where peers look for a free UDP port. Trap: as [`TCP_PORTS`].
pub const UDP_PORTS: RangeInclusive<u16> = 2350..=2400;

macro_rules! open_enum {
    ($(#[$doc:meta])* $type:ident: $repr:ty { $($(#[$item_doc:meta])* $name:ident = $value:expr, $text:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $type(pub $repr);

        impl $type {
            $($(#[$item_doc])* pub const $name: Self = Self($value);)*

            /// Every value with a name, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The specification's name, where it has one.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    _ => None,
                }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!(stringify!($type), "({:#x})"), self.0),
                }
            }
        }
    };
}

open_enum! {
    /// The command of a system message. Its names are the specification's, without `DPSP_MSG_`.
    Command: u16 {
        ENUM_SESSIONS_REPLY = 0x01, "ENUMSESSIONSREPLY";
        ENUM_SESSIONS = 0x02, "ENUMSESSIONS";
        ENUM_PLAYERS_REPLY = 0x03, "ENUMPLAYERSREPLY";
        ENUM_PLAYER = 0x04, "ENUMPLAYER";
        REQUEST_PLAYER_ID = 0x05, "REQUESTPLAYERID";
        REQUEST_GROUP_ID = 0x06, "REQUESTGROUPID";
        REQUEST_PLAYER_REPLY = 0x07, "REQUESTPLAYERREPLY";
        CREATE_PLAYER = 0x08, "CREATEPLAYER";
        CREATE_GROUP = 0x09, "CREATEGROUP";
        /// Never on the wire with a message header: user messages have none.
        PLAYER_MESSAGE = 0x0a, "PLAYERMESSAGE";
        DELETE_PLAYER = 0x0b, "DELETEPLAYER";
        DELETE_GROUP = 0x0c, "DELETEGROUP";
        ADD_PLAYER_TO_GROUP = 0x0d, "ADDPLAYERTOGROUP";
        DELETE_PLAYER_FROM_GROUP = 0x0e, "DELETEPLAYERFROMGROUP";
        PLAYER_DATA_CHANGED = 0x0f, "PLAYERDATACHANGED";
        PLAYER_NAME_CHANGED = 0x10, "PLAYERNAMECHANGED";
        GROUP_DATA_CHANGED = 0x11, "GROUPDATACHANGED";
        GROUP_NAME_CHANGED = 0x12, "GROUPNAMECHANGED";
        ADD_FORWARD_REQUEST = 0x13, "ADDFORWARDREQUEST";
        PACKET = 0x15, "PACKET";
        PING = 0x16, "PING";
        PING_REPLY = 0x17, "PINGREPLY";
        YOU_ARE_DEAD = 0x18, "YOUAREDEAD";
        PLAYER_WRAPPER = 0x19, "PLAYERWRAPPER";
        SESSION_DESC_CHANGED = 0x1a, "SESSIONDESCCHANGED";
        CHALLENGE = 0x1c, "CHALLENGE";
        ACCESS_GRANTED = 0x1d, "ACCESSGRANTED";
        LOGON_DENIED = 0x1e, "LOGONDENIED";
        AUTH_ERROR = 0x1f, "AUTHERROR";
        NEGOTIATE = 0x20, "NEGOTIATE";
        CHALLENGE_RESPONSE = 0x21, "CHALLENGERESPONSE";
        SIGNED = 0x22, "SIGNED";
        ADD_FORWARD_REPLY = 0x24, "ADDFORWARDREPLY";
        ASK_FOR_MULTICAST = 0x25, "ASK4MULTICAST";
        ASK_FOR_MULTICAST_GUARANTEED = 0x26, "ASK4MULTICASTGUARANTEED";
        ADD_SHORTCUT_TO_GROUP = 0x27, "ADDSHORTCUTTOGROUP";
        DELETE_GROUP_FROM_GROUP = 0x28, "DELETEGROUPFROMGROUP";
        SUPER_ENUM_PLAYERS_REPLY = 0x29, "SUPERENUMPLAYERSREPLY";
        KEY_EXCHANGE = 0x2b, "KEYEXCHANGE";
        KEY_EXCHANGE_REPLY = 0x2c, "KEYEXCHANGEREPLY";
        CHAT = 0x2d, "CHAT";
        ADD_FORWARD = 0x2e, "ADDFORWARD";
        ADD_FORWARD_ACK = 0x2f, "ADDFORWARDACK";
        PACKET2_DATA = 0x30, "PACKET2_DATA";
        PACKET2_ACK = 0x31, "PACKET2_ACK";
        I_AM_NAME_SERVER = 0x35, "IAMNAMESERVER";
        VOICE = 0x36, "VOICE";
        MULTICAST_DELIVERY = 0x37, "MULTICASTDELIVERY";
        CREATE_PLAYER_VERIFY = 0x38, "CREATEPLAYERVERIFY";
    }
}

open_enum! {
    /// The sender's version of DirectPlay. Windows 98's DirectX 5 spoke one before 9, of which no table is public.
    Dialect: u16 {
        DX6 = 9, "DirectX 6";
        DX6_1 = 10, "DirectX 6.1";
        /// What Wine's client says, and so what the genuine captures hold.
        DX6_1A = 11, "DirectX 6.1a";
        DX7_1 = 12, "DirectX 7.1";
        DX8 = 13, "DirectX 8";
        DX9 = 14, "DirectX 9";
    }
}

open_enum! {
    /// An `HRESULT` as a host answers it; 0 is success.
    HResult: u32 {
        OK = 0, "DP_OK";
        NO_NEW_PLAYERS = 0x8877_014a, "DPERR_NONEWPLAYERS";
    }
}

macro_rules! flags {
    ($(#[$doc:meta])* $type:ident { $($(#[$item_doc:meta])* $name:ident = $value:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $type(pub u32);

        impl $type {
            pub const NONE: Self = Self(0);
            $($(#[$item_doc])* pub const $name: Self = Self($value);)*

            /// Are all bits of `other` set?
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The bits of both; `|` in constants.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// The bits of `self` that are not in `other`.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
        }

        impl BitOr for $type {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                self.with(other)
            }
        }

        /// As contracts.md prints flags: `0x%08x`.
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#010x}", self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

flags! {
    /// Flags of a session description.
    SessionFlags {
        NO_NEW_PLAYERS = 0x1;
        /// When the host goes, the machine with the lowest system id becomes host.
        MIGRATE_HOST = 0x4;
        /// User messages without the two ids. Trap: Wine 10 sends them all the same.
        NO_MESSAGE_ID = 0x8;
        NO_PLAYER_MANAGEMENT = 0x10;
        /// Trap: tshark prints this as "can join"; it is the reverse.
        JOIN_DISABLED = 0x20;
        /// The host pings machines that were silent for 35 s.
        KEEP_ALIVE = 0x40;
        NO_DATA_MESSAGES = 0x80;
        SECURE_SERVER = 0x100;
        PRIVATE = 0x200;
        PASSWORD_REQUIRED = 0x400;
        MULTICAST_SERVER = 0x800;
        CLIENT_SERVER = 0x1000;
        /// User messages in MC-DPL4R frames.
        DIRECT_PLAY_PROTOCOL = 0x2000;
        NO_PRESERVE_ORDER = 0x4000;
        OPTIMIZE_LATENCY = 0x8000;
        VOICE = 0x1_0000;
        NO_SESSION_DESC_CHANGES = 0x2_0000;
    }
}

flags! {
    /// Flags of a player or group record, and of [`super::RequestId`].
    PlayerFlags {
        /// The one system player of a machine; has no name.
        SYSTEM = 0x1;
        /// The host's system player; always with [`Self::SYSTEM`].
        NAME_SERVER = 0x2;
        IN_GROUP = 0x4;
        /// Local to the sender: ignore it in what others send.
        LOCAL = 0x8;
    }
}

flags! {
    /// Which sessions an asker wants to hear of.
    EnumFlags {
        JOINABLE = 0x1;
        ALL = 0x2;
        PASSWORD_REQUIRED = 0x40;
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::{Command, HResult, PlayerFlags, SessionFlags};

    #[test]
    fn values_print_by_name_or_number() {
        assert_eq!(format!("{:?} {:?}", Command::I_AM_NAME_SERVER, Command(0x14)), "IAMNAMESERVER Command(0x14)");
        assert_eq!(format!("{:?}", HResult(0x8877_014a)), "DPERR_NONEWPLAYERS");
        assert_eq!(format!("{}", SessionFlags::MIGRATE_HOST | SessionFlags::KEEP_ALIVE), "0x00000044");
    }

    /// protocols.md 1.3: 14, 1B, 23, 2A and 32-34 do not exist.
    #[test]
    fn every_command_of_the_specification_has_a_name() {
        for number in 1..=0x38 {
            let exists = !matches!(number, 0x14 | 0x1b | 0x23 | 0x2a | 0x32..=0x34);
            assert_eq!(Command(number).name().is_some(), exists, "{number:#x}");
        }
        assert_eq!((Command(0).name(), Command(0x39).name(), Command::ALL.len()), (None, None, 0x38 - 7));
    }

    #[test]
    fn flags_contain_all_bits_or_not() {
        let host = PlayerFlags::SYSTEM | PlayerFlags::NAME_SERVER;
        assert!(host.contains(PlayerFlags::SYSTEM) && !PlayerFlags::SYSTEM.contains(host));
        assert_eq!(host.without(PlayerFlags::NAME_SERVER), PlayerFlags::SYSTEM);
    }
}
