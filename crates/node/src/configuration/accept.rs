//! Whether this node could use a configuration: that its files hold no mistake, that the
//! directories and addresses that they name are there, and that a daemon would start with it.
//!
//! Whether it may be changed now is not looked at.

use std::fs;
use std::io;
use std::path::Path;

use model::NodeName;
use model::config::{self, ClusterConfig, Diagnostic, Diagnostics, Files, ModuleConfig, Source};

use crate::daemon::{check_keys, check_system};
use crate::files::{self, Configuration};
use crate::joining::has_address;
use crate::layout::Layout;

/// Whether this node could use a configuration in place of `before`.
///
/// # Errors
/// Every mistake, with file, line and key, or what is missing on this node.
pub(crate) fn usable(
    layout: &Layout,
    node: &NodeName,
    before: &Files,
    files: &Files,
) -> Result<Configuration, String> {
    files.check()?;
    let configuration = files::parse(layout, files).map_err(|error| error.to_string())?;
    let cluster = &configuration.cluster;
    let own = cluster.node(node).ok_or_else(|| format!("{node} is no node of the cluster then"))?;
    if let Some(address) = own.addresses.values().find(|address| !has_address(**address)) {
        return Err(format!("{node} has no address {address}"));
    }
    check_keys(layout, node, cluster).map_err(|error| error.to_string())?;
    check_system(&configuration.modules).map_err(|error| error.to_string())?;
    let known = files::parse(layout, before).map(|known| known.modules).unwrap_or_default();
    let faults = directory_faults(layout, (node, &known), files, cluster);
    if faults.is_empty() { Ok(configuration) } else { Err(Diagnostics(faults).to_string()) }
}

/// The directories that are missing, of modules that have others now. Where nothing changes, one
/// that is missing is no matter of the configuration.
fn directory_faults(
    layout: &Layout,
    (node, known): (&NodeName, &[ModuleConfig]),
    files: &Files,
    cluster: &ClusterConfig,
) -> Vec<Diagnostic> {
    let is_new = |module: &&ModuleConfig| {
        let before = known.iter().find(|known| known.name == module.name);
        let moved = before.is_none_or(|before| {
            before.replicate != module.replicate || !before.nodes.contains(node)
        });
        module.nodes.contains(node) && moved
    };
    let mut faults = Vec::new();
    for (path, text) in files.module_files() {
        let file = layout.configuration_directory().join(path).display().to_string();
        let source = Source { file: &file, text };
        let module = config::parse_module(&source, cluster).ok();
        let Some(module) = module.filter(|module| is_new(&module)) else { continue };
        for (index, directory) in module.replicate.iter().enumerate() {
            if let Some((message, help)) = directory_fault(directory) {
                let key = ["replicate", &index.to_string()];
                faults.push(Diagnostic::at(&source, &key, &message, Some(&help)));
            }
        }
    }
    faults
}

/// What is wrong with a directory that shall be replicated, and what to do. An error of another
/// kind than that it is not there may pass, and the daemon sees it too.
#[must_use]
pub fn directory_fault(directory: &Path) -> Option<(String, String)> {
    let shown = directory.display();
    match fs::symlink_metadata(directory) {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some((
            format!("{shown} is not a directory on this node"),
            "replicate the directory that the file lies in".to_owned(),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some((
            format!("{shown} does not exist on this node"),
            format!("mount its disk, or make it on every node: mkdir -p {shown}"),
        )),
        Err(_) => None,
    }
}
