//! The facts of the NetBIOS capture, found by this crate's parsers alone: genuine nmbd, nmblookup.
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use wire::netbios::browser::{Message as Browser, ServerType};
use wire::netbios::dgm::{self, MailSlot};
use wire::netbios::ns::{self, Operation};
use wire::netbios::{Name, suffix};
use wire::{ipv4, udp};

use crate::pcap::{facts, frames};

/// Each datagram with the number of its frame, from 1 on as in the facts, and its source.
fn datagrams(mut each: impl FnMut(usize, &ipv4::Packet<'_>, &udp::Datagram<'_>)) {
    for (index, bytes) in frames("netbios-nmbd").iter().enumerate() {
        let frame = wire::frame::Frame::parse(bytes).unwrap();
        let packet = frame.ipv4().expect("all frames are IPv4");
        assert!(packet.checksum_is_right() && !packet.is_cut() && !packet.is_fragment());
        let datagram = udp::Datagram::parse(packet.payload).expect("all packets are UDP");
        assert!(!datagram.is_cut());
        each(index + 1, &packet, &datagram);
    }
}

/// As the facts write it: a machine's name as it is, others with their suffix.
fn fact_name(name: Name) -> String {
    if name.suffix() == 0 { String::from_utf8_lossy(name.text()).into() } else { name.to_string() }
}

#[test]
fn names_queries_and_answers() {
    let (mut unique, mut group) = (BTreeMap::<_, BTreeSet<_>>::new(), BTreeSet::new());
    let (mut queries, mut status) = (BTreeMap::new(), None);
    datagrams(|number, packet, datagram| {
        if datagram.destination_port != ns::PORT && datagram.source_port != ns::PORT {
            return;
        }
        let message = ns::Message::parse(datagram.payload).unwrap_or_else(|| panic!("frame {number}"));
        assert_eq!(message.result, 0);
        let questions: Vec<_> = message.questions().collect();
        let records: Vec<_> = message.records().collect();
        assert!(questions.iter().all(|it| !it.scoped) && records.iter().all(|it| !it.scoped));
        match (message.is_response, message.operation) {
            (false, Operation::Registration) => {
                // The record's name is a pointer to the question's.
                let ([question], [record]) = (&questions[..], &records[..]) else { panic!("frame {number}") };
                assert!(message.flags.is_broadcast() && message.is_about_ownership() && question.name == record.name);
                let [(flags, ip)] = record.addresses().collect::<Vec<_>>()[..] else { panic!("frame {number}") };
                assert_eq!(ip, packet.source);
                if flags.is_group() {
                    group.insert(record.name)
                } else {
                    unique.entry(ip).or_default().insert(record.name)
                };
            }
            (false, Operation::Query) => {
                let [question] = questions[..] else { panic!("frame {number}") };
                if packet.source == Ipv4Addr::new(192, 168, 98, 13) && question.kind == ns::TYPE_NB {
                    queries.entry(message.id).or_insert((question.name, None));
                }
            }
            (true, Operation::Query) => {
                let [record] = records[..] else { panic!("frame {number}") };
                if let Some(list) = record.node_status() {
                    let names: Vec<_> = list.names().collect();
                    assert!(names.iter().all(|(_, flags)| flags.is_active()));
                    assert_eq!(list.mac, wire::MacAddr::ZERO, "Samba's");
                    status = Some(json!({ "ip": packet.source.to_string(), "names": names.len() }));
                } else {
                    let (name, answer) = queries.get_mut(&message.id).expect("an answer to a question");
                    assert_eq!(record.name, *name);
                    *answer = record.addresses().next().map(|(_, ip)| ip.to_string());
                }
            }
            other => panic!("frame {number}: {other:?}"),
        }
    });

    let facts = facts("netbios-nmbd");
    for host in facts["hosts"].as_array().unwrap() {
        let names = &unique[&host["ip"].as_str().unwrap().parse::<Ipv4Addr>().unwrap()];
        let own = |name: &&Name| name.text() == host["name"].as_str().unwrap().as_bytes();
        let suffixes: Vec<_> = names.iter().filter(own).map(|name| format!("{:02x}", name.suffix())).collect();
        assert_eq!(json!(suffixes), host["suffixes"]);
        let master = names.iter().any(|name| name.suffix() == suffix::MASTER_BROWSER);
        assert_eq!(master, host["role"] == "local master browser");
    }
    let workgroup = Name::new(facts["workgroup"].as_str().unwrap().as_bytes(), suffix::WORKSTATION).unwrap();
    let election = Name::new(workgroup.text(), suffix::ELECTION).unwrap();
    assert_eq!(group, BTreeSet::from([workgroup, election, Name::MSBROWSE]));
    assert!(facts["group_names"].as_array().unwrap().contains(&json!(Name::MSBROWSE.to_string())));

    let queries: BTreeMap<_, _> = queries.into_values().map(|(name, ip)| (fact_name(name), json!(ip))).collect();
    let expected = facts["queries"].as_array().unwrap().iter();
    let expected = expected.map(|row| (row["name"].as_str().unwrap().to_owned(), row["answer"].clone())).collect();
    assert_eq!(queries, expected);
    assert_eq!(status.as_ref(), Some(&facts["node_status"]));
}

