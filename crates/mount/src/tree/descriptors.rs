//! A bounded cache of `O_PATH` descriptors, the least recently used ones leaving first.
//!
//! It only saves calls: whoever misses one opens the file by its handle.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Descriptors {
    capacity: usize,
    uses: u64,
    by_node: HashMap<u64, (u64, Arc<OwnedFd>)>,
    by_use: BTreeMap<u64, u64>,
}

impl Descriptors {
    pub(super) fn new(capacity: usize) -> Descriptors {
        Descriptors { capacity, uses: 0, by_node: HashMap::new(), by_use: BTreeMap::new() }
    }

    pub(super) fn get(&mut self, node: u64) -> Option<Arc<OwnedFd>> {
        let (last_use, file) = self.by_node.get_mut(&node)?;
        self.by_use.remove(last_use);
        self.uses += 1;
        *last_use = self.uses;
        self.by_use.insert(self.uses, node);
        Some(Arc::clone(file))
    }

    pub(super) fn insert(&mut self, node: u64, file: Arc<OwnedFd>) {
        self.remove(node);
        self.uses += 1;
        self.by_node.insert(node, (self.uses, file));
        self.by_use.insert(self.uses, node);
        while self.by_node.len() > self.capacity {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            self.by_node.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, node: u64) {
        if let Some((last_use, _)) = self.by_node.remove(&node) {
            self.by_use.remove(&last_use);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_leaves_first() {
        let file = || Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let mut cache = Descriptors::new(2);
        cache.insert(1, file());
        cache.insert(2, file());
        assert!(cache.get(1).is_some());
        cache.insert(3, file());
        assert!(cache.get(2).is_none());
        assert!(cache.get(1).is_some() && cache.get(3).is_some());
        cache.remove(1);
        assert!(cache.get(1).is_none());
    }
}
