//! The witness's registers and its protocol, as a pure state machine.
//!
//! A register names the epoch that counts. It changes only by an exact swap, and is created only by
//! both nodes or restored by the living owner. A witness that was put back to an earlier state
//! cannot see that by itself: so after each start it grants nothing for a register before everybody
//! named in it was heard, and nothing at all once one of them knows of a later epoch.

use std::collections::{BTreeMap, BTreeSet};

use model::{EpochId, ModuleName, NodeName};
use serde::{Deserialize, Serialize};

/// An epoch as the witness tells epochs apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its number: of two epochs of one history the later one's is greater.
    pub number: u64,
    /// Its identity.
    pub id: EpochId,
}

/// A question to the witness about one module of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Both nodes, in contact and in sync, ask for a register to be created, or for one to be
    /// brought up to date that lags behind.
    Enrol {
        /// The epoch they share.
        epoch: Standing,
        /// Its members.
        members: BTreeSet<NodeName>,
    },
    /// Replace exactly `expected` by `new`.
    Swap {
        /// What must stand in the register.
        expected: EpochId,
        /// What shall stand there.
        new: Standing,
        /// Members of `new`.
        members: BTreeSet<NodeName>,
    },
    /// The living owner, the only member of its epoch, asks for it to stand in a register that is
    /// missing, or lags behind, or that the operator has overruled.
    Restate {
        /// Its epoch.
        epoch: Standing,
        /// What the owner has seen to stand there, and knows to be out of date; none when there was
        /// no register.
        over: Option<EpochId>,
    },
    /// Say what stands there.
    Probe {
        /// The newest epoch that the asking node knows to have stood there.
        known: Option<Standing>,
    },
}

/// What the witness says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Enrolled, restated or swapped, also when that had been done before; durable before it was
    /// said.
    Granted,
    /// Something else stands there.
    Refused {
        /// What stands there.
        current: Standing,
        /// Its members.
        members: BTreeSet<NodeName>,
    },
    /// There is no such register.
    Missing,
    /// Enrolment waits for the other node.
    Half,
    /// Nothing is granted before these nodes were heard, for the register may be an old one.
    Locked {
        /// Who has to be heard.
        unheard: BTreeSet<NodeName>,
    },
    /// What stands there.
    Holds {
        /// Epoch.
        current: Standing,
        /// Its members.
        members: BTreeSet<NodeName>,
    },
}

/// The key of a register: cluster and module.
pub type Key = (ModuleName, ModuleName);

/// All registers of a witness.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Witness {
    registers: BTreeMap<Key, Register>,
    /// Who has asked so far for a register that does not exist yet; need not survive a restart,
    /// as nodes ask again.
    halves: BTreeMap<Key, (EpochId, BTreeSet<NodeName>)>,
    /// Who was heard about each register since this witness started and knew nothing newer.
    /// Forgotten at a restart on purpose: the registers may then be older ones.
    heard: BTreeMap<Key, BTreeSet<NodeName>>,
    /// Registers of which some node knows that they lag behind.
    behind: BTreeSet<Key>,
}

/// What stands in one register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Epoch.
    pub current: EpochId,
    /// Its number; 0 in registers written before numbers were kept.
    #[serde(default)]
    pub number: u64,
    /// Its members.
    pub members: BTreeSet<NodeName>,
}

impl Register {
    fn standing(&self) -> Standing {
        Standing { number: self.number, id: self.current }
    }
}

impl Witness {
    /// A witness with the registers kept by an earlier one.
    #[must_use]
    pub fn new(registers: BTreeMap<Key, Register>) -> Witness {
        Witness { registers, ..Witness::default() }
    }

    /// A witness in the middle of its life, which has heard everybody named in its registers: for
    /// simulations that begin there.
    #[must_use]
    pub fn that_has_heard(registers: BTreeMap<Key, Register>) -> Witness {
        let named = |(key, register): (&Key, &Register)| (key.clone(), register.members.clone());
        let heard = registers.iter().map(named).collect();
        Witness { heard, ..Witness::new(registers) }
    }

    /// All registers, to be kept durably.
    #[must_use]
    pub fn registers(&self) -> BTreeMap<Key, Register> {
        self.registers.clone()
    }

