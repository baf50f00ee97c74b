//! What is hot: named by an entry of the log that no checkpoint has let go of yet.
//!
//! A file that came to be in a directory while that was hot needs no entries of its own: every
//! child that is no older than the log's stamp is compared whole. Such a file is *covered*.

use std::collections::BTreeMap;

use replica::op::FileId;
use replica::touch::Touch;

use crate::REGION_BYTES;
use crate::entry::Part;

/// Regions of one change beyond which all from the first on counts as touched.
const REGIONS_MAX: u32 = 8;

/// Covered files that are remembered; the others get entries of their own.
const COVERED_MAX: usize = 1 << 17;

/// Entries beyond which the log only says that anything may differ.
pub const ENTRIES_MAX: usize = 1 << 17;

/// Hot entries at which a checkpoint is due.
pub const CHECKPOINT_AT: usize = 3 << 10;

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Object.
    pub file: FileId,
    /// In what it may differ.
    pub part: Part,
}

/// An entry that is hot.
#[derive(Debug, Clone)]
struct Mark {
    /// Tells this heating of the key from others.
    heating: u64,
    /// The newest operation that touched it.
    touched: u64,
    /// The entry as it stands in the log.
    bytes: Box<[u8]>,
}

/// The directory that covers an object.
#[derive(Debug, Clone, Copy)]
struct Cover {
    directory: FileId,
    heating: u64,
}

/// What is hot.
#[derive(Debug, Default)]
pub struct Heat {
    marks: BTreeMap<Key, Mark>,
    covers: BTreeMap<FileId, Cover>,
    /// Entries from before this node's present mount, whose ids are gone.
    inherited: Vec<(u64, Box<[u8]>)>,
    heatings: u64,
}

impl Heat {
    /// Takes over entries of an earlier mount; all of them were touched by `number` at the latest.
    pub fn inherit(&mut self, entries: impl Iterator<Item = Box<[u8]>>, number: u64) {
        self.inherited.extend(entries.map(|bytes| (number, bytes)));
    }

    /// The entries that a change needs; none when only "anything may differ" would do.
    #[must_use]
    pub fn keys(&self, touches: &[Touch]) -> Option<Vec<Key>> {
        let mut keys = Vec::with_capacity(touches.len());
        for touch in touches {
            match *touch {
                Touch::Content { file, offset, length } => {
                    self.content(file, offset, length, &mut keys);
                }
                Touch::Rest(file) => self.part(file, Part::From(0), &mut keys),
                Touch::Meta(file) => self.part(file, Part::Meta, &mut keys),
                Touch::Names(directory) => self.part(directory, Part::Names, &mut keys),
                Touch::Moving(file) => {
                    if self.cover(file).is_none() {
                        keys.push(Key { file, part: Part::Moved });
                    }
                }
                Touch::Losing { file, other } => {
                    // Which files inherited entries are about is not known by id.
                    let unknown = !self.inherited.is_empty();
                    let covered = self.cover(file).is_some();
                    if unknown || covered || self.has_marks(file) {
                        self.part(other?, Part::Names, &mut keys);
                        // Its entries are forgotten, and its times may be lost with power.
                        if !covered {
                            keys.push(Key { file, part: Part::Moved });
                        }
                    }
                }
                Touch::Anything => return None,
            }
        }
        Some(keys)
    }

    fn content(&self, file: FileId, offset: u64, length: u64, keys: &mut Vec<Key>) {
        let region = |at: u64| u32::try_from(at / REGION_BYTES).unwrap_or(u32::MAX);
        let (first, last) = (region(offset), region(offset + length.saturating_sub(1)));
        // What lies behind the last region that has a number is nowhere else.
        if last - first >= REGIONS_MAX || last == u32::MAX {
            return self.part(file, Part::From(first), keys);
        }
        for region in first..=last {
            self.part(file, Part::Region(region), keys);
        }
    }

    fn part(&self, file: FileId, part: Part, keys: &mut Vec<Key>) {
        let covered = self.cover(file).map(|cover| cover.directory);
        let key = covered
            .map_or(Key { file, part }, |directory| Key { file: directory, part: Part::Names });
        if !keys.contains(&key) {
            keys.push(key);
        }
    }

