//! One instance's input desk: applies the rules of [`controls`](super::controls) and queues what the guest must get.
//!
//! **Full queue:** keys and buttons are never dropped. If the agent does not keep up, all that is held is released as
//! soon as there is room, and the session is ended in words. Pointer movement waits instead: the next total holds it.
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{mpsc, watch};

use super::{
    Done, Injection, InputEvent,
    controls::{Controls, Pointer, Refused, home_steps},
    message::{FromBrowser, PointerTotals},
};
use crate::{Role, Screen, SessionId};

/// A PS/2 mouse is read 100 times a second.
const HOME_STEP: Duration = Duration::from_millis(8);

/// The agent does not take injections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest does not take input")]
pub(crate) struct Stuck;

#[derive(Debug)]
pub(crate) struct Desk {
    controls: Mutex<Controls>,
    injections: mpsc::Sender<Injection>,
    /// Bumped when the lease changes hands.
    lease: watch::Sender<u64>,
    screen: Arc<Screen>,
}

/// One session's place at the desk.
#[derive(Debug)]
pub(crate) struct Player {
    desk: Arc<Desk>,
    session: SessionId,
    role: Role,
    pointer: Mutex<Pointer>,
    homing: AtomicBool,
}

impl Desk {
    pub(crate) fn new(injections: mpsc::Sender<Injection>, screen: Arc<Screen>) -> Arc<Self> {
        Arc::new(Self { controls: Mutex::default(), injections, lease: watch::Sender::new(0), screen })
    }

    fn lock(&self) -> MutexGuard<'_, Controls> {
        self.controls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn holder(&self) -> Option<SessionId> {
        self.lock().holder().cloned()
    }

    pub(crate) fn lease_changes(&self) -> watch::Receiver<u64> {
        self.lease.subscribe()
    }

    /// Releases whatever is down; the guest is being taken away or is back after a crash.
    pub(crate) fn release_all(&self) {
        let releases = self.lock().release_all();
        self.release(releases);
    }

    /// Queues events in order. Call it with the controls locked, so that two tasks cannot swap.
    fn queue(
        &self,
        events: Vec<InputEvent>,
        n: Option<u64>,
        received: SystemTime,
        done: Option<Done>,
    ) -> Result<(), Stuck> {
        if events.is_empty() {
            return Ok(());
        }
        self.injections.try_send(Injection::new(events, n, received, done)).map_err(|_| Stuck)
    }

    /// Releases must arrive, however long the queue is: they wait for room.
    fn release(&self, releases: Vec<InputEvent>) {
        if releases.is_empty() {
            return;
        }
        let injection = Injection::new(releases, None, SystemTime::now(), None);
        if let Err(mpsc::error::TrySendError::Full(injection)) = self.injections.try_send(injection) {
            let injections = self.injections.clone();
            // Closed while waiting: then there is no guest to release anything for.
            tokio::spawn(async move { injections.send(injection).await.ok() });
        }
    }
}

impl Player {
    pub(crate) fn new(desk: &Arc<Desk>, session: SessionId, role: Role) -> Arc<Self> {
        Arc::new(Self {
            desk: Arc::clone(desk),
            session,
            role,
            pointer: Mutex::default(),
            homing: AtomicBool::new(false),
        })
    }

