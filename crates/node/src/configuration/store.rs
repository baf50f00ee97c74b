//! The history of a node's configurations on its disk, and the one that it has agreed to.
//!
//! ```text
//! configurations/7.json        one that was applied; the highest number is in use
//! configurations/pending.json  agreed to, the outcome is not known
//! configurations/written.json  from which one the files were written last
//! configurations/kept-MS.json  edited files that were set aside
//! ```
//! Each is replaced as a whole. What may be written when is not decided here.

use std::fs;
use std::io;
use std::path::PathBuf;

use cluster::configuration::{Proposal, Version};
use model::config::{Files, Stand};
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::layout::Layout;

/// How many configurations are remembered, and as many that were set aside.
pub(crate) const REMEMBERED_MAX: usize = 50;

/// Edited files that had to give way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// When, in milliseconds since 1970; its name.
    pub(crate) at_ms: u64,
    /// The configuration that they gave way to.
    pub(crate) replaced_by: u64,
    /// The files.
    pub(crate) files: Files,
}

/// A node's history.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    directory: PathBuf,
}

impl Store {
    pub(crate) fn of(layout: &Layout) -> Store {
        Store { directory: layout.configurations_directory() }
    }

    /// The one that is in use.
    pub(crate) fn newest(&self) -> io::Result<Option<Version>> {
        let newest = self.numbers()?.last().copied();
        newest.map(|number| self.get(number)).transpose().map(Option::flatten)
    }

    /// The one of a number.
    pub(crate) fn get(&self, number: u64) -> io::Result<Option<Version>> {
        durable::read(&self.directory.join(format!("{number}.json")))
    }

    /// Whether exactly this one is, or was, in use here.
    pub(crate) fn has(&self, stand: &Stand) -> io::Result<bool> {
        Ok(self.get(stand.number)?.is_some_and(|version| version.stand() == *stand))
    }

    /// The numbers of all, ascending.
    pub(crate) fn numbers(&self) -> io::Result<Vec<u64>> {
        self.named("")
    }

    /// Adds one, and forgets the oldest.
    pub(crate) fn add(&self, version: &Version) -> io::Result<()> {
        durable::write(&self.directory.join(format!("{}.json", version.number)), version)?;
        self.prune("")
    }

    /// What was agreed to.
    pub(crate) fn pending(&self) -> io::Result<Option<Proposal>> {
        durable::read(&self.pending_file())
    }

    pub(crate) fn note_pending(&self, proposal: &Proposal) -> io::Result<()> {
        durable::write(&self.pending_file(), proposal)
    }

    pub(crate) fn drop_pending(&self) -> io::Result<()> {
        match durable::remove(&self.pending_file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// From which one the files were written last, as far as is known.
    pub(crate) fn written(&self) -> Option<u64> {
        durable::read(&self.directory.join("written.json")).ok().flatten()
    }

    pub(crate) fn note_written(&self, number: u64) -> io::Result<()> {
        durable::write(&self.directory.join("written.json"), &number)
    }

    /// Sets edited files aside.
    pub(crate) fn keep(&self, kept: &Kept) -> io::Result<()> {
        durable::write(&self.directory.join(format!("kept-{}.json", kept.at_ms)), kept)?;
        self.prune("kept-")
    }

    /// What was set aside, oldest first.
    pub(crate) fn all_kept(&self) -> io::Result<Vec<Kept>> {
        let mut all = Vec::new();
        for at in self.named("kept-")? {
            all.extend(self.kept(at)?);
        }
        Ok(all)
    }

    /// What was set aside at a time.
    pub(crate) fn kept(&self, at_ms: u64) -> io::Result<Option<Kept>> {
        durable::read(&self.directory.join(format!("kept-{at_ms}.json")))
    }

    /// Sets the history itself aside, for a node that leaves.
    pub(crate) fn forget(&self) -> io::Result<()> {
        let aside = self.directory.with_extension("left");
        for result in [fs::remove_dir_all(&aside), fs::rename(&self.directory, &aside)] {
            match result {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The numbers of the files that begin so, ascending.
    fn named(&self, prefix: &str) -> io::Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".json"));
            let number = name.and_then(|name| name.strip_prefix(prefix)?.parse::<u64>().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn prune(&self, prefix: &str) -> io::Result<()> {
        let numbers = self.named(prefix)?;
        for number in numbers.iter().take(numbers.len().saturating_sub(REMEMBERED_MAX)) {
            fs::remove_file(self.directory.join(format!("{prefix}{number}.json")))?;
        }
        Ok(())
    }

    fn pending_file(&self) -> PathBuf {
        self.directory.join("pending.json")
    }
}
