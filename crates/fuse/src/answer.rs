//! A prepared answer that can wait anywhere for its moment.
//!
//! It does not decide when that is. One that is dropped without having been sent answers EIO,
//! so that no caller waits for ever.

use std::fmt;
use std::sync::Arc;

use rustix::io::Errno;

use crate::Connection;

/// An answer on its way to the caller of a request.
pub struct Answer {
    outcome: Result<Vec<u8>, Errno>,
    destination: Option<Destination>,
}

/// Told when an answer has been given.
pub trait Settled: Send + Sync {
    /// The answer with this ticket was given.
    fn settled(&self, ticket: u32);
}

enum Destination {
    Device(Arc<Connection>, u64),
    Noted(Arc<Connection>, u64, Arc<dyn Settled>, u32),
    Function(Box<dyn FnOnce(Result<Vec<u8>, Errno>) + Send>),
}

impl Answer {
    /// An answer to request `unique`.
    #[must_use]
    pub fn new(
        connection: &Arc<Connection>,
        unique: u64,
        outcome: Result<Vec<u8>, Errno>,
    ) -> Answer {
        let destination = Some(Destination::Device(Arc::clone(connection), unique));
        Answer { outcome, destination }
    }

    /// An answer to request `unique` that somebody has noted, and is told of when it is given.
    #[must_use]
    pub fn noted(
        connection: &Arc<Connection>,
        unique: u64,
        outcome: Result<Vec<u8>, Errno>,
        by: Arc<dyn Settled>,
        ticket: u32,
    ) -> Answer {
        let destination = Some(Destination::Noted(Arc::clone(connection), unique, by, ticket));
        Answer { outcome, destination }
    }

    /// An answer that is handed to a function instead of the kernel.
    #[must_use]
    pub fn calling(
        outcome: Result<Vec<u8>, Errno>,
        function: impl FnOnce(Result<Vec<u8>, Errno>) + Send + 'static,
    ) -> Answer {
        Answer { outcome, destination: Some(Destination::Function(Box::new(function))) }
    }

    /// The same with an error in its place.
    #[must_use]
    pub fn with(mut self, errno: Errno) -> Answer {
        self.outcome = Err(errno);
        self
    }

    /// Sends it.
    pub fn send(mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Err(Errno::IO));
        self.deliver(outcome);
    }

    /// Sends an error in its place.
    pub fn refuse(mut self, errno: Errno) {
        self.deliver(Err(errno));
    }

    /// Bytes that it keeps in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.outcome.as_ref().map_or(0, Vec::len)
    }

    fn deliver(&mut self, outcome: Result<Vec<u8>, Errno>) {
        match self.destination.take() {
            Some(Destination::Device(connection, unique)) => {
                connection.give(unique, &outcome);
            }
            Some(Destination::Noted(connection, unique, by, ticket)) => {
                connection.give(unique, &outcome);
                by.settled(ticket);
            }
            Some(Destination::Function(function)) => function(outcome),
            None => {}
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.deliver(Err(Errno::IO));
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_dropped_answer_is_an_error() {
        let (sender, receiver) = mpsc::channel();
        let answer = || {
            let sender = sender.clone();
            Answer::calling(Ok(vec![1]), move |outcome| sender.send(outcome).unwrap())
        };
        drop(answer());
        answer().send();
        answer().refuse(Errno::ROFS);
        drop(sender);
        let outcomes: Vec<_> = receiver.iter().collect();
        assert_eq!(outcomes, [Err(Errno::IO), Ok(vec![1]), Err(Errno::ROFS)]);
    }
}
