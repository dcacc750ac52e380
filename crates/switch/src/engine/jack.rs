//! Where a cable goes in: a guest's, or that of a foreign machine. Its two tasks, what waits for it, and what was counted.
use std::{cell::RefCell, rc::Rc, time::Duration};

use fabric::PortCounters;
use model::Vni;
use tokio::{
    sync::Notify,
    task::{AbortHandle, spawn_local, yield_now},
};

use super::{
    node::{BUFFER_LEN, FRAMES_AT_ONCE, Node},
    outlet::{Gave, Outlet, Wake},
    port::{FrameSocket, Sent},
};
use crate::table::Port;

pub(super) struct Jack {
    plugged: Option<Plugged>,
    outlet: Outlet,
    pub(super) counters: PortCounters,
}

/// A cable in its jack. Dropping it ends its tasks.
struct Plugged {
    socket: Rc<FrameSocket>,
    wake: Wake,
    tasks: [AbortHandle; 2],
}

impl Drop for Plugged {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Jack {
    /// Whose cable is expected soon.
    pub(super) fn new(now: Duration) -> Self {
        Self { plugged: None, outlet: Outlet::new(now), counters: PortCounters::default() }
    }

    pub(super) const fn is_plugged(&self) -> bool {
        self.plugged.is_some()
    }

    /// One that was plugged in before is unplugged.
    pub(super) fn plug(&mut self, node: &Rc<RefCell<Node>>, vni: Vni, port: Port, socket: Rc<FrameSocket>) {
        let wake = Wake::new(Notify::new());
        let reader = spawn_local(read(Rc::clone(node), vni, port, Rc::clone(&socket)));
        let writer = spawn_local(write(Rc::clone(node), vni, port, Rc::clone(&socket), Rc::clone(&wake)));
        self.outlet.plugged();
        wake.notify_one();
        self.plugged = Some(Plugged { socket, wake, tasks: [reader.abort_handle(), writer.abort_handle()] });
    }

    /// Whether `socket` is the one that is plugged in; another one may have been since.
    pub(super) fn has(&self, socket: &Rc<FrameSocket>) -> bool {
        self.plugged.as_ref().is_some_and(|plugged| Rc::ptr_eq(&plugged.socket, socket))
    }

    /// The cable that was in it. What waited to go out by it is nobody's.
    pub(super) fn unplug(&mut self) -> Option<Rc<FrameSocket>> {
        self.outlet.unplugged();
        self.plugged.take().map(|plugged| Rc::clone(&plugged.socket))
    }

    /// A frame for whom is at the other end. `false`: it gets there in no case.
    pub(super) fn give(&mut self, now: Duration, frame: &[u8]) -> bool {
        let socket = self.plugged.as_ref().map(|plugged| &*plugged.socket);
        match self.outlet.give(now, socket, frame) {
            Gave::There => {
                self.counters.rx_frames += 1;
                self.counters.rx_bytes += frame.len() as u64;
            }
            Gave::Waits => {
                if let Some(plugged) = &self.plugged {
                    plugged.wake.notify_one();
                }
            }
            Gave::Lost => {
                self.counters.rx_dropped += 1;
                return false;
            }
            // If its socket has ended, its reader sees the same and says so.
            Gave::Nowhere => return false,
        }
        true
    }

    /// A frame of whom is at the other end was taken.
    pub(super) const fn took(&mut self, frame: &[u8]) {
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += frame.len() as u64;
    }

    fn drain(&mut self, socket: &FrameSocket) -> Sent {
        let Self { outlet, counters, .. } = self;
        outlet.drain(socket, |len| {
            counters.rx_frames += 1;
            counters.rx_bytes += len as u64;
        })
    }
}

/// Frames that did not find room at once.
async fn write(node: Rc<RefCell<Node>>, vni: Vni, port: Port, socket: Rc<FrameSocket>, wake: Wake) {
    loop {
        wake.notified().await;
        let drained = socket
            .when_writable(|socket| node.borrow_mut().jack(vni, port).map_or(Sent::Gone, |jack| jack.drain(socket)));
        if drained.await.is_err() {
            return;
        }
    }
}

/// Frames that come in, until the other end is gone.
async fn read(node: Rc<RefCell<Node>>, vni: Vni, port: Port, socket: Rc<FrameSocket>) {
    let mut buffer = [0; BUFFER_LEN];
    let mut in_a_row = 0;
    while let Ok(len @ 1..) = socket.receive(&mut buffer).await {
        node.borrow_mut().take(vni, port, &buffer[..len]);
        in_a_row += 1;
        if in_a_row >= FRAMES_AT_ONCE {
            in_a_row = 0;
            yield_now().await;
        }
    }
    node.borrow_mut().unplug(vni, port, &socket);
}
