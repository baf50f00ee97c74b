//! What changes from one configuration to another, and what has to stop for it.
//!
//! Compared by keys, so that people see what they wrote; whether a change of keys changes anything
//! is judged by the effective values. Who may make the change, and when, is not decided here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::files::{CLUSTER_FILE, Files, MODULES, is_module_file};
use super::{ClusterConfig, ModuleConfig, Source, digest, parse_cluster, parse_module, show};
use crate::{ModuleName, NodeName};

/// What a change does to what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeEffect {
    /// Nothing: a comment, or a default that was written out.
    Nothing,
    /// Taken into use while everything runs.
    Hot,
    /// The modules have to be stopped meanwhile.
    Restart,
    /// The modules have to be stopped, for they will not be there afterwards.
    Stop,
    /// Not to be done this way; the note says how.
    Never,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The file, by its path in the directory of the configuration.
    pub file: String,
    /// The key, such as `failover.timeout`; empty for the file as a whole.
    pub key: String,
    /// What stood there; none if nothing did.
    pub before: Option<String>,
    /// What stands there now; none if nothing does.
    pub after: Option<String>,
    /// What that does.
    pub effect: ChangeEffect,
    /// The modules that it is about; for the cluster's file those that have to be stopped.
    pub modules: Vec<ModuleName>,
    /// The nodes that it is about; empty for all.
    pub nodes: Vec<NodeName>,
    /// What to know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Change {
    fn of(file: &str, (key, before, after): Difference, effect: ChangeEffect) -> Change {
        let (file, modules, nodes) = (file.to_owned(), Vec::new(), Vec::new());
        Change { file, key, before, after, effect, modules, nodes, note: None }
    }

    fn note(self, note: &str) -> Change {
        Change { note: Some(note.to_owned()), ..self }
    }

    /// Whether modules have to be stopped for it.
    #[must_use]
    pub fn needs_stop(&self) -> bool {
        matches!(self.effect, ChangeEffect::Restart | ChangeEffect::Stop)
    }
}

/// Whether changes are such that can be applied at all.
///
/// # Errors
/// The first one that is not, with what to do instead.
pub fn possible(changes: &[Change]) -> Result<(), String> {
    let never = changes.iter().find(|change| change.effect == ChangeEffect::Never);
    never.map_or(Ok(()), |change| {
        let note = change.note.clone().unwrap_or_default();
        Err(format!("{}: {} cannot be applied: {note}", change.file, change.key))
    })
}

/// The modules that have to be stopped for changes.
#[must_use]
pub fn to_stop(changes: &[Change]) -> BTreeSet<ModuleName> {
    let stopping = changes.iter().filter(|change| change.needs_stop());
    stopping.flat_map(|change| change.modules.clone()).collect()
}

/// A key, what stood there, what stands there.
type Difference = (String, Option<String>, Option<String>);

/// Everything that changes from `before` to `after`, in the order of the files.
#[must_use]
pub fn changes(before: &Files, after: &Files) -> Vec<Change> {
    let (old, new) = (Side::of(before), Side::of(after));
    let mut found = cluster_changes(&old, &new);
    found.extend(module_changes(&old, &new));
    found.extend(other_changes(before, after));
    found.sort_by(|one, other| one.file.cmp(&other.file));
    found
}

/// A module as its file has it.
struct Module<'a> {
    file: &'a str,
    text: &'a str,
    table: Table,
    config: Option<ModuleConfig>,
}

/// What is to be compared, as far as it can be read.
struct Side<'a> {
    text: &'a str,
    table: Table,
    cluster: Option<ClusterConfig>,
    modules: BTreeMap<String, Module<'a>>,
}

