//! Records what the node is given and what comes of it, for `evenkeel replay`.
//!
//! Decisions never wait for it: bytes go to a thread of its own, and when that cannot write them,
//! or cannot keep up, they are dropped, which is said once. Once it can, a new segment begins with
//! the node's state. Nothing waits for the disk either: a loss of power may take the last seconds.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use cluster::effect::Event;
use cluster::input::Boot;
use cluster::{Effect, Input, Node};
use model::{Severity, Time};
use wire::recording::Writer;

use crate::clock;
use crate::recordings;

/// Size at which the next segment begins, in bytes.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Most bytes of all segments.
const TOTAL_BYTES: u64 = 32 << 20;
/// Most bytes that may wait for a slow disk.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Time between two attempts to go on after a failure.
const RETRY_EVERY: Duration = Duration::from_secs(60);
/// Time between two looks at people's clocks.
const WALL_EVERY: Duration = Duration::from_secs(600);
/// How long the end of the daemon waits for the last bytes.
const END_MAX: Duration = Duration::from_secs(1);

const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// What the thread is given.
enum Part {
    /// The first bytes of the next segment, its serial, and whether it goes on where the one before
    /// ends.
    Begin { bytes: Vec<u8>, serial: u64, continues: bool },
    /// More bytes of the present one.
    More(Vec<u8>),
}

/// Records one node.
pub(crate) struct Recorder {
    writer: Writer,
    /// Serial of the present segment; what the thread says of others is of no interest any more.
    serial: u64,
    segment_bytes: u64,
    /// Bytes of the present segment.
    written: u64,
    walled: Time,
    /// Since when, and until when, nothing is recorded.
    lost: Option<Time>,
    /// It was said that nothing is recorded.
    said: bool,
    parts: Option<Sender<Part>>,
    waiting: Arc<AtomicUsize>,
    results: Receiver<(u64, io::Result<()>)>,
}

impl Recorder {
    /// Records a daemon that begins with this.
    pub(crate) fn start(directory: &Path, now: Time, boot: &Boot) -> io::Result<Recorder> {
        Recorder::with(directory, now, boot, SEGMENT_BYTES, TOTAL_BYTES)
    }

    fn with(
        directory: &Path,
        now: Time,
        boot: &Boot,
        segment_bytes: u64,
        total_bytes: u64,
    ) -> io::Result<Recorder> {
        let (parts, given) = channel();
        let (told, results) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let segments = Segments::new(directory, segment_bytes, total_bytes);
        let written = Arc::clone(&waiting);
        std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || segments.write(given, &written, &told))?;
        let mut writer = Writer::new();
        writer.boot(now, wall_ms(), PROGRAM, boot);
        let mut recorder = Recorder {
            writer,
            serial: 0,
            segment_bytes,
            written: 0,
            walled: now,
            lost: None,
            said: false,
            parts: Some(parts),
            waiting,
            results,
        };
        let (serial, continues) = (0, false);
        recorder.hand_over(now, |bytes| Part::Begin { bytes, serial, continues });
        Ok(recorder)
    }

    /// The node is about to be given this.
    pub(crate) fn input(&mut self, now: Time, input: &Input) {
        if self.lost.is_none() {
            self.writer.input(now, input);
            // At once, so that an input that ends the daemon is recorded too.
            self.hand_over(now, Part::More);
        }
    }

    /// This came of it, and the node is this now. Returns what is to be said of the recording.
    pub(crate) fn effects(&mut self, now: Time, effects: &[Effect], node: &Node) -> Option<Event> {
        let said = self.look_at_results(now);
        match self.lost {
            Some(until) if now >= until => self.begin(now, node, false),
            Some(_) => {}
            None => {
                self.writer.effects(now, effects);
                if now.since(self.walled) >= WALL_EVERY {
                    self.walled = now;
                    self.writer.wall(now, wall_ms());
                }
                self.hand_over(now, Part::More);
                if self.written >= self.segment_bytes {
                    self.begin(now, node, true);
                }
            }
        }
        said
    }

    fn begin(&mut self, now: Time, node: &Node, continues: bool) {
        self.lost = None;
        self.walled = now;
        self.written = 0;
        self.writer = Writer::new();
        self.writer.state(now, wall_ms(), PROGRAM, node, continues);
        self.serial += 1;
        let serial = self.serial;
        self.hand_over(now, |bytes| Part::Begin { bytes, serial, continues });
    }

    fn hand_over(&mut self, now: Time, part: impl FnOnce(Vec<u8>) -> Part) {
        let bytes = self.writer.take();
        let Some(parts) = self.parts.as_ref().filter(|_| !bytes.is_empty()) else { return };
        self.written += bytes.len() as u64;
        let waiting = self.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        if waiting > WAITING_BYTES_MAX {
            self.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
            self.lose(now);
        } else {
            // The thread lives as long as this.
            let _ = parts.send(part(bytes));
        }
    }

    fn lose(&mut self, now: Time) {
        self.lost = Some(now + RETRY_EVERY);
        self.serial += 1;
    }

    /// What became of bytes handed over before.
    fn look_at_results(&mut self, now: Time) -> Option<Event> {
        let mut why = self.lost.filter(|_| !self.said).map(|_| "the disk is too slow".to_owned());
        let mut resumed = false;
        while let Ok((serial, result)) = self.results.try_recv() {
            match result {
                _ if serial != self.serial => {}
                Ok(()) => resumed = self.said,
                Err(error) => {
                    self.lose(now);
                    resumed = false;
                    why = Some(error.to_string()).filter(|_| !self.said);
                }
            }
        }
        if resumed {
            self.said = false;
            let sentence = "what this node decides is recorded again".to_owned();
            return Some(event("recording-resumed", Severity::Info, sentence));
        }
        let why = why?;
        self.said = true;
        let sentence = format!(
            "what this node decides cannot be recorded: {why}; nothing else is affected, and it \
             is tried again every {RETRY_EVERY:?}"
        );
        Some(event("recording-failed", Severity::Warning, sentence))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.parts = None;
        // The thread's end of the channel closes when all is written; a disk that hangs must not
        // keep the daemon from ending.
        let until = clock::now() + END_MAX;
        while self.results.recv_timeout(until.since(clock::now())).is_ok() {}
    }
}