    /// Whether an entry stands in the log.
    #[must_use]
    pub fn is_hot(&self, key: &Key) -> bool {
        self.marks.contains_key(key)
    }

    /// An entry now stands durably in the log. Until it is touched it counts as touched by
    /// `number`.
    pub fn heat(&mut self, key: Key, bytes: Box<[u8]>, number: u64) {
        self.heatings += 1;
        let heating = self.heatings;
        self.marks.entry(key).or_insert(Mark { heating, touched: number, bytes });
    }

    /// Operation `number` is about to touch these. False, with nothing noted for certain, when
    /// one of them is not hot any more.
    pub fn touch(&mut self, keys: &[Key], number: u64) -> bool {
        keys.iter().all(|key| match self.marks.get_mut(key) {
            Some(mark) => {
                mark.touched = mark.touched.max(number);
                true
            }
            None => false,
        })
    }

    /// Something was created in, or came to, a directory whose names are hot.
    pub fn arrived(&mut self, file: FileId, directory: FileId) {
        self.forget(file);
        if self.covers.len() >= COVERED_MAX {
            self.covers.clear();
        }
        let names = Key { file: directory, part: Part::Names };
        let own = self.marks.get(&names);
        let own = own.map(|mark| Cover { directory, heating: mark.heating });
        if let Some(cover) = self.cover(directory).or(own) {
            self.covers.insert(file, cover);
        }
    }

    /// A name of a file is gone. What its entries said is covered by the directories of the old
    /// and the new name; later changes need entries that give the new one.
    pub fn forget(&mut self, file: FileId) {
        self.covers.remove(&file);
        let from = Key { file, part: Part::Names };
        let marks = self.marks.range(from..).map(|(key, _)| *key);
        // That a directory's names or an object's place may differ does not depend on its name.
        let lost = |key: &Key| !matches!(key.part, Part::Names | Part::Moved);
        let of_file: Vec<Key> = marks.take_while(|key| key.file == file).filter(lost).collect();
        for key in of_file {
            self.marks.remove(&key);
        }
    }

    /// Nothing is covered any more: a directory moved, and what is below it is not where it was;
    /// or a checkpoint begins, and what came before no longer shows that by its times.
    pub fn uncover(&mut self) {
        self.covers.clear();
    }

    /// Moves are to be logged anew, as whether a peer knows of them is to be told differently.
    pub fn forget_moves(&mut self) {
        let moves = self.marks.extract_if(.., |key, _| key.part == Part::Moved);
        let moves: Vec<Mark> = moves.map(|(_, mark)| mark).collect();
        self.inherited.extend(moves.into_iter().map(|mark| (mark.touched, mark.bytes)));
    }

    /// Everything up to operation `number` is durable on both nodes.
    pub fn cool(&mut self, number: u64) {
        self.marks.retain(|_, mark| mark.touched > number);
        self.inherited.retain(|(touched, _)| *touched > number);
    }

    /// All hot entries.
    pub fn entries(&self) -> impl Iterator<Item = &[u8]> {
        let own = self.marks.values().map(|mark| &*mark.bytes);
        self.inherited.iter().map(|(_, bytes)| &**bytes).chain(own)
    }

    /// Number of hot entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.marks.len() + self.inherited.len()
    }

    /// Whether nothing is hot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn cover(&self, file: FileId) -> Option<Cover> {
        self.covers.get(&file).copied().filter(|cover| is_valid(&self.marks, *cover))
    }

    fn has_marks(&self, file: FileId) -> bool {
        let from = Key { file, part: Part::Names };
        self.marks.range(from..).next().is_some_and(|(key, _)| key.file == file)
    }
}

