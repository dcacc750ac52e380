//! What an instance is doing, worked out from what its runner, its guest and its display report. Pure.
//!
//! ```text
//!                     all parts up (runner, monitors, display, a picture)
//!   starting ───────────────────────────────────────────────> live ──┐
//!      ^  ^                                                    ^  │   │ runner, monitor or display lost
//!      │  │                                 all parts up again │  │   v
//!      │  │                                                    └──── recovering <──┐
//!      │  │ runner comes back,                                    │   │            │ runner comes back,
//!      │  │ it was never live          QEMU ended by itself ──────┘   │            │ it was live before
//!      │  └───────────────────────── failed <─────────────────────────┘            │
//!      │ runner comes back              └──────────────────────────────────────────┘
//!      └──────────────────────────── stopped <── the guest switched itself off, or was asked to stop (from any state)
//! ```
//! **Invariants.** `live` means that each part stands *now*; the word is a function of the facts, never stored beside
//! them, so the two cannot disagree. An end that was reported stays said until a runner comes back: the runner's own
//! disappearance, which follows, does not wash it away. A guest that its disk holds is `failed` too, and goes on when that is put right.
use model::InstanceState;

/// What happened. Everything the agent learns about an instance is one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fact {
    /// A runner said Hello and was welcomed; `same_guest`: its QEMU has run since before.
    RunnerCame {
        same_guest: bool,
    },
    /// The seat connection ended.
    RunnerGone,
    /// No runner can be welcomed, or one was refused, and why.
    RunnerRefused(String),
    /// The seat socket is there: a runner may come.
    SocketUp,
    MonitorsUp,
    /// A QMP monitor closed, or did not answer in time: the reason.
    MonitorsLost(String),
    DisplayUp,
    /// The display connection ended.
    DisplayLost,
    /// The first picture of the display connection that stands.
    Picture,
    /// The guest asked its machine to power off (QMP `SHUTDOWN` with `guest`).
    GuestSwitchedOff,
    /// QEMU ended.
    Ended(End),
    /// QEMU ended by an order; its runner starts it again at once.
    Restarting,
    /// The guest stands still until somebody puts its disk right: why, with the remedy; `None` = it goes on.
    Held(Option<String>),
}

/// How QEMU ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// The last lines that QEMU wrote.
    pub(crate) stderr_tail: String,
    /// The runner was asked to stop.
    pub(crate) asked: bool,
}

/// The facts that stand.
#[expect(clippy::struct_excessive_bools, reason = "independent facts; each combination can really be met")]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    runner: bool,
    monitors: bool,
    display: bool,
    picture: bool,
    was_live: bool,
    switched_off: bool,
    end: Option<End>,
    refused: Option<String>,
    monitors_lost: Option<String>,
    restarting: bool,
    held: Option<String>,
}

impl Facts {
    /// Takes a fact in. Any order is fine: a late or repeated report changes nothing that a newer one said.
    pub(crate) fn learn(&mut self, fact: Fact) {
        match fact {
            Fact::RunnerCame { same_guest } => {
                // A guest that was switched off and comes back starts from nothing; one that was lost recovers.
                let was_live = self.was_live && self.stopped().is_none();
                // What was wrong with this very QEMU's monitor is still worth saying until it answers.
                let monitors_lost = self.monitors_lost.take().filter(|_| same_guest);
                *self = Self { runner: true, was_live, monitors_lost, ..Self::default() };
            }
            Fact::RunnerGone => {
                self.runner = false;
                self.monitors = false;
                self.held = None;
            }
            Fact::RunnerRefused(reason) => self.refused = Some(reason),
            Fact::SocketUp => self.refused = None,
            Fact::MonitorsUp => {
                self.monitors = true;
                self.monitors_lost = None;
            }
            Fact::MonitorsLost(reason) => {
                self.monitors = false;
                self.monitors_lost = Some(reason);
            }
            Fact::DisplayUp => {
                self.display = true;
                self.picture = false;
            }
            Fact::DisplayLost => {
                self.display = false;
                self.picture = false;
            }
            Fact::Picture => self.picture = self.display,
            Fact::GuestSwitchedOff => self.switched_off = true,
            Fact::Restarting => {
                self.restarting = true;
                self.monitors = false;
                self.display = false;
                self.picture = false;
            }
            Fact::Held(reason) => self.held = reason,
            Fact::Ended(end) => {
                self.end = Some(end);
                self.monitors = false;
                self.display = false;
                self.picture = false;
            }
        }
        self.was_live |= self.state() == InstanceState::Live;
    }

    /// The word for it.
    pub(crate) fn state(&self) -> InstanceState {
        if self.stopped().is_some() {
            InstanceState::Stopped
        } else if self.end.is_some() || self.held.is_some() {
            InstanceState::Failed
        } else if self.runner && self.monitors && self.display && self.picture {
            InstanceState::Live
        } else if self.was_live {
            InstanceState::Recovering
        } else {
            InstanceState::Starting
        }
    }

