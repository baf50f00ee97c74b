//! What waits for the main loop: the pulses of farms, and everything else as it came. Whatever is
//! handled, all pulses are heard before: a loop that is late must not find a node silent whose
//! pulse waits for its turn.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use cluster::Input;

use crate::daemon::event::Event;

/// So many pulses are heard before another input, however many more there are.
const PULSES_MAX: usize = 256;

pub(super) struct Queue {
    events: Receiver<Event>,
    pulses: VecDeque<Input>,
    others: VecDeque<Event>,
}

impl Queue {
    /// Of all that is sent to the main loop.
    pub(super) fn new(events: Receiver<Event>) -> Queue {
        Queue { events, pulses: VecDeque::new(), others: VecDeque::new() }
    }

    /// The next event, if one comes within the time. It is a pulse only if nothing else waits, and
    /// then the last one: the others are heard before it, as before anything else.
    pub(super) fn next(&mut self, pause: Duration) -> Result<Event, RecvTimeoutError> {
        if self.pulses.is_empty() && self.others.is_empty() {
            let event = self.events.recv_timeout(pause)?;
            self.sort(event);
        }
        self.fetch();
        let pulse = |pulses: &mut VecDeque<Input>| pulses.pop_back().map(Event::Input);
        let next = self.others.pop_front().or_else(|| pulse(&mut self.pulses));
        next.ok_or(RecvTimeoutError::Timeout)
    }

    /// Pulses to hear before an input: each says that something follows.
    pub(super) fn pulses(&mut self) -> Vec<Input> {
        self.fetch();
        let count = self.pulses.len().min(PULSES_MAX);
        let mut pulses: Vec<Input> = self.pulses.drain(..count).collect();
        for pulse in &mut pulses {
            if let Input::Pulse { more, .. } = pulse {
                *more = true;
            }
        }
        pulses
    }

    fn fetch(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.sort(event);
        }
    }

    fn sort(&mut self, event: Event) {
        match event {
            Event::Input(pulse @ Input::Pulse { .. }) => self.pulses.push_back(pulse),
            other => self.others.push_back(other),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]
mod tests {
    use std::sync::mpsc::channel;

    use cluster::farm::Part;
    use model::{ModuleName, Time};

    use super::*;
    use crate::daemon::farms::pulses::tests::said;

    fn pulse(module: &str) -> Event {
        let module = ModuleName::new(module).unwrap();
        let pulse = Box::new(said(Part::Ready));
        Event::Input(Input::Pulse { module, received: Time::ZERO, pulse, more: false })
    }

    /// The module of a pulse and whether something follows it; nothing of anything else.
    fn told(input: &Input) -> Option<(&str, bool)> {
        match input {
            Input::Pulse { module, more, .. } => Some((module.as_str(), *more)),
            _ => None,
        }
    }

    #[test]
    fn all_pulses_are_heard_before_anything_else() {
        let (sender, events) = channel();
        let mut queue = Queue::new(events);
        for event in [Event::Input(Input::Tick), pulse("web"), pulse("mail")] {
            sender.send(event).unwrap();
        }
        let next = queue.next(Duration::ZERO).unwrap();
        assert!(matches!(next, Event::Input(Input::Tick)));
        // One that comes meanwhile counts.
        sender.send(pulse("late")).unwrap();
        let heard = queue.pulses();
        let heard: Vec<_> = heard.iter().filter_map(told).collect();
        assert_eq!(heard, [("web", true), ("mail", true), ("late", true)]);
        assert!(queue.pulses().is_empty());
        assert_eq!(queue.next(Duration::ZERO).err(), Some(RecvTimeoutError::Timeout));
    }

    #[test]
    fn where_only_pulses_wait_the_last_one_is_decided_upon() {
        let (sender, events) = channel();
        let mut queue = Queue::new(events);
        for module in ["web", "mail", "last"] {
            sender.send(pulse(module)).unwrap();
        }
        let Event::Input(last) = queue.next(Duration::ZERO).unwrap() else { panic!() };
        assert_eq!(told(&last), Some(("last", false)));
        assert_eq!(queue.pulses().iter().filter_map(told).count(), 2);
    }

    #[test]
    fn no_flood_of_pulses_keeps_everything_else_waiting() {
        let (sender, events) = channel();
        let mut queue = Queue::new(events);
        for _ in 0..=PULSES_MAX {
            sender.send(pulse("web")).unwrap();
        }
        sender.send(Event::Again).unwrap();
        assert!(matches!(queue.next(Duration::ZERO).unwrap(), Event::Again));
        assert_eq!(queue.pulses().len(), PULSES_MAX);
    }
}
