//! The script that runs at the target of a resync before its copy is changed.
//!
//! In the middle of a resync a copy is a mixture; a script may keep what was there before, such as
//! by a snapshot. A node that is offered a resync has it run while it still waits, so that neither
//! its copy nor its record has changed by then. A copy that an earlier resync left as a mixture is
//! not worth keeping, and must not take the place of what was kept then: for it no script runs.
//! What the script does, and how long it may take, is the shell's matter.

use model::SessionId;
use serde::{Deserialize, Serialize};

use super::Mirror;
use crate::effect::Effect;
use crate::input::ScriptError;
use crate::record::StoredCopy;
use crate::report::Report;

/// What became of the script.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Script {
    serial: u64,
    run: Run,
    /// Why it did not succeed the last time.
    failed: Option<ScriptError>,
}

/// How far the script has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Run {
    /// It has not run for any session that is offered.
    #[default]
    Idle,
    /// It runs for this session.
    Running(SessionId),
    /// It has succeeded for this session, which may change the copy.
    Succeeded(SessionId),
}

impl Mirror {
    /// Whether an offered session may change this copy. If the script has to run first, it is asked
    /// for.
    pub(super) fn is_prepared(&mut self, session: SessionId, peer: &Report) -> bool {
        let wanted = self.config.scripts.before_resync.is_some();
        if !wanted || self.is_needed_by(peer) || self.record.copy == StoredCopy::Inconsistent {
            return true;
        }
        match self.script.run {
            Run::Succeeded(prepared) if prepared == session => return true,
            // The session that it runs for may be over, but it is not: it is waited for.
            Run::Running(_) => return false,
            Run::Succeeded(_) | Run::Idle => {}
        }
        self.info(
            "before-resync",
            format!(
                "{} runs its before_resync script, with a copy that is {}, before {} changes it",
                self.me,
                self.copy(),
                self.peer_name
            ),
        );
        // The peer is known to be ahead: should it die meanwhile, no policy lets this node go on.
        self.in_sync_since_boot = false;
        self.script.serial += 1;
        self.script.run = Run::Running(session);
        let (module, serial) = (self.module.clone(), self.script.serial);
        let (source, copy) = (self.peer_name.clone(), self.copy());
        self.effects.push(Effect::PrepareResync { module, serial, source, copy });
        false
    }

    /// Shows why the offered session is not joined, if that is for the script.
    pub(super) fn block_unprepared(&mut self) -> bool {
        if let Some(failed) = &self.script.failed {
            let sentence = format!(
                "the before_resync script of {} {}: no resync of its copy is begun, and the script \
                 is tried again",
                self.me, failed.how
            );
            return self.block("before-resync-failed", sentence);
        }
        if let Run::Running(_) = self.script.run {
            // The source waits for it: an offer is not taken back while the target says this.
            let sentence = format!(
                "{} runs its before_resync script before {} brings its copy up to date",
                self.me, self.peer_name
            );
            return self.block("prepares-copy", sentence);
        }
        self.block = None;
        false
    }

    /// The script has ended.
    pub(super) fn resync_prepared(&mut self, serial: u64, error: Option<ScriptError>) {
        let Run::Running(session) = self.script.run else { return };
        if serial != self.script.serial {
            return;
        }
        self.script.failed = error;
        self.script.run = match self.script.failed {
            Some(_) => Run::Idle,
            None => Run::Succeeded(session),
        };
        if self.script.failed.is_some() {
            self.back_off();
        }
    }

    /// What was kept is worth nothing once the node does anything but wait.
    pub(super) fn forget_preparation(&mut self) {
        self.script.run = Run::Idle;
        self.script.failed = None;
    }

    /// The last lines of a script that failed.
    pub(super) fn script_said(&self, code: &str) -> Vec<String> {
        let failed = self.script.failed.as_ref().filter(|_| code == "before-resync-failed");
        failed.map(|failed| failed.said.clone()).unwrap_or_default()
    }
}
