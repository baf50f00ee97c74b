//! Reads the configuration files of a node.
//!
//! What they mean and which mistakes they hold is `model::config`'s; here are only the files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::config::{self, CLUSTER_FILE, ClusterConfig, Diagnostics, Files, ModuleConfig, Source};
use thiserror::Error;

use crate::layout::Layout;

/// A node's configuration.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The cluster.
    pub cluster: ClusterConfig,
    /// The modules, by file name.
    pub modules: Vec<ModuleConfig>,
}

/// Why there is no usable configuration.
#[derive(Debug, Error)]
pub enum ConfigurationError {
    /// A file cannot be read.
    #[error("{path}: {error}", path = path.display())]
    Unreadable {
        /// File.
        path: PathBuf,
        /// Cause.
        error: io::Error,
    },
    /// Files hold mistakes, all of which are listed.
    #[error("{0}")]
    Mistakes(Diagnostics),
}

/// Reads and checks the cluster's file alone.
pub fn load_cluster(layout: &Layout) -> Result<ClusterConfig, ConfigurationError> {
    let cluster_path = layout.cluster_file();
    let text = read(&cluster_path)?;
    let shown = cluster_path.display().to_string();
    let source = Source { file: &shown, text: &text };
    config::parse_cluster(&source).map_err(ConfigurationError::Mistakes)
}

/// Reads and checks everything.
pub fn load(layout: &Layout) -> Result<Configuration, ConfigurationError> {
    let cluster = load_cluster(layout)?;
    let modules = load_modules(layout, &cluster)?;
    Ok(Configuration { cluster, modules })
}

/// Reads and checks the modules of a cluster.
pub(crate) fn load_modules(
    layout: &Layout,
    cluster: &ClusterConfig,
) -> Result<Vec<ModuleConfig>, ConfigurationError> {
    let mut texts = BTreeMap::new();
    for path in module_files(&layout.module_directory())? {
        texts.insert(path.display().to_string(), read(&path)?);
    }
    parse_modules(layout, cluster, &texts)
}

/// Checks the files of a configuration that lies elsewhere as if they lay where they belong.
pub(crate) fn parse(layout: &Layout, files: &Files) -> Result<Configuration, ConfigurationError> {
    let shown = |path: &str| layout.configuration_directory().join(path).display().to_string();
    let file = shown(CLUSTER_FILE);
    let text = files.text(CLUSTER_FILE).unwrap_or_default();
    let cluster = config::parse_cluster(&Source { file: &file, text });
    let cluster = cluster.map_err(ConfigurationError::Mistakes)?;
    let texts = files.module_files().map(|(path, text)| (shown(path), text.to_owned())).collect();
    let modules = parse_modules(layout, &cluster, &texts)?;
    Ok(Configuration { cluster, modules })
}

fn parse_modules(
    layout: &Layout,
    cluster: &ClusterConfig,
    texts: &BTreeMap<String, String>,
) -> Result<Vec<ModuleConfig>, ConfigurationError> {
    let mut mistakes = Vec::new();
    let mut good = Vec::new();
    for (file, text) in texts {
        let source = Source { file, text };
        match config::parse_module(&source, cluster) {
            Ok(module) => {
                let protected = [
                    layout.state_directory(),
                    layout.run_directory(),
                    layout.configuration_directory(),
                ];
                if let Err(found) = config::check_protected(&source, &module, &protected) {
                    mistakes.extend(found.0);
                }
                good.push((source, module));
            }
            Err(found) => mistakes.extend(found.0),
        }
    }
    let pairs: Vec<_> = good.iter().map(|(source, module)| (source, module)).collect();
    if let Err(found) = config::check_together(&pairs) {
        mistakes.extend(found.0);
    }
    if mistakes.is_empty() {
        Ok(good.into_iter().map(|(_, module)| module).collect())
    } else {
        Err(ConfigurationError::Mistakes(Diagnostics(mistakes)))
    }
}

fn module_files(directory: &Path) -> Result<Vec<PathBuf>, ConfigurationError> {
    let unreadable = |error| ConfigurationError::Unreadable { path: directory.to_owned(), error };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<String, ConfigurationError> {
    fs::read_to_string(path)
        .map_err(|error| ConfigurationError::Unreadable { path: path.to_owned(), error })
}
