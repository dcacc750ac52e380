//! DHCP for IPv4, big-endian (RFC 2131; options: RFC 2132).
//!
//! **Invariants.** Options are read where they stand, in the order options, file, server name (RFC 2131 4.1); of an
//! option that comes twice the first counts. Names are bytes of the guest's code page: show them with care.
use core::net::Ipv4Addr;

use crate::{
    MacAddr,
    bytes::{Reader, until_zero},
};

pub const SERVER_PORT: u16 = 67;
pub const CLIENT_PORT: u16 = 68;

/// What a message wants (option 53).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MessageType {
    Discover,
    Offer,
    Request,
    Decline,
    Ack,
    Nak,
    Release,
    Inform,
    Other(u8),
}

impl MessageType {
    const fn from_wire(value: u8) -> Self {
        match value {
            1 => Self::Discover,
            2 => Self::Offer,
            3 => Self::Request,
            4 => Self::Decline,
            5 => Self::Ack,
            6 => Self::Nak,
            7 => Self::Release,
            8 => Self::Inform,
            other => Self::Other(other),
        }
    }
}

/// Numbers of the options that [`Message`] has no method for.
pub mod option {
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const HOST_NAME: u8 = 12;
    pub const REQUESTED_IP: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
}

/// A message of a client or a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// Whether a server (or relay) sent it to a client.
    pub is_reply: bool,
    /// What ties answers to questions.
    pub transaction: u32,
    /// Since the client began, in seconds. Trap: some clients send it little-endian.
    pub seconds: u16,
    /// The client cannot take unicast yet.
    pub broadcast: bool,
    /// The address that the client has and uses, or 0.0.0.0.
    pub client_ip: Ipv4Addr,
    /// The address that the server gives, or 0.0.0.0.
    pub your_ip: Ipv4Addr,
    /// Where to boot from; not the DHCP server: see [`Message::server_id`].
    pub next_server: Ipv4Addr,
    pub relay: Ipv4Addr,
    /// `None` for other hardware than Ethernet.
    pub client_mac: Option<MacAddr>,
    server_name: &'a [u8],
    file: &'a [u8],
    option_bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// `None` where the fixed part is not whole, the operation is neither request nor reply, or the magic cookie of DHCP
    /// is missing (plain BOOTP).
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let [op @ (1 | 2), hardware, hardware_len, _hops] = reader.array()? else { return None };
        let (transaction, seconds, flags) = (reader.be_u32()?, reader.be_u16()?, reader.be_u16()?);
        let (client_ip, your_ip) = (reader.ipv4()?, reader.ipv4()?);
        let (next_server, relay) = (reader.ipv4()?, reader.ipv4()?);
        let mac = reader.mac()?;
        reader.bytes(10)?;
        let (server_name, file) = (reader.bytes(64)?, reader.bytes(128)?);
        let [99, 130, 83, 99] = reader.array()? else { return None };
        Some(Self {
            is_reply: op == 2,
            transaction,
            seconds,
            broadcast: flags & 0x8000 != 0,
            client_ip,
            your_ip,
            next_server,
            relay,
            client_mac: (hardware == 1 && hardware_len == 6).then_some(mac),
            server_name,
            file,
            option_bytes: reader.rest(),
        })
    }

    /// All options; those of the file and server name fields, too, where option 52 says so.
    pub fn options(&self) -> impl Iterator<Item = DhcpOption<'a>> + use<'a> {
        let own = Options { rest: Reader::new(self.option_bytes) };
        let overload = own.clone().find_map(|option| match option {
            DhcpOption { code: option::OVERLOAD, data: &[bits] } => Some(bits),
            _ => None,
        });
        let bits = overload.unwrap_or(0);
        let area = |on: bool, bytes| Options { rest: Reader::new(if on { bytes } else { &[] }) };
        own.chain(area(bits & 1 != 0, self.file)).chain(area(bits & 2 != 0, self.server_name))
    }

    /// Data of the first option with this code.
    pub fn option(&self, code: u8) -> Option<&'a [u8]> {
        self.options().find(|option| option.code == code).map(|option| option.data)
    }

    /// `None`: BOOTP with a cookie.
    pub fn message_type(&self) -> Option<MessageType> {
        match *self.option(option::MESSAGE_TYPE)? {
            [value] => Some(MessageType::from_wire(value)),
            _ => None,
        }
    }

    /// The address that the client asks for.
    pub fn requested_ip(&self) -> Option<Ipv4Addr> {
        self.address(option::REQUESTED_IP)
    }

    /// The server that speaks, or that the client chose.
    pub fn server_id(&self) -> Option<Ipv4Addr> {
        self.address(option::SERVER_ID)
    }

    pub fn subnet_mask(&self) -> Option<Ipv4Addr> {
        self.address(option::SUBNET_MASK)
    }

    /// The first router.
    pub fn router(&self) -> Option<Ipv4Addr> {
        self.address(option::ROUTER)
    }

    /// Lease time in seconds; `u32::MAX` is for ever.
    pub fn lease_seconds(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.option(option::LEASE_TIME)?.try_into().ok()?))
    }

    /// What the client calls itself; some end it with a zero. Windows 98 sends its computer name.
    pub fn host_name(&self) -> Option<&'a [u8]> {
        self.option(option::HOST_NAME).map(until_zero).filter(|name| !name.is_empty())
    }

    /// What the server knows the client by: hardware type 1 and MAC, as a rule.
    pub fn client_id(&self) -> Option<&'a [u8]> {
        self.option(option::CLIENT_ID)
    }

    /// Which client software it is, as in `MSFT 98`.
    pub fn vendor_class(&self) -> Option<&'a [u8]> {
        self.option(option::VENDOR_CLASS)
    }

    fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.option(code)?.first_chunk().copied().map(Ipv4Addr::from_octets)
    }
}

