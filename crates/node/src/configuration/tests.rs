//! A node's history, its files and what a crash between two steps leaves, in a directory of a test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use model::config::Content;

use super::*;
use crate::configuration::store::REMEMBERED_MAX;

struct Place(Layout);

impl Place {
    fn new() -> Place {
        let name = format!("evenkeel-configuration-{:x}", clock::random());
        let place = Place(Layout::new(&std::env::temp_dir().join(name)));
        place.write("cluster.toml", "a");
        place.write("modules/shop.toml", "a");
        place
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.configuration_directory().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::create_dir_all(self.path(file).parent().unwrap()).unwrap();
        fs::write(self.path(file), text).unwrap();
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.path(file)).ok()
    }

    fn recover(&self) -> Version {
        recover(&self.0, &name("node1")).unwrap().unwrap()
    }

    fn store(&self) -> Store {
        Store::of(&self.0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.root());
    }
}

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn version(number: u64, texts: &[(&str, &str)]) -> Version {
    let content =
        |text: &str| Content { text: text.to_owned(), executable: text.starts_with("#!") };
    let files = texts.iter().map(|(path, text)| ((*path).to_owned(), content(text)));
    let (from, origin) = (name("node2"), Origin::Applied);
    Version { number, at_ms: 1, from, origin, files: Files(files.collect()) }
}

fn one() -> Version {
    version(1, &[("cluster.toml", "b"), ("modules/web.toml", "b"), ("modules/web/run", "#!b")])
}

#[test]
fn before_any_was_applied_the_files_are_what_is_in_use() {
    let place = Place::new();
    let found = place.recover();
    assert_eq!((found.number, found.files.text("modules/shop.toml")), (0, Some("a")));
    place.write("modules/shop.toml", "b");
    place.write("modules/shop/.hidden", "b");
    place.write("modules/README", "b");
    let found = place.recover();
    assert_eq!((found.files.0.len(), found.files.text("modules/shop.toml")), (2, Some("b")));
}

#[test]
fn one_that_was_applied_is_in_use_whatever_the_files_say() {
    let place = Place::new();
    place.recover();
    take(&place.0, &one(), false).unwrap();
    assert_eq!(place.read("cluster.toml").as_deref(), Some("b"));
    assert_eq!(
        (place.read("modules/shop.toml"), place.read("modules/web.toml")),
        (None, Some("b".into()))
    );
    let mode = fs::metadata(place.path("modules/web/run")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    place.write("modules/web.toml", "edited");
    assert_eq!(place.recover(), one());
    assert_eq!(place.read("modules/web.toml").as_deref(), Some("edited"), "a draft stays");
    let numbers = place.store().numbers().unwrap();
    assert_eq!(numbers, [0, 1], "what was there before can be gone back to");
}

#[test]
fn edited_files_stay_or_are_set_aside_as_was_said() {
    for overwrite in [false, true] {
        let place = Place::new();
        place.recover();
        place.write("modules/shop.toml", "edited");
        place.write("modules/shop/note", "edited");
        take(&place.0, &one(), overwrite).unwrap();
        let stays = (!overwrite).then(|| "edited".to_owned());
        assert_eq!(place.read("modules/shop.toml"), stays);
        assert_eq!(place.read("modules/shop/note"), stays);
        assert_eq!(place.read("cluster.toml").as_deref(), Some("b"), "that was not edited");
        let kept = place.store().all_kept().unwrap();
        assert_eq!(kept.len(), usize::from(overwrite));
        let texts =
            kept.first().map(|kept| (kept.files.0.len(), kept.files.text("modules/shop/note")));
        assert_eq!(texts, overwrite.then_some((2, Some("edited"))));
    }
}

#[test]
fn a_crash_between_the_history_and_the_files_is_made_whole() {
    let place = Place::new();
    place.recover();
    place.store().add(&one()).unwrap();
    assert_eq!(place.read("cluster.toml").as_deref(), Some("a"), "the crash");
    assert_eq!(place.recover(), one());
    assert_eq!(place.read("cluster.toml").as_deref(), Some("b"));
    assert_eq!(place.read("modules/shop.toml"), None);
}

#[test]
fn what_was_agreed_to_outlives_a_crash_but_at_its_coordinator() {
    let place = Place::new();
    let before = place.recover();
    let mut proposal = Proposal {
        id: "a".to_owned(),
        version: one(),
        base: before.files.digests(),
        follows: before.stand(),
        without: Vec::new(),
        overwrite: false,
    };
    place.store().note_pending(&proposal).unwrap();
    assert_eq!(place.recover().number, 0);
    assert!(place.store().pending().unwrap().is_some(), "node2 may have decided");
    proposal.version.from = name("node1");
    place.store().note_pending(&proposal).unwrap();
    assert_eq!(place.recover().number, 0);
    assert!(place.store().pending().unwrap().is_none(), "this node itself did not decide");
    // Decided, but the crash came before that was noted.
    place.store().note_pending(&proposal).unwrap();
    place.store().add(&proposal.version).unwrap();
    assert_eq!(place.recover().number, 1);
    assert!(place.store().pending().unwrap().is_none());
}

#[test]
fn a_new_cluster_does_not_begin_with_what_was_applied_in_another() {
    let place = Place::new();
    take(&place.0, &one(), false).unwrap();
    fs::remove_file(place.path("cluster.toml")).unwrap();
    let (cluster, network) = ("demo".to_owned().try_into(), "lan0".to_owned().try_into());
    let addresses = vec![(network.unwrap(), "127.0.0.1".parse().unwrap())];
    let (cluster, node) = (cluster.unwrap(), name("node1"));
    let founding = crate::Founding { cluster, node, addresses, witness: None };
    founding.found(&place.0).unwrap();
    let recovered = place.recover();
    assert_eq!(recovered.number, 0);
    assert!(recovered.files.text("cluster.toml").unwrap().contains("demo"));
}

#[test]
fn the_oldest_are_forgotten() {
    let place = Place::new();
    let last = REMEMBERED_MAX as u64 + 9;
    for number in 0..=last {
        place.store().add(&version(number, &[("cluster.toml", "a")])).unwrap();
    }
    let numbers = place.store().numbers().unwrap();
    assert_eq!((numbers.len(), numbers.last()), (REMEMBERED_MAX, Some(&last)));
}

#[test]
fn what_cannot_be_carried_is_named() {
    let place = Place::new();
    std::os::unix::fs::symlink("/etc/passwd", place.path("modules/web.toml")).unwrap();
    assert!(draft::read(&place.0).unwrap_err().contains("web.toml is no plain file"));
    fs::remove_file(place.path("modules/web.toml")).unwrap();
    place.write("modules/shop/blob", "\0");
    assert!(draft::read(&place.0).unwrap_err().contains("modules/shop/blob is no text"));
    fs::remove_file(place.path("cluster.toml")).unwrap();
    assert!(draft::read(&place.0).unwrap_err().contains("cluster.toml"));
}
