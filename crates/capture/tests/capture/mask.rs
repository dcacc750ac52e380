//! No password is left in what is kept, and nothing else is changed.
use capture::mask::Masker;
use proptest::{collection::vec, prelude::*};

use super::build::{
    PASSWORD, add_forward_request, enum_sessions, ip_frame, ipx, players_reply, session_changed, tcp,
    transport_checksum, udp, udp_datagram, utf16,
};

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// `frame` with the octets of the password zero and everything else as it was, but for a checksum.
fn blanked(frame: &[u8]) -> Vec<u8> {
    let password = utf16(PASSWORD);
    let at = frame.windows(password.len()).position(|window| window == password).unwrap();
    let mut frame = frame.to_vec();
    frame[at..at + password.len()].fill(0);
    frame
}

#[test]
fn every_message_that_carries_a_password_loses_it() {
    for message in
        [add_forward_request(PASSWORD), enum_sessions(PASSWORD), session_changed(PASSWORD), players_reply(PASSWORD)]
    {
        assert!(holds(&message, &utf16(PASSWORD)), "the test itself");
        for (frame, at) in [(udp(47624, &message), 40), (tcp(1, &message), 50)] {
            let mut masked = frame.clone();
            assert!(Masker::default().mask(&mut masked));
            assert!(!holds(&masked, &utf16(PASSWORD)));
            assert_eq!(transport_checksum(&masked), 0, "the checksum is right again");
            let mut want = blanked(&frame);
            want[at..at + 2].copy_from_slice(&masked[at..at + 2]);
            assert_eq!(masked, want, "and nothing else changed");
        }
        // Without an envelope, as over IPX, and in a frame of the DirectPlay protocol.
        for frame in [ipx(&message[20..]), udp(2350, &[&[1, 2, 0x39, 0, 0, 0][..], &message[20..]].concat())] {
            let mut masked = frame.clone();
            assert!(Masker::default().mask(&mut masked));
            assert!(!holds(&masked, &utf16(PASSWORD)));
        }
    }
}

#[test]
fn a_message_without_a_password_stays_as_it_is() {
    let others = [
        enum_sessions(""),
        add_forward_request(""),
        [b"display of playing players, play".as_slice(), &[2, 0, 9, 0]].concat(),
        utf16(PASSWORD),
        Vec::new(),
    ];
    for message in others {
        for frame in [udp(47624, &message), tcp(1, &message), ipx(&message)] {
            let mut masked = frame.clone();
            let changed = Masker::default().mask(&mut masked);
            // The zero word of an empty password is "zeroed", which changes nothing.
            assert_eq!((masked == frame, changed && message.len() < 30), (true, false));
        }
    }
}

#[test]
fn a_datagram_without_a_checksum_gets_none() {
    let mut frame = udp(47624, &enum_sessions(PASSWORD));
    frame[40..42].fill(0);
    Masker::default().mask(&mut frame);
    assert_eq!(frame[40..42], [0, 0]);
}

#[test]
fn a_segment_that_is_sent_again_is_masked_again() {
    let message = add_forward_request(PASSWORD);
    let cut = message.len() - 4 - PASSWORD.len();
    let parts = [tcp(100, &message[..cut]), tcp(100 + u32::try_from(cut).unwrap(), &message[cut..])];
    let mut masker = Masker::default();
    for index in [0, 1, 1, 0, 1] {
        let mut frame = parts[index].clone();
        assert!(masker.mask(&mut frame));
        assert!(!holds(&frame, &utf16(&PASSWORD[PASSWORD.len() - 4..])), "{index}");
        assert_eq!(transport_checksum(&frame), 0);
    }
}

#[test]
fn a_lost_segment_costs_the_rest_of_its_message() {
    let message = add_forward_request(PASSWORD);
    let start = message.len() - 4 - 2 * (PASSWORD.len() + 1);
    let mut masker = Masker::default();
    masker.mask(&mut tcp(0, &message[..start + 4]));
    let after = start + 10;
    let rest = [&message[after..], &b"another message"[..]].concat();
    let mut frame = tcp(u32::try_from(after).unwrap(), &rest);
    assert!(masker.mask(&mut frame));
    // What the message still has is gone, the time that it ends with too; what follows it is not.
    assert_eq!(frame[54..], [vec![0; message.len() - after], b"another message".to_vec()].concat());
}