    /// One sentence on the state, with the remedy where somebody must act; `None` when it is live.
    pub(crate) fn detail(&self) -> Option<String> {
        if let Some(sentence) = self.stopped() {
            return Some(sentence.to_owned());
        }
        if let Some(end) = &self.end {
            return Some(end.sentence());
        }
        if let Some(reason) = &self.held {
            return Some(reason.clone());
        }
        if self.restarting && self.state() != InstanceState::Live {
            return Some("it was ordered to restart; its runner starts it again".to_owned());
        }
        let sentence = if !self.runner {
            match (&self.refused, self.was_live) {
                (Some(reason), _) => reason.clone(),
                (None, true) => "its runner is gone; waiting for it to be started again".to_owned(),
                (None, false) => "waiting for its runner; if this stays, look at the runner's log".to_owned(),
            }
        } else if !self.monitors {
            match &self.monitors_lost {
                Some(reason) => format!("no QMP monitor: {reason}; the runner is asked for a new one"),
                None => "the runner is here; waiting for QEMU".to_owned(),
            }
        } else if !self.display {
            "QEMU runs; waiting for its display connection".to_owned()
        } else if !self.picture {
            "the display is connected; waiting for the first picture".to_owned()
        } else {
            return None;
        };
        Some(sentence)
    }

    /// Whether a seat connection stands.
    pub(crate) const fn has_runner(&self) -> bool {
        self.runner
    }

    /// Why nobody brings it back, if it was stopped on purpose.
    fn stopped(&self) -> Option<&'static str> {
        let end = self.end.as_ref()?;
        if end.asked {
            Some("it was asked to stop; start its runner to bring it back")
        } else if self.switched_off || end.code == Some(0) {
            Some("the guest switched itself off; start its runner to bring it back")
        } else {
            None
        }
    }
}