impl<'a> Side<'a> {
    fn of(files: &'a Files) -> Side<'a> {
        let text = files.text(CLUSTER_FILE).unwrap_or_default();
        let cluster = parse_cluster(&Source { file: CLUSTER_FILE, text }).ok();
        let mut modules = BTreeMap::new();
        for (file, text) in files.module_files() {
            let table: Table = toml::from_str(text).unwrap_or_default();
            let name = table.get("module").and_then(Value::as_str).unwrap_or(file).to_owned();
            let source = Source { file, text };
            let config = cluster.as_ref().and_then(|cluster| parse_module(&source, cluster).ok());
            modules.insert(name, Module { file, text, table, config });
        }
        Side { text, table: toml::from_str(text).unwrap_or_default(), cluster, modules }
    }

    fn names(&self) -> impl Iterator<Item = ModuleName> {
        self.modules.keys().filter_map(|name| ModuleName::new(name).ok())
    }

    fn has_network(&self, name: &str) -> bool {
        let mut networks = self.cluster.iter().flat_map(|cluster| &cluster.networks);
        networks.any(|network| network.name.as_str() == name)
    }
}

fn cluster_changes(old: &Side<'_>, new: &Side<'_>) -> Vec<Change> {
    let mut differences = Vec::new();
    compare("", &old.table, &new.table, &mut differences);
    if differences.is_empty() && old.text != new.text {
        differences.push((String::new(), None, None));
    }
    let same = old.cluster.is_some() && old.cluster == new.cluster;
    let each = |difference: Difference| {
        let change = cluster_change(difference, old, new);
        match (same, change.effect) {
            (true, _) => Change { effect: ChangeEffect::Nothing, note: None, ..change },
            // Every module depends on the nodes, on how they reach each other and on the witness.
            (false, ChangeEffect::Restart) => Change { modules: old.names().collect(), ..change },
            (false, _) => change,
        }
    };
    differences.into_iter().map(each).collect()
}

fn cluster_change(difference: Difference, old: &Side<'_>, new: &Side<'_>) -> Change {
    let key = difference.0.clone();
    let parts: Vec<&str> = key.split('.').collect();
    let of = |effect| Change::of(CLUSTER_FILE, difference.clone(), effect);
    match *parts.as_slice() {
        [""] => of(ChangeEffect::Nothing),
        ["cluster"] => of(ChangeEffect::Never).note("a cluster keeps its name"),
        ["node", _] if difference.1.is_none() => {
            of(ChangeEffect::Never).note("a node comes by `evenkeel token` and `evenkeel join`")
        }
        ["node", _] if difference.2.is_none() => {
            of(ChangeEffect::Never).note("a node goes by `evenkeel leave`")
        }
        ["node", _, "addresses", network]
            if old.has_network(network) && new.has_network(network) =>
        {
            of(ChangeEffect::Restart).note("every node must have its new address before")
        }
        ["node", _, "addresses", _]
        | ["network", ..]
        | ["network (order)"]
        | ["isolation", ..]
        | ["health", ..]
        | ["watchdog", ..] => of(ChangeEffect::Hot),
        ["witness", ..] => of(ChangeEffect::Restart)
            .note("a node that asks another witness than its peer is unsafe"),
        ["fence", ..] => of(ChangeEffect::Restart)
            .note("a node that goes on by another rule than its peer is unsafe"),
        _ => of(ChangeEffect::Restart),
    }
}

fn module_changes(old: &Side<'_>, new: &Side<'_>) -> Vec<Change> {
    let mut found = Vec::new();
    for (name, module) in &old.modules {
        match new.modules.get(name) {
            Some(now) => found.extend(one_module(name, module, now)),
            None => {
                let gone = (String::new(), Some(format!("module {name}")), None);
                let change = Change::of(module.file, gone, ChangeEffect::Stop);
                found.push(about(name, module, change));
            }
        }
    }
    for (name, module) in new.modules.iter().filter(|(name, _)| !old.modules.contains_key(*name)) {
        let come = (String::new(), None, Some(format!("module {name}")));
        let change = about(name, module, Change::of(module.file, come, ChangeEffect::Hot));
        found.push(change.note(&format!("`evenkeel start {name}` starts it")));
    }
    found
}

fn one_module(name: &str, old: &Module<'_>, new: &Module<'_>) -> Vec<Change> {
    let mut differences = Vec::new();
    compare("", &old.table, &new.table, &mut differences);
    if old.file != new.file {
        differences.push((String::new(), Some(old.file.to_owned()), Some(new.file.to_owned())));
    } else if differences.is_empty() && old.text != new.text {
        differences.push((String::new(), None, None));
    }
    let (was, is) = (old.config.as_ref().map(digest), new.config.as_ref().map(digest));
    let each = |difference: Difference| {
        let key = difference.0.clone();
        let top = key.split(['.', ' ']).next().unwrap_or_default();
        let same = |digests: &BTreeMap<String, u64>| digests.get(top).copied();
        let same = was.as_ref().zip(is.as_ref()).is_some_and(|(was, is)| same(was) == same(is));
        let effect = if same { ChangeEffect::Nothing } else { module_effect(&key) };
        let change = about(name, new, Change::of(new.file, difference, effect));
        if !same && top == "replicate" {
            return change.note("a directory that was not replicated before has to be empty");
        }
        change
    };
    differences.into_iter().map(each).collect()
}

fn about(name: &str, module: &Module<'_>, change: Change) -> Change {
    let nodes = module.config.as_ref().map(|config| config.nodes.clone()).unwrap_or_default();
    Change { modules: ModuleName::new(name).into_iter().collect(), nodes, ..change }
}

/// What may change while a module runs: what is looked at each time that it is needed. What was
/// handed to the kernel, to a replicator or to the application's programs may not.
fn module_effect(key: &str) -> ChangeEffect {
    let parts: Vec<&str> = key.split('.').collect();
    match *parts.as_slice() {
        [""] | ["scripts" | "failover" | "check", ..] | ["check (order)"] => ChangeEffect::Hot,
        ["farm", "pulse" | "timeout" | "weights", ..] => ChangeEffect::Hot,
        ["replication", "resync_rate" | "stall_timeout" | "in_use"]
        | ["command", _, "stop_signal" | "stop_timeout"] => ChangeEffect::Hot,
        _ => ChangeEffect::Restart,
    }
}

/// What lies beside the modules' files: it is there for scripts to use.
fn other_changes(before: &Files, after: &Files) -> Vec<Change> {
    let own = |path: &str| path == CLUSTER_FILE || is_module_file(path);
    let paths = before.0.keys().chain(after.0.keys().filter(|path| !before.0.contains_key(*path)));
    let mut found = Vec::new();
    for path in paths {
        let (old, new) = (before.0.get(path), after.0.get(path));
        let mode_only = old.zip(new).is_some_and(|(old, new)| old.text == new.text);
        if old == new || (own(path) && !mode_only) {
            continue;
        }
        let size = |content: &super::Content| {
            let run = if content.executable { ", executable" } else { "" };
            format!("{} bytes{run}", content.text.len())
        };
        let difference = (String::new(), old.map(size), new.map(size));
        let mut change = Change::of(path, difference, ChangeEffect::Hot);
        let module = path.strip_prefix(MODULES).and_then(|rest| rest.split('/').next());
        change.modules = module.and_then(|name| ModuleName::new(name).ok()).into_iter().collect();
        found.push(change);
    }
    found
}

/// Compares two tables, key by key.
fn compare(prefix: &str, old: &Table, new: &Table, found: &mut Vec<Difference>) {
    let added = new.keys().filter(|key| !old.contains_key(*key));
    for key in old.keys().chain(added) {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        compare_values(path, old.get(key), new.get(key), found);
    }
}

fn compare_values(
    path: String,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Vec<Difference>,
) {
    if old == new {
        return;
    }
    let (none, nothing) = (Table::new(), Vec::new());
    match (old, new) {
        (Some(Value::Table(old)), Some(Value::Table(new))) => compare(&path, old, new, found),
        (Some(Value::Table(old)), None) => compare(&path, old, &none, found),
        (None, Some(Value::Table(new))) => compare(&path, &none, new, found),
        _ => match (tables(old, &nothing), tables(new, &nothing)) {
            (Some(old), Some(new)) => compare_lists(&path, &old, &new, found),
            _ => found.push((path, old.map(show::value), new.map(show::value))),
        },
    }
}

/// The entries of a list of tables, each with what tells it from the others; `nothing` for none.
fn tables<'a>(
    value: Option<&'a Value>,
    nothing: &'a Vec<Value>,
) -> Option<Vec<(String, &'a Table)>> {
    let list = value.map_or(Some(nothing), Value::as_array)?;
    let mut named: Vec<(String, &Table)> = Vec::new();
    for entry in list {
        let table = entry.as_table()?;
        let label = ["name", "address"].iter().find_map(|key| table.get(*key)?.as_str());
        let label = label.map_or_else(|| show::list_label(table), str::to_owned);
        // A dot would part it as a key.
        let label = label.replace('.', "·");
        let twice = named.iter().filter(|(known, _)| known.split('#').next() == Some(&label));
        let label = match twice.count() {
            0 => label,
            count => format!("{label}#{}", count + 1),
        };
        named.push((label, table));
    }
    Some(named)
}

fn compare_lists(
    path: &str,
    old: &[(String, &Table)],
    new: &[(String, &Table)],
    found: &mut Vec<Difference>,
) {
    let other = |list: &[(String, &Table)], label: &str| -> Option<Table> {
        list.iter().find(|(known, _)| known == label).map(|(_, table)| (*table).clone())
    };
    for (label, table) in old {
        let path = format!("{path}.{label}");
        match other(new, label) {
            Some(now) => compare(&path, table, &now, found),
            None => found.push((path, Some(show::table(table)), None)),
        }
    }
    for (label, table) in new.iter().filter(|(label, _)| other(old, label).is_none()) {
        found.push((format!("{path}.{label}"), None, Some(show::table(table))));
    }
    let labels = |list: &[(String, &Table)]| -> Vec<String> {
        list.iter().map(|(label, _)| label.clone()).collect()
    };
    let (was, is) = (labels(old), labels(new));
    let sorted = |labels: &[String]| {
        let mut sorted = labels.to_vec();
        sorted.sort();
        sorted
    };
    if was != is && sorted(&was) == sorted(&is) {
        found.push((format!("{path} (order)"), Some(was.join(", ")), Some(is.join(", "))));
    }
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
