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
            self.effects.push(Effect::AskWitness { module: self.module.clone(), request });
        }
        None
    }

    pub(crate) fn hear_witness(&mut self, request: Request, answer: Answer) {
        if self.talk.asked.as_ref().is_some_and(|(asked, _)| *asked == request) {
            self.talk.asked = None;
        }
        self.talk.answered = true;
        if let Request::Probe { known } = &request {
            self.talk.missing = match (&answer, known) {
                (Answer::Missing, _) => true,
                // It was put back to an earlier state.
                (Answer::Holds { current, .. }, Some(known)) => {
                    current.id != known.id && current.number <= known.number
                }
                (
                    Answer::Holds { .. }
                    | Answer::Granted
                    | Answer::Refused { .. }
                    | Answer::Half
                    | Answer::Locked { .. },
                    _,
                ) => false,
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
            self.effects.push(Effect::AskWitness { module: self.module.clone(), request });
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

    /// A sole member registers its epoch as soon as the witness can be reached.
    pub(crate) fn register_alone(&mut self) {
        let Some(epoch) = self.record.epoch.clone() else {
            return;
        };
        let Some(expected) = self.record.registered.filter(|_| self.has_witness) else {
            return;
        };
        let new = standing(&epoch);
        // The peer was left behind; the owner's word is enough where nothing newer stands.
        let sole = epoch.is_sole_member(&self.me);
        let lags = sole && (self.talk.missing || self.talk.unswappable == Some(epoch.id));
        let members = epoch.members.clone();
        let request = match (expected == epoch.id, lags) {
            (_, true) => Request::Restate { epoch: new },
            (false, false) => Request::Swap { expected, new, members },
            (true, false) => return,
        };
        match self.ask_witness(request) {
            Some(Answer::Granted) => {
                self.talk.trouble = None;
                self.talk.missing = false;
                self.persist(|record| record.registered = Some(epoch.id));
            }
            Some(Answer::Refused { current, .. }) if self.is_newer_own(current.id) => {
                self.persist(|record| record.registered = Some(current.id));
            }
            Some(Answer::Missing | Answer::Locked { .. }) if sole && !lags => {
                self.talk.unswappable = Some(epoch.id);
                self.register_alone();
            }
            Some(
                Answer::Refused { .. }
                | Answer::Missing
                | Answer::Half
                | Answer::Locked { .. }
                | Answer::Holds { .. },
            ) => {
                self.talk.trouble =
                    Some("the witness's register names an epoch this node does not know".into());
                self.talk.retry_at = self.now + PROBE;
            }
            None => {}
        }
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
        let enrols = self.talk.unswappable == Some(new.id);
        let request = match self.record.registered.filter(|_| !enrols) {
            Some(expected) => Request::Swap { expected, new, members },
            None => Request::Enrol { epoch: new, members },
        };
        match self.ask_witness(request) {
            Some(Answer::Granted) => {
                self.talk.trouble = None;
                self.talk.missing = false;
                self.persist(|record| record.registered = Some(new.id));
                return true;
            }
            Some(Answer::Refused { current, .. } | Answer::Holds { current, .. }) => {
                self.persist(|record| record.registered = Some(current.id));
                return self.register_join();
            }
            // A witness that knows nothing, or may know old things only, believes both together.
            Some(Answer::Missing | Answer::Locked { .. }) => {
                self.talk.unswappable = Some(new.id);
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
        if registered && !self.talk.missing {
            return;
        }
        let id = epoch.id;
        let request = Request::Enrol { epoch: standing(&epoch), members: epoch.members };
        match self.ask_witness(request) {
            Some(Answer::Granted) => {
                self.talk.missing = false;
                self.info("protected", "the witness knows the pair again".into());
                if !registered {
                    self.persist(|record| record.registered = Some(id));
                }
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
