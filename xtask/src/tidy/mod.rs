//! `cargo xtask tidy`: the rules of STYLE.md that a program can check.
//!
//! There is no list of exemptions. When a rule hurts, it is changed in STYLE.md and here. What the
//! compiler or clippy can check is not repeated.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::run;

mod documents;
mod edges;
mod purity;
mod scan;
mod shape;

/// A breach of a rule, and where.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    file: String,
    /// Counted from 1; 0 when the file as a whole is meant.
    line: usize,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// Checks the whole repository.
///
/// # Errors
/// Every breach, one a line.
pub fn tidy(root: &Path) -> Result<(), String> {
    let metadata = run::output(root, "cargo", &["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata = serde_json::from_str(&metadata)
        .map_err(|error| format!("cannot understand cargo metadata: {error}"))?;
    let mut findings = edges::check(&metadata);
    let files = files(root, &["crates", "fuzz", "xtask"], "rs")?;
    for path in &files {
        let text = fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        let file = scan::File::new(&name, &text);
        findings.extend(shape::check(&file));
        findings.extend(purity::check(&file));
    }
    findings.extend(documents::check(root)?);
    if findings.is_empty() {
        println!("tidy: {} files in order", files.len());
        return Ok(());
    }
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    Err(format!("{}\ntidy: {} findings; the rules are in STYLE.md", lines.join("\n"), lines.len()))
}

/// Every file below these folders whose name ends so, sorted. What is built is left out.
fn files(root: &Path, folders: &[&str], extension: &str) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|name| root.join(name)).collect();
    while let Some(folder) = folders.pop() {
        let wrong = |error| format!("cannot list {}: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("docs/book") {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
