//! A thread that owns all state of its part, and the queue by which it is asked.
//!
//! **Invariants.** The thread ends when its queue is closed, and nobody else closes it. Dropping waits for the end, so that a successor
//! never meets its predecessor. Nothing that can panic is done while the lock is held.
use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use tokio::sync::{mpsc, oneshot};

/// A running thread and its queue.
#[derive(Debug)]
pub struct Worker<R> {
    name: &'static str,
    /// `None` once it was told to end.
    running: Mutex<Option<Running<R>>>,
}

#[derive(Debug)]
struct Running<R> {
    requests: mpsc::Sender<R>,
    thread: thread::JoinHandle<()>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// So many wait already.
    Full,
    /// The thread has ended, or did with the question in its hands.
    Ended,
}

impl<R: Send + 'static> Worker<R> {
    /// Starts `work`, which runs until its queue of `requests_max` is closed.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(
        name: &'static str,
        requests_max: usize,
        work: impl FnOnce(mpsc::Receiver<R>) + Send + 'static,
    ) -> io::Result<Self> {
        let (requests, queue) = mpsc::channel(requests_max);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(queue))?;
        Ok(Self { name, running: Mutex::new(Some(Running { requests, thread })) })
    }

    /// Puts a request, and waits for its answer.
    ///
    /// # Errors
    /// When it will have none.
    pub async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> R) -> Result<T, Unanswered> {
        let (reply, answer) = oneshot::channel();
        let requests = self.running().as_ref().map(|running| running.requests.clone()).ok_or(Unanswered::Ended)?;
        requests.try_send(request(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unanswered::Full,
            mpsc::error::TrySendError::Closed(_) => Unanswered::Ended,
        })?;
        drop(requests);
        answer.await.map_err(|_| Unanswered::Ended)
    }

    /// Ends the thread and waits for it, while others still hold this. A second call does nothing.
    pub async fn end(&self) {
        let (running, name) = (self.running().take(), self.name);
        if let Some(running) = running {
            // It cannot fail but by a panic, which ends the thread's business as well.
            tokio::task::spawn_blocking(move || end(name, running)).await.ok();
        }
    }
}

impl<R> Worker<R> {
    fn running(&self) -> MutexGuard<'_, Option<Running<R>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> Drop for Worker<R> {
    fn drop(&mut self) {
        if let Some(running) = self.running().take() {
            end(self.name, running);
        }
    }
}

/// Closing the queue is the signal to end.
fn end<R>(name: &str, Running { requests, thread }: Running<R>) {
    drop(requests);
    if thread.join().is_err() {
        tracing::error!(thread = name, "a thread of the LAN had panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Question = oneshot::Sender<u32>;

    fn answering(mut queue: mpsc::Receiver<Question>) {
        while let Some(reply) = queue.blocking_recv() {
            // Who asked may have gone.
            reply.send(7).ok();
        }
    }

    #[tokio::test]
    async fn what_is_asked_is_answered_until_the_end() {
        let worker: Worker<Question> = Worker::start("test", 1, answering).unwrap();
        assert_eq!(worker.ask(|reply| reply).await, Ok(7));
        worker.end().await;
        worker.end().await;
        assert_eq!(worker.ask(|reply| reply).await, Err(Unanswered::Ended));
    }

    #[tokio::test]
    async fn a_full_queue_is_told_and_a_panic_ends_only_the_thread() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let worker: Worker<Question> = Worker::start("test", 1, move |queue| {
            wait.recv().unwrap();
            drop(queue);
            panic!("a fault of the test");
        })
        .unwrap();
        let first = worker.ask(|reply| reply);
        let second = async {
            assert_eq!(worker.ask(|reply| reply).await, Err(Unanswered::Full));
            go.send(()).unwrap();
        };
        let (first, ()) = tokio::join!(biased; first, second);
        assert_eq!(first, Err(Unanswered::Ended));
        drop(worker);
    }
}
