//! What is wanted of the shell: each call adds an effect, and notes what is under way.
//!
//! When and why is decided in the sibling files. What every kind of module wants is in
//! `application`; it is named here too where its arguments are taken from the mirror itself.

use model::Time;

use super::{Mirror, Replicator};
use crate::effect::{Assignment, Effect, Ending, Outcome};
use crate::input::JobId;
use crate::record::Record;

impl Mirror {
    /// Makes a change of the record durable before any later effect.
    pub(super) fn persist(&mut self, change: impl FnOnce(&mut Record)) {
        self.base.persist(change);
    }

    pub(super) fn assign(&mut self, assignment: Assignment) {
        let serial = self.replicator.serial + 1;
        self.replicator =
            Replicator { serial, assigned: Some(assignment.clone()), ..self.replicator.clone() };
        self.replicator.ack = None;
        self.replicator.refused = None;
        self.replicator.died = None;
        if assignment == Assignment::Close {
            self.replicator.looked_back = None;
            self.replicator.owners_differ = None;
        }
        let module = self.module.clone();
        self.effects.push(Effect::Assign { module, serial, assignment });
    }

    pub(super) fn hold(&mut self, ending: Ending) {
        self.assign(Assignment::Hold { ending });
    }

    pub(super) fn explain_with(
        &mut self,
        severity: model::Severity,
        code: &str,
        sentence: String,
        evidence: Vec<String>,
    ) {
        self.base.explain_with(severity, code, sentence, evidence);
    }

    pub(super) fn info(&mut self, code: &str, sentence: String) {
        self.base.info(code, sentence);
    }

    pub(super) fn warn(&mut self, code: &str, sentence: String) {
        self.base.warn(code, sentence);
    }

    pub(super) fn block(&mut self, code: &'static str, sentence: String) -> bool {
        self.base.block(code, sentence)
    }

    pub(super) fn answer(&mut self, job: JobId, outcome: Outcome) {
        self.base.answer(job, outcome);
    }

    pub(super) fn due(&mut self, at: Time) -> bool {
        self.base.due(at)
    }
}
