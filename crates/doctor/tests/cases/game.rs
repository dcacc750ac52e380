//! Faults between the host, the answer and the game.
use api::lan::Rung;
use wire::dplay::{Dialect, SessionFlags};

use super::{Fault, ask_for_a_while, with_game};
use crate::lab::{Door, Game, Lab, frames::Ip};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "asks by address, no game there (ICMP)",
        rung: Rung::Answers,
        cause: "not-listening",
        shown: true,
        inject: || {
            let mut lab = Lab::booted();
            let host = (lab.guest(1).mac, lab.guest(1).ip);
            for _ in 0..3 {
                lab.ask_at(4, host, None);
            }
            (lab, 4, 1)
        },
    },
    Fault {
        name: "no game is open",
        rung: Rung::Answers,
        cause: "no-game",
        shown: false,
        inject: || {
            let mut lab = Lab::booted();
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "host refuses connections (RST)",
        rung: Rung::Answers,
        cause: "host-refuses",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            assert!(lab.ask(4).contains(&1));
            lab.guest(1).door = Door::Refuses;
            assert!(!lab.join(4, 1));
            lab.guest(1).game = None;
            lab.ask(4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "host's guest hangs",
        rung: Rung::Answers,
        cause: "host-stuck",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(1).deaf = true;
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "host gets the question and is silent",
        rung: Rung::Answers,
        cause: "host-silent",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(1).game = None;
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "host falls silent after it was seen",
        rung: Rung::Answers,
        cause: "host-silent",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            assert!(lab.ask(4).contains(&1));
            // It goes on with whom it has, and hears questions no more.
            lab.guest(1).game = None;
            for _ in 0..2 {
                ask_for_a_while(&mut lab, 4);
            }
            (lab, 4, 1)
        },
    },
    Fault {
        name: "asker refuses the answer (RST)",
        rung: Rung::Answers,
        cause: "answer-refused",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(4).door = Door::Refuses;
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "asker's firewall drops the answer",
        rung: Rung::Answers,
        cause: "answer-unanswered",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(4).door = Door::Mute;
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "the answer is lost between the nodes",
        rung: Rung::Answers,
        cause: "answer-lost",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.underlay_loses = Box::new(|frame| !frame.broadcast && frame.from_node == 0 && frame.to_node == 1);
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "another game is asked for",
        rung: Rung::SameGame,
        cause: "other-game",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(4).application = *b"ANOTHER--GAME--2";
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "another DirectPlay",
        rung: Rung::SameGame,
        cause: "other-version",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(4).dialect = Dialect::DX9;
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "two hosts with one id, on two nodes",
        rung: Rung::SameGame,
        cause: "two-hosts",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.host(4, Game::new(1));
            lab.ask(5);
            lab.ask(2);
            (lab, 1, 4)
        },
    },
    Fault {
        name: "two hosts with one id, on one node",
        rung: Rung::SameGame,
        cause: "two-hosts",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.host(3, Game::new(1));
            lab.ask(2);
            lab.ask(5);
            (lab, 1, 3)
        },
    },
    Fault {
        name: "password",
        rung: Rung::Free,
        cause: "password",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game { flags: SessionFlags::PASSWORD_REQUIRED, ..Game::new(1) });
            ask_for_a_while(&mut lab, 4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "full, and refused for it",
        rung: Rung::Free,
        cause: "full",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game { max: 2, players: 2, refuses: 0x8877_014a, ..Game::new(1) });
            lab.ask(4);
            assert!(!lab.join(4, 1));
            (lab, 4, 1)
        },
    },
    Fault {
        name: "closed for new players",
        rung: Rung::Free,
        cause: "closed",
        shown: true,
        inject: || {
            let mut lab =
                with_game(&Game { flags: SessionFlags::NO_NEW_PLAYERS, refuses: 0x8877_014a, ..Game::new(1) });
            lab.ask(4);
            assert!(!lab.join(4, 1));
            (lab, 4, 1)
        },
    },
    Fault {
        name: "wrong password",
        rung: Rung::Free,
        cause: "password",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game { refuses: 0x8877_0154, ..Game::new(1) });
            lab.ask(4);
            assert!(!lab.join(4, 1));
            (lab, 4, 1)
        },
    },
    Fault {
        name: "refused for another reason",
        rung: Rung::Joined,
        cause: "refused",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game { refuses: 0x8877_0028, ..Game::new(1) });
            lab.ask(4);
            assert!(!lab.join(4, 1));
            (lab, 4, 1)
        },
    },
    Fault {
        name: "the joiner tells an address that it does not have (NAT)",
        rung: Rung::Joined,
        cause: "nat",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.ask(4);
            lab.guest(4).told = Some(Ip::new(192, 168, 1, 7));
            assert!(!lab.join(4, 1));
            lab.ask(4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "observer blind on the asker's node",
        rung: Rung::Asks,
        cause: "observer-blind",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.nodes[1].blind = true;
            lab.nodes[1].health = Some(api::agent::ObserverHealth {
                problem: Some("CAP_BPF is missing".into()),
                ..api::agent::ObserverHealth::default()
            });
            for guest in lab.numbers() {
                lab.guest(guest).uncounted = true;
            }
            ask_for_a_while(&mut lab, 6);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "MTU between the nodes",
        rung: Rung::Joined,
        cause: "mtu",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.underlay_loses = Box::new(|frame| frame.bytes.len() > 1450);
            lab.ask(4);
            assert!(!lab.join(4, 1));
            (lab, 4, 1)
        },
    },
    Fault {
        name: "join hangs",
        rung: Rung::Joined,
        cause: "join-stuck",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            lab.ask(4);
            assert!(lab.connect(4, 1, 2300).is_some());
            lab.pass(30.0);
            lab.ask(4);
            (lab, 4, 1)
        },
    },
    Fault {
        name: "a guest takes 1.5 s for each frame",
        rung: Rung::Joined,
        cause: "guest-slow",
        shown: true,
        inject: || {
            let mut lab = with_game(&Game::new(1));
            assert!(lab.play(4, 1));
            lab.guest(4).slow = std::time::Duration::from_millis(1500);
            let mut tcp = lab.connect(1, 4, 2300).expect("the way is free");
            for _ in 0..20 {
                lab.write(&mut tcp, b"a train, and another train");
            }
            (lab, 4, 4)
        },
    },
];
