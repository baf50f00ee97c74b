//! What the modules of one cluster must agree on, and what they may not touch.

use std::path::{Path, PathBuf};

use super::ModuleConfig;
use super::diagnostic::{Diagnostic, Diagnostics, Source};
use super::module_file::nested;
use super::reader::Problem;

/// Checks that no two modules have the same name, an address or a directory in common, or a
/// directory inside one of the other's. Each mistake is placed in the later of the two files.
///
/// # Errors
/// Every such mistake.
pub fn check_together(modules: &[(&Source<'_>, &ModuleConfig)]) -> Result<(), Diagnostics> {
    let mut found = Vec::new();
    for (index, later) in modules.iter().enumerate() {
        for earlier in &modules[..index] {
            compare(earlier, later, &mut found);
        }
    }
    finish(found)
}

/// Checks that the module's directories neither lie inside nor contain any of `protected`, such as
/// the directory of Evenkeel's own records.
///
/// # Errors
/// Every directory that does.
pub fn check_protected(
    source: &Source<'_>,
    module: &ModuleConfig,
    protected: &[impl AsRef<Path>],
) -> Result<(), Diagnostics> {
    let mut found = Vec::new();
    for (index, path) in module.replicate.iter().enumerate() {
        for prefix in protected.iter().map(AsRef::as_ref) {
            let relation = if path.starts_with(prefix) {
                "lies inside"
            } else if prefix.starts_with(path) {
                "contains"
            } else {
                continue;
            };
            let message = format!(
                "{} {relation} {}, which Evenkeel needs for itself on each node",
                path.display(),
                prefix.display()
            );
            let problem = Problem::new(message).help("replicate another directory");
            found.push(place(source, &["replicate", &index.to_string()], problem));
        }
    }
    finish(found)
}

type Module<'a> = (&'a Source<'a>, &'a ModuleConfig);

fn compare(
    (earlier_source, earlier): &Module<'_>,
    (source, later): &Module<'_>,
    found: &mut Vec<Diagnostic>,
) {
    if earlier.name == later.name {
        let message =
            format!("module `{}` is already defined in {}", later.name, earlier_source.file);
        let problem = Problem::new(message).help("give each module its own name");
        found.push(place(source, &["module"], problem));
    }
    let whose = format!("module `{}`", earlier.name);
    for (index, path) in later.replicate.iter().enumerate() {
        let overlaps = |other: &&PathBuf| path.starts_with(other) || other.starts_with(path);
        if let Some(other) = earlier.replicate.iter().find(overlaps) {
            let problem = nested(path, other, &whose);
            found.push(place(source, &["replicate", &index.to_string()], problem));
        }
    }
    for (index, vip) in later.vips.iter().enumerate() {
        if earlier.vips.iter().any(|other| other.address == vip.address) {
            let message = format!("{} is already an address of {whose}", vip.address);
            let problem = Problem::new(message).help("give each module its own address");
            found.push(place(source, &["vip", &index.to_string(), "address"], problem));
        }
    }
}

fn place(source: &Source<'_>, path: &[&str], problem: Problem) -> Diagnostic {
    Diagnostic::at(source, path, &problem.message, problem.help.as_deref())
}

fn finish(found: Vec<Diagnostic>) -> Result<(), Diagnostics> {
    if found.is_empty() { Ok(()) } else { Err(Diagnostics(found)) }
}
