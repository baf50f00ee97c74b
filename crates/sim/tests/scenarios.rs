//! Golden scenarios: the stories in `tests/scenarios` are told anew and compared.
//!
//! `EVENKEEL_BLESS=1 cargo test -p sim --test scenarios` writes them down as they are now.

use std::path::Path;

#[test]
#[allow(clippy::disallowed_methods, reason = "whether to write is asked of the caller")]
fn stories_are_as_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios");
    let bless = std::env::var_os("EVENKEEL_BLESS").is_some();
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no stories in {}", folder.display());
    for path in files {
        let written = std::fs::read_to_string(&path).unwrap();
        eprintln!("{}", path.display());
        let told = sim::story::tell(&written).unwrap_or_else(|wrong| panic!("{wrong}"));
        if bless {
            std::fs::write(&path, &told).unwrap();
        } else {
            assert_eq!(told, written, "{} tells another story now", path.display());
        }
    }
}
