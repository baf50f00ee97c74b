//! Which directories are marked, and which are left alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;

use cluster::record::StoredCopy;
use model::config::{Source, parse_cluster, parse_module};

use super::*;
use crate::marker::Marker;

const ROOT: u128 = 7;
const CLUSTER: &str = "cluster = 'c'\n\
    [[node]]\nname = 'node1'\naddresses = { lan0 = '10.0.0.1' }\n\
    [[node]]\nname = 'node2'\naddresses = { lan0 = '10.0.0.2' }\n";

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

#[test]
fn what_is_forgotten_loses_its_markers_unless_something_would_be_lost_with_them() {
    let path = std::env::temp_dir().join(format!("evenkeel-forgetting-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    let text = format!("module = 'shop'\nkind = 'mirror'\nreplicate = ['{}']\n", path.display());
    let cluster = parse_cluster(&Source { file: "cluster.toml", text: CLUSTER }).unwrap();
    let config = parse_module(&Source { file: "shop.toml", text: &text }, &cluster).unwrap();
    let marker = marker_of(0);
    marker::write(&path, &marker).unwrap();
    let of = |root| Record { root, copy: StoredCopy::Current, ..Record::default() };
    let before = of(ROOT + 1);
    let found_empty = Record::default();
    let found_full = Record { quarantine: Some(Duration::from_secs(1)), ..Record::default() };
    assert!(forget(&config, &before, &found_empty).is_err(), "it is another disk by now");
    let mounted = Record { copy: StoredCopy::Inconsistent, ..of(ROOT) };
    assert!(forget(&config, &mounted, &found_full).is_err(), "the module's disk is there");
    assert_eq!(marker::read(&path).unwrap().as_ref(), Some(&marker));
    for wrong in [Marker { module: ModuleName::new("wiki").unwrap(), ..marker_of(0) }, marker_of(1)]
    {
        marker::write(&path, &wrong).unwrap();
        assert!(forget(&config, &before, &found_full).is_err(), "not this directory's");
        assert_eq!(marker::read(&path).unwrap().as_ref(), Some(&wrong));
        marker::write(&path, &marker_of(0)).unwrap();
    }
    forget(&config, &before, &found_full).unwrap();
    assert_eq!(marker::read(&path).unwrap(), None);
    forget(&config, &before, &found_empty).unwrap();
    fs::write(path.join("put there since"), "").unwrap();
    assert!(forget(&config, &before, &found_empty).is_err(), "nothing would keep it");
    fs::remove_dir_all(&path).unwrap();
}

fn marker_of(index: usize) -> Marker {
    let module = ModuleName::new("shop").unwrap();
    Marker { module, root: ROOT, index, epoch: EpochId(1) }
}
