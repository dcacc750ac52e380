//! The three D-Bus messages of the handshake, as bytes (D-Bus specification, "Message Format"; little-endian).
//!
//! By hand because a library that owns a connection reads ahead, and here not a byte may be read too far.
use std::fmt;

/// Bytes that tell how long a message is.
pub(crate) const FIXED_HEADER_BYTES: usize = 16;
/// QEMU's `GetAll` has some 170.
const MESSAGE_BYTES_MAX: usize = 4096;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const NO_REPLY_EXPECTED: u8 = 1;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const REPLY_SERIAL: u8 = 5;
const SIGNATURE: u8 = 8;
const UNIX_FDS: u8 = 9;

/// A call of `org.freedesktop.DBus.Properties.GetAll(interface)`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GetAll {
    pub(crate) serial: u32,
    pub(crate) interface: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unforeseen(&'static str);

impl fmt::Display for Unforeseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A call whose one argument is the descriptor that travels with it.
pub(crate) fn call_with_fd(serial: u32, path: &str, interface: &str, member: &str) -> Vec<u8> {
    let mut fields = Bytes::default();
    fields.text_field(PATH, b'o', path);
    fields.text_field(INTERFACE, b's', interface);
    fields.text_field(MEMBER, b's', member);
    fields.signature_field("h");
    fields.number_field(UNIX_FDS, 1);
    message(METHOD_CALL, 0, serial, &fields, &0u32.to_le_bytes())
}

/// The answer to `GetAll`: `Interfaces`, or nothing if there are none.
pub(crate) fn properties_reply(serial: u32, to: u32, interfaces: &[&str]) -> Vec<u8> {
    let mut fields = Bytes::default();
    fields.number_field(REPLY_SERIAL, to);
    fields.signature_field("a{sv}");
    let mut entry = Bytes::default();
    if !interfaces.is_empty() {
        entry.text("Interfaces");
        entry.signature("as");
        let mut names = Bytes::default();
        for name in interfaces {
            names.text(name);
        }
        entry.number(names.len());
        entry.0.extend(names.0);
    }
    // An array's length counts from its first element, which for a dictionary's entry is aligned to 8.
    let mut body = Bytes::default();
    body.number(entry.len());
    body.align(8);
    body.0.extend(entry.0);
    message(METHOD_RETURN, NO_REPLY_EXPECTED, serial, &fields, &body.0)
}

/// Length of the whole message that begins with these [`FIXED_HEADER_BYTES`].
pub(crate) fn message_bytes(header: &[u8]) -> Result<usize, Unforeseen> {
    let [b'l', METHOD_CALL, _, 1, ..] = header else {
        return Err(Unforeseen("no little-endian method call of version 1"));
    };
    let (body, fields) = (number_at(header, 4)?, number_at(header, 12)?);
    let total = (FIXED_HEADER_BYTES + fields as usize).next_multiple_of(8).saturating_add(body as usize);
    if total > MESSAGE_BYTES_MAX { Err(Unforeseen("a message too long for GetAll")) } else { Ok(total) }
}

/// A whole message as `GetAll`.
pub(crate) fn parse_get_all(message: &[u8]) -> Result<GetAll, Unforeseen> {
    let fields_end = FIXED_HEADER_BYTES + number_at(message, 12)? as usize;
    let fields = message.get(FIXED_HEADER_BYTES..fields_end).ok_or(Unforeseen("cut short"))?;
    // Member is a field of type `s`: 3, 1, 's', 0, length 6, text. Anything else with these bytes is no call of QEMU's.
    if !fields.windows(15).any(|window| window == b"\x03\x01s\0\x06\0\0\0GetAll\0") {
        return Err(Unforeseen("a call other than GetAll"));
    }
    let body = fields_end.next_multiple_of(8);
    let len = number_at(message, body)? as usize;
    let name = message.get(body + 4..).and_then(|rest| rest.get(..len));
    let terminated = message.get(body + 4 + len) == Some(&0);
    let name = name.filter(|_| terminated).ok_or(Unforeseen("cut short"))?;
    let interface = std::str::from_utf8(name).map_err(|_| Unforeseen("an interface name that is no UTF-8"))?;
    Ok(GetAll { serial: number_at(message, 8)?, interface: interface.to_owned() })
}

fn number_at(bytes: &[u8], at: usize) -> Result<u32, Unforeseen> {
    let four = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(Unforeseen("cut short"))?;
    Ok(u32::from_le_bytes(*four))
}

fn message(kind: u8, flags: u8, serial: u32, fields: &Bytes, body: &[u8]) -> Vec<u8> {
    let mut message = Bytes(vec![b'l', kind, flags, 1]);
    message.number(u32::try_from(body.len()).expect("bodies here are some bytes long"));
    message.number(serial);
    message.number(fields.len());
    message.0.extend(&fields.0);
    message.align(8);
    message.0.extend(body);
    message.0
}

/// Growing bytes, aligned from their own start; each user starts at a multiple of 8.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn len(&self) -> u32 {
        u32::try_from(self.0.len()).expect("messages here are some hundred bytes long")
    }

    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(u32::try_from(text.len()).expect("names are short"));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(u8::try_from(signature.len()).expect("signatures here have some letters"));
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    fn field(&mut self, code: u8, kind: u8) {
        self.align(8);
        self.0.extend([code, 1, kind, 0]);
    }

    fn text_field(&mut self, code: u8, kind: u8, text: &str) {
        self.field(code, kind);
        self.text(text);
    }

    fn number_field(&mut self, code: u8, value: u32) {
        self.field(code, b'u');
        self.number(value);
    }

    fn signature_field(&mut self, signature: &str) {
        self.field(SIGNATURE, b'g');
        self.signature(signature);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As QEMU 10.0.2 sent it.
    fn qemus_get_all() -> Vec<u8> {
        let mut fields = Bytes::default();
        fields.text_field(PATH, b'o', "/org/qemu/Display1/Listener");
        fields.text_field(INTERFACE, b's', "org.freedesktop.DBus.Properties");
        fields.signature_field("s");
        fields.text_field(MEMBER, b's', "GetAll");
        let mut body = Bytes::default();
        body.text("org.qemu.Display1.Listener");
        message(METHOD_CALL, 0, 1, &fields, &body.0)
    }

    #[test]
    fn takes_get_all_and_nothing_else() {
        let call = qemus_get_all();
        assert_eq!(message_bytes(&call[..FIXED_HEADER_BYTES]).unwrap(), call.len());
        let parsed = parse_get_all(&call).unwrap();
        assert_eq!(parsed, GetAll { serial: 1, interface: "org.qemu.Display1.Listener".into() });
        let other = call_with_fd(1, "/org/qemu/Display1/Listener", "org.qemu.Display1.Listener", "Scanout");
        assert!(parse_get_all(&other).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            drop((message_bytes(&bytes), parse_get_all(&bytes)));
            let call = qemus_get_all();
            let cut = cut.min(call.len() - 1);
            prop_assert!(parse_get_all(&call[..cut]).is_err());
        }
    }

    /// zbus, which had no part in writing them, reads them.
    #[tokio::test]
    async fn another_implementation_understands_our_bytes() {
        use std::collections::HashMap;

        use tokio::io::AsyncWriteExt as _;
        use zbus::zvariant::OwnedValue;

        let (mut ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let guid = zbus::Guid::generate();
        let peer = zbus::connection::Builder::authenticated_socket(theirs, guid).unwrap().p2p().build().await.unwrap();
        let mut stream = zbus::MessageStream::from(&peer);
        ours.write_all(&properties_reply(7, 3, &["a.b.C", "d.e.F"])).await.unwrap();
        let reply = futures_util::StreamExt::next(&mut stream).await.unwrap().unwrap();
        assert_eq!(reply.header().reply_serial().map(std::num::NonZeroU32::get), Some(3));
        let map: HashMap<String, OwnedValue> = reply.body().deserialize().unwrap();
        let names: Vec<String> = map["Interfaces"].try_clone().unwrap().try_into().unwrap();
        assert_eq!(names, ["a.b.C", "d.e.F"]);
        ours.write_all(&properties_reply(8, 4, &[])).await.unwrap();
        let reply = futures_util::StreamExt::next(&mut stream).await.unwrap().unwrap();
        assert!(reply.body().deserialize::<HashMap<String, OwnedValue>>().unwrap().is_empty());
    }
}
