//! Light modules: what they cannot have, each with its mend.
//!
//! They have no tables of their own: an application on one node needs nothing that other kinds do
//! not have too.

use super::Vip;
use super::farm::FOREIGN_FAILOVER;
use super::reader::{Problem, Report, Section};
use crate::NodeName;

/// Keys that are about data on two nodes.
const FOREIGN: &[&[&str]] = &[&["replicate"], &["replication"], &["scripts", "before_resync"]];

/// Refuses what a light module cannot have.
pub(super) fn refuse_foreign(
    report: &mut Report<'_>,
    root: &Section<'_, '_>,
    nodes: &[NodeName],
    vips: &[Vip],
) {
    let data = "it replicates nothing; a module of kind \"mirror\" does";
    let alone = "each of its nodes runs the application by itself; allowed in [failover]: \
                 max_restarts, restart_window";
    let found = FOREIGN.iter().map(|path| (path.to_vec(), data));
    let failover = FOREIGN_FAILOVER.iter().map(|key| (vec!["failover", *key], alone));
    for (path, help) in found.chain(failover) {
        let Some(span) = root.value_at(&path) else { continue };
        let key = path.last().copied().unwrap_or_default();
        let problem = Problem::new(format!("`{key}` means nothing to a light module")).help(help);
        report.add(Some(span), problem);
    }
    if nodes.len() > 1 && !vips.is_empty() {
        let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
        let problem = Problem::new(format!(
            "{} would all hold the same address: a light module runs on each of its nodes",
            names.join(", ")
        ));
        let help = format!(
            "name one node, such as nodes = [\"{}\"], or write kind = \"farm\"",
            names.first().copied().unwrap_or_default()
        );
        report.add(root.span_of("vip"), problem.help(help));
    }
}