#[test]
fn an_identification_that_is_used_again_hides_nothing() {
    let mut masker = Masker::default();
    for password in ["a password that is much longer than the next one", PASSWORD, "and one of another length"] {
        let datagram = udp_datagram(47624, &enum_sessions(password));
        let (first, rest) = datagram.split_at(72);
        for (offset, part, more) in [(0, first, 0x2000), (72, rest, 0)] {
            let mut frame = ip_frame(17, 77, more | (offset / 8), part);
            masker.mask(&mut frame);
            assert!(!holds(&frame, &utf16(&password[password.len() - 3..])), "{password}");
        }
    }
    // A datagram without one keeps what stands at that place.
    for (offset, more) in [(0, 0x2000), (72, 0)] {
        let frame = ip_frame(17, 77, more | (offset / 8), &[b'x'; 72]);
        let mut after = frame.clone();
        assert!(!masker.mask(&mut after));
        assert_eq!(after, frame);
    }
}

#[test]
fn flows_are_forgotten_and_not_heaped_up() {
    let mut masker = Masker::default();
    let message = add_forward_request(PASSWORD);
    for id in 0..2 * u16::try_from(capture::mask::FLOWS_MAX).unwrap() {
        // First fragments of datagrams whose rest never comes.
        masker.mask(&mut ip_frame(17, id, 0x2000, &[&[0; 8][..], &message[..64]].concat()));
    }
    let shown = format!("{masker:?}");
    assert_eq!(shown.matches("Fragments").count(), capture::mask::FLOWS_MAX);
}

proptest! {
    #[test]
    fn a_password_is_found_over_any_segments(
        cuts in vec(1_usize..120, 0..12), start: u32, before in vec(any::<u8>(), 0..30),
        password in "[a-zA-Z0-9\u{e9}]{4,40}", kind in 0..4,
    ) {
        let message = match kind {
            0 => add_forward_request(&password),
            1 => enum_sessions(&password),
            2 => session_changed(&password),
            _ => players_reply(&password),
        };
        let stream = [&before[..], &message, b"\x01\x02\x03 and more"].concat();
        let mut masker = Masker::default();
        let mut at = 0;
        let mut kept = Vec::new();
        for len in cuts.into_iter().chain([usize::MAX]) {
            let end = at + len.min(stream.len() - at);
            let mut frame = tcp(start.wrapping_add(u32::try_from(at).unwrap()), &stream[at..end]);
            masker.mask(&mut frame);
            prop_assert_eq!(transport_checksum(&frame), 0);
            kept.extend_from_slice(&frame[54..]);
            at = end;
        }
        let secret = utf16(&password);
        let place = stream.windows(secret.len()).rposition(|window| window == secret).unwrap();
        let mut want = stream.clone();
        want[place..place + secret.len()].fill(0);
        prop_assert_eq!(kept, want);
    }

    #[test]
    fn any_frames_are_taken(frames in vec((vec(any::<u8>(), 0..100), 0..3_u8, any::<u32>()), 0..20)) {
        let mut masker = Masker::default();
        for (bytes, kind, sequence) in frames {
            let head = match kind {
                0 => Vec::new(),
                1 => b"play\x02\x00\x0b\x00".to_vec(),
                _ => b"\x34\x00\xb0\xfa\x02\x00\x08\xfc\0\0\0\0\0\0\0\0\0\0\0\0play\x13\x00\x0b\x00".to_vec(),
            };
            let payload = [head, bytes].concat();
            for mut frame in [payload.clone(), udp(47624, &payload), tcp(sequence, &payload), ip_frame(17, 1, 0x2000 | u16::try_from(sequence & 0x1fff).unwrap(), &payload)] {
                let len = frame.len();
                masker.mask(&mut frame);
                prop_assert_eq!(frame.len(), len);
            }
        }
    }
}