    /// How the lease looks to this session.
    pub(crate) fn lease_word(&self) -> &'static str {
        self.desk.lock().word_for(&self.session)
    }

    pub(crate) fn take(&self, now: Instant) -> Result<(), Refused> {
        let releases = self.desk.lock().take(&self.session, self.role, now)?;
        self.desk.release(releases);
        self.changed();
        Ok(())
    }

    /// Gives the lease back, if this session has it.
    pub(crate) fn give(&self) {
        let mut controls = self.desk.lock();
        if controls.holder() != Some(&self.session) {
            return;
        }
        let releases = controls.give(&self.session);
        drop(controls);
        self.desk.release(releases);
        self.changed();
    }

    fn changed(&self) {
        self.desk.lease.send_modify(|n| *n += 1);
    }

    /// When [`Self::expire`] is due, if this session holds anything down.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let controls = self.desk.lock();
        (controls.holder() == Some(&self.session)).then(|| controls.deadline()).flatten()
    }

    /// Releases everything if reports stopped coming; says whether it did.
    pub(crate) fn expire(&self, now: Instant) -> bool {
        let releases = self.desk.lock().expire(now);
        let any = !releases.is_empty();
        self.desk.release(releases);
        any
    }

    /// Input of the channel `keys`. What the lease does not allow is ignored: the page hears of the lease by itself.
    pub(crate) fn input(
        self: &Arc<Self>,
        message: FromBrowser,
        received: SystemTime,
        now: Instant,
        trace: impl FnOnce(u64) -> Option<Done>,
    ) -> Result<(), Stuck> {
        let mut controls = self.desk.lock();
        if !controls.accepts(&self.session, now) {
            return Ok(());
        }
        let (events, n) = match message {
            FromBrowser::Key { code, down, n } => (controls.key(code, down, now).into_iter().collect(), n),
            FromBrowser::Button { button, down, n } => (controls.button(button, down, now).into_iter().collect(), n),
            FromBrowser::Wheel { dy } => (vec![InputEvent::Wheel { dy }], None),
            FromBrowser::Held { codes, buttons } => {
                let releases = controls.report(&codes, &buttons, now);
                drop(controls);
                self.desk.release(releases);
                return Ok(());
            }
            FromBrowser::Home { x, y } => {
                drop(controls);
                self.home(x, y);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let done = if events.is_empty() { None } else { n.and_then(trace) };
        if self.desk.queue(events, n, received, done).is_ok() {
            return Ok(());
        }
        let releases = controls.give(&self.session);
        drop(controls);
        self.desk.release(releases);
        self.changed();
        Err(Stuck)
    }

    /// A total of the channel `pointer`.
    pub(crate) fn pointer(&self, totals: PointerTotals, received: SystemTime, now: Instant) {
        let mut controls = self.desk.lock();
        let mine = controls.holder() == Some(&self.session);
        if mine && (self.homing.load(Ordering::Acquire) || self.desk.injections.capacity() == 0) {
            return;
        }
        let mut pointer = self.pointer.lock().unwrap_or_else(PoisonError::into_inner);
        // Totals count even without the lease, or the first movement after `take` would be a jump.
        let Some((dx, dy)) = pointer.delta(totals) else { return };
        if mine {
            controls.accepts(&self.session, now);
            // Room was there, and only the lock's owner sends.
            self.desk.queue(vec![InputEvent::Move { dx, dy }], None, received, None).ok();
        }
    }

    fn home(self: &Arc<Self>, x: u32, y: u32) {
        self.pointer.lock().unwrap_or_else(PoisonError::into_inner).home();
        let Some(size) = *self.desk.screen.size().borrow() else { return };
        if self.homing.swap(true, Ordering::AcqRel) {
            return;
        }
        let player = Arc::clone(self);
        tokio::spawn(async move {
            for (dx, dy) in home_steps(size.width, size.height, x, y) {
                if player.desk.holder().as_ref() != Some(&player.session) {
                    break;
                }
                let step = Injection::new(vec![InputEvent::Move { dx, dy }], None, SystemTime::now(), None);
                if player.desk.injections.send(step).await.is_err() {
                    break;
                }
                tokio::time::sleep(HOME_STEP).await;
            }
            player.homing.store(false, Ordering::Release);
        });
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.give();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MouseButton;

    struct Table {
        desk: Arc<Desk>,
        queue: mpsc::Receiver<Injection>,
    }

    fn table(room: usize) -> Table {
        let (tx, queue) = mpsc::channel(room);
        Table { desk: Desk::new(tx, Screen::new()), queue }
    }

    impl Table {
        fn got(&mut self) -> Vec<InputEvent> {
            std::iter::from_fn(|| self.queue.try_recv().ok()).flat_map(|i| i.events).collect()
        }
    }

    fn key(code: &str, down: bool) -> FromBrowser {
        FromBrowser::Key { code: code.into(), down, n: None }
    }

    fn event(code: &str, down: bool) -> InputEvent {
        InputEvent::Key { code: code.into(), down }
    }

    fn play(player: &Arc<Player>, message: FromBrowser) -> Result<(), Stuck> {
        player.input(message, SystemTime::now(), Instant::now(), |_| None)
    }

    #[tokio::test]
    async fn only_the_holder_plays_and_a_gone_player_leaves_nothing_down() {
        let mut table = table(16);
        let a = Player::new(&table.desk, SessionId::random(), Role::Play);
        let b = Player::new(&table.desk, SessionId::random(), Role::View);
        play(&a, key("KeyA", true)).unwrap();
        assert_eq!(table.got(), [], "no lease yet");
        a.take(Instant::now()).unwrap();
        assert_eq!(b.take(Instant::now()), Err(Refused::Role));
        play(&a, key("KeyA", true)).unwrap();
        play(&b, key("KeyB", true)).unwrap();
        play(&a, FromBrowser::Button { button: MouseButton::Left, down: true, n: None }).unwrap();
        let left = |down| InputEvent::Button { button: MouseButton::Left, down };
        assert_eq!(table.got(), [event("KeyA", true), left(true)]);
        assert_eq!((a.lease_word(), b.lease_word()), ("you", "other"));
        drop(a);
        assert_eq!(table.got(), [event("KeyA", false), left(false)]);
        assert_eq!(b.lease_word(), "free");
    }

    #[tokio::test]
    async fn a_full_queue_ends_the_session_and_releases_what_it_held() {
        let mut table = table(2);
        let a = Player::new(&table.desk, SessionId::random(), Role::Play);
        a.take(Instant::now()).unwrap();
        play(&a, key("KeyA", true)).unwrap();
        play(&a, key("KeyB", true)).unwrap();
        a.pointer(PointerTotals { x: 5, y: 5, sequence: 1 }, SystemTime::now(), Instant::now());
        assert_eq!(play(&a, key("KeyC", true)), Err(Stuck));
        assert_eq!(table.desk.holder(), None);
        let mut got = Vec::new();
        while got.len() < 5 {
            got.extend(table.queue.recv().await.unwrap().events);
        }
        let want = [("KeyA", true), ("KeyB", true), ("KeyA", false), ("KeyB", false), ("KeyC", false)];
        assert_eq!(got, want.map(|(code, down)| event(code, down)));
        a.take(Instant::now()).unwrap();
        a.pointer(PointerTotals { x: 6, y: 5, sequence: 2 }, SystemTime::now(), Instant::now());
        assert_eq!(table.got(), [InputEvent::Move { dx: 6, dy: 5 }], "movement waited for room");
    }

    #[tokio::test]
    async fn totals_before_the_lease_are_no_jump() {
        let mut table = table(4);
        let a = Player::new(&table.desk, SessionId::random(), Role::Play);
        let now = Instant::now();
        a.pointer(PointerTotals { x: 500, y: 500, sequence: 1 }, SystemTime::now(), now);
        a.take(now).unwrap();
        a.pointer(PointerTotals { x: 503, y: 499, sequence: 2 }, SystemTime::now(), now);
        assert_eq!(table.got(), [InputEvent::Move { dx: 3, dy: -1 }]);
    }

    #[tokio::test]
    async fn homing_reaches_its_goal_and_holds_other_movement_back() {
        let mut table = table(64);
        let layout = crate::frame::Layout::checked(crate::Size { width: 100, height: 50 }, 400, 0x2002_0888).unwrap();
        table.desk.screen.scanout(crate::Size { width: 100, height: 50 }, layout, &vec![0; 20_000]).unwrap();
        let a = Player::new(&table.desk, SessionId::random(), Role::Play);
        a.take(Instant::now()).unwrap();
        play(&a, FromBrowser::Home { x: 30, y: 20 }).unwrap();
        a.pointer(PointerTotals { x: 2, y: 0, sequence: 1 }, SystemTime::now(), Instant::now());
        let mut place = (99, 49);
        while place != (30, 20) {
            let Some(InputEvent::Move { dx, dy }) = table.queue.recv().await.unwrap().events.pop() else { panic!() };
            place = ((place.0 + dx).clamp(0, 99), (place.1 + dy).clamp(0, 49));
        }
        let mut sequence = 2;
        let after = loop {
            a.pointer(PointerTotals { x: 3, y: 0, sequence }, SystemTime::now(), Instant::now());
            sequence += 1;
            match tokio::time::timeout(Duration::from_millis(5), table.queue.recv()).await {
                Ok(injection) => break injection.unwrap().events,
                Err(_) => assert!(sequence < 1000, "homing never ended"),
            }
        };
        assert_eq!(after, [InputEvent::Move { dx: 3, dy: 0 }], "what was held back is in the next total");
    }
}
