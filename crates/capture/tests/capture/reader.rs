//! The reader against files that were built by hand, and against any bytes.
use std::time::Duration;

use capture::{LinkType, ReadError, Reader, Record};
use proptest::{collection::vec, prelude::*};

use super::build::{Order, block, enhanced, interface, option, pcap, section};

/// The records before the first fatal error, and all errors.
fn read(file: &[u8]) -> (Vec<Record>, Vec<ReadError>) {
    let (mut records, mut errors) = (Vec::new(), Vec::new());
    match Reader::new(file) {
        Ok(reader) => reader.for_each(|item| match item {
            Ok(record) => records.push(record),
            Err(error) => errors.push(error),
        }),
        Err(error) => errors.push(error),
    }
    (records, errors)
}

#[track_caller]
fn reads(file: &[u8]) -> Vec<Record> {
    let (records, errors) = read(file);
    assert!(errors.is_empty(), "{errors:?}");
    records
}

#[test]
fn a_pcap_is_read_in_both_orders_and_both_resolutions() {
    for order in [Order::Big, Order::Little] {
        for (magic, nanoseconds) in [(0xa1b2_c3d4, 5000), (0xa1b2_3c4d, 5), (0xa1b2_cd34, 5000)] {
            let file = pcap(order, magic, 1, &[(7, 5, 60, vec![1, 2, 3]), (9, 0, 2, vec![4; 3])]);
            let records = reads(&file);
            let want = Record {
                at: Duration::new(7, nanoseconds),
                wire_len: 60,
                link_type: LinkType::ETHERNET,
                interface: 0,
                bytes: vec![1, 2, 3],
            };
            assert_eq!(records[0], want, "{order:?} {magic:x}");
            // A frame was at least as long as what was captured of it.
            assert_eq!((records[1].wire_len, records[1].at), (3, Duration::from_secs(9)));
        }
    }
}

#[test]
fn the_length_of_the_check_sequence_is_not_taken_for_the_link_type() {
    let file = pcap(Order::Little, 0xa1b2_c3d4, 0x2400_0001, &[(0, 0, 1, vec![1])]);
    assert_eq!(reads(&file)[0].link_type, LinkType::ETHERNET);
}

#[test]
fn a_wrong_fraction_still_tells_the_time() {
    let file = pcap(Order::Little, 0xa1b2_c3d4, 1, &[(1, u32::MAX, 1, vec![1])]);
    assert_eq!(reads(&file)[0].at, Duration::from_secs(1) + Duration::from_micros(u32::MAX.into()));
}

#[test]
fn pcapng_sections_have_their_own_order_and_interfaces() {
    let mut file = Vec::new();
    for (order, resolution, ticks) in [(Order::Little, 9, 1_500_000_000_u64), (Order::Big, 0x8a, 1536)] {
        file.extend(section(order));
        let options = [
            option(order, 2, b"eth0"),
            option(order, 9, &[resolution]),
            option(order, 14, &order.u64(1000)),
            option(order, 0, &[]),
        ];
        // Name resolution, and a block that nobody knows.
        file.extend(block(order, 4, &[0; 4]));
        file.extend(interface(order, 276, &[]));
        file.extend(interface(order, 1, &options.concat()));
        file.extend(block(order, 0x0bad_beef, &[1; 40]));
        file.extend(enhanced(order, 1, ticks, 99, &[1, 2, 3, 4, 5]));
        file.extend(enhanced(order, 0, 7, 2, &[1, 2]));
    }
    let records = reads(&file);
    assert_eq!(records.len(), 4);
    for pair in records.chunks(2) {
        assert_eq!(pair[0].at, Duration::from_millis(1_001_500), "nanoseconds, and 1024ths of a second");
        assert_eq!((pair[0].wire_len, pair[0].bytes.as_slice()), (99, &[1, 2, 3, 4, 5][..]));
        assert_eq!((pair[0].link_type, pair[0].interface), (LinkType::ETHERNET, 1));
        assert_eq!((pair[1].at, pair[1].link_type), (Duration::from_micros(7), LinkType::LINUX_SLL2));
    }
}

#[test]
fn packets_without_a_time_have_that_of_the_one_before() {
    let order = Order::Big;
    let mut file = [section(order), interface(order, 1, &[]), enhanced(order, 0, 3_000_000, 1, &[1])].concat();
    file.extend(block(order, 3, &[&order.u32(3)[..], &[7, 8, 9]].concat()));
    // The obsolete Packet Block: interface and drops have 16 bits each.
    let mut old = [order.u16(0), order.u16(5)].concat();
    old.extend([order.u32(0), order.u32(4_000_000), order.u32(2), order.u32(64)].concat());
    old.extend([1, 2]);
    file.extend(block(order, 2, &old));
    let records = reads(&file);
    assert_eq!((records[1].at, records[1].bytes.as_slice()), (Duration::from_secs(3), &[7, 8, 9][..]));
    assert_eq!((records[2].at, records[2].wire_len, records[2].bytes.len()), (Duration::from_secs(4), 64, 2));
}

