//! The seal: a number that the log and each replicated root carry, renewed whenever the log lets go
//! of something. A disk that was put back to an earlier state shows by it, as does a log.
//!
//! The log names the next seal before any root carries it, and both count until all do.

use std::io;
use std::sync::Arc;

use activity::Header;
use mount::backing::Root;

use super::ActivityLog;
use crate::clock;
use crate::marker;

impl ActivityLog {
    /// Whether the roots and the log belong together. If not, everything may differ, and it stays
    /// so until a copy is chosen.
    pub(in crate::replicator) fn is_sealed(&self, roots: &[Arc<Root>]) -> io::Result<bool> {
        let header = *self.wait_for_writer().file.header();
        let mut fits = true;
        for root in roots {
            let found = marker::read_seal(&**root)?.unwrap_or(0);
            let changing = header.next_seal != 0 && found == header.next_seal;
            fits &= header.seal == 0 || found == header.seal || changing;
        }
        self.lock().broken = !fits;
        if !fits {
            self.note(|header| header.everything = true)?;
        }
        Ok(fits)
    }

    /// Whether they do not, and no copy was chosen yet.
    pub(in crate::replicator) fn is_broken(&self) -> bool {
        self.lock().broken
    }

    /// This copy was chosen, whatever it is: from here on it counts as it is.
    pub(in crate::replicator) fn choose(&self, roots: &[Arc<Root>]) -> io::Result<()> {
        if !std::mem::replace(&mut self.lock().broken, false) {
            return Ok(());
        }
        self.renew_seal(roots)
    }

    /// Gives roots and log a new seal, durably.
    pub(in crate::replicator) fn renew_seal(&self, roots: &[Arc<Root>]) -> io::Result<()> {
        if self.lock().broken {
            return Ok(());
        }
        self.begin_seal(roots)?;
        sync(roots)?;
        self.note(seal)
    }

    /// Gives the roots the seal that the log takes with the checkpoint that is begun. The caller
    /// syncs.
    pub(in crate::replicator) fn begin_seal(&self, roots: &[Arc<Root>]) -> io::Result<()> {
        let header = *self.wait_for_writer().file.header();
        if header.next_seal != 0 {
            // A checkpoint that came to nothing: no root may be left with a seal that is forgotten.
            write(roots, header.seal)?;
            sync(roots)?;
        }
        let next = clock::random();
        self.note(|header| header.next_seal = next)?;
        match write(roots, next) {
            Err(error) if is_full(&error) => {
                // A full disk is no reason to fail: the seal stays what it is.
                for root in roots {
                    if marker::read_seal(&**root)? == Some(next) {
                        marker::write_seal(&**root, header.seal)?;
                    }
                }
                sync(roots)?;
                self.note(|header| header.next_seal = 0)
            }
            written => written,
        }
    }
}

/// All roots carry the next seal durably.
pub(super) fn seal(header: &mut Header) {
    if header.next_seal != 0 {
        header.seal = header.next_seal;
        header.next_seal = 0;
    }
}

fn write(roots: &[Arc<Root>], seal: u128) -> io::Result<()> {
    for root in roots {
        marker::write_seal(&**root, seal)?;
    }
    Ok(())
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn sync(roots: &[Arc<Root>]) -> io::Result<()> {
    for root in roots {
        rustix::fs::fsync(&**root)?;
    }
    Ok(())
}
