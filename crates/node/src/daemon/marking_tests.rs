//! Which directories are marked, and which are left alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;

use super::*;
use crate::marker::{self, Marker};

const ROOT: u128 = 7;

#[test]
fn a_marking_that_was_cut_short_is_finished_where_it_was_begun() {
    let path = std::env::temp_dir().join(format!("evenkeel-marking-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    let module = ModuleName::new("shop").unwrap();
    let places = vec![place(&path).unwrap()];
    let first = Marking { before: None, wanted: (ROOT, EpochId(2)), places };
    let next = Marking { before: Some((ROOT, EpochId(1))), ..first.clone() };
    let due = |marking: &Marking| is_due(&path, 0, &module, marking);
    assert!(due(&first) && !due(&next));
    // The directory is another one: a disk has to be mounted there.
    let other = Place { inode: 1, ..first.places[0] };
    assert!(!due(&Marking { places: vec![other], ..first.clone() }));
    let earlier = Place { born: Some(Duration::ZERO), ..first.places[0] };
    assert!(!due(&Marking { places: vec![earlier], ..first.clone() }));
    assert!(!due(&Marking { places: Vec::new(), ..first.clone() }));
    let mut marker = Marker { module: module.clone(), root: ROOT, index: 0, epoch: EpochId(1) };
    marker::write(&path, &marker).unwrap();
    assert!(!due(&first) && due(&next));
    marker.epoch = EpochId(2);
    marker::write(&path, &marker).unwrap();
    assert!(due(&first) && due(&next), "it was done already, but for the note");
    marker.module = ModuleName::new("other").unwrap();
    marker::write(&path, &marker).unwrap();
    assert!(!due(&first) && !due(&next));
    fs::remove_dir_all(&path).unwrap();
}
