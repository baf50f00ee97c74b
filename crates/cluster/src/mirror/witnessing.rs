//! The conversation with the witness: one question at a time, repeated while it is wanted.
//!
//! Answers are facts like any other. They count only for the very question that is wanted now, so
//! a late grant for an attempt given up has no effect.

use std::time::Duration;

use model::Epoch;

use super::{Mirror, State};
use crate::effect::Effect;
use crate::report::Report;
use crate::witness::{Answer, Request, Standing};

/// The shell answers within two seconds; after this long a question counts as lost.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Pause after an unreachable witness or one that waits for the other node.
const RETRY: Duration = Duration::from_secs(1);
/// Pause between two looks at an unchanged register.
const PROBE: Duration = Duration::from_secs(5);

impl Mirror {
    /// The answer to exactly this question, if it is there; else sees to it that it is asked.
    pub(crate) fn ask_witness(&mut self, request: Request) -> Option<Answer> {
        if let Some((asked, answer)) = self.talk.answer.take() {
            if asked == request {
                return Some(answer);
            }
            self.talk.answer = Some((asked, answer));
        }
        let wait_until = match &self.talk.asked {
            Some((asked, at)) if *asked == request => (*at + ANSWER_MAX).max(self.talk.retry_at),
            Some(_) | None => self.talk.retry_at,
        };
        if self.due(wait_until) {
            let at = self.now + ANSWER_MAX;
            self.due(at);
            self.talk.asked = Some((request.clone(), self.now));
            let module = self.module.clone();
            self.effects.push(Effect::AskWitness { module, request });
        }
        None
    }

    pub(crate) fn hear_witness(&mut self, request: Request, answer: Answer) {
        if self.talk.asked.as_ref().is_some_and(|(asked, _)| *asked == request) {
            self.talk.asked = None;
        }
        self.talk.answered = true;
        if let Request::Probe { .. } = &request {
            self.talk.stands = match &answer {
                Answer::Missing => Some(None),
                Answer::Holds { current, .. } => Some(Some(current.id)),
                Answer::Granted | Answer::Refused { .. } | Answer::Half | Answer::Locked { .. } => {
                    None
                }
            };
        }
        if self.talk.unreachable.take().is_some() {
            self.talk.retry_at = self.now;
        }
        self.talk.answer = Some((request, answer));
    }

    pub(crate) fn miss_witness(&mut self, why: String) {
        self.talk.asked = None;
        self.talk.answered = true;
        self.talk.unreachable = Some(why);
        self.talk.retry_at = self.now + RETRY;
    }

    /// Keeps an eye on the witness while nothing is wanted of it.
    pub(crate) fn probe_witness(&mut self) {
        let idle = matches!(self.state, State::Serve | State::Follow { .. });
        if !self.has_witness || !idle || self.talk.asked.is_some() {
            return;
        }
        if self.due(self.talk.probe_at) {
            self.talk.probe_at = self.now + PROBE;
            self.due(self.talk.probe_at);
            let request = self.probe();
            let module = self.module.clone();
            self.effects.push(Effect::AskWitness { module, request });
        }
    }

    /// The question what stands in the register, with what this node knows of it.
    pub(crate) fn probe(&self) -> Request {
        Request::Probe { known: self.registered() }
    }

    /// The newest epoch known to have stood in the register. One that has dropped out of the
    /// lineage is too old to say anything.
    fn registered(&self) -> Option<Standing> {
        let id = self.record.registered?;
        let epoch = self.record.epoch.as_ref()?;
        if epoch.id == id {
            return Some(Standing { number: epoch.number, id });
        }
        let at = self.record.lineage.ids().iter().position(|known| *known == id)?;
        let back = u64::try_from(at).ok()? + 1;
        Some(Standing { number: epoch.number.saturating_sub(back), id })
    }

    /// Whether `id` is this node's epoch or an ancestor newer than the registered one.
    pub(crate) fn is_newer_own(&self, id: model::EpochId) -> bool {
        let mut chain = self.epoch_id().into_iter().chain(self.record.lineage.ids().to_vec());
        let mut newer = true;
        chain.any(|own| {
            newer &= Some(own) != self.record.registered;
            newer && own == id
        })
    }

    /// Whether the register is out of date for certain: nothing stands there, or an epoch that this
    /// node's data have left behind. Numbers alone would not tell an ancestor from a rival.
    pub(crate) fn witness_lags(&self) -> bool {
        match self.talk.stands {
            None => false,
            Some(None) => true,
            Some(Some(id)) => {
                let past = self.record.lineage.contains(id);
                past && self.record.registered != Some(id) && !self.is_newer_own(id)
            }
        }
    }

    /// A sole member registers its epoch as soon as the witness can be reached.
    pub(crate) fn register_alone(&mut self) {
        let Some(epoch) = self.record.epoch.clone().filter(|_| self.has_witness) else { return };
        let Some(request) = self.registration(&epoch) else { return };
        // The peer was left behind; the owner's word is enough where nothing newer stands.
        let sole = epoch.is_sole_member(&self.me);
        match self.ask_witness(request.clone()) {
            Some(Answer::Granted) => self.note_registered(epoch.id),
            Some(Answer::Refused { current, .. }) => {
                self.talk.stands = Some(Some(current.id));
                self.talk.unswappable = None;
                if self.is_newer_own(current.id) {
                    self.persist(|record| record.registered = Some(current.id));
                } else if sole && self.record.forced {
                    self.talk.unswappable = Some((epoch.id, Some(current.id)));
                    self.register_alone();
                } else if sole && self.witness_lags() {
                    self.register_alone();
                } else {
                    self.register_differs();
                }
            }
            Some(Answer::Missing) if sole => {
                self.talk.stands = Some(None);
                self.talk.unswappable = Some((epoch.id, None));
                self.register_alone();
            }
            Some(Answer::Locked { .. }) if sole => {
                let Request::Swap { expected, .. } = request else { return };
                self.talk.unswappable = Some((epoch.id, Some(expected)));
                self.register_alone();
            }
            Some(Answer::Missing | Answer::Half | Answer::Locked { .. } | Answer::Holds { .. }) => {
                self.register_differs()
            }
            None => {}
        }
    }

