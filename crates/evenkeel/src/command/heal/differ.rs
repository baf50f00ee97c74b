//! What differs between two lists of the objects of two copies that went apart, and which side did
//! it. Pure: lists come in order, an object at a time, and nothing is kept but the directories that
//! lead to where both are.
//!
//! A node knows when it took up the epoch that the other does not know, and when anything of an
//! object was changed on it: so it knows what it changed since then. Contents are not read: a file
//! of the same size and modification time is taken for equal.

use serde::Serialize;
use wire::listing::{Listed, Place};

/// Type bits of a mode, and those of regular files and directories.
const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

/// How an object differs. A number is that of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum What {
    /// Made on this side since then.
    Made(usize),
    /// Removed on this side since then.
    Removed(usize),
    /// Removed on this side, and changed on the other one.
    RemovedAndChanged(usize),
    /// Only on this side, as far as is known.
    Only(usize),
    /// Changed on this side alone.
    Changed(usize),
    /// Changed on both.
    ChangedOnBoth,
    /// Not the same, and who did it is not known.
    Differs,
}

/// An object of one side, and whether it was changed there since both went apart, if that is known.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) place: Place,
    pub(super) object: Listed,
    pub(super) changed: Option<bool>,
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) place: Place,
    pub(super) what: What,
}

/// What one side's copy would lose, at most, if the other one's is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Loss {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Goes through both lists.
#[derive(Debug, Default)]
pub(super) struct Differ {
    /// The directories that lead to the last object of each side, and whether they were changed.
    above: [Vec<(Place, Option<bool>)>; 2],
    /// What each side alone has.
    pub(super) losses: [Loss; 2],
    /// Objects that were compared.
    pub(super) compared: u64,
}

impl Differ {
    /// The next objects of both sides: which of them are gone through now, and how they differ.
    pub(super) fn next(&mut self, heads: [Option<&Seen>; 2]) -> ([bool; 2], Option<Difference>) {
        let taken = match heads {
            [Some(one), Some(two)] => [one.place <= two.place, two.place <= one.place],
            [one, two] => [one.is_some(), two.is_some()],
        };
        let heads = [0, 1].map(|side| heads[side].filter(|_| taken[side]));
        let what = match heads {
            [Some(one), Some(two)] => difference(one, two),
            [Some(one), None] => Some(self.only(0, one)),
            [None, Some(two)] => Some(self.only(1, two)),
            [None, None] => None,
        };
        for (side, seen) in heads.iter().enumerate() {
            let Some(seen) = seen else { continue };
            self.compared += u64::from(side == 0 || heads[0].is_none());
            self.enter(side, seen);
            let loses = what.is_some() && matches!(seen.object.mode & TYPE, REGULAR | LINK);
            if loses {
                self.losses[side].files += 1;
                self.losses[side].bytes += seen.object.size;
            }
        }
        let place = heads.iter().flatten().next().map(|seen| seen.place.clone());
        (taken, what.zip(place).map(|(what, place)| Difference { place, what }))
    }

    fn enter(&mut self, side: usize, seen: &Seen) {
        let above = &mut self.above[side];
        above.retain(|(place, _)| holds(place, &seen.place));
        if seen.object.mode & TYPE == DIRECTORY {
            above.push((seen.place.clone(), seen.changed));
        }
    }

    /// An object that is on one side only.
    fn only(&self, side: usize, seen: &Seen) -> What {
        let parent = |side: usize| {
            let above = self.above[side].iter().rev().find(|(place, _)| {
                holds(place, &seen.place) && place.names.len() + 1 == seen.place.names.len()
            });
            above.map(|(_, changed)| *changed)
        };
        let other = 1 - side;
        let made_in = parent(side).flatten();
        // Where the directory is missing too, that says what became of it.
        let lost_in = parent(other).unwrap_or(Some(true));
        // Renaming a directory changes nothing of what is in it.
        let lies_in_a_new_one = self.above[side].iter().any(|(place, changed)| {
            let is_there = self.above[other].iter().any(|(there, _)| there == place);
            holds(place, &seen.place) && !is_there && *changed != Some(false)
        });
        if lies_in_a_new_one {
            return What::Only(side);
        }
        let was_there = seen.changed == Some(false) || made_in == Some(false);
        match (was_there, lost_in) {
            (true, _) if seen.changed == Some(true) => What::RemovedAndChanged(other),
            (true, _) => What::Removed(other),
            (false, Some(false)) => What::Made(side),
            (false, Some(true) | None) => What::Only(side),
        }
    }
}

/// Whether a directory is one of those that lead to a place.
fn holds(directory: &Place, place: &Place) -> bool {
    directory.tree == place.tree
        && place.names.len() > directory.names.len()
        && place.names.starts_with(&directory.names)
}

/// How two objects of the same path differ, if they do.
fn difference(one: &Seen, two: &Seen) -> Option<What> {
    let (a, b) = (&one.object, &two.object);
    let attributes = a.mode == b.mode && a.owner == b.owner && a.target == b.target;
    let content = match a.mode & TYPE {
        DIRECTORY => true,
        REGULAR => a.size == b.size && a.modified == b.modified,
        _ => a.device == b.device,
    };
    if attributes && content {
        return None;
    }
    Some(match (one.changed, two.changed) {
        (Some(true), Some(false)) => What::Changed(0),
        (Some(false), Some(true)) => What::Changed(1),
        (Some(true), Some(true)) => What::ChangedOnBoth,
        (Some(false), Some(false)) | (None, _) | (_, None) => What::Differs,
    })
}

impl What {
    /// In words, with the names of both sides.
    pub(super) fn told(self, nodes: [&str; 2]) -> String {
        match self {
            What::Made(side) => format!("new on {}", nodes[side]),
            What::Removed(side) => format!("removed on {}", nodes[side]),
            What::RemovedAndChanged(side) => {
                format!("removed on {}, changed on {}", nodes[side], nodes[1 - side])
            }
            What::Only(side) => format!("only on {}", nodes[side]),
            What::Changed(side) => format!("changed on {}", nodes[side]),
            What::ChangedOnBoth => "changed on both".to_owned(),
            What::Differs => "different".to_owned(),
        }
    }
}

#[cfg(test)]
#[path = "differ_tests.rs"]
mod tests;
