//! What is wanted of the shell: each call adds an effect, and notes what is under way.
//!
//! When and why is decided in the sibling files.

use super::{Mirror, Replicator};
use crate::effect::{Assignment, Effect, Ending, Event, ServiceAction};
use crate::record::Record;

impl Mirror {
    /// A new batch of effects begins. The shell hands a failure in as the next input of the module,
    /// so what the batch before persisted is durable unless that is the input now.
    pub(crate) fn begin_batch(&mut self) {
        self.persisted = false;
    }

    /// Makes a change of the record durable before any later effect.
    pub(super) fn persist(&mut self, change: impl FnOnce(&mut Record)) {
        if !self.persisted {
            self.last_good = self.record.clone();
            self.persisted = true;
        }
        change(&mut self.record);
        let record = Box::new(self.record.clone());
        self.effects.push(Effect::Persist { module: self.module.clone(), record });
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
        self.effects.push(Effect::Assign { module: self.module.clone(), serial, assignment });
    }

    pub(super) fn hold(&mut self, ending: Ending) {
        self.assign(Assignment::Hold { ending });
    }

    pub(super) fn set_addresses(&mut self, held: bool) {
        self.front.addresses = held;
        self.front.addresses_busy = true;
        self.front.address_error = None;
        self.effects.push(Effect::SetAddresses { module: self.module.clone(), held });
    }

    pub(super) fn run_service(&mut self, action: ServiceAction) {
        self.front.busy = Some(action);
        self.effects.push(Effect::RunService { module: self.module.clone(), action });
    }

    pub(super) fn explain(&mut self, severity: model::Severity, code: &str, sentence: String) {
        self.explain_with(severity, code, sentence, Vec::new());
    }

    pub(super) fn explain_with(
        &mut self,
        severity: model::Severity,
        code: &str,
        sentence: String,
        evidence: Vec<String>,
    ) {
        self.effects.push(Effect::Explain(Event {
            module: Some(self.module.clone()),
            code: code.to_owned(),
            severity,
            sentence,
            evidence,
        }));
    }

    pub(super) fn info(&mut self, code: &str, sentence: String) {
        self.explain(model::Severity::Info, code, sentence);
    }

    pub(super) fn warn(&mut self, code: &str, sentence: String) {
        self.explain(model::Severity::Warning, code, sentence);
    }
}