    /// Answers `request` of `from`. When a register is returned it changed: make it durable
    /// before sending the answer.
    pub fn handle(
        &mut self,
        key: &Key,
        from: &NodeName,
        request: Request,
    ) -> (Option<Register>, Answer) {
        let Some(standing) = self.registers.get(key).cloned() else {
            return self.without_register(key, from, request);
        };
        match request {
            Request::Probe { known } => {
                let changed = self.hear(key, from, known);
                (changed, self.registers.get(key).map_or(Answer::Missing, holds))
            }
            Request::Enrol { epoch, members } => {
                if epoch.id == standing.current {
                    (self.hear(key, from, Some(epoch)), Answer::Granted)
                } else if epoch.number > standing.number {
                    self.enrol(key, from, epoch, members)
                } else {
                    (None, refused(&standing))
                }
            }
            Request::Restate { epoch, over } => {
                if epoch.id == standing.current {
                    (self.hear(key, from, Some(epoch)), Answer::Granted)
                } else if over == Some(standing.current) {
                    (Some(self.write(key, epoch, only(from))), Answer::Granted)
                } else {
                    (None, refused(&standing))
                }
            }
            Request::Swap { new, .. } if standing.current == new.id => (None, Answer::Granted),
            Request::Swap { expected, new, members } => {
                if standing.current != expected {
                    return (None, refused(&standing));
                }
                self.hear(key, from, Some(standing.standing()));
                match self.locked(key, &standing) {
                    Some(unheard) => (None, Answer::Locked { unheard }),
                    None => (Some(self.write(key, new, members)), Answer::Granted),
                }
            }
        }
    }

    fn without_register(
        &mut self,
        key: &Key,
        from: &NodeName,
        request: Request,
    ) -> (Option<Register>, Answer) {
        match request {
            Request::Probe { .. } | Request::Swap { .. } => (None, Answer::Missing),
            Request::Enrol { epoch, members } => self.enrol(key, from, epoch, members),
            Request::Restate { over: Some(_), .. } => (None, Answer::Missing),
            Request::Restate { epoch, over: None } => {
                (Some(self.write(key, epoch, only(from))), Answer::Granted)
            }
        }
    }

    /// Takes in what a node knows of a register. One that was written before numbers were kept
    /// learns its own, which is returned; until then it cannot be compared with other epochs. Nor
    /// can two epochs of the same number: whoever names another one than stands there says neither
    /// that the register lags behind nor that it does not.
    fn hear(&mut self, key: &Key, from: &NodeName, known: Option<Standing>) -> Option<Register> {
        let register = self.registers.get_mut(key)?;
        let standing = register.standing();
        let same = known.is_some_and(|known| known.id == standing.id);
        let learnt = known.filter(|known| same && known.number > standing.number);
        let older = known.is_none_or(|known| known.number < standing.number);
        let newer = known.is_some_and(|known| known.number > standing.number);
        if let Some(known) = learnt {
            register.number = known.number;
        }
        let changed = learnt.map(|_| register.clone());
        if same || older {
            self.heard.entry(key.clone()).or_default().insert(from.clone());
        } else if newer && standing.number > 0 {
            self.behind.insert(key.clone());
        }
        changed
    }

    /// Who has to be heard before anything is granted; none when nobody has.
    fn locked(&self, key: &Key, standing: &Register) -> Option<BTreeSet<NodeName>> {
        if self.behind.contains(key) {
            return Some(standing.members.clone());
        }
        let heard = self.heard.get(key);
        let unheard: BTreeSet<NodeName> = standing
            .members
            .iter()
            .filter(|node| !heard.is_some_and(|heard| heard.contains(*node)))
            .cloned()
            .collect();
        (!unheard.is_empty()).then_some(unheard)
    }

    fn enrol(
        &mut self,
        key: &Key,
        from: &NodeName,
        epoch: Standing,
        members: BTreeSet<NodeName>,
    ) -> (Option<Register>, Answer) {
        let half = self.halves.entry(key.clone()).or_insert_with(|| (epoch.id, BTreeSet::new()));
        if half.0 != epoch.id {
            *half = (epoch.id, BTreeSet::new());
        }
        half.1.insert(from.clone());
        if !members.is_subset(&half.1) {
            return (None, Answer::Half);
        }
        self.halves.remove(key);
        (Some(self.write(key, epoch, members)), Answer::Granted)
    }

