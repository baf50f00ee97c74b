//! The events of a node: a bounded file, the newest in memory, and standard error.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cluster::effect::Event;
use model::{ModuleName, NodeName, Severity};
use serde::{Deserialize, Serialize};

use crate::clock;

/// Events kept in memory.
const KEPT: usize = 1000;
/// Size at which the file is set aside, in bytes; one older file is kept.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// An event with its time and place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// Node on which it happened.
    pub(crate) node: NodeName,
    /// The event.
    #[serde(flatten)]
    pub(crate) event: Event,
}

/// The events of a node.
pub(crate) struct Journal {
    node: NodeName,
    path: PathBuf,
    file: Option<File>,
    kept: VecDeque<Entry>,
}

impl Journal {
    /// Opens the file and reads the newest events from it.
    pub(crate) fn open(path: &Path, node: &NodeName) -> io::Result<Journal> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut journal = Journal {
            node: node.clone(),
            path: path.to_owned(),
            file: None,
            kept: VecDeque::new(),
        };
        if let Ok(text) = fs::read_to_string(path) {
            // A torn last line is the mark of a crash, not a fault.
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).for_each(|entry| {
                journal.keep(entry);
            });
        }
        journal.file = Some(open_for_append(path)?);
        Ok(journal)
    }

    /// Writes an event down. Its loss in a crash is bearable, so nothing waits for the disk.
    pub(crate) fn write(&mut self, event: Event) {
        let at_ms = u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX);
        let entry = Entry { at_ms, node: self.node.clone(), event };
        let mark = match entry.event.severity {
            Severity::Info => " ",
            Severity::Warning => "!",
            Severity::Critical => "X",
        };
        let module = entry.event.module.as_ref().map_or("-", ModuleName::as_str);
        eprintln!("{mark} {module} {}: {}", entry.event.code, entry.event.sentence);
        if let Ok(mut line) = serde_json::to_vec(&entry) {
            line.push(b'\n');
            self.append(&line);
        }
        self.keep(entry);
    }

    /// The newest events, oldest first.
    pub(crate) fn newest(&self, module: Option<&ModuleName>, limit: usize) -> Vec<&Entry> {
        let wanted = |entry: &&Entry| module.is_none() || entry.event.module.as_ref() == module;
        let mut newest: Vec<&Entry> = self.kept.iter().rev().filter(wanted).take(limit).collect();
        newest.reverse();
        newest
    }

    fn keep(&mut self, entry: Entry) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(entry);
    }

    fn append(&mut self, line: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let full = file.metadata().is_ok_and(|metadata| metadata.len() > FILE_BYTES_MAX);
        if full {
            let _ = fs::rename(&self.path, self.path.with_extension("old.jsonl"));
            if let Ok(fresh) = open_for_append(&self.path) {
                *file = fresh;
            }
        }
        if let Err(error) = file.write_all(line) {
            eprintln!("! {}: {error}", self.path.display());
        }
    }
}

fn open_for_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
