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
    let first = Marking { before: None, wanted: (ROOT, EpochId(2)) };
    let next = Marking { before: Some((ROOT, EpochId(1))), ..first.clone() };
    let due = |marking: &Marking| is_due(&path, &module, marking);
    assert!(!due(&first) && !due(&next), "a disk may have to be mounted there");
    fs::write(path.join("file"), "").unwrap();
    assert!(due(&first) && !due(&next));
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
