//! Orders to a runner: restart its guest, or reset its disk. Asked by HTTP, carried to the runner by the seat connection.
//!
//! ```text
//! HTTP ──OrderRequest──> actor ──Order {id}──> runner ──Took {id}──> actor ──> HTTP: 202, or why not
//! ```
//! **Invariants.** One order is under way at a time; a second one is refused in words, never queued: who orders a reset means now.
use seat::Order;
use tokio::{sync::oneshot, time::Duration};

/// Orders that may wait for the actor, which takes them at once. Full = the asker waits.
pub(super) const ORDERS_MAX: usize = 2;
/// A runner answers before it acts; it may be in a hand-over, whose waits are a few seconds each.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(7);

#[derive(Debug)]
pub(super) struct OrderRequest {
    pub(super) order: Order,
    pub(super) reply: oneshot::Sender<Result<(), String>>,
}

/// The order that is under way.
#[derive(Debug, Default)]
pub(super) struct Pending {
    last_id: u64,
    reply: Option<oneshot::Sender<Result<(), String>>>,
}

impl Pending {
    /// Takes an order on, and gives its number; `None` = one is under way, which has been said.
    pub(super) fn begin(&mut self, reply: oneshot::Sender<Result<(), String>>) -> Option<u64> {
        // An asker that gave up no longer waits: its place is free.
        if self.reply.as_ref().is_some_and(|reply| !reply.is_closed()) {
            // The asker may have gone away; then nobody needs the answer.
            reply.send(Err("another order is under way; ask again in a moment".to_owned())).ok();
            return None;
        }
        self.last_id += 1;
        self.reply = Some(reply);
        Some(self.last_id)
    }

    /// The runner's answer to order `id`. One that is late, or to no order, changes nothing.
    pub(super) fn answered(&mut self, id: u64, refused: Option<String>) {
        if id == self.last_id {
            self.end(refused.map_or(Ok(()), Err));
        }
    }

    /// The connection is gone: nobody will answer.
    pub(super) fn end(&mut self, outcome: Result<(), String>) {
        if let Some(reply) = self.reply.take() {
            // The asker may have gone away; the order is carried out all the same.
            reply.send(outcome).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_order_at_a_time_and_only_its_own_answer_counts() {
        let mut pending = Pending::default();
        let (reply, answer) = oneshot::channel();
        let id = pending.begin(reply).unwrap();
        let (second, refused) = oneshot::channel();
        assert_eq!(pending.begin(second), None);
        assert!(refused.await.unwrap().unwrap_err().contains("under way"));
        pending.answered(id + 1, None);
        pending.answered(id, Some("no".into()));
        assert_eq!(answer.await.unwrap(), Err("no".to_owned()));
        // Nothing is under way any more, and a late answer harms nobody.
        pending.answered(id, None);
        let (reply, answer) = oneshot::channel();
        drop(answer);
        let gone = pending.begin(reply).unwrap();
        let (reply, answer) = oneshot::channel();
        let id = pending.begin(reply).unwrap();
        pending.answered(gone, None);
        pending.answered(id, None);
        assert_eq!(answer.await.unwrap(), Ok(()));
    }
}