    /// What to ask so that this epoch stands in the register; none when it does.
    fn registration(&self, epoch: &Epoch) -> Option<Request> {
        let new = standing(epoch);
        let sole = epoch.is_sole_member(&self.me);
        match self.talk.unswappable {
            Some((id, over)) if sole && id == epoch.id => {
                return Some(Request::Restate { epoch: new, over });
            }
            Some(_) | None => {}
        }
        let registered = self.record.registered?;
        if sole && self.witness_lags() {
            return Some(Request::Restate { epoch: new, over: self.talk.stands.flatten() });
        }
        let swap = Request::Swap { expected: registered, new, members: epoch.members.clone() };
        (registered != epoch.id).then_some(swap)
    }

    fn note_registered(&mut self, id: model::EpochId) {
        self.talk.trouble = None;
        self.talk.unswappable = None;
        self.talk.stands = Some(Some(id));
        if self.record.registered != Some(id) || self.record.forced {
            self.persist(|record| {
                record.registered = Some(id);
                record.forced = false;
            });
        }
    }

    fn register_differs(&mut self) {
        self.talk.trouble =
            Some("the witness's register names an epoch this node does not know".into());
        self.talk.retry_at = self.now + PROBE;
    }

    /// R5: the epoch naming both stands in the register. The target, in contact, has no rights,
    /// so whatever stands there may be replaced.
    pub(crate) fn register_join(&mut self) -> bool {
        let Some(epoch) = self.record.epoch.clone() else {
            return false;
        };
        if !self.has_witness || self.record.registered == Some(epoch.id) {
            return true;
        }
        let (new, members) = (standing(&epoch), epoch.members);
        let enrols = self.talk.unswappable.is_some_and(|(id, _)| id == new.id);
        let request = match self.record.registered.filter(|_| !enrols) {
            Some(expected) => Request::Swap { expected, new, members },
            None => Request::Enrol { epoch: new, members },
        };
        match self.ask_witness(request) {
            Some(Answer::Granted) => {
                self.note_registered(new.id);
                return true;
            }
            Some(Answer::Refused { current, .. } | Answer::Holds { current, .. }) => {
                self.persist(|record| record.registered = Some(current.id));
                return self.register_join();
            }
            // A witness that knows nothing, or may know old things only, believes both together.
            Some(Answer::Missing | Answer::Locked { .. }) => {
                self.talk.unswappable = Some((new.id, None));
                return self.register_join();
            }
            Some(Answer::Half) => self.talk.retry_at = self.now + RETRY / 5,
            None => {}
        }
        false
    }

    /// The target's half of an enrolment; harmless where a register exists.
    pub(crate) fn enrol_as_target(&mut self, peer: &Report) {
        let Some(epoch) = peer.epoch.clone().filter(|_| self.has_witness) else {
            return;
        };
        // Asked again after a while, for the witness may have lost its register since.
        let asked = self.talk.enrolled.filter(|(id, _)| *id == epoch.id);
        let again = asked.is_none_or(|(_, at)| self.due(at + PROBE));
        if !again || !epoch.members.contains(&self.me) {
            return;
        }
        let request = Request::Enrol { epoch: standing(&epoch), members: epoch.members };
        match self.ask_witness(request) {
            Some(Answer::Half) => self.talk.retry_at = self.now + RETRY / 5,
            Some(
                Answer::Granted
                | Answer::Refused { .. }
                | Answer::Missing
                | Answer::Locked { .. }
                | Answer::Holds { .. },
            ) => self.talk.enrolled = Some((epoch.id, self.now)),
            None => {}
        }
    }
}

impl Mirror {
    /// Both nodes, in sync: a register that is missing (the witness is new, or lost its own) is
    /// created anew.
    pub(crate) fn keep_enrolled(&mut self) {
        let Some(epoch) = self.record.epoch.clone().filter(|_| self.has_witness) else { return };
        let registered = self.record.registered == Some(epoch.id);
        if registered && !self.witness_lags() {
            return;
        }
        let id = epoch.id;
        let request = Request::Enrol { epoch: standing(&epoch), members: epoch.members };
        match self.ask_witness(request) {
            Some(Answer::Granted) => {
                self.info("protected", "the witness knows the pair again".into());
                self.note_registered(id);
            }
            Some(Answer::Half) => self.talk.retry_at = self.now + RETRY / 5,
            Some(
                Answer::Refused { .. }
                | Answer::Missing
                | Answer::Locked { .. }
                | Answer::Holds { .. },
            ) => self.talk.retry_at = self.now + PROBE,
            None => {}
        }
    }
}

/// An epoch as the witness tells epochs apart.
pub(crate) fn standing(epoch: &Epoch) -> Standing {
    Standing { number: epoch.number, id: epoch.id }
}
