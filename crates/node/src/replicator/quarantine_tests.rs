//! Where what was copied gets its names: never through a link that was kept, never over something.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's failure")]

use super::*;

fn copied(quarantine: &Quarantine, number: u8, path: &str, target: Option<&str>) -> Copied {
    let part = quarantine.folder.join(format!("part-{number}"));
    let content = match target {
        Some(target) => Content::Symlink(target.into()),
        None => {
            fs::write(&part, number.to_string()).unwrap();
            Content::File(part)
        }
    };
    let object = (0, Handle::from_bytes(&[0, 0, 0, 0, number]).unwrap());
    let [path, nameless] = ["files".to_owned() + path, format!("nameless/{number}")]
        .map(|path| quarantine.folder.join(path));
    Copied { object, content, path, nameless }
}

#[test]
fn nothing_is_kept_through_a_link_or_in_the_place_of_another() {
    let place = std::env::temp_dir().join(format!("evenkeel-quarantine-{}", std::process::id()));
    let outside = place.join("outside");
    fs::create_dir_all(&outside).unwrap();
    let mut quarantine =
        Quarantine::open(&place.join("kept"), Duration::from_secs(1), &[]).unwrap();
    let target = outside.to_str().unwrap();
    let long = "/".to_owned() + &"n".repeat(255);
    let all = [
        copied(&quarantine, 1, "/way", Some(target)),
        copied(&quarantine, 2, "/way/file", None),
        copied(&quarantine, 3, "/plain", None),
        copied(&quarantine, 4, "/plain/deeper/file", None),
        copied(&quarantine, 5, "/plain", None),
        copied(&quarantine, 6, &long, None),
        copied(&quarantine, 7, &long, None),
    ];
    quarantine.copied = all.into();
    quarantine.finish().unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was put outside");
    let read = |path: &str| fs::read_to_string(quarantine.folder.join(path)).unwrap();
    for (path, content) in [
        ("nameless/2", "2"),
        ("files/plain", "3"),
        ("nameless/4", "4"),
        ("files/plain.2", "5"),
        (&format!("files{long}"), "6"),
        ("nameless/7", "7"),
    ] {
        assert_eq!(read(path), content, "{path}");
    }
    assert_eq!(quarantine.seen.len(), 7);
    fs::remove_dir_all(place).unwrap();
}