    /// Writes a register down. Whoever is named in it was heard, or is heard by what it says next:
    /// what was written since this witness started is not an old state.
    fn write(&mut self, key: &Key, new: Standing, members: BTreeSet<NodeName>) -> Register {
        self.behind.remove(key);
        self.heard.insert(key.clone(), members.clone());
        let register = Register { current: new.id, number: new.number, members };
        self.registers.insert(key.clone(), register.clone());
        register
    }
}

fn only(node: &NodeName) -> BTreeSet<NodeName> {
    BTreeSet::from([node.clone()])
}

fn holds(register: &Register) -> Answer {
    Answer::Holds { current: register.standing(), members: register.members.clone() }
}

fn refused(register: &Register) -> Answer {
    Answer::Refused { current: register.standing(), members: register.members.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        witness: Witness,
        key: Key,
        a: NodeName,
        b: NodeName,
    }

    fn epoch(number: u64) -> Standing {
        Standing { number, id: EpochId(u128::from(number)) }
    }

    fn case() -> Case {
        let name = |text| ModuleName::new(text).unwrap();
        let (a, b) = (NodeName::new("a").unwrap(), NodeName::new("b").unwrap());
        Case { witness: Witness::default(), key: (name("cluster"), name("shop")), a, b }
    }

    impl Case {
        fn both(&self) -> BTreeSet<NodeName> {
            BTreeSet::from([self.a.clone(), self.b.clone()])
        }

        fn ask(&mut self, from: &NodeName, request: Request) -> Answer {
            self.witness.handle(&self.key, from, request).1
        }

        fn swap(&mut self, from: &NodeName, expected: u64, new: u64) -> Answer {
            let members = only(from);
            let request =
                Request::Swap { expected: EpochId(u128::from(expected)), new: epoch(new), members };
            self.ask(from, request)
        }

        fn enrolled(number: u64) -> Case {
            let mut case = case();
            let members = case.both();
            case.witness.write(&case.key.clone(), epoch(number), members);
            case
        }

        fn register(&self) -> Register {
            self.witness.registers[&self.key].clone()
        }

        fn restart(&mut self) {
            self.witness = Witness::new(self.witness.registers());
        }
    }

    #[test]
    fn a_register_is_created_by_both_members_only() {
        let mut case = case();
        let (a, b) = (case.a.clone(), case.b.clone());
        let enrol = Request::Enrol { epoch: epoch(1), members: case.both() };
        assert_eq!(case.swap(&a, 1, 2), Answer::Missing);
        assert_eq!(case.ask(&a, enrol.clone()), Answer::Half);
        assert_eq!(case.ask(&a, enrol.clone()), Answer::Half);
        let (changed, answer) = case.witness.handle(&case.key, &b, enrol.clone());
        assert_eq!((changed.unwrap().current, answer), (epoch(1).id, Answer::Granted));
        assert_eq!(case.witness.handle(&case.key, &a, enrol), (None, Answer::Granted));
    }

    #[test]
    fn only_an_exact_swap_is_granted_and_repeating_it_is_harmless() {
        let mut case = Case::enrolled(1);
        let (a, b) = (case.a.clone(), case.b.clone());
        assert_eq!(case.swap(&a, 1, 2), Answer::Granted);
        assert_eq!(case.swap(&a, 1, 2), Answer::Granted);
        let refused = Answer::Refused { current: epoch(2), members: only(&a) };
        assert_eq!(case.swap(&b, 1, 3), refused);
        case.restart();
        assert_eq!(case.swap(&a, 1, 2), Answer::Granted, "the answer was lost");
    }

    #[test]
    fn after_a_start_nothing_is_granted_before_everybody_named_was_heard() {
        let mut case = Case::enrolled(1);
        let (a, b) = (case.a.clone(), case.b.clone());
        case.restart();
        assert_eq!(case.swap(&b, 1, 2), Answer::Locked { unheard: only(&a) });
        case.ask(&a, Request::Probe { known: Some(epoch(1)) });
        assert_eq!(case.swap(&b, 1, 2), Answer::Granted);
        case.restart();
        assert_eq!(case.swap(&b, 2, 3), Answer::Granted, "the owner is heard by asking");
    }

    #[test]
    fn one_that_lags_behind_grants_nothing_until_the_owner_restates() {
        let mut case = Case::enrolled(1);
        let (a, b) = (case.a.clone(), case.b.clone());
        let saved = case.witness.registers();
        assert_eq!(case.swap(&a, 1, 2), Answer::Granted);
        case.witness = Witness::new(saved);
        case.ask(&b, Request::Probe { known: Some(epoch(1)) });
        assert_eq!(case.swap(&b, 1, 3), Answer::Locked { unheard: only(&a) });
        case.ask(&a, Request::Probe { known: Some(epoch(2)) });
        assert_eq!(case.swap(&b, 1, 3), Answer::Locked { unheard: case.both() });
        let restate = Request::Restate { epoch: epoch(2), over: Some(epoch(1).id) };
        assert_eq!(case.ask(&a, restate), Answer::Granted);
        let refused = Answer::Refused { current: epoch(2), members: only(&a) };
        assert_eq!(case.swap(&b, 1, 3), refused);
    }

    #[test]
    fn one_that_lags_behind_is_brought_up_to_date_by_both() {
        let mut case = Case::enrolled(1);
        let (a, b) = (case.a.clone(), case.b.clone());
        let enrol = Request::Enrol { epoch: epoch(3), members: case.both() };
        case.ask(&a, Request::Probe { known: Some(epoch(3)) });
        assert_eq!(case.ask(&a, enrol.clone()), Answer::Half);
        assert_eq!(case.swap(&b, 1, 2), Answer::Locked { unheard: case.both() });
        assert_eq!(case.ask(&b, enrol), Answer::Granted);
        assert_eq!(case.swap(&b, 3, 4), Answer::Granted);
    }

    #[test]
    fn nobody_restates_over_what_it_has_not_seen() {
        let mut case = Case::enrolled(3);
        let a = case.a.clone();
        let refused = Answer::Refused { current: epoch(3), members: case.both() };
        for over in [None, Some(epoch(1).id), Some(epoch(2).id)] {
            let restate = Request::Restate { epoch: epoch(4), over };
            assert_eq!(case.ask(&a, restate), refused, "over {over:?}");
        }
        case.witness = Witness::default();
        let restate = |over| Request::Restate { epoch: epoch(4), over };
        assert_eq!(case.ask(&a, restate(Some(epoch(3).id))), Answer::Missing);
        assert_eq!(case.ask(&a, restate(None)), Answer::Granted);
    }

    #[test]
    fn a_register_without_a_number_learns_it() {
        let mut case = Case::enrolled(0);
        let (a, b) = (case.a.clone(), case.b.clone());
        case.restart();
        let named = Standing { number: 7, ..epoch(0) };
        case.ask(&b, Request::Probe { known: Some(epoch(3)) });
        let unheard = case.both();
        let own = |number| Request::Probe { known: Some(Standing { number, ..epoch(0) }) };
        assert_eq!(case.witness.locked(&case.key, &case.register()), Some(unheard));
        let (changed, answer) = case.witness.handle(&case.key, &a, own(7));
        assert_eq!(changed.map(|register| register.number), Some(7));
        assert_eq!(answer, Answer::Holds { current: named, members: case.both() });
        assert_eq!(case.witness.handle(&case.key, &b, own(7)).0, None, "it knows it");
        assert_eq!(case.witness.locked(&case.key, &case.register()), None);
    }

    #[test]
    fn another_epoch_of_the_same_number_says_nothing() {
        let mut case = Case::enrolled(3);
        let b = case.b.clone();
        case.restart();
        let other = Standing { number: 3, id: EpochId(99) };
        case.ask(&b, Request::Probe { known: Some(other) });
        let both = case.both();
        assert_eq!(case.witness.locked(&case.key, &case.register()), Some(both));
        assert!(case.witness.behind.is_empty());
    }
}
