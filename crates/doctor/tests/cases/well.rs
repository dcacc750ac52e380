//! LANs that are well.
use api::agent::State;
use wire::frame::FrameFormat;

use super::{ask_for_a_while, with_game};
use crate::lab::{Game, Lab, frames};

/// A LAN that is well.
pub(crate) struct Well {
    pub(crate) name: &'static str,
    pub(crate) make: fn() -> Lab,
}

pub(crate) const WELL: &[Well] = &[
    Well { name: "nobody plays", make: Lab::booted },
    Well { name: "nobody plays on the real LAN, which has addresses of its own", make: Lab::on_real_lan },
    Well {
        name: "nine play on the real LAN",
        make: || {
            let mut lab = Lab::on_real_lan();
            lab.host(1, Game::new(1));
            for seat in 2..=9 {
                assert!(lab.play(seat, 1), "seat {seat}");
            }
            lab.pass(60.0);
            lab
        },
    },
    Well {
        name: "nine play",
        make: || {
            let mut lab = Lab::booted();
            lab.host(1, Game::new(1));
            for seat in 2..=9 {
                assert!(lab.play(seat, 1), "seat {seat}");
            }
            lab.pass(60.0);
            lab
        },
    },
    Well {
        name: "a card address was used twice, until a minute ago",
        make: || {
            let mut lab = Lab::booted();
            let own = lab.guest(5).mac;
            lab.guest(5).mac = lab.guest(2).mac;
            lab.announce(5);
            lab.announce(2);
            assert!(!doctor::faults(&lab.facts()).is_empty(), "it is told while it lasts");
            lab.guest(5).mac = own;
            lab.mark();
            lab.pass(61.0);
            lab
        },
    },
    Well {
        name: "guests boot",
        make: || {
            let mut lab = Lab::new(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
            lab.pass(12.0);
            lab
        },
    },
    Well {
        name: "guests ask for addresses",
        make: || {
            let mut lab = Lab::new(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
            lab.pass(8.0);
            for seat in lab.numbers() {
                for _ in 0..2 {
                    let frame = frames::dhcp_discover(lab.guest(seat).mac);
                    lab.send(seat, &frame);
                }
            }
            lab.pass(4.0);
            lab
        },
    },
    Well {
        name: "seats look around and join nothing",
        make: || {
            let mut lab = with_game(&Game::new(1));
            for seat in 3..=9 {
                assert!(lab.ask(seat).contains(&1));
            }
            lab
        },
    },
    Well {
        name: "two games at once",
        make: || {
            let mut lab = with_game(&Game::new(1));
            let other = *b"ANOTHER--GAME--2";
            lab.guest(8).application = other;
            lab.host(5, Game { name: "Other", application: other, ..Game::new(5) });
            assert!(lab.play(8, 5));
            assert!(lab.ask(4).contains(&1));
            lab
        },
    },
    Well {
        name: "asks where no game is open",
        make: || {
            let mut lab = Lab::booted();
            for seat in lab.numbers() {
                ask_for_a_while(&mut lab, seat);
            }
            lab
        },
    },
    Well {
        name: "has just asked",
        make: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(1).game = None;
            lab.ask(4);
            lab.now -= std::time::Duration::from_secs(4);
            lab
        },
    },
    Well {
        name: "a game over IPX",
        make: || {
            let mut lab = Lab::booted();
            lab.host(1, Game { ipx: true, ..Game::new(1) });
            for seat in 2..=9 {
                lab.ask_ipx(seat, FrameFormat::Llc, Some((1, FrameFormat::Llc)));
            }
            lab
        },
    },
    Well {
        name: "the host goes and another seat opens a game",
        make: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(1).game = None;
            lab.pass(120.0);
            for seat in lab.numbers() {
                lab.announce(seat);
            }
            lab.host(6, Game::new(6));
            for seat in [2, 3, 4] {
                assert!(lab.play(seat, 6), "seat {seat}");
            }
            lab
        },
    },
    Well {
        name: "a seat is switched off",
        make: || {
            let mut lab = with_game(&Game::new(1));
            lab.guest(9).state = State::Stopped;
            lab
        },
    },
    Well {
        name: "agents without eyes",
        make: || {
            let mut lab = Lab::booted();
            for node in &mut lab.nodes {
                node.eyeless = true;
            }
            ask_for_a_while(&mut lab, 4);
            lab
        },
    },
    Well {
        name: "a frame in seven is lost and sent again",
        make: || {
            let mut lab = Lab::booted();
            let count = std::cell::Cell::new(0u32);
            lab.underlay_loses = Box::new(move |frame| {
                count.set(count.get() + 1);
                !frame.broadcast && count.get().is_multiple_of(7)
            });
            lab.host(1, Game::new(1));
            for seat in 2..=9 {
                let in_game = (0..5).any(|_| lab.play(seat, 1));
                assert!(in_game, "seat {seat}");
            }
            lab
        },
    },
];
