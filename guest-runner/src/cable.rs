//! The guest's cable when its port goes to another LAN: out for a moment and in again, which its driver sees. Pure; `runner` tells QEMU.
//!
//! **Invariant.** The runner lives as long as its QEMU and knows where the guest's cable was in last, so a move is told to the guest whichever
//! agent carried it out, and whether one was there meanwhile or not.
use std::time::Duration;

use seat::Welcome;
use tokio::time::Instant;

/// A card's driver looks at its link every one or two seconds. The LANs of a node are others within milliseconds, so what the guest sends
/// when its cable is back is in the new one.
const OUT_FOR: Duration = Duration::from_secs(3);
/// After QEMU has not taken it.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Cable {
    /// LAN and seat of the newest Welcome.
    place: Option<(String, u8)>,
    in_at: Option<Instant>,
}

impl Cable {
    /// Takes over where the port is. `true`: the guest that runs was plugged in elsewhere before, and its cable is to be pulled.
    pub(crate) fn at(&mut self, welcome: &Welcome, runs: bool, now: Instant) -> bool {
        let place = Some((welcome.lan.clone(), welcome.seat));
        let before = std::mem::replace(&mut self.place, place);
        let moved = runs && before.is_some() && before != self.place;
        if moved {
            self.in_at = Some(now + OUT_FOR);
        }
        moved
    }

    /// When it is to be put in again.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.in_at
    }

    /// It was put in; if not, that is tried again.
    pub(crate) fn put_in(&mut self, done: bool, now: Instant) {
        self.in_at = (!done).then(|| now + AGAIN);
    }

    /// The guest is gone; the next one starts with its cable in.
    pub(crate) const fn gone(&mut self) {
        self.in_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(lan: &str, seat: u8) -> Welcome {
        serde_json::from_value(serde_json::json!({
            "lan": lan, "seat": seat, "mac": "02:4c:00:00:01:01", "ip": "10.98.0.1", "host_name": "LOCO1-1", "kvm": false,
        }))
        .unwrap()
    }

    #[test]
    fn only_a_guest_that_runs_and_comes_to_another_place_is_told() {
        let (mut cable, now) = (Cable::default(), Instant::now());
        assert!(!cable.at(&welcome("party", 0), false, now), "its first port");
        assert!(!cable.at(&welcome("party", 0), true, now), "another agent, the same place");
        assert_eq!(cable.due(), None);
        assert!(cable.at(&welcome("other", 0), true, now) && cable.due() == Some(now + OUT_FOR));
        cable.put_in(false, now);
        assert_eq!(cable.due(), Some(now + AGAIN));
        cable.put_in(true, now);
        assert_eq!(cable.due(), None);
        assert!(cable.at(&welcome("other", 3), true, now), "another seat has another address");
        cable.gone();
        assert_eq!(cable.due(), None);
        assert!(!cable.at(&welcome("party", 0), false, now), "a new QEMU boots there");
    }
}
