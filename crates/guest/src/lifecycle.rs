//! What a runner does next. Pure: facts go in, actions come out; the runner carries them out and reports what happened.
//!
//! ```text
//! WaitingPort --port--> Starting --monitor--> Running ---stop---> Stopping(power) --late--> Stopping(quit) --late-->
//!      |                    |                    |                      |                        |       Stopping(kill)
//!      stop                 +------ QEMU ended --+----------------------+------------------------+-------------+
//!      v                                         v
//!    Ended(0)                   Ended(code), or, if a restart was ordered: WaitingPort
//! ```
//!
//! **Invariants.** One QEMU at a time. It is started again only by order: after a failure the runner is restarted from
//! outside (supervisor or kubelet), where it is seen; and being asked to stop outweighs an order to restart. What was asked for ends with 0; so does a guest that switched itself off; anything else ends with 1. `Ended`
//! is final. A step of stopping that comes too late is followed by a harder one, never by waiting again.
use std::time::Duration;

/// Time for the guest to switch itself off after the power button, unless told otherwise.
pub const POWER_LIMIT: Duration = Duration::from_secs(10);
/// Time for QEMU to end after `quit`; it flushes disks.
pub const QUIT_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    WaitingPort,
    Starting,
    Running,
    Stopping(Step),
    /// With the runner's exit code.
    Ended(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Power,
    Quit,
    Kill,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// The agent gave a port.
    PortGranted,
    /// QEMU's monitor answered for the first time.
    MonitorUp,
    /// QEMU could not be started, or its monitor did not come up.
    StartFailed,
    /// The runner's monitor connection broke while QEMU should run.
    MonitorLost,
    /// SIGTERM. A second one means: now.
    StopAsked,
    /// Switch the guest off in order and start it again.
    RestartAsked,
    /// The current step took longer than its limit.
    Late,
    /// QEMU's process ended; `clean` = with status 0.
    QemuEnded { clean: bool },
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    StartQemu,
    /// QMP `system_powerdown`, and be [`Fact::Late`] after the power limit.
    PressPower,
    /// QMP `quit`, and be late after [`QUIT_LIMIT`].
    Quit,
    /// SIGKILL.
    Kill,
    /// Tell the agent how QEMU ended, then ask for a port anew.
    Again,
    /// Tell the agent how QEMU ended, then exit.
    Exit(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifecycle {
    state: State,
    asked: bool,
    again: bool,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { state: State::WaitingPort, asked: false, again: false }
    }
}

impl Lifecycle {
    pub const fn state(&self) -> State {
        self.state
    }

    /// Somebody asked for the end, so it is no failure.
    pub const fn asked(&self) -> bool {
        self.asked
    }

    /// QEMU is started anew when it has ended: a restart was ordered.
    pub const fn comes_back(&self) -> bool {
        self.again
    }

    /// QEMU has been started, so the port is in use.
    pub const fn has_port(&self) -> bool {
        !matches!(self.state, State::WaitingPort | State::Ended(_))
    }

    /// Takes a fact. At most one action follows from each.
    pub fn take(&mut self, fact: Fact) -> Option<Action> {
        use Fact as F;
        use State as S;
        if fact == F::StopAsked {
            self.asked = true;
            if std::mem::take(&mut self.again) && self.state == S::Stopping(Step::Power) {
                // The guest is switching itself off already; its time runs.
                return None;
            }
        }
        let (state, action) = match (self.state, fact) {
            (S::WaitingPort, F::PortGranted) => (S::Starting, Action::StartQemu),
            (S::WaitingPort, F::StopAsked) => (S::Ended(0), Action::Exit(0)),
            (S::WaitingPort, F::StartFailed) => (S::Ended(1), Action::Exit(1)),
            (S::Ended(_) | S::WaitingPort, _) => return None,
            (_, F::QemuEnded { .. }) if std::mem::take(&mut self.again) => (S::WaitingPort, Action::Again),
            (_, F::QemuEnded { clean }) => {
                let code = u8::from(!(clean || self.asked));
                (S::Ended(code), Action::Exit(code))
            }
            (S::Starting, F::MonitorUp) => {
                self.state = S::Running;
                return None;
            }
            // No monitor: nothing can be asked of QEMU but its end.
            (S::Starting | S::Running, F::StartFailed | F::MonitorLost) | (S::Starting, F::StopAsked) => {
                (S::Stopping(Step::Kill), Action::Kill)
            }
            (S::Running, F::StopAsked) => (S::Stopping(Step::Power), Action::PressPower),
            (S::Running, F::RestartAsked) => {
                self.again = true;
                (S::Stopping(Step::Power), Action::PressPower)
            }
            (S::Starting, F::RestartAsked) => {
                self.again = true;
                (S::Stopping(Step::Kill), Action::Kill)
            }
            (S::Stopping(Step::Power), F::StopAsked | F::Late) => (S::Stopping(Step::Quit), Action::Quit),
            (S::Stopping(Step::Quit), F::StopAsked | F::Late) => (S::Stopping(Step::Kill), Action::Kill),
            // The monitor closes as QEMU ends: the end itself is the fact that counts, and it has a limit.
            (S::Starting | S::Running | S::Stopping(_), _) => return None,
        };
        self.state = state;
        Some(action)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FACTS: [Fact; 9] = [
        Fact::PortGranted,
        Fact::MonitorUp,
        Fact::StartFailed,
        Fact::MonitorLost,
        Fact::StopAsked,
        Fact::RestartAsked,
        Fact::Late,
        Fact::QemuEnded { clean: true },
        Fact::QemuEnded { clean: false },
    ];

    #[track_caller]
    fn check(facts: &[Fact], want: &[Action]) {
        let mut life = Lifecycle::default();
        let actions: Vec<Action> = facts.iter().filter_map(|fact| life.take(*fact)).collect();
        assert_eq!(actions, want, "{facts:?} ended in {:?}", life.state());
    }

    #[test]
    fn the_ways_through() {
        use Action as A;
        use Fact as F;
        let (clean, crash) = (F::QemuEnded { clean: true }, F::QemuEnded { clean: false });
        let up = [F::PortGranted, F::MonitorUp];
        let with = |rest: &[Fact]| [&up[..], rest].concat();
        check(&[F::StopAsked], &[A::Exit(0)]);
        check(&with(&[clean]), &[A::StartQemu, A::Exit(0)]);
        check(&with(&[crash]), &[A::StartQemu, A::Exit(1)]);
        check(&with(&[F::StopAsked, clean]), &[A::StartQemu, A::PressPower, A::Exit(0)]);
        check(
            &with(&[F::StopAsked, F::Late, F::MonitorLost, F::Late, crash]),
            &[A::StartQemu, A::PressPower, A::Quit, A::Kill, A::Exit(0)],
        );
        check(&with(&[F::StopAsked, F::StopAsked, clean]), &[A::StartQemu, A::PressPower, A::Quit, A::Exit(0)]);
        check(&with(&[F::MonitorLost, crash]), &[A::StartQemu, A::Kill, A::Exit(1)]);
        check(&[F::PortGranted, F::StartFailed, crash], &[A::StartQemu, A::Kill, A::Exit(1)]);
        check(&[F::PortGranted, F::StopAsked, crash], &[A::StartQemu, A::Kill, A::Exit(0)]);
        // By order, again and again; being asked to stop outweighs it, and does not take the guest's time away.
        let again = [F::RestartAsked, clean, F::PortGranted, F::MonitorUp, F::RestartAsked, F::Late, crash];
        check(&with(&again), &[A::StartQemu, A::PressPower, A::Again, A::StartQemu, A::PressPower, A::Quit, A::Again]);
        check(&with(&[F::RestartAsked, F::StopAsked, clean]), &[A::StartQemu, A::PressPower, A::Exit(0)]);
        check(&with(&[F::StopAsked, F::RestartAsked, clean]), &[A::StartQemu, A::PressPower, A::Exit(0)]);
        check(&[F::PortGranted, F::RestartAsked, crash], &[A::StartQemu, A::Kill, A::Again]);
        check(&[F::RestartAsked, F::StopAsked], &[A::Exit(0)]);
    }

    proptest! {
        #[test]
        fn whatever_happens(facts in proptest::collection::vec(proptest::sample::select(FACTS.to_vec()), 0..30)) {
            let mut life = Lifecycle::default();
            let (mut starts, mut agains, mut exits, mut step) = (0, 0, 0, None);
            for fact in facts {
                let ended = matches!(life.state(), State::Ended(_));
                let action = life.take(fact);
                prop_assert!(!(ended && action.is_some()), "Ended is final");
                starts += usize::from(action == Some(Action::StartQemu));
                if action == Some(Action::Again) {
                    agains += 1;
                    step = None;
                    prop_assert!(!life.asked() && life.state() == State::WaitingPort);
                }
                if let Some(Action::Exit(code)) = action {
                    exits += 1;
                    prop_assert!(code == 0 || !life.asked(), "what was asked for is no failure");
                    prop_assert_eq!(life.state(), State::Ended(code));
                }
                if let State::Stopping(now) = life.state() {
                    prop_assert!(step <= Some(now), "never a softer step after a harder one");
                    step = Some(now);
                }
            }
            prop_assert!(starts <= 1 + agains && exits <= 1);
            // From wherever this is, being asked and late and told of the end suffices.
            for fact in [Fact::StopAsked, Fact::Late, Fact::Late, Fact::QemuEnded { clean: false }] {
                life.take(fact);
            }
            prop_assert!(matches!(life.state(), State::Ended(_)));
        }
    }
}
