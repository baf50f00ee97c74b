//! What the daemon holds of one module.

use std::io;
use std::path::Path;

use crate::daemon::marking::Place;
use crate::marker::{self, Marker};
use cluster::effect::ServiceAction;
use cluster::input::DataState;
use cluster::record::Record;
use model::config::ModuleConfig;
use model::{BootId, EpochId};
use serde::{Deserialize, Serialize};
use wire::local::Progress;

use crate::daemon::addresses::Addresses;
use crate::daemon::application::Application;
use crate::daemon::before_resync::BeforeResync;
use crate::daemon::checks::Checks;
use crate::daemon::farms::Driver;
use crate::daemon::replicators::Replicator;
use crate::daemon::verify::Asked;
use crate::durable;
use crate::layout::Layout;

/// What the daemon holds of one module.
pub(crate) struct Module {
    pub(crate) config: ModuleConfig,
    pub(crate) replicator: Option<Replicator>,
    pub(crate) addresses: Addresses,
    pub(crate) application: Application,
    pub(crate) checks: Checks,
    pub(crate) before_resync: BeforeResync,
    /// What drives the kernel's filter, of a farm.
    pub(crate) farm: Option<Driver>,
    pub(crate) progress: Progress,
    /// What a resync may compare and send, in bytes per second: as configured, or told since.
    pub(crate) resync_rate: Option<u64>,
    /// Serial of a close that the replicator has been told.
    pub(crate) closing_serial: Option<u64>,
    /// Serial and last number of a close that it has carried out; it counts once the process is
    /// gone, so that a successor cannot be taken for it.
    pub(crate) closing: Option<(u64, u64)>,
    /// Last operation number of a cleanly closed copy, for the next replicator.
    pub(crate) number: u64,
    /// Who waits for the end of a verification.
    pub(crate) verifying: Option<Asked>,
    /// The record that is written down.
    pub(crate) record: Record,
    /// Its directories as they were last seen plain.
    pub(crate) places: Vec<Place>,
    /// What the markers say, as far as is known.
    pub(crate) marked: Option<(u128, EpochId)>,
}

/// What a daemon of the same boot must know of a running module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningState {
    /// The boot in which that was so: where the directory of what runs outlives one, it is void.
    #[serde(default)]
    pub(crate) boot: Option<BootId>,
    /// Whether the addresses were held.
    pub(crate) addresses: bool,
    /// Whether the application was started, entirely, and nothing was done to it since.
    pub(crate) service: bool,
    /// Whether it is being started: a daemon that begins does not know how far that has come.
    #[serde(default)]
    pub(crate) starting: bool,
    /// Whether systemd may be about to carry out a start that nobody waits for any more.
    #[serde(default)]
    pub(crate) doubtful: bool,
}

impl RunningState {
    /// The application is told this.
    pub(crate) fn order(&mut self, action: ServiceAction) {
        self.service = false;
        self.starting = action == ServiceAction::Start;
        self.doubtful |= self.starting;
    }

    /// It has done so, without an error.
    pub(crate) fn done(&mut self, action: ServiceAction) {
        match action {
            // Whatever it was told meanwhile is under way, and half of it may be done.
            ServiceAction::Start => {
                self.service |= self.starting;
                self.doubtful &= !self.starting;
                self.starting = false;
            }
            ServiceAction::Stop | ServiceAction::Kill => self.doubtful &= self.starting,
        }
    }
}

impl Module {
    /// Makes the marker durable in every root of plain directories.
    pub(crate) fn mark_plain(&self, root: u128, epoch: EpochId) -> io::Result<()> {
        for (index, path) in self.config.replicate.iter().enumerate() {
            let marker = Marker { module: self.config.name.clone(), root, index, epoch };
            // Written anew it would look like a change that somebody made.
            if !matches!(marker::read(path), Ok(Some(found)) if found == marker) {
                marker::write(path, &marker)?;
            }
        }
        Ok(())
    }

