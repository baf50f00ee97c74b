//! What waits for the main loop, in the order in which it is taken: first the pulses of farms, then
//! everything else as it came. A loop that is late must not find a node silent whose pulse waits
//! behind that of another one.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use cluster::Input;
use model::ModuleName;

use crate::daemon::event::Event;

/// So many pulses may be taken before what is due, however many more there are.
const PULSES_MAX: u32 = 256;

#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Event>,
    /// Pulses taken since it held none.
    pulses: u32,
}

impl Queue {
    /// The next event, if one comes within the time.
    pub(super) fn next(
        &mut self,
        events: &Receiver<Event>,
        pause: Duration,
    ) -> Result<Event, RecvTimeoutError> {
        if self.waiting.is_empty() {
            self.waiting.push_back(events.recv_timeout(pause)?);
        }
        self.waiting.extend(events.try_iter());
        let pulse = self.waiting.iter().position(|event| of_pulse(event).is_some());
        self.pulses = if pulse.is_some() { self.pulses.saturating_add(1) } else { 0 };
        let next = self.waiting.remove(pulse.filter(|_| self.pulses <= PULSES_MAX).unwrap_or(0));
        let mut next = next.ok_or(RecvTimeoutError::Timeout)?;
        if let Event::Input(Input::Pulse { module, more, .. }) = &mut next {
            *more = self.waiting.iter().any(|event| of_pulse(event) == Some(module));
        }
        Ok(next)
    }

    /// Whether pulses wait: nothing may be decided before.
    pub(super) fn holds_pulses(&self) -> bool {
        self.pulses <= PULSES_MAX && self.waiting.iter().any(|event| of_pulse(event).is_some())
    }
}

fn of_pulse(event: &Event) -> Option<&ModuleName> {
    match event {
        Event::Input(Input::Pulse { module, .. }) => Some(module),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]
mod tests {
    use std::sync::mpsc::channel;

    use cluster::farm::Part;
    use model::Time;

    use super::*;
    use crate::daemon::farms::pulses::tests::said;

    fn pulse(module: &str) -> Event {
        let module = ModuleName::new(module).unwrap();
        let pulse = Box::new(said(Part::Ready));
        Event::Input(Input::Pulse { module, received: Time::ZERO, pulse, more: false })
    }

    /// What comes next: the module of a pulse and whether more of it wait, or nothing of either.
    fn next(queue: &mut Queue, events: &Receiver<Event>) -> Option<(String, bool)> {
        match queue.next(events, Duration::ZERO).unwrap() {
            Event::Input(Input::Pulse { module, more, .. }) => Some((module.to_string(), more)),
            _ => None,
        }
    }

    #[test]
    fn pulses_come_first_and_say_whether_more_of_their_farm_wait() {
        let (sender, events) = channel();
        let mut queue = Queue::default();
        for event in [Event::Input(Input::Tick), pulse("web"), pulse("mail"), pulse("web")] {
            sender.send(event).unwrap();
        }
        assert_eq!(next(&mut queue, &events), Some(("web".to_owned(), true)));
        assert!(queue.holds_pulses());
        assert_eq!(next(&mut queue, &events), Some(("mail".to_owned(), false)));
        // One that comes meanwhile counts.
        sender.send(pulse("web")).unwrap();
        assert_eq!(next(&mut queue, &events), Some(("web".to_owned(), true)));
        assert_eq!(next(&mut queue, &events), Some(("web".to_owned(), false)));
        assert!(!queue.holds_pulses());
        assert_eq!(next(&mut queue, &events), None);
        assert_eq!(queue.next(&events, Duration::ZERO).err(), Some(RecvTimeoutError::Timeout));
    }

    #[test]
    fn no_flood_of_pulses_keeps_everything_else_waiting() {
        let (sender, events) = channel();
        let mut queue = Queue::default();
        sender.send(Event::Input(Input::Tick)).unwrap();
        for _ in 0..=PULSES_MAX {
            sender.send(pulse("web")).unwrap();
        }
        for _ in 0..PULSES_MAX {
            assert!(next(&mut queue, &events).is_some());
        }
        assert_eq!(next(&mut queue, &events), None);
        assert!(!queue.holds_pulses(), "what is due may be decided");
    }
}
