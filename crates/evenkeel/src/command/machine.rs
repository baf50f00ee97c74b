//! Whether this machine has the directories that the modules' files name. What a daemon needs
//! beyond that it checks itself; what the files say is `model::config`'s.

use std::fs;
use std::io;

use model::ModuleName;
use model::config::{self, Diagnostic, Diagnostics, Source};
use node::Layout;

/// Looks at the replicated directories of all modules, or of one.
///
/// # Errors
/// Each that is missing or no directory, where its file names it. Files that cannot be used are
/// passed over, for whoever uses them says so.
pub(crate) fn check_directories(
    layout: &Layout,
    only: Option<&ModuleName>,
) -> Result<(), Diagnostics> {
    let mut found = Vec::new();
    for path in module_files(layout).unwrap_or_default() {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let file = path.display().to_string();
        found.extend(check_file(layout, &Source { file: &file, text: &text }, only));
    }
    if found.is_empty() { Ok(()) } else { Err(Diagnostics(found)) }
}

fn check_file(layout: &Layout, source: &Source<'_>, only: Option<&ModuleName>) -> Vec<Diagnostic> {
    let cluster_path = layout.cluster_file();
    let Ok(cluster_text) = fs::read_to_string(&cluster_path) else { return Vec::new() };
    let cluster_file = cluster_path.display().to_string();
    let cluster = config::parse_cluster(&Source { file: &cluster_file, text: &cluster_text });
    let Ok(module) = cluster.and_then(|cluster| config::parse_module(source, &cluster)) else {
        return Vec::new();
    };
    if only.is_some_and(|only| *only != module.name) {
        return Vec::new();
    }
    let faults = module.replicate.iter().enumerate().filter_map(|(index, directory)| {
        let (message, help) = node::directory_fault(directory)?;
        Some(Diagnostic::at(source, &["replicate", &index.to_string()], &message, Some(&help)))
    });
    faults.collect()
}

fn module_files(layout: &Layout) -> io::Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(layout.module_directory())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