#[test]
fn announcements_elections_and_leaving() {
    let mut counts = BTreeMap::<_, u64>::new();
    let (mut left, mut comments, mut workgroups) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    datagrams(|number, packet, datagram| {
        if datagram.destination_port != dgm::PORT {
            return;
        }
        let message = dgm::Message::parse(datagram.payload).unwrap_or_else(|| panic!("frame {number}"));
        let message = message.datagram().expect("only datagrams");
        assert_eq!((message.header.source_ip, message.header.source_port), (packet.source, dgm::PORT));
        assert_eq!((message.more_fragments, message.fragment_offset), (false, 0));
        let slot = MailSlot::parse(message.data).unwrap_or_else(|| panic!("frame {number}"));
        assert!(slot.is_browse());
        let said = Browser::parse(slot.data).unwrap_or_else(|| panic!("frame {number}"));
        let kind = match said {
            Browser::Host(it) => {
                let name = String::from_utf8(it.name.to_vec()).unwrap();
                assert_eq!(message.source.text(), it.name);
                assert_eq!((it.browser_version, it.os_major), ((15, 1), 6));
                if it.server_type.is_leaving() {
                    left.insert(name, number);
                } else {
                    assert!(it.server_type.contains(ServerType::WORKSTATION), "frame {number}");
                    comments.insert(name, String::from_utf8(it.comment.to_vec()).unwrap());
                }
                "host_announcement"
            }
            Browser::LocalMaster(it) => {
                assert_eq!(it.server_type.is_leaving(), number == 79);
                assert_eq!(it.server_type.contains(ServerType::MASTER_BROWSER), number == 65);
                "local_master_announcement"
            }
            Browser::Domain(it) => {
                workgroups.insert(String::from_utf8(it.name.to_vec()).unwrap());
                assert_eq!(it.comment, b"LOCOHOST");
                "domain_announcement"
            }
            Browser::Election { server, .. } => {
                assert_eq!(server, b"LOCOHOST");
                "election"
            }
            Browser::AnnouncementRequest { responder } => {
                assert_eq!(responder, b"LOCOHOST");
                "request_announcement"
            }
            other => panic!("frame {number}: {other:?}"),
        };
        *counts.entry(kind).or_default() += 1;
    });
    let facts = facts("netbios-nmbd");
    assert_eq!(json!(counts), facts["browser"]);
    assert_eq!(json!(workgroups), json!([facts["workgroup"]]));
    for host in facts["hosts"].as_array().unwrap() {
        let name = host["name"].as_str().unwrap();
        assert_eq!(
            (json!(left[name]), json!(comments[name])),
            (host["left_at_frame"].clone(), host["comment"].clone())
        );
    }
    assert_eq!(left.len(), facts["hosts"].as_array().map(Vec::len).unwrap());
    assert_ne!(facts["leave_evidence"], Value::Null);
}