impl End {
    fn sentence(&self) -> String {
        let how = match (self.code, self.signal) {
            (_, Some(signal)) => format!("QEMU was ended by signal {signal}"),
            (Some(code), None) => format!("QEMU ended with exit code {code}"),
            (None, None) => "QEMU ended".to_owned(),
        };
        match self.stderr_tail.lines().map(str::trim).rfind(|line| !line.is_empty()) {
            Some(line) => format!("{how}: {line}; see the runner's log, its supervisor starts it again"),
            None => format!("{how}; see the runner's log, its supervisor starts it again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn end(code: i32, asked: bool) -> Fact {
        Fact::Ended(End { code: Some(code), signal: None, stderr_tail: "qemu: no such disk\n".into(), asked })
    }

    #[track_caller]
    fn check(facts: &[Fact], state: InstanceState, detail: &str) {
        let mut known = Facts::default();
        facts.iter().cloned().for_each(|fact| known.learn(fact));
        assert_eq!(known.state(), state, "{facts:?}");
        let sentence = known.detail().unwrap_or_default();
        assert!(sentence.contains(detail) && (detail.is_empty() == sentence.is_empty()), "{sentence}");
    }

    const CAME: Fact = Fact::RunnerCame { same_guest: false };
    const UP: [Fact; 4] = [CAME, Fact::MonitorsUp, Fact::DisplayUp, Fact::Picture];

    fn after(more: &[Fact]) -> Vec<Fact> {
        UP.iter().chain(more).cloned().collect()
    }

    #[test]
    fn the_way_up() {
        use InstanceState::{Live, Starting};
        check(&[], Starting, "waiting for its runner");
        check(&[Fact::RunnerRefused("no port".into())], Starting, "no port");
        check(&[Fact::RunnerRefused("no socket".into()), Fact::SocketUp], Starting, "waiting for its runner");
        check(&UP[..1], Starting, "waiting for QEMU");
        check(&UP[..2], Starting, "waiting for its display");
        check(&UP[..3], Starting, "first picture");
        check(&UP, Live, "");
        // The monitors may come last.
        check(&[CAME, Fact::DisplayUp, Fact::Picture, Fact::MonitorsUp], Live, "");
    }

    #[test]
    fn a_lost_part_is_recovering_and_comes_back() {
        use InstanceState::{Live, Recovering};
        check(&after(&[Fact::DisplayLost]), Recovering, "waiting for its display");
        check(&after(&[Fact::MonitorsLost("closed".into())]), Recovering, "no QMP monitor: closed");
        check(&after(&[Fact::RunnerGone]), Recovering, "its runner is gone");
        let hung = [Fact::MonitorsLost("no answer".into()), Fact::RunnerGone];
        let back = |same_guest| after(&hung).into_iter().chain([Fact::RunnerCame { same_guest }]).collect::<Vec<_>>();
        check(&back(true), Recovering, "no QMP monitor: no answer");
        check(&back(false), Recovering, "waiting for QEMU");
        check(&after(&[Fact::DisplayLost, Fact::DisplayUp]), Recovering, "first picture");
        check(&after(&[Fact::RunnerGone, Fact::DisplayLost]).into_iter().chain(UP).collect::<Vec<_>>(), Live, "");
    }

    #[test]
    fn an_end_is_failed_or_stopped_until_a_runner_comes_back() {
        use InstanceState::{Failed, Recovering, Starting, Stopped};
        check(&after(&[end(1, false), Fact::RunnerGone]), Failed, "exit code 1: qemu: no such disk");
        check(&after(&[end(1, false), Fact::RunnerGone, CAME]), Recovering, "waiting for QEMU");
        check(&[CAME, end(1, false), Fact::RunnerGone, CAME], Starting, "waiting for QEMU");
        check(&after(&[end(0, false)]), Stopped, "switched itself off");
        check(&after(&[Fact::GuestSwitchedOff, end(1, false)]), Stopped, "switched itself off");
        check(&after(&[end(0, true), Fact::RunnerGone]), Stopped, "asked to stop");
        check(&after(&[end(0, true), Fact::RunnerGone, CAME]), Starting, "waiting for QEMU");
    }

    #[test]
    fn a_guest_that_its_disk_holds_is_failed_in_words_and_goes_on() {
        use InstanceState::{Failed, Live, Recovering, Starting, Stopped};
        let full = Fact::Held(Some("the disk is full; free some space".into()));
        check(&[CAME, full.clone()], Failed, "free some space");
        check(&after(std::slice::from_ref(&full)), Failed, "free some space");
        check(&after(&[full.clone(), Fact::Held(None)]), Live, "");
        // Its runner's end, and a new start.
        check(&after(&[full.clone(), Fact::RunnerGone]), Recovering, "its runner is gone");
        check(&after(&[full.clone(), CAME]), Recovering, "waiting for QEMU");
        check(&after(&[full, end(0, true)]), Stopped, "asked to stop");
        check(&after(&[Fact::Restarting, Fact::RunnerGone]), Recovering, "ordered to restart");
        check(&[CAME, Fact::Restarting], Starting, "ordered to restart");
        check(&after(&[Fact::Restarting, Fact::RunnerGone]).into_iter().chain(UP).collect::<Vec<_>>(), Live, "");
    }

    fn any_fact() -> impl Strategy<Value = Fact> {
        prop_oneof![
            any::<bool>().prop_map(|same_guest| Fact::RunnerCame { same_guest }),
            any::<bool>().prop_map(|held| Fact::Held(held.then(|| "full".into()))),
            Just(Fact::Restarting),
            Just(Fact::RunnerGone),
            Just(Fact::RunnerRefused("x".into())),
            Just(Fact::SocketUp),
            Just(Fact::MonitorsUp),
            Just(Fact::MonitorsLost("x".into())),
            Just(Fact::DisplayUp),
            Just(Fact::DisplayLost),
            Just(Fact::Picture),
            Just(Fact::GuestSwitchedOff),
            (0..2i32, any::<bool>()).prop_map(|(code, asked)| end(code, asked)),
        ]
    }

    proptest! {
        /// Whatever is reported in whatever order: the words keep their meaning.
        #[test]
        fn words_mean_what_they_say(facts in proptest::collection::vec(any_fact(), 0..40)) {
            let mut known = Facts::default();
            let mut was_live = false;
            for fact in facts {
                let before = known.state();
                let held = known.held.is_some();
                known.learn(fact.clone());
                let state = known.state();
                // Live and only live has nothing to explain.
                prop_assert_eq!(state == InstanceState::Live, known.detail().is_none());
                // Only a part that arrives makes it live.
                if state == InstanceState::Live && before != InstanceState::Live {
                    prop_assert!(matches!(fact, Fact::MonitorsUp | Fact::Picture | Fact::Held(None)));
                }
                // Once ended, only a runner that comes back changes the word - or the news that it ended on purpose.
                if matches!(before, InstanceState::Failed | InstanceState::Stopped) && state != before {
                    let expected = matches!(fact, Fact::RunnerCame { .. } | Fact::GuestSwitchedOff | Fact::Ended(_));
                    let goes_on = held && matches!(fact, Fact::Held(None) | Fact::RunnerGone);
                    prop_assert!(expected || goes_on);
                }
                was_live = state == InstanceState::Live
                    || (was_live && !(matches!(fact, Fact::RunnerCame { .. }) && before == InstanceState::Stopped));
                // Recovering is said only of what was live, starting only of what was not.
                prop_assert!(state != InstanceState::Recovering || was_live);
                prop_assert!(state != InstanceState::Starting || !was_live);
                // From anywhere, a full set of parts is live.
                let mut up = known.clone();
                UP.iter().cloned().for_each(|fact| up.learn(fact));
                prop_assert_eq!(up.state(), InstanceState::Live);
            }
        }
    }
}
