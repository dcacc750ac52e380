//! Faults of one seat by itself.
use api::{agent::State, lan::Rung};

use super::{Fault, with_game};
use crate::lab::{Game, Lab, frames, frames::Ip};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "guest ended with an error",
        rung: Rung::Link,
        cause: "guest-stopped",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(4).state = State::Failed;
            (lab, 4, 1)
        },
    },
    Fault {
        name: "guest switched off",
        rung: Rung::Link,
        cause: "guest-off",
        shown: false,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(4).state = State::Stopped;
            (lab, 4, 1)
        },
    },
    Fault {
        name: "nothing holds the tap",
        rung: Rung::Link,
        cause: "link-down",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(4).link = false;
            (lab, 4, 1)
        },
    },
    Fault {
        name: "a LAN in which everybody is alone",
        rung: Rung::Link,
        cause: "alone-by-mode",
        shown: false,
        inject: || {
            let mut lab = Lab::booted();
            for node in &mut lab.nodes {
                node.mode = "user";
            }
            (lab, 4, 1)
        },
    },
    Fault {
        name: "the node's fabric is broken",
        rung: Rung::Link,
        cause: "fabric",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.nodes[1].fabric_problems = vec!["link `loco4200br` is in the way".into()];
            lab.guest(4).link = false;
            (lab, 4, 1)
        },
    },
    Fault {
        name: "agent silent",
        rung: Rung::Link,
        cause: "agent-silent",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.nodes[1].silent = Some(14.0);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "no driver for the card",
        rung: Rung::Frame,
        cause: "no-driver",
        shown: true,
        inject: || {
            let mut lab = Lab::new(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
            lab.pass(20.0);
            for seat in lab.numbers().into_iter().filter(|seat| *seat != 4) {
                lab.announce(seat);
            }
            lab.pass(40.0);
            lab.host(1, Game::new(1));
            assert!(lab.play(2, 1));
            (lab, 4, 1)
        },
    },
    Fault {
        name: "guest hangs",
        rung: Rung::Frame,
        cause: "guest-silent",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(4).deaf = true;
            lab.pass(25.0);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "DHCP unanswered",
        rung: Rung::Address,
        cause: "dhcp-unanswered",
        shown: true,
        inject: || {
            let mut lab = Lab::new(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
            lab.pass(20.0);
            for seat in lab.numbers().into_iter().filter(|seat| *seat != 4) {
                lab.announce(seat);
            }
            for _ in 0..9 {
                let frame = frames::dhcp_discover(lab.guest(4).mac);
                lab.send(4, &frame);
                lab.pass(5.0);
            }
            (lab, 4, 1)
        },
    },
    Fault {
        name: "DHCP unanswered, address made up",
        rung: Rung::Address,
        cause: "dhcp-unanswered",
        shown: true,
        inject: || {
            let mut lab = Lab::new(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
            lab.pass(20.0);
            for _ in 0..4 {
                let frame = frames::dhcp_discover(lab.guest(4).mac);
                lab.send(4, &frame);
                lab.pass(5.0);
            }
            lab.guest(4).ip = Ip::new(169, 254, 17, 3);
            for seat in lab.numbers() {
                lab.announce(seat);
            }
            lab.pass(10.0);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "address of another subnet",
        rung: Rung::Address,
        cause: "wrong-subnet",
        shown: true,
        inject: || {
            let mut lab = Lab::new(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
            lab.guest(4).ip = Ip::new(192, 168, 0, 4);
            lab.boot_all();
            (lab, 4, 1)
        },
    },
    Fault {
        name: "one address twice, on two nodes",
        rung: Rung::Address,
        cause: "duplicate-ip",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(4).ip = lab.guest(2).ip;
            lab.announce(4);
            lab.announce(2);
            lab.announce(4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "one address twice, on one node",
        rung: Rung::Address,
        cause: "duplicate-ip",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(5).ip = lab.guest(4).ip;
            lab.announce(5);
            lab.announce(4);
            (lab, 5, 1)
        },
    },
    Fault {
        name: "one card address twice",
        rung: Rung::Address,
        cause: "duplicate-mac",
        shown: true,
        inject: || {
            let mut lab = Lab::new(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
            lab.guest(5).mac = lab.guest(2).mac;
            lab.boot_all();
            (lab, 2, 1)
        },
    },
];