#[test]
fn a_block_that_is_wrong_inside_costs_only_itself() {
    let order = Order::Little;
    let good = enhanced(order, 0, 1, 1, &[1]);
    let mut file = [section(order), interface(order, 1, &[])].concat();
    file.extend(enhanced(order, 3, 1, 1, &[1]));
    file.extend(&good);
    let at = file.len() as u64;
    let mut long = good.clone();
    long[20] = 200;
    file.extend(long);
    file.extend(&good);
    // An interface whose clock nobody can follow keeps its number.
    file.extend(interface(order, 1, &option(order, 9, &[0x7f])));
    file.extend(interface(order, 113, &[]));
    file.extend(enhanced(order, 1, 1, 1, &[1]));
    file.extend(enhanced(order, 2, 1, 1, &[1]));
    let (records, errors) = read(&file);
    assert_eq!(records.iter().map(|record| record.link_type.0).collect::<Vec<_>>(), [1, 1, 113]);
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(errors.iter().all(|error| !error.is_fatal()));
    assert!(matches!(errors[1], ReadError::Block { at: place, .. } if place == at), "{errors:?}");
}

#[test]
fn what_is_no_capture_is_said_to_be_none() {
    for (file, want) in [
        (&b""[..], "the file is empty"),
        (b"abc", "neither"),
        (b"\x1f\x8b\x08\x00....", "unpacked first"),
        (b"\xd4\xc3\xb2\xa1\x02\x00", "ends at byte 6 within the file's header"),
        (b"\x0a\x0d\x0d\x0a\x1c\x00\x00\x00abcd", "byte-order magic"),
    ] {
        let (records, errors) = read(file);
        assert!(records.is_empty() && errors.len() == 1 && errors[0].is_fatal());
        assert!(errors[0].to_string().contains(want), "{}", errors[0]);
    }
}

#[test]
fn a_length_that_cannot_be_is_refused_before_memory_is_taken() {
    let mut file = pcap(Order::Little, 0xa1b2_c3d4, 1, &[(0, 0, 3, vec![1, 2, 3])]);
    let at = file.len();
    file.extend([0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    let (records, errors) = read(&file);
    assert_eq!(records.len(), 1);
    assert!(matches!(errors[..], [ReadError::TooLong { at: place, len: u32::MAX, .. }] if place == at as u64));
    let order = Order::Little;
    let mut file = [section(order), order.u32(6).to_vec(), order.u32(0xffff_fff0).to_vec()].concat();
    assert!(matches!(read(&file).1[..], [ReadError::TooLong { .. }]));
    // One without packets may be as long as it likes, and is not held.
    let at = file.len() - 8;
    file.splice(at.., [order.u32(10), order.u32(8 << 20)].concat());
    file.resize(at + (8 << 20) - 4, 0);
    file.extend(order.u32(8 << 20));
    assert!(reads(&file).is_empty());
}

#[test]
fn more_interfaces_than_are_taken_end_the_file() {
    let order = Order::Little;
    let mut file = section(order);
    (0..=capture::read::INTERFACES_MAX).for_each(|_| file.extend(interface(order, 1, &[])));
    assert!(matches!(read(&file).1[..], [ReadError::Framing { .. }]));
}

fn records() -> impl Strategy<Value = Vec<(u32, u32, u32, Vec<u8>)>> {
    vec((any::<u32>(), 0..1_000_000_u32, any::<u32>(), vec(any::<u8>(), 0..80)), 0..6)
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::Big), Just(Order::Little)]
}

/// A file of either format, and how many records it has.
fn file() -> impl Strategy<Value = (Vec<u8>, usize)> {
    (order(), any::<bool>(), records()).prop_map(|(order, is_ng, records)| {
        if !is_ng {
            return (pcap(order, 0xa1b2_3c4d, 113, &records), records.len());
        }
        let mut file = [section(order), interface(order, 1, &[])].concat();
        for (seconds, _, wire_len, bytes) in &records {
            file.extend(enhanced(order, 0, u64::from(*seconds) * 1_000_000, *wire_len, bytes));
        }
        (file, records.len())
    })
}

proptest! {
    #[test]
    fn any_bytes_end(bytes in vec(any::<u8>(), 0..400), magic in prop::sample::select(vec![
        vec![], vec![0xd4, 0xc3, 0xb2, 0xa1], vec![0xa1, 0xb2, 0x3c, 0x4d], section(Order::Big),
        [section(Order::Little), interface(Order::Little, 1, &[])].concat(),
    ])) {
        let file = [magic, bytes].concat();
        let (records, errors) = read(&file);
        prop_assert!(records.iter().map(|record| record.bytes.len()).sum::<usize>() <= file.len());
        prop_assert!(errors.iter().filter(|error| error.is_fatal()).count() <= 1);
        for record in records {
            if let Some(view) = record.ethernet() {
                prop_assert!(view.bytes.len() <= record.bytes.len() + 14);
            }
        }
    }

    #[test]
    fn a_torn_file_gives_what_is_whole_and_then_says_where((file, count) in file(), cut in any::<prop::sample::Index>()) {
        let whole = reads(&file);
        prop_assert_eq!(whole.len(), count);
        let cut = cut.index(file.len());
        let (records, errors) = read(&file[..cut]);
        prop_assert_eq!(&records[..], &whole[..records.len()]);
        // Cut between two records it is whole, only shorter.
        match errors.as_slice() {
            [] => {}
            [ReadError::Empty] => prop_assert_eq!(cut, 0),
            [ReadError::NotACapture(_)] => prop_assert!(cut < 4),
            [ReadError::Torn { at, end, .. }] => prop_assert!(*at < cut as u64 && *end == cut as u64),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_damaged_file_ends_without_a_panic((mut file, _) in file(), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let (_, errors) = read(&file);
        prop_assert!(errors.len() <= 8);
    }
}