/// An option with its data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DhcpOption<'a> {
    pub code: u8,
    pub data: &'a [u8],
}

/// One area of options, up to its end mark or the first one that is not whole.
#[derive(Clone, Debug)]
struct Options<'a> {
    rest: Reader<'a>,
}

impl<'a> Iterator for Options<'a> {
    type Item = DhcpOption<'a>;

    fn next(&mut self) -> Option<DhcpOption<'a>> {
        loop {
            match self.rest.u8()? {
                0 => {}
                255 => self.rest = Reader::new(&[]),
                code => {
                    let len = usize::from(self.rest.u8()?);
                    let data = self.rest.bytes(len);
                    if data.is_none() {
                        self.rest = Reader::new(&[]);
                    }
                    return data.map(|data| DhcpOption { code, data });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use std::vec::Vec;

    use super::{Message, MessageType, option};
    use crate::MacAddr;

    /// A message of the client with these options behind the cookie.
    fn message(options: &[u8]) -> Vec<u8> {
        let mut bytes = std::vec![0; 236];
        bytes[..8].copy_from_slice(&[1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
        (bytes[9], bytes[10]) = (3, 0x80);
        bytes[12..16].copy_from_slice(&[10, 98, 0, 9]);
        bytes[28..34].copy_from_slice(&[2, 0x4c, 0, 0, 0, 1]);
        bytes.extend([99, 130, 83, 99]);
        bytes.extend(options);
        bytes
    }

    #[test]
    fn a_request_is_read() {
        let bytes = message(&[
            0, 53, 1, 3, 50, 4, 10, 98, 0, 2, 54, 4, 10, 98, 0, 1, 12, 9, b'L', b'O', b'C', b'O', b'K', b'I', b'D',
            b'1', 0, 61, 7, 1, 2, 0x4c, 0, 0, 0, 1, 51, 4, 0, 0, 0x0e, 0x10, 60, 2, b'M', b'S', 255, 53, 1, 8,
        ]);
        let it = Message::parse(&bytes).unwrap();
        assert_eq!((it.is_reply, it.transaction, it.seconds, it.broadcast), (false, 0xdead_beef, 3, true));
        assert_eq!((it.client_ip, it.your_ip), (Ipv4Addr::new(10, 98, 0, 9), Ipv4Addr::UNSPECIFIED));
        assert_eq!(it.client_mac, Some(MacAddr([2, 0x4c, 0, 0, 0, 1])));
        assert_eq!(it.message_type(), Some(MessageType::Request));
        assert_eq!((it.requested_ip(), it.server_id()), (Some([10, 98, 0, 2].into()), Some([10, 98, 0, 1].into())));
        assert_eq!((it.host_name(), it.vendor_class()), (Some(&b"LOCOKID1"[..]), Some(&b"MS"[..])));
        assert_eq!(it.client_id(), Some(&[1, 2, 0x4c, 0, 0, 0, 1][..]));
        assert_eq!((it.lease_seconds(), it.router(), it.subnet_mask()), (Some(3600), None, None));
        assert_eq!(it.options().count(), 7, "what stands behind the end mark does not count");
    }

    #[test]
    fn fixed_part_has_to_be_whole_and_dhcp() {
        let bytes = message(&[53, 1, 1, 255]);
        for len in 0..240 {
            assert_eq!(Message::parse(&bytes[..len]), None, "{len}");
        }
        assert_eq!(Message::parse(&bytes[..240]).unwrap().message_type(), None);
        for at in [0, 236, 239] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x40;
            assert_eq!(Message::parse(&bytes), None, "{at}");
        }
        let mut token_ring = bytes;
        token_ring[1] = 6;
        assert_eq!(Message::parse(&token_ring).unwrap().client_mac, None);
    }

    #[test]
    fn options_that_are_not_whole_end_the_list() {
        let codes = |bytes: &[u8]| Message::parse(bytes).unwrap().options().map(|it| it.code).collect::<Vec<_>>();
        assert_eq!(codes(&message(&[53, 1, 1, 12, 200, b'X', 54, 1, 1])), [53]);
        assert_eq!(codes(&message(&[53, 1, 1, 12])), [53]);
        // Wrong sizes are no values.
        let bytes = message(&[53, 2, 1, 1, 50, 3, 1, 2, 3, 51, 1, 1, 12, 1, 0]);
        let it = Message::parse(&bytes).unwrap();
        assert_eq!(
            (it.message_type(), it.requested_ip(), it.lease_seconds(), it.host_name()),
            (None, None, None, None)
        );
    }

    #[test]
    fn options_go_on_in_file_and_server_name() {
        let mut bytes = message(&[52, 1, 3, 255]);
        bytes[44..48].copy_from_slice(&[12, 1, b'S', 255]);
        bytes[108..114].copy_from_slice(&[53, 1, 2, 12, 1, b'F']);
        let it = Message::parse(&bytes).unwrap();
        assert_eq!((it.message_type(), it.host_name()), (Some(MessageType::Offer), Some(&b"F"[..])));
        let names: Vec<_> = it.options().filter(|it| it.code == option::HOST_NAME).map(|it| it.data).collect();
        assert_eq!(names, [b"F", b"S"]);
        bytes[242] = 2;
        assert_eq!(Message::parse(&bytes).unwrap().host_name(), Some(&b"S"[..]));
    }
}
