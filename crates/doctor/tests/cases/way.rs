//! Faults on the way of the question.
use api::{agent::State, lan::Rung};
use wire::{MacAddr, frame::FrameFormat};

use super::{Fault, ask_for_a_while, cut_off, with_game};
use crate::lab::{self, Door, Game, Lab, frames::Ip};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "never asked",
        rung: Rung::Asks,
        cause: "asks-never",
        shown: false,
        inject: || (with_game(&Game::new(1)), 4, 1),
    },
    Fault {
        name: "asks by another interface",
        rung: Rung::Asks,
        cause: "wrong-interface",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            for _ in 0..3 {
                lab.ask_at(4, (MacAddr::BROADCAST, Ip::BROADCAST), Some(Ip::new(5, 12, 44, 7)));
            }
            // Its card has the right address all the same.
            lab.announce(4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "asks a wrong address",
        rung: Rung::Asks,
        cause: "wrong-address",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            let other = (lab.guest(7).mac, lab.guest(7).ip);
            for _ in 0..3 {
                lab.ask_at(4, other, None);
            }
            (lab, 4, 1)
        },
    },
    Fault {
        name: "asks by IPX, game over TCP/IP",
        rung: Rung::Asks,
        cause: "transport-mismatch",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            for _ in 0..3 {
                lab.ask_ipx(4, FrameFormat::EthernetII, None);
            }
            (lab, 4, 1)
        },
    },
    Fault {
        name: "IPX frame types differ",
        rung: Rung::Reaches,
        cause: "framing-mismatch",
        shown: true,
        inject: || {
            let mut lab = Lab::booted();
            lab.host(1, Game { ipx: true, ..Game::new(1) });
            lab.ask_ipx(2, FrameFormat::Llc, Some((1, FrameFormat::Llc)));
            for _ in 0..3 {
                lab.ask_ipx(4, FrameFormat::Raw8023, Some((1, FrameFormat::Llc)));
            }
            (lab, 4, 1)
        },
    },
    Fault {
        name: "underlay port blocked",
        rung: Rung::Reaches,
        cause: "underlay-blocked",
        shown: true,
        inject: || {
            let mut lab = Lab::new(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
            cut_off(&mut lab);
            lab.cut_at = Some(lab::START);
            lab.boot_all();
            lab.host(1, Game::new(1));
            assert!(lab.play(2, 1));
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "underlay port blocked after a game was seen",
        rung: Rung::Reaches,
        cause: "underlay-blocked",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            assert!(lab.ask(4).contains(&1));
            cut_off(&mut lab);
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "underlay port blocked in the middle of a game",
        rung: Rung::Reaches,
        cause: "underlay-blocked",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            assert!(lab.play(4, 1));
            cut_off(&mut lab);
            lab.pass(12.0);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "broadcasts are no longer copied to the host's node",
        rung: Rung::Reaches,
        cause: "flood-missing",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            assert!(lab.ask(4).contains(&1));
            lab.mark();
            lab.underlay_loses = Box::new(|frame| frame.broadcast && frame.from_node == 1 && frame.to_node == 0);
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "a firewall is switched on after a game was seen",
        rung: Rung::Answers,
        cause: "answer-unanswered",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            assert!(lab.ask(4).contains(&1));
            lab.guest(4).door = Door::Mute;
            lab.pass(10.0);
            lab.mark();
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "host's node dead",
        rung: Rung::Reaches,
        cause: "node-dead",
        shown: true,
        inject: || {
            let mut lab = Lab::booted();
            lab.host(7, Game::new(7));
            assert!(lab.play(4, 7), "a seat of another node is in, so the session stays known");
            lab.nodes[2].silent = Some(6.0);
            lab.underlay_loses = Box::new(|frame| frame.from_node == 2 || frame.to_node == 2);
            for _ in 0..3 {
                lab.ask(5);
            }
            (lab, 5, 7)
        },
    },
    Fault {
        name: "broadcasts are not copied to the host's node",
        rung: Rung::Reaches,
        cause: "flood-missing",
        shown: true,
        inject: || {
            let mut lab = Lab::new(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
            lab.underlay_loses = Box::new(|frame| frame.broadcast && frame.from_node == 1 && frame.to_node == 0);
            lab.boot_all();
            lab.host(1, Game::new(1));
            assert!(lab.play(2, 1));
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "host's tap is not in the bridge for what comes from outside",
        rung: Rung::Reaches,
        cause: "lost-at-tap",
        shown: true,
        inject: || {
            let mut lab = Lab::new(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
            lab.tap_loses = Box::new(|frame| frame.to == 1 && frame.from == 4);
            lab.boot_all();
            lab.host(1, Game::new(1));
            assert!(lab.play(2, 1));
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "frames are lost inside a node",
        rung: Rung::Reaches,
        cause: "lost-at-tap",
        shown: true,
        inject: || {
            let mut lab = Lab::new(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
            lab.tap_loses = Box::new(|frame| frame.to == 1 && frame.from == 3);
            lab.boot_all();
            lab.host(1, Game::new(1));
            assert!(lab.play(2, 1));
            ask_for_a_while(&mut lab, 3);
            (lab, 3, 1)
        },
    },
    Fault {
        name: "the switch of the real LAN takes one address at a port",
        rung: Rung::Reaches,
        cause: "lost-on-real-lan",
        shown: true,
        inject: || {
            let mut lab = Lab::new(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
            lab.move_to_real_lan();
            lab.underlay_loses = Box::new(|frame| frame.from == 4 || frame.to == 4);
            lab.boot_all();
            lab.host(1, Game::new(1));
            assert!(lab.play(2, 1));
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "host's guest ended",
        rung: Rung::Reaches,
        cause: "host-off",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(1).state = State::Failed;
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
];
