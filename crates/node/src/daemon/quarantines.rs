//! Quarantines end by themselves: a month after a copy was given up, what it held alone is removed,
//! unless the copy is not up to date yet. What goes into them is the replicator's matter.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use model::Time;

use crate::clock;
use crate::daemon::Daemon;

/// How long what was given up is kept.
const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(3600);

impl Daemon {
    pub(super) fn expire_quarantines(&mut self, now: Time) {
        if self.house.quarantines.is_some_and(|seen| now.since(seen) < LOOK) {
            return;
        }
        self.house.quarantines = Some(now);
        let folders: Vec<_> = self
            .modules
            .keys()
            .map(|module| {
                let found = self.node.found(now, module);
                let in_use = found.and_then(|found| found.module.record.quarantine);
                (self.layout.quarantine_directory(module), in_use)
            })
            .collect();
        // A tree may take long to remove, which nobody has to wait for.
        let expiring = move || {
            for (folder, in_use) in folders {
                if let Err(error) = expire(&folder, in_use, clock::wall()) {
                    eprintln!("! {}: {error}", folder.display());
                }
            }
        };
        // Without a thread the next look does it.
        let _ = std::thread::Builder::new().name("quarantines".to_owned()).spawn(expiring);
    }
}

/// Removes what was given up long ago, but for what a resync still adds to. A folder is named after
/// its second since 1970.
fn expire(folder: &Path, in_use: Option<Duration>, wall: Duration) -> io::Result<()> {
    let in_use = in_use.map(|begun| begun.as_secs());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let begun = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(begun) = begun.filter(|begun| Some(*begun) != in_use) else { continue };
        let begun = Duration::from_secs(begun);
        // Something may have been put there lately, if the resync took so long.
        let touched = entry.metadata()?.modified()?;
        let touched = touched.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        if wall > begun.max(touched) + KEPT {
            fs::remove_dir_all(entry.path())?;
            eprintln!("removed {}: it was kept for 30 days", entry.path().display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::unwrap_used, reason = "a test says what it needs and stops")]
    fn what_was_given_up_is_removed_after_a_month() {
        let folder = std::env::temp_dir().join(format!("evenkeel-expire-{}", std::process::id()));
        for name in ["1000", "2000", "3000", "kept-by-hand"] {
            fs::create_dir_all(folder.join(name).join("files")).unwrap();
        }
        let in_use = Some(Duration::from_secs(3000));
        expire(&folder, in_use, clock::wall()).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 4, "they were touched just now");
        expire(&folder, in_use, clock::wall() + KEPT + Duration::from_secs(60)).unwrap();
        let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut left: Vec<_> = names.collect();
        left.sort();
        assert_eq!(left, ["3000", "kept-by-hand"], "3000 is added to still");
        expire(&folder.join("none"), None, clock::wall()).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
