//! The examiner examined: writers on this machine's own file system are judged to have lost
//! nothing, and whatever is taken from what they wrote is noticed.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::judge::{Rule, judge};
use super::log::{End, Record, parse};
use super::op::{How, Op, place};
use super::tree::{Kind, load};
use super::writer::{furnish, rehearse};

/// A directory of a writer that ends with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("examiner-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        furnish(&path, 1).unwrap();
        Place(path)
    }

    fn findings(&self, records: &[Record], rule: Rule) -> Vec<String> {
        judge(records, &load(&self.0, 0).unwrap(), rule).err().unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn returned(ops: Vec<Op>) -> Vec<Record> {
    let end = Some(End { at: 0, error: 0 });
    let record = |(number, op)| Record { number, begun: 0, op, end };
    (0..).zip(ops).map(record).collect()
}

/// A writer that did a thing or two, and its log.
fn written(name: &str, seed: u64) -> (Place, Vec<Record>) {
    let place = Place::new(name);
    let records = returned(rehearse(&place.0, seed, 500));
    (place, records)
}

fn all_rules(place: &Place, records: &[Record], good: bool) {
    for rule in [Rule::Everything, Rule::Prefix, Rule::Synced] {
        let findings = place.findings(records, rule);
        assert_eq!(findings.is_empty(), good, "{rule:?}: {findings:#?}");
    }
}

/// A file with content and one name below a root, and its path in the model.
fn some_file(place: &Place) -> (PathBuf, String) {
    let tree = load(&place.0, 0).unwrap();
    let names = |first: &String| tree.values().filter(|entry| entry.first == *first).count();
    let full = |kind: &Kind| matches!(kind, Kind::File(content) if content.len() > 10);
    let fits =
        |(path, entry): &(&String, &super::tree::Entry)| full(&entry.kind) && names(path) == 1;
    let (path, _) = tree.iter().find(fits).unwrap();
    (place.0.join(super::op::place(0, path)), path.clone())
}

#[test]
fn writers_of_many_seeds_are_judged_to_have_lost_nothing() {
    for seed in 0..10 {
        let (place, records) = written("native", seed);
        all_rules(&place, &records, true);
    }
}

#[test]
fn every_kind_of_loss_is_noticed() {
    type Loss = (&'static str, fn(&Path));
    let losses: [Loss; 6] = [
        ("a byte", |path| {
            let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, 7).unwrap();
            file.write_all_at(&[byte[0] ^ 0x80], 7).unwrap();
        }),
        ("the end", |path| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        }),
        ("the file", |path| fs::remove_file(path).unwrap()),
        ("the mode", |path| fs::set_permissions(path, fs::Permissions::from_mode(0o123)).unwrap()),
        ("the owner", |path| std::os::unix::fs::chown(path, Some(77), None).unwrap()),
        ("a name too many", |path| fs::hard_link(path, path.with_file_name("extra")).unwrap()),
    ];
    for (what, lose) in losses {
        let (place, mut records) = written("lossy", 3);
        let (real, path) = some_file(&place);
        // So that the last rule has something to say about it.
        let number = records.len() as u64;
        let op = Op::Sync { path, data_only: false };
        records.push(Record { number, begun: 0, op, end: Some(End { at: 0, error: 0 }) });
        all_rules(&place, &records, true);
        lose(&real);
        for rule in [Rule::Everything, Rule::Prefix, Rule::Synced] {
            let excused = rule == Rule::Synced && what == "a name too many";
            let found = !place.findings(&records, rule).is_empty();
            assert!(found || excused, "{rule:?} does not notice the loss of {what}");
        }
    }
}

#[test]
fn each_operation_left_out_is_noticed() {
    let mut noticed = 0;
    for seed in 20..36 {
        let place = Place::new("short");
        let mut records = returned(rehearse(&place.0, seed, 150));
        // The disk has one operation less than the log says.
        let tree = load(&place.0, 0).unwrap();
        drop(place);
        let place = Place::new("short");
        let more = rehearse(&place.0, seed, 151);
        let last = more.last().cloned().unwrap();
        records.push(Record {
            number: 150,
            begun: 0,
            op: last,
            end: Some(End { at: 0, error: 0 }),
        });
        let changes = load(&place.0, 0).unwrap().iter().any(|(path, entry)| {
            tree.get(path).is_none_or(|old| old.kind != entry.kind || old.mode != entry.mode)
        });
        let findings = judge(&records, &tree, Rule::Everything).err().unwrap_or_default();
        if changes {
            assert!(!findings.is_empty(), "{:?} was left out unnoticed", records.last());
            noticed += 1;
        }
        // What had not returned may be missing, or be there.
        records.last_mut().unwrap().end = None;
        assert_eq!(judge(&records, &tree, Rule::Everything).err(), None);
        all_rules(&place, &records, true);
    }
    assert!(noticed > 4, "only {noticed} last operations changed anything");
}

#[test]
fn a_write_under_way_may_be_there_in_part_and_nowhere_else() {
    let place = Place::new("part");
    let create = Op::Create { path: "f".into(), mode: 0o644 };
    let write =
        |offset, length, key| Op::Write { path: "f".into(), offset, length, key, how: How::Plain };
    let mut records = returned(vec![create, write(0, 9000, 1), write(4096, 9000, 2)]);
    records[2].end = None;
    let (first, second) = (super::op::bytes(1, 9000), super::op::bytes(2, 9000));
    let path = place.0.join(super::op::place(0, "f"));
    let mut content = first.clone();
    content[4096..8192].copy_from_slice(&second[..4096]);
    fs::write(&path, &content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(place.findings(&records, Rule::Everything), [""; 0]);
    content[10] ^= 0x80;
    fs::write(&path, &content).unwrap();
    assert_ne!(place.findings(&records, Rule::Everything), [""; 0]);
}

#[test]
fn a_log_is_read_up_to_its_last_whole_line() {
    let text = "{\"begin\":{\"n\":0,\"at\":5,\"op\":{\"do\":\"unlink\",\"path\":\"a\"}}}\n\
                {\"end\":{\"n\":0,\"at\":6,\"error\":0}}\n\
                {\"begin\":{\"n\":1,\"at\":7,\"op\":{\"do\":\"empty\",\"path\":\"a\"}}}\n\
                {\"end\":{\"n\":1,\"at\"";
    let records = parse(text).unwrap();
    assert_eq!(records.len(), 2);
    assert!(records[0].succeeded() && records[1].end.is_none());
    assert!(parse("thread 'main' panicked\n").is_err());
    assert!(parse("{\"end\":{\"n\":0,\"at\":6,\"error\":0}}\n").is_err());
    assert_eq!(place(2, "shared/n1/x"), Path::new("shared/w2-n1/x"));
    assert_eq!(place(2, "sharedn1"), Path::new("w2/sharedn1"));
}