    /// Removes mounts that a dead replicator left, so that paths lead to the plain directories.
    /// If all of them were covered until then, that is noted for the next replicator.
    pub(crate) fn clean_leftovers(&mut self, layout: &Layout) {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        let mut covered = true;
        for path in &self.config.replicate {
            match mount::remove_leftovers(path) {
                Ok(removed) => covered &= !removed.is_empty(),
                Err(error) => {
                    covered = false;
                    eprintln!("! {} {}: {error}", self.config.name, path.display());
                }
            }
        }
        if covered {
            let until = (time.tv_sec, u32::try_from(time.tv_nsec).unwrap_or(0));
            if let Err(error) = durable::write(&layout.covered_file(&self.config.name), &until) {
                eprintln!("! {}: {error}", self.config.name);
            }
        }
    }
}

/// What the markers say, if they say the same.
pub(crate) fn marked(config: &ModuleConfig) -> Option<(u128, EpochId)> {
    let of = |path| marker::read(path).ok().flatten();
    let mut found = config.replicate.iter().map(|path| of(path).map(|m| (m.root, m.epoch)));
    let first = found.next()??;
    found.all(|other| other == Some(first)).then_some(first)
}

/// What the replicated directories look like.
pub(crate) fn data_state(config: &ModuleConfig) -> DataState {
    let mut found = Vec::new();
    let mut empty = true;
    for (index, path) in config.replicate.iter().enumerate() {
        match look_at(path) {
            Err(why) => return DataState::Unusable { why, fillable: false },
            Ok((marker, is_empty)) => {
                empty &= is_empty;
                found.push((index, path, marker));
            }
        }
    }
    let markers: Vec<&Marker> = found.iter().filter_map(|(_, _, marker)| marker.as_ref()).collect();
    let Some(first) = markers.first() else {
        return if empty { DataState::Empty } else { DataState::Unmarked };
    };
    let unusable = |why, fillable| DataState::Unusable { why, fillable };
    // First what must stay as it is, whatever else there may be.
    for (index, path, marker) in &found {
        let shown = path.display();
        match marker {
            Some(marker) if marker.module != config.name => {
                let why = format!("{shown} holds the data of module {}", marker.module);
                return unusable(why, false);
            }
            Some(marker) if marker.index != *index => {
                let why = format!("{shown} holds another one of the module's directories");
                return unusable(why, false);
            }
            Some(_) | None => {}
        }
    }
    for (_, path, marker) in &found {
        let shown = path.display();
        match marker {
            None => {
                let why = format!("{shown} has no marker, but another directory of the module has");
                return unusable(why, true);
            }
            Some(marker) if marker.root != first.root => {
                let why = format!("{shown} belongs to other data than another directory does");
                return unusable(why, true);
            }
            Some(_) => {}
        }
    }
    DataState::Marked { root: first.root, epoch: first.epoch }
}

/// The marker of a directory, and whether it is empty.
pub(crate) fn look_at(path: &Path) -> Result<(Option<Marker>, bool), String> {
    let shown = path.display();
    let metadata = std::fs::symlink_metadata(path)
        .map_err(|error| format!("{shown}: {error}; create the directory or mount its disk"))?;
    if !metadata.is_dir() {
        return Err(format!("{shown} is not a directory; only directories can be replicated"));
    }
    let marker = marker::read(path).map_err(|error| format!("{shown}: {error}"))?;
    let entries = std::fs::read_dir(path).map_err(|error| format!("{shown}: {error}"))?;
    let is_empty = entries.flatten().all(|entry| entry.file_name() == "lost+found");
    Ok((marker, is_empty))
}

#[cfg(test)]
mod tests {
    use cluster::effect::ServiceAction::{Kill, Start, Stop};

    use super::RunningState;

    #[test]
    fn an_application_runs_once_its_start_has_ended_and_not_once_something_was_done_to_it() {
        let mut running = RunningState::default();
        running.order(Start);
        assert!(!running.service && running.doubtful, "the start may not have come far");
        running.done(Start);
        assert!(running.service && !running.doubtful);
        running.order(Stop);
        assert!(!running.service && !running.doubtful);
        running.done(Stop);
        assert!(!running.service);
    }

    #[test]
    fn a_start_that_was_cut_short_is_doubtful_until_the_kill_has_ended() {
        let mut running = RunningState::default();
        running.order(Start);
        running.order(Kill);
        assert!(running.doubtful);
        // It had just ended as the kill was ordered.
        running.done(Start);
        assert!(!running.service && running.doubtful);
        running.done(Kill);
        assert!(!running.doubtful);
        // What is told late of an older kill says nothing of a newer start.
        running.order(Start);
        running.done(Kill);
        assert!(running.doubtful);
    }
}
