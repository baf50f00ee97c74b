//! A writer's log: one line of JSON before each operation, one after it. The log is appended to a
//! file on another file system than the writer's, in the kernel's hands as soon as it is written,
//! so that it is there in full after the writer or its host has been killed.

use std::io::{self, Write};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::op::Op;

/// Operations that are told beside a finding.
const STORY_MAX: usize = 30;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Begin { n: u64, at: u64, op: Op },
    End { n: u64, at: u64, error: i32 },
}

/// One operation of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number, from 0 on.
    pub number: u64,
    /// When it was issued, in nanoseconds of the monotonic clock.
    pub begun: u64,
    /// What it was.
    pub(crate) op: Op,
    /// Its return; `None` if it was under way when the writer ended.
    pub end: Option<End>,
}

/// How an operation returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When, in nanoseconds of the monotonic clock.
    pub at: u64,
    /// The error's number; 0 for success, -1 for one without a number.
    pub error: i32,
}

impl Record {
    /// Whether it returned with success.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.end.is_some_and(|end| end.error == 0)
    }
}

/// Writes a log to standard output.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The end of the operation before, which goes out with the next one's beginning: whoever is
    /// killed in between had not returned yet as far as anybody knows.
    ended: Vec<u8>,
}

impl Log {
    pub(super) fn begin(&mut self, number: u64, op: &Op) -> io::Result<()> {
        let line = Line::Begin { n: number, at: now(), op: op.clone() };
        add(&mut self.ended, &line)?;
        self.flush()
    }

    pub(super) fn end(&mut self, number: u64, result: &io::Result<()>) -> io::Result<()> {
        let error = result.as_ref().err().map_or(0, |error| error.raw_os_error().unwrap_or(-1));
        add(&mut self.ended, &Line::End { n: number, at: now(), error })
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        // Not through the standard library's buffer: one write, whole lines.
        rustix::io::write(rustix::stdio::stdout(), &self.ended)?;
        self.ended.clear();
        Ok(())
    }
}

/// The operations of a log. What follows the last whole line is left out.
///
/// # Errors
/// The first line that is none of a log: what a writer says when it cannot go on.
pub fn parse(text: &str) -> Result<Vec<Record>, String> {
    let mut records: Vec<Record> = Vec::new();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        match serde_json::from_str(line) {
            Ok(Line::Begin { n, at, op }) if n == records.len() as u64 => {
                records.push(Record { number: n, begun: at, op, end: None });
            }
            Ok(Line::End { n, at, error }) => match records.last_mut() {
                Some(last) if last.number == n => last.end = Some(End { at, error }),
                Some(_) | None => return Err(format!("out of order: {line}")),
            },
            Ok(Line::Begin { .. }) => return Err(format!("out of order: {line}")),
            Err(_) => return Err(line.to_owned()),
        }
    }
    Ok(records)
}

/// The last operations that had to do with the paths that findings name, as lines of text.
#[must_use]
pub fn story(records: &[Record], findings: &[String]) -> Vec<String> {
    let named: Vec<&str> = findings.iter().filter_map(|text| text.split('"').nth(1)).collect();
    // A change of a directory above concerns a path too.
    let concerns = |path: &&str| {
        let above = |named: &&str| {
            named == path || (!path.is_empty() && named.starts_with(&format!("{path}/")))
        };
        named.iter().any(above)
    };
    let told = |record: &&Record| record.op.paths().iter().any(concerns);
    let mut lines: Vec<String> =
        records.iter().rev().filter(told).take(STORY_MAX).map(show).collect();
    lines.reverse();
    lines.extend(records.last().map(|last| format!("last of all: {}", show(last))));
    lines
}

fn show(record: &Record) -> String {
    let end = match record.end {
        None => "did not return".to_owned(),
        Some(End { error: 0, .. }) => "returned".to_owned(),
        Some(End { error, .. }) => format!("error {error}"),
    };
    format!("#{} at {} us {:?}: {end}", record.number, record.begun / 1000, record.op)
}

fn add(to: &mut Vec<u8>, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    to.write_all(b"\n")
}

/// Nanoseconds of the clock that all hosts of a lab share.
pub(super) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let [seconds, rest] = [time.tv_sec, time.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
    seconds * 1_000_000_000 + rest
}
