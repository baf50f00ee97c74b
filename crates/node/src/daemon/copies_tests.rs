//! Pages of a copy: together they hold each object once, in order, whatever their length.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;

use super::*;

fn all(root: &Path, exclude: &Exclude) -> (Vec<String>, usize) {
    let (mut paths, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let (objects, more) = page(root, exclude.clone(), after).unwrap();
        pages += 1;
        paths.extend(objects.into_iter().map(|object| object.path));
        if !more {
            return (paths, pages);
        }
        after = Some(Place::of(0, paths.last().unwrap()).unwrap().names);
    }
}

#[test]
fn pages_hold_each_object_once_in_order() {
    let root = std::env::temp_dir().join(format!("evenkeel-copies-{}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    for directory in ["a", "a-", "b/c/d", "left-out"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for number in 0..PAGE_OBJECTS_MAX {
        fs::write(root.join(format!("b/c/{number}")), "").unwrap();
        fs::write(root.join(format!("a/{number}")), "").unwrap();
    }
    fs::write(root.join("left-out/below"), "").unwrap();
    std::os::unix::fs::symlink("/nowhere", root.join("link")).unwrap();
    let (paths, pages) = all(&root, &Exclude::new(["left-out"]));
    let places: Vec<Place> = paths.iter().map(|path| Place::of(0, path).unwrap()).collect();
    assert!(places.is_sorted_by(|one, next| one < next));
    // The directory itself, five below it, a link, and the files.
    assert_eq!(paths.len(), 1 + 5 + 1 + 2 * PAGE_OBJECTS_MAX);
    assert!(pages > 2, "{pages}");
    // What was listed last is gone: the next page goes on behind it.
    let (objects, _) = page(&root, Exclude::default(), Some(vec![b"aa".to_vec()])).unwrap();
    assert_eq!(objects.first().map(|object| object.path.as_str()), Some("b"));
    let (link, _) =
        page(&root, Exclude::default(), Some(vec![b"left-out".to_vec(), b"z".to_vec()])).unwrap();
    assert_eq!(link[0].target.as_deref(), Some("/nowhere"));
    fs::remove_dir_all(&root).unwrap();
}
