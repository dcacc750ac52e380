//! Asks the segment for an address, as a guest's card does at its start.
use std::{net::Ipv4Addr, time::Duration};

use dhcproto::{
    Decodable, Encodable,
    v4::{DhcpOption, Message, MessageType, OptionCode},
};
use k8s_tests::peer::Lease;
use model::MacAddr;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use wire::{ipv4, udp};

/// How long an answer may take before the question is asked again.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const CLIENT: u16 = 68;
const SERVER: u16 = 67;

/// The DHCP message for a client in this frame, if there is one.
pub(crate) fn reply(frame: &[u8]) -> Option<Message> {
    let packet = ipv4::Packet::parse(frame.get(14..).filter(|_| frame[12..14] == [8, 0])?)?;
    let datagram = udp::Datagram::parse(packet.payload).filter(|_| packet.protocol == ipv4::UDP)?;
    let for_client = (datagram.source_port, datagram.destination_port) == (SERVER, CLIENT);
    Message::from_bytes(datagram.payload).ok().filter(|_| for_client)
}

/// A client's broadcast.
fn question(mac: MacAddr, xid: u32, options: &[DhcpOption]) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(xid, none, none, none, none, &mac.0);
    for option in options {
        message.opts_mut().insert(option.clone());
    }
    let payload = message.to_vec().expect("a message of a few options");
    let mut body = vec![0; udp::HEADER_LEN + payload.len()];
    udp::write((none, CLIENT), (Ipv4Addr::BROADCAST, SERVER), &payload, &mut body).expect("the buffer has the length");
    let header =
        ipv4::Header { id: 0, protocol: ipv4::UDP, source: none, destination: Ipv4Addr::BROADCAST, fragment: None };
    let mut packet = vec![0; ipv4::HEADER_LEN + body.len()];
    header.write(&body, &mut packet).expect("the buffer has the length");
    [&MacAddr::BROADCAST.0[..], &mac.0, &[8, 0], &packet].concat()
}

/// Asks until it has a lease. `send` puts a frame on the wire, `replies` brings what [`reply`] found.
pub(crate) async fn lease<S: Future<Output = ()>>(
    mac: MacAddr,
    send: impl Fn(Vec<u8>) -> S,
    replies: &mut mpsc::Receiver<Message>,
) -> Lease {
    loop {
        let xid = rand::random();
        send(question(mac, xid, &[DhcpOption::MessageType(MessageType::Discover)])).await;
        let Some(offer) = answer(replies, xid, MessageType::Offer).await else { continue };
        let Some(&DhcpOption::ServerIdentifier(server)) = offer.opts().get(OptionCode::ServerIdentifier) else {
            continue;
        };
        let wanted = [
            DhcpOption::MessageType(MessageType::Request),
            DhcpOption::RequestedIpAddress(offer.yiaddr()),
            DhcpOption::ServerIdentifier(server),
        ];
        send(question(mac, xid, &wanted)).await;
        if let Some(ack) = answer(replies, xid, MessageType::Ack).await {
            return read(&ack, server);
        }
    }
}

async fn answer(replies: &mut mpsc::Receiver<Message>, xid: u32, kind: MessageType) -> Option<Message> {
    let until = Instant::now() + ANSWER_LIMIT;
    while let Ok(Some(message)) = timeout_at(until, replies.recv()).await {
        if message.xid() == xid && message.opts().msg_type() == Some(kind) {
            return Some(message);
        }
    }
    None
}

fn read(ack: &Message, server: Ipv4Addr) -> Lease {
    let mut lease = Lease { ip: ack.yiaddr(), server, mask: None, seconds: None, host_name: None };
    if let Some(DhcpOption::SubnetMask(mask)) = ack.opts().get(OptionCode::SubnetMask) {
        lease.mask = Some(*mask);
    }
    if let Some(DhcpOption::AddressLeaseTime(seconds)) = ack.opts().get(OptionCode::AddressLeaseTime) {
        lease.seconds = Some(*seconds);
    }
    if let Some(DhcpOption::Hostname(name)) = ack.opts().get(OptionCode::Hostname) {
        lease.host_name = Some(name.clone());
    }
    lease
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const MAC: MacAddr = MacAddr([2, 0x4c, 0, 0, 1, 1]);
    const EDGE: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 254);

    /// Turns a client's frame into the server's answer of `kind`.
    fn served(frame: &[u8], kind: MessageType) -> Message {
        let asked = Message::from_bytes(&frame[42..]).unwrap();
        assert_eq!(asked.chaddr(), MAC.0);
        let mut answer = Message::new_with_id(
            asked.xid(),
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::new(10, 98, 0, 1),
            EDGE,
            Ipv4Addr::UNSPECIFIED,
            &MAC.0,
        );
        answer.opts_mut().insert(DhcpOption::MessageType(kind));
        answer.opts_mut().insert(DhcpOption::ServerIdentifier(EDGE));
        answer.opts_mut().insert(DhcpOption::Hostname("LOCO1-1".into()));
        answer
    }

    #[tokio::test]
    async fn a_lease_needs_an_offer_and_an_acknowledgement_of_the_same_question() {
        let (answers, mut replies) = mpsc::channel(4);
        let asked = Mutex::new(Vec::new());
        let send = async |frame: Vec<u8>| {
            let count = asked.lock().unwrap().len();
            let kind = if count == 0 { MessageType::Offer } else { MessageType::Ack };
            let right = served(&frame, kind);
            let mut stale = right.clone();
            stale.set_xid(!right.xid());
            answers.send(stale).await.unwrap();
            answers.send(right).await.unwrap();
            asked.lock().unwrap().push(frame);
        };
        let send = |frame| send(frame);
        let lease = lease(MAC, send, &mut replies).await;
        assert_eq!(
            (lease.ip, lease.server, lease.host_name.as_deref()),
            ("10.98.0.1".parse().unwrap(), EDGE, Some("LOCO1-1"))
        );
        assert_eq!(asked.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_question_is_not_taken_for_a_reply() {
        let frame = question(MAC, 7, &[]);
        assert_eq!(reply(&frame), None);
        assert_eq!(reply(&frame[..14]), None);
        let mut turned = frame;
        turned[34..38].copy_from_slice(&[0, 67, 0, 68]);
        assert_eq!(reply(&turned).unwrap().xid(), 7);
    }
}
