//! The witness's register and its protocol, as a pure state machine.

use std::collections::{BTreeMap, BTreeSet};

use model::{EpochId, ModuleName, NodeName};
use serde::{Deserialize, Serialize};

/// A question to the witness about one module of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Both nodes, in contact and in sync, ask for a register to be created.
    Enrol {
        /// The epoch they share.
        epoch: EpochId,
        /// Its members.
        members: BTreeSet<NodeName>,
    },
    /// Replace exactly `expected` by `new`.
    Swap {
        /// What must stand in the register.
        expected: EpochId,
        /// What shall stand there.
        new: EpochId,
        /// Members of `new`.
        members: BTreeSet<NodeName>,
    },
    /// Say what stands there.
    Probe,
}

/// What the witness says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Enrolled or swapped, also when that had been done before; durable before it was said.
    Granted,
    /// Something else stands there.
    Refused {
        /// What stands there.
        current: EpochId,
        /// Its members.
        members: BTreeSet<NodeName>,
    },
    /// There is no such register.
    Missing,
    /// Enrolment waits for the other node.
    Half,
    /// What stands there.
    Holds {
        /// Epoch.
        current: EpochId,
        /// Its members.
        members: BTreeSet<NodeName>,
    },
}

/// The key of a register: cluster and module.
pub type Key = (ModuleName, ModuleName);

/// All registers of a witness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Witness {
    registers: BTreeMap<Key, (EpochId, BTreeSet<NodeName>)>,
    /// Who has asked so far for a register that does not exist yet; need not survive a restart,
    /// as nodes ask again.
    halves: BTreeMap<Key, (EpochId, BTreeSet<NodeName>)>,
}

/// What stands in one register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Epoch.
    pub current: EpochId,
    /// Its members.
    pub members: BTreeSet<NodeName>,
}

impl Witness {
    /// A witness with the registers kept by an earlier one.
    #[must_use]
    pub fn new(registers: BTreeMap<Key, Register>) -> Witness {
        let registers = registers.into_iter().map(|(k, r)| (k, (r.current, r.members))).collect();
        Witness { registers, halves: BTreeMap::new() }
    }

    /// All registers, to be kept durably.
    #[must_use]
    pub fn registers(&self) -> BTreeMap<Key, Register> {
        let whole = |(key, (current, members)): (&Key, &(EpochId, BTreeSet<NodeName>))| {
            (key.clone(), Register { current: *current, members: members.clone() })
        };
        self.registers.iter().map(whole).collect()
    }

    /// Answers `request` of `from`. When a register is returned it changed: make it durable
    /// before sending the answer.
    pub fn handle(
        &mut self,
        key: &Key,
        from: &NodeName,
        request: Request,
    ) -> (Option<Register>, Answer) {
        let standing = self.registers.get(key).cloned();
        match (request, standing) {
            (Request::Probe, None) | (Request::Swap { .. }, None) => (None, Answer::Missing),
            (Request::Probe, Some((current, members))) => {
                (None, Answer::Holds { current, members })
            }
            (Request::Enrol { epoch, members }, None) => self.enrol(key, from, epoch, members),
            (Request::Enrol { epoch, .. }, Some((current, members))) => {
                let same = epoch == current;
                (None, if same { Answer::Granted } else { Answer::Refused { current, members } })
            }
            (Request::Swap { new, .. }, Some((current, _))) if current == new => {
                (None, Answer::Granted)
            }
            (Request::Swap { expected, new, members }, Some((current, _)))
                if current == expected =>
            {
                (Some(self.write(key, new, members)), Answer::Granted)
            }
            (Request::Swap { .. }, Some((current, members))) => {
                (None, Answer::Refused { current, members })
            }
        }
    }

    fn enrol(
        &mut self,
        key: &Key,
        from: &NodeName,
        epoch: EpochId,
        members: BTreeSet<NodeName>,
    ) -> (Option<Register>, Answer) {
        let half = self.halves.entry(key.clone()).or_insert_with(|| (epoch, BTreeSet::new()));
        if half.0 != epoch {
            *half = (epoch, BTreeSet::new());
        }
        half.1.insert(from.clone());
        if !members.is_subset(&half.1) {
            return (None, Answer::Half);
        }
        self.halves.remove(key);
        (Some(self.write(key, epoch, members)), Answer::Granted)
    }

    fn write(&mut self, key: &Key, current: EpochId, members: BTreeSet<NodeName>) -> Register {
        self.registers.insert(key.clone(), (current, members.clone()));
        Register { current, members }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting() -> (Witness, Key, NodeName, NodeName, BTreeSet<NodeName>) {
        let name = |text| ModuleName::new(text).unwrap();
        let (a, b) = (NodeName::new("a").unwrap(), NodeName::new("b").unwrap());
        let both = BTreeSet::from([a.clone(), b.clone()]);
        (Witness::default(), (name("cluster"), name("shop")), a, b, both)
    }

    #[test]
    fn a_register_is_created_by_both_members_only() {
        let (mut witness, key, a, b, members) = setting();
        let epoch = EpochId(1);
        let enrol = Request::Enrol { epoch, members: members.clone() };
        let swap = Request::Swap { expected: epoch, new: EpochId(2), members };
        assert_eq!(witness.handle(&key, &a, swap).1, Answer::Missing);
        assert_eq!(witness.handle(&key, &a, enrol.clone()).1, Answer::Half);
        assert_eq!(witness.handle(&key, &a, enrol.clone()).1, Answer::Half);
        let (changed, answer) = witness.handle(&key, &b, enrol.clone());
        assert_eq!((changed.unwrap().current, answer), (epoch, Answer::Granted));
        assert_eq!(witness.handle(&key, &a, enrol), (None, Answer::Granted));
    }

    #[test]
    fn only_an_exact_swap_is_granted_and_repeating_it_is_harmless() {
        let (mut witness, key, a, b, members) = setting();
        witness.write(&key, EpochId(1), members.clone());
        let swap = |expected, new| Request::Swap {
            expected: EpochId(expected),
            new: EpochId(new),
            members: members.clone(),
        };
        assert_eq!(witness.handle(&key, &a, swap(1, 2)).1, Answer::Granted);
        assert_eq!(witness.handle(&key, &a, swap(1, 2)), (None, Answer::Granted));
        let refused = Answer::Refused { current: EpochId(2), members: members.clone() };
        assert_eq!(witness.handle(&key, &b, swap(1, 3)), (None, refused));
        let kept = Witness::new(witness.registers());
        assert_eq!(kept, witness);
    }
}
