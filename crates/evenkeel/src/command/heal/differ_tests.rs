//! Two lists side by side, and what is found between them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;

/// A list: `path kind size changed`; `kind` is `d` or `f`, `changed` is `+`, `-` or `?`.
fn list(text: &str) -> Vec<Seen> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [path, kind, size, changed] = words[..] else { panic!("{line}") };
        let path = if path == "/" { "" } else { path };
        let size: u64 = size.parse().unwrap();
        let object = Listed {
            path: path.to_owned(),
            mode: if kind == "d" { DIRECTORY | 0o755 } else { REGULAR | 0o644 },
            owner: (0, 0),
            size,
            device: 0,
            modified: i64::try_from(size).unwrap(),
            changed: 0,
            target: None,
        };
        let changed = match changed {
            "+" => Some(true),
            "-" => Some(false),
            _ => None,
        };
        Seen { place: Place::of(0, path).unwrap(), object, changed }
    };
    text.lines().map(str::trim).filter(|text| !text.is_empty()).map(line).collect()
}

fn found(one: &str, two: &str) -> (Vec<String>, Differ) {
    let mut lists = [list(one), list(two)].map(|list| list.into_iter().peekable());
    let (mut differ, mut found) = (Differ::default(), Vec::new());
    loop {
        let [one, two] = &mut lists;
        let heads = [one.peek(), two.peek()];
        if heads == [None, None] {
            return (found, differ);
        }
        let (taken, difference) = differ.next(heads);
        assert!(taken.contains(&true));
        let told =
            |found: Difference| format!("{}: {}", found.place.path(), found.what.told(["A", "B"]));
        found.extend(difference.map(told));
        for side in 0..2 {
            if taken[side] {
                lists[side].next();
            }
        }
    }
}

impl PartialEq for Seen {
    fn eq(&self, other: &Seen) -> bool {
        self.place == other.place
    }
}

#[test]
fn each_side_is_told_what_it_did() {
    let one = "/ d 0 +
        both f 1 +
        by-a f 1 +
        by-b f 5 -
        folder d 0 -
        folder/kept f 3 -
        folder/lost f 3 -
        folder/lost-and-changed f 9 +
        new d 0 +
        new/file f 7 +
        same f 4 -";
    let two = "/ d 0 -
        both f 2 +
        by-a f 9 -
        by-b f 6 +
        folder d 0 +
        folder/kept f 3 -
        same f 4 +";
    let (found, differ) = found(one, two);
    assert_eq!(
        found,
        [
            "both: changed on both",
            "by-a: changed on A",
            "by-b: changed on B",
            "folder/lost: removed on B",
            "folder/lost-and-changed: removed on B, changed on A",
            "new: new on A",
            "new/file: only on A",
        ]
    );
    assert_eq!(differ.compared, 11);
    assert_eq!(differ.losses[0], Loss { files: 6, bytes: 1 + 1 + 5 + 3 + 9 + 7 });
    assert_eq!(differ.losses[1], Loss { files: 3, bytes: 2 + 9 + 6 });
}

#[test]
fn what_lies_in_a_renamed_directory_was_removed_by_nobody() {
    let (found, _) = found(
        "/ d 0 +
        folder d 0 -
        renamed d 0 +
        renamed/below d 0 -
        renamed/below/file f 1 -
        renamed/file f 1 -",
        "/ d 0 -
        folder d 0 -
        former d 0 -
        former/below d 0 -
        former/below/file f 1 -
        former/file f 1 -",
    );
    assert_eq!(
        found,
        [
            "former: removed on A",
            "former/below: removed on A",
            "former/below/file: removed on A",
            "former/file: removed on A",
            "renamed: new on A",
            "renamed/below: only on A",
            "renamed/below/file: only on A",
            "renamed/file: only on A",
        ]
    );
}

#[test]
fn what_is_not_known_is_not_told() {
    let (found, _) = found(
        "/ d 0 ?
        a f 1 ?
        b f 1 ?",
        "/ d 0 ?
        b f 2 ?
        c f 3 ?",
    );
    assert_eq!(found, ["a: only on A", "b: different", "c: only on B"]);
}

#[test]
fn what_is_made_in_a_directory_that_both_changed_is_only_there() {
    let (found, _) = found(
        "/ d 0 +
        a f 1 +",
        "/ d 0 +
        b f 2 -",
    );
    assert_eq!(found, ["a: only on A", "b: removed on A"]);
}
