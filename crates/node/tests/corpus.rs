//! Replays the corpus of the fuzz targets: every input that once reached new code, or once failed.
//!
//! The properties are those of `fuzz/src/checks.rs`. Searching for new inputs is left to
//! `cargo xtask soak fuzz`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panic")]

use std::fs;
use std::path::Path;

#[path = "../../../fuzz/src/checks.rs"]
mod checks;

/// Fewer inputs than this mean that a corpus was lost.
const INPUTS_MIN: usize = 10;

#[test]
fn every_input_of_the_corpus_is_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in checks::TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(corpus.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            // The harness shows it when the target fails.
            println!("{}", path.display());
            target(&bytes);
            // Cut anywhere, it may come as well.
            for end in [bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(1)] {
                target(&bytes[..end]);
            }
            count += 1;
        }
        assert!(count >= INPUTS_MIN, "{name} has {count} inputs");
    }
}
