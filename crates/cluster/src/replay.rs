//! Decides anew what a node has decided, from what was recorded of it, and compares.
//!
//! A node is a function of what it is given, so the same program must come to the same effects and
//! the same state. Where it does not, something is not pure, or the program is another one. What
//! the bytes of a recording look like, and what people are shown of it, is not here.

use model::Time;

use crate::effect::Effect;
use crate::input::{Boot, Input};
use crate::node::Node;

/// What is recorded of a node, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A daemon began with this.
    Boot(Box<Boot>),
    /// The node as it was at that moment.
    State {
        /// The node.
        node: Box<Node>,
        /// Whether nothing is missing between the entry before this one and this one.
        continues: bool,
    },
    /// The node was given this.
    Input(Input),
    /// What came of the boot or the input before; not there when nothing came of it.
    Effects(Vec<Effect>),
}

/// The first place where a replay and its recording part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The newest boot or input had other effects.
    Effects {
        /// As they were recorded.
        recorded: Vec<Effect>,
        /// As they are here.
        decided: Vec<Effect>,
    },
    /// After the same effects, the state is another one.
    State {
        /// As it was recorded.
        recorded: Box<Node>,
        /// As it is here.
        decided: Box<Node>,
    },
}

/// A node that is led through a recording.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    node: Option<Node>,
    /// The effects of the newest boot or input, until they are known to be those recorded.
    due: Vec<Effect>,
}

impl Replay {
    /// The node as it is now; none until a recording says with what it began.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Goes on by one entry. Returns the effects of a boot or an input; whether they are those
    /// recorded shows by the entry that follows.
    pub fn take(&mut self, now: Time, entry: Entry) -> Result<&[Effect], Difference> {
        match entry {
            // The daemon before may have ended between an input and what came of it.
            Entry::Boot(boot) => {
                let (node, effects) = Node::new(now, *boot);
                self.node = Some(node);
                self.due = effects;
            }
            Entry::State { node, continues: false } => {
                self.node = Some(*node);
                self.due.clear();
            }
            Entry::State { node, continues: true } => {
                self.compare(Vec::new())?;
                if let Some(decided) = self.node.take().filter(|decided| *decided != *node) {
                    return Err(Difference::State { recorded: node, decided: Box::new(decided) });
                }
                self.node = Some(*node);
            }
            Entry::Input(input) => {
                self.compare(Vec::new())?;
                if let Some(node) = &mut self.node {
                    self.due = node.handle(now, input);
                }
            }
            Entry::Effects(recorded) => {
                self.compare(recorded)?;
                return Ok(&[]);
            }
        }
        Ok(&self.due)
    }

    /// What follows cannot be understood, or is missing: goes on where a node begins anew.
    pub fn lose(&mut self) {
        self.node = None;
        self.due.clear();
    }

    fn compare(&mut self, recorded: Vec<Effect>) -> Result<(), Difference> {
        let decided = std::mem::take(&mut self.due);
        if self.node.is_none() || decided == recorded {
            return Ok(());
        }
        Err(Difference::Effects { recorded, decided })
    }
}