/// What the thread writes to.
struct Segments {
    directory: PathBuf,
    segment_bytes: u64,
    total_bytes: u64,
    /// The present segment, and its serial.
    file: Option<File>,
    serial: u64,
    /// What the present segment has lost its end by.
    torn: Option<io::Error>,
}

impl Segments {
    fn new(directory: &Path, segment_bytes: u64, total_bytes: u64) -> Segments {
        let directory = directory.to_owned();
        Segments { directory, segment_bytes, total_bytes, file: None, serial: 0, torn: None }
    }

    fn write(
        mut self,
        given: Receiver<Part>,
        waiting: &AtomicUsize,
        told: &Sender<(u64, io::Result<()>)>,
    ) {
        for part in given {
            let length = match &part {
                Part::Begin { bytes, .. } | Part::More(bytes) => bytes.len(),
            };
            let result = self.take(part);
            waiting.fetch_sub(length, Ordering::Relaxed);
            if let Some(result) = result
                && told.send((self.serial, result)).is_err()
            {
                return;
            }
        }
    }

    /// Writes a part; what is to be told of the present segment.
    fn take(&mut self, part: Part) -> Option<io::Result<()>> {
        match part {
            Part::Begin { bytes, serial, continues } => {
                self.serial = serial;
                // A segment that goes on from one whose end is missing would be a lie, and the
                // daemon may not have heard of that end before it turned over.
                let torn = self.torn.take().filter(|_| continues);
                Some(torn.map_or_else(|| self.begin(&bytes), Err))
            }
            Part::More(bytes) => self.append(&bytes),
        }
    }

    fn begin(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file = None;
        let begun = recordings::begin(&self.directory, bytes, self.segment_bytes, self.total_bytes);
        self.file = Some(begun.map_err(|error| named(&self.directory, &error))?);
        Ok(())
    }

    /// Appends to the present segment. After a failure nothing fits any more, until the next one
    /// begins.
    fn append(&mut self, bytes: &[u8]) -> Option<io::Result<()>> {
        let error = self.file.as_mut()?.write_all(bytes).err()?;
        self.file = None;
        let error = named(&self.directory, &error);
        self.torn = Some(io::Error::new(error.kind(), error.to_string()));
        Some(Err(error))
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn event(code: &str, severity: Severity, sentence: String) -> Event {
    Event { module: None, code: code.to_owned(), severity, sentence, evidence: Vec::new() }
}

fn wall_ms() -> u64 {
    u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
