//! What the operator wants for a time: that no failure is answered, that a node is worked on.
//!
//! It goes by the clock on the wall, as it was when the daemon started, for it has to outlast a
//! boot. What follows from it is decided by the kinds of modules.

use std::time::Duration;

use model::Time;

use super::Base;
use crate::record::Span;

impl Base {
    /// What ends by itself has ended. That is not worth a write of its own, which could fail and
    /// end the application with it: on the disk it has ended as well.
    pub(crate) fn end_spans(&mut self) -> bool {
        let ends = [self.record.paused, self.record.maintenance];
        let over = ends.map(|span| {
            let end = span.map(|span| self.end(span));
            end.is_some_and(|end| self.due(end))
        });
        if over[0] {
            self.record.paused = None;
            self.tell_resumed();
        }
        if over[1] {
            self.record.maintenance = None;
            self.tell_maintained();
        }
        over.contains(&true)
    }

    pub(crate) fn pause(&mut self, length: Duration) {
        let span = self.span(length);
        self.persist(|record| record.paused = Some(span));
        let sentence = format!(
            "failures of {} are not answered by {} for {}",
            self.module,
            self.me,
            spoken(length)
        );
        self.info("pauses", sentence);
    }

    pub(crate) fn end_pause(&mut self) {
        if self.record.paused.is_some() {
            self.persist(|record| record.paused = None);
            self.tell_resumed();
        }
    }

    fn tell_resumed(&mut self) {
        self.info("resumes", format!("{} answers failures by itself again", self.me));
    }

    pub(crate) fn begin_maintenance(&mut self, length: Duration) {
        let span = self.span(length);
        self.persist(|record| record.maintenance = Some(span));
        self.info(
            "maintenance-begins",
            format!("{} is being worked on for {}", self.me, spoken(length)),
        );
    }

    pub(crate) fn end_maintenance(&mut self) {
        if self.record.maintenance.is_some() {
            self.persist(|record| record.maintenance = None);
            self.tell_maintained();
        }
    }

    fn tell_maintained(&mut self) {
        self.info("maintenance-ends", format!("nobody works on {} any more", self.me));
    }

    fn span(&self, length: Duration) -> Span {
        Span { end: self.wall(self.now) + length, length }
    }

    /// What the clock on the wall shows, as far as this daemon knows.
    pub(crate) fn wall(&self, now: Time) -> Duration {
        let (began, wall) = self.began;
        wall + now.since(began)
    }

    /// When this node's own clock shows the end of a span.
    fn end(&self, span: Span) -> Time {
        let (began, wall) = self.began;
        began + span.end.saturating_sub(wall)
    }

    /// Whether failures are to be left to the operator; the node is woken when that ends.
    pub(crate) fn is_paused(&mut self) -> bool {
        let end = self.record.paused.map(|span| self.end(span));
        end.is_some_and(|end| !self.due(end))
    }

    pub(crate) fn is_maintained(&self) -> bool {
        self.record.maintenance.is_some_and(|span| self.now < self.end(span))
    }

    /// How long what ends by itself goes on.
    pub(crate) fn span_says(&self, code: &str) -> Vec<String> {
        let span = match code {
            "paused" => self.record.paused,
            "maintenance" => self.record.maintenance,
            _ => None,
        };
        let left = span.map(|span| self.end(span).since(self.now));
        let minutes = |left: Duration| left.as_secs().div_ceil(60) * 60;
        left.map(|left| format!("it ends in {}", spoken(Duration::from_secs(minutes(left)))))
            .into_iter()
            .collect()
    }
}

/// A span of time as people say it.
pub(crate) fn spoken(span: Duration) -> String {
    match span.as_secs() {
        seconds if seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        seconds if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}
