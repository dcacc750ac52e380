//! Frames that are counted while something is done to an agent.
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use testkit::{Frame, Numbered, Tap, eventually};

use crate::rig::SOON;

const fn mac(seat: u8) -> [u8; 6] {
    [0x02, 0x4c, 0x00, 0x10, 0x68, seat + 1]
}

/// Numbered frames, one each 2 ms, from one seat that the test holds to another; each is counted where it arrives.
pub(crate) struct Flow {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    seen: Arc<Mutex<BTreeMap<u32, u32>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Flow {
    pub(crate) fn start(from: u8, source: Arc<Tap>, to: u8, sink: Arc<Tap>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU32::new(0));
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let (stopped, count, numbers) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&seen));
        let sender = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(2));
            while !stopped.load(Ordering::Relaxed) {
                tick.tick().await;
                let number = Numbered { kind: to, sender: from, sequence: count.load(Ordering::Relaxed) };
                source.send(&Frame::ethernet(mac(to), mac(from), number, 200)).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let receiver = tokio::spawn(async move {
            while let Ok(frame) = sink.receive().await {
                if let Some(n) = Numbered::find(&frame).filter(|n| n.sender == from && n.kind == to) {
                    *numbers.lock().unwrap().entry(n.sequence).or_default() += 1;
                }
            }
        });
        Self { stop, sent, seen, tasks: vec![sender, receiver] }
    }

    /// Waits until `count` more frames were sent.
    pub(crate) async fn goes_on(&self, count: u32) {
        let until = self.sent.load(Ordering::Relaxed) + count;
        eventually(SOON, || (self.sent.load(Ordering::Relaxed) >= until).then_some(())).await.unwrap();
    }

    /// Ends it; every frame must have come, and once. Gives how many were sent.
    pub(crate) async fn lost_nothing(self, way: &str) -> u32 {
        let (sent, lost, doubled) = self.end().await;
        assert_eq!((lost, doubled), (0, 0), "{way}, of {sent}: lost, doubled");
        sent
    }

    /// Ends it: frames sent, frames lost, frames that came more than once.
    pub(crate) async fn end(mut self) -> (u32, u32, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.remove(0).await.unwrap();
        let sent = self.sent.load(Ordering::Relaxed);
        let all = || (self.seen.lock().unwrap().len() >= sent as usize).then_some(());
        // What is not there by then is lost.
        eventually(Duration::from_secs(5), all).await.ok();
        self.tasks.remove(0).abort();
        let seen = self.seen.lock().unwrap();
        let lost = sent - u32::try_from(seen.len()).unwrap();
        (sent, lost, seen.values().filter(|count| **count > 1).count())
    }
}