fn is_valid(marks: &BTreeMap<Key, Mark>, cover: Cover) -> bool {
    let names = Key { file: cover.directory, part: Part::Names };
    marks.get(&names).is_some_and(|mark| mark.heating == cover.heating)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn file(node: u64) -> FileId {
        FileId { tree: 0, node }
    }

    fn key(node: u64, part: Part) -> Key {
        Key { file: file(node), part }
    }

    fn heat(heat: &mut Heat, touches: &[Touch], number: u64) -> Vec<Key> {
        let keys = heat.keys(touches).unwrap();
        for key in &keys {
            if !heat.is_hot(key) {
                heat.heat(*key, Box::from([0]), number);
            }
        }
        assert!(heat.touch(&keys, number));
        keys
    }

    fn content(node: u64, offset: u64) -> Touch {
        Touch::Content { file: file(node), offset, length: 10 }
    }

    #[test]
    fn a_write_heats_the_regions_it_touches() {
        let mut state = Heat::default();
        let keys = heat(&mut state, &[content(5, REGION_BYTES - 5)], 1);
        assert_eq!(keys, [key(5, Part::Region(0)), key(5, Part::Region(1))]);
        let long = Touch::Content { file: file(5), offset: REGION_BYTES, length: 1 << 40 };
        assert_eq!(state.keys(&[long]), Some(vec![key(5, Part::From(1))]));
        let empty = Touch::Content { file: file(5), offset: 0, length: 0 };
        assert_eq!(state.keys(&[empty]), Some(vec![key(5, Part::Region(0))]));
        assert_eq!(state.keys(&[content(5, 1 << 60)]), Some(vec![key(5, Part::From(u32::MAX))]));
    }

    #[test]
    fn a_checkpoint_lets_go_only_of_what_was_not_touched_since() {
        let mut state = Heat::default();
        let first = heat(&mut state, &[content(5, 0)], 1);
        let second = heat(&mut state, &[content(6, 0)], 2);
        assert!(state.touch(&first, 3));
        state.cool(2);
        assert!(state.is_hot(&first[0]) && !state.is_hot(&second[0]));
        assert!(!state.touch(&second, 4), "it must be logged anew");
        state.inherit([Box::from([1])].into_iter(), 3);
        assert_eq!(state.entries().count(), 2);
        state.cool(3);
        assert!(state.is_empty());
    }

    #[test]
    fn what_came_to_a_hot_directory_needs_no_entries_until_that_goes_cold() {
        let mut state = Heat::default();
        let names = heat(&mut state, &[Touch::Names(file(2))], 1);
        state.arrived(file(9), file(2));
        state.arrived(file(10), file(9));
        assert_eq!(heat(&mut state, &[content(10, 0), Touch::Names(file(9))], 2), names);
        state.uncover();
        state.cool(1);
        assert!(state.is_hot(&names[0]), "touched by its child");
        assert_eq!(state.keys(&[content(10, 0)]), Some(vec![key(10, Part::Region(0))]));
        let again = heat(&mut state, &[Touch::Names(file(2))], 3);
        assert_eq!(again, [key(2, Part::Names)]);
        assert_eq!(state.keys(&[content(10, 0)]), Some(vec![key(10, Part::Region(0))]));
    }

    #[test]
    fn a_new_name_makes_entries_be_written_anew() {
        let mut state = Heat::default();
        heat(&mut state, &[content(5, 0), Touch::Meta(file(5))], 1);
        let moving = [Touch::Names(file(2)), Touch::Names(file(3)), Touch::Moving(file(5))];
        heat(&mut state, &moving, 2);
        state.arrived(file(5), file(3));
        assert!(!state.is_hot(&key(5, Part::Region(0))));
        assert!(state.is_hot(&key(5, Part::Moved)));
        assert_eq!(state.keys(&[content(5, 0)]), Some(vec![key(3, Part::Names)]));
        state.uncover();
        assert_eq!(state.keys(&[content(5, 0)]), Some(vec![key(5, Part::Region(0))]));
    }

    #[test]
    fn a_hot_file_that_loses_one_of_its_names_is_compared_whole_under_another() {
        let mut state = Heat::default();
        let losing = |other| Touch::Losing { file: file(5), other };
        assert_eq!(state.keys(&[losing(None)]), Some(Vec::new()), "nothing to lose");
        heat(&mut state, &[content(5, 0)], 1);
        let whole = vec![key(3, Part::Names), key(5, Part::Moved)];
        assert_eq!(state.keys(&[losing(Some(file(3)))]), Some(whole));
        assert_eq!(state.keys(&[losing(None)]), None);
    }
}
