//! Where a marked frame is seen in the switch: at a guest's port and at the mesh, in and out. As `fabric::trace` for devices.
//!
//! **Invariants.** Only who asked for it looks into frames, and only for the time that was asked for. Looking changes no frame.
use std::{cell::RefCell, rc::Rc, time::Instant};

use fabric::trace::{ASK_EVERY, HEAD_START, Sighting};
use model::{MacAddr, Vni};
use tokio::time::{sleep, sleep_until};
use wire::class::Octets as _;

use super::{SwitchError, TraceRequest, Way, node::Node};

/// The mesh, as a [`Sighting`]'s device; ports have their instance's name.
pub const MESH: &str = "mesh";
/// Frames that are followed at a time. Full = [`SwitchError::Busy`]: a person asks again.
const WATCHES_MAX: usize = 4;

/// The frames that are looked for.
#[derive(Default)]
pub(super) struct Watches {
    list: Vec<Watch>,
    started: u64,
}

struct Watch {
    number: u64,
    vni: Vni,
    mark: Vec<u8>,
    sightings: Vec<Sighting>,
}

impl Watches {
    /// A frame of the LAN at `device`.
    pub(super) fn note(&mut self, vni: Vni, device: &str, way: Way, frame: &[u8]) {
        for watch in self.list.iter_mut().filter(|watch| watch.vni == vni) {
            let is_marked = frame.windows(watch.mark.len().max(1)).any(|window| window == watch.mark);
            let Some(source) = frame.octets::<6>(6).filter(|_| is_marked) else { continue };
            let sighting = Sighting { device: device.to_owned(), outgoing: way == Way::Out, source: MacAddr(source) };
            if !watch.sightings.contains(&sighting) {
                watch.sightings.push(sighting);
            }
        }
    }

    fn begin(&mut self, vni: Vni, mark: Vec<u8>) -> Option<u64> {
        if self.list.len() >= WATCHES_MAX {
            return None;
        }
        self.started += 1;
        self.list.push(Watch { number: self.started, vni, mark, sightings: Vec::new() });
        Some(self.started)
    }

    fn end(&mut self, number: u64) -> Vec<Sighting> {
        let index = self.list.iter().position(|watch| watch.number == number);
        index.map_or_else(Vec::new, |index| self.list.swap_remove(index).sightings)
    }
}

/// Watches for as long as was asked, and meanwhile puts the question to its guest.
pub(super) async fn follow(node: Rc<RefCell<Node>>, request: TraceRequest) {
    let TraceRequest { lan, ask, mark, limit, reply } = request;
    let begun = {
        let mut node = node.borrow_mut();
        node.vni(&lan).ok_or(SwitchError::NoLan(lan)).and_then(|vni| {
            let number = node.eyes.watches.begin(vni, mark).ok_or(SwitchError::Busy)?;
            Ok((vni, number))
        })
    };
    let (vni, number) = match begun {
        Ok(begun) => begun,
        // Who asked may have gone.
        Err(error) => return drop(reply.send(Err(error))),
    };
    let end = Instant::now() + limit;
    if let Some((instance, question)) = ask {
        sleep(HEAD_START).await;
        while Instant::now() + ASK_EVERY < end {
            node.borrow_mut().give_to_guest(vni, &instance, &question);
            sleep(ASK_EVERY).await;
        }
    }
    sleep_until(end.into()).await;
    drop(reply.send(Ok(node.borrow_mut().eyes.watches.end(number))));
}
