//! What is wanted of the shell: each call adds an effect, and notes what is under way.
//!
//! When and why is decided by the kinds of modules.

use model::Severity;

use super::Base;
use crate::effect::{Effect, Event, ServiceAction};
use crate::record::Record;

impl Base {
    /// A new batch of effects begins. The shell hands a failure in as the next input of the module,
    /// so what the batch before persisted is durable unless that is the input now.
    pub(crate) fn begin_batch(&mut self) {
        self.persisted = false;
    }

    /// Makes a change of the record durable before any later effect.
    pub(crate) fn persist(&mut self, change: impl FnOnce(&mut Record)) {
        if !self.persisted {
            self.last_good = self.record.clone();
            self.last_front = (self.front.clone(), self.recovery.clone());
            self.persisted = true;
        }
        change(&mut self.record);
        let record = Box::new(self.record.clone());
        self.effects.push(Effect::Persist { module: self.module.clone(), record });
    }

    pub(crate) fn set_addresses(&mut self, held: bool) {
        self.front.addresses = held;
        self.front.addresses_busy = true;
        self.front.address_error = None;
        self.front.address_at = None;
        self.effects.push(Effect::SetAddresses { module: self.module.clone(), held });
    }

    pub(crate) fn run_service(&mut self, action: ServiceAction) {
        if action == ServiceAction::Stop && self.front.busy == Some(action) {
            // It is being stopped already, by a restart. A second stop would go on when the first
            // one is answered, and what is started by then would run beside it.
            return;
        }
        self.front.busy = Some(action);
        self.effects.push(Effect::RunService { module: self.module.clone(), action });
    }

    pub(crate) fn explain(&mut self, severity: Severity, code: &str, sentence: String) {
        self.explain_with(severity, code, sentence, Vec::new());
    }

    pub(crate) fn explain_with(
        &mut self,
        severity: Severity,
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

    pub(crate) fn info(&mut self, code: &str, sentence: String) {
        self.explain(Severity::Info, code, sentence);
    }

    pub(crate) fn warn(&mut self, code: &str, sentence: String) {
        self.explain(Severity::Warning, code, sentence);
    }
}
