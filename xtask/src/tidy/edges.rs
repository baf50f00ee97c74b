//! Which crate may know which: the picture of ARCHITECTURE.md as a table.
//!
//! Dependencies of tests are held to the same table, for a test that reaches up is a sign that the
//! thing under test lies too low.

use serde_json::Value;

use super::Finding;

/// A crate of the workspace and the crates of the workspace that it may use.
struct Crate {
    name: &'static str,
    may_use: &'static [&'static str],
    /// Crates from outside that it may use; `None` stands for any.
    outside: Option<&'static [&'static str]>,
}

/// What pure crates may use from outside: encodings, hashes and derived boilerplate.
const PURE: Option<&[&str]> =
    Some(&["blake3", "postcard", "serde", "serde_json", "thiserror", "toml"]);

const CRATES: &[Crate] = &[
    Crate { name: "model", may_use: &[], outside: PURE },
    Crate { name: "cluster", may_use: &["model"], outside: PURE },
    Crate { name: "replica", may_use: &["model"], outside: PURE },
    Crate { name: "sim", may_use: &["model", "cluster", "replica"], outside: PURE },
    Crate { name: "activity", may_use: &["replica"], outside: PURE },
    Crate { name: "wire", may_use: &["model", "cluster", "replica"], outside: PURE },
    Crate { name: "memory", may_use: &[], outside: None },
    Crate { name: "fuse", may_use: &["memory"], outside: None },
    Crate { name: "net", may_use: &["model"], outside: None },
    Crate { name: "mount", may_use: &["model", "replica", "memory", "fuse"], outside: None },
    Crate {
        name: "node",
        may_use: &[
            "model", "cluster", "replica", "activity", "wire", "memory", "fuse", "mount", "net",
        ],
        outside: None,
    },
    Crate {
        name: "lab",
        may_use: &["model", "cluster", "replica", "wire", "fuse", "mount", "net"],
        outside: None,
    },
    Crate {
        name: "evenkeel",
        may_use: &[
            "model", "cluster", "sim", "replica", "activity", "wire", "memory", "fuse", "mount",
            "net", "node", "lab",
        ],
        outside: None,
    },
    Crate { name: "xtask", may_use: &[], outside: Some(&["rustix", "serde_json"]) },
];

/// Compares `cargo metadata` with the table.
pub(super) fn check(metadata: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let file = format!("crates/{name}/Cargo.toml");
        let mut find = |message| findings.push(Finding { file: file.clone(), line: 0, message });
        let Some(known) = CRATES.iter().find(|known| known.name == name) else {
            find(format!(
                "crate `{name}` is not in the table: say in ARCHITECTURE.md what it must forbid, \
                 and add it to xtask/src/tidy/edges.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let inside = CRATES.iter().any(|known| known.name == used);
            if inside && !known.may_use.contains(&used) {
                find(format!("`{name}` must not know `{used}`"));
            }
            if !inside && known.outside.is_some_and(|allowed| !allowed.contains(&used)) {
                find(format!("`{name}` must not use `{used}`, which is not on its short list"));
            }
        }
        if package["description"].as_str().unwrap_or_default().is_empty() {
            find("the description is empty: say in one line what the crate is".to_owned());
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(name: &str, dependencies: &[&str], expected: &[&str]) {
        let dependencies: Vec<Value> =
            dependencies.iter().map(|name| json!({ "name": name, "kind": null })).collect();
        let package = json!({ "name": name, "dependencies": dependencies, "description": "A." });
        let found = super::check(&json!({ "packages": [package] }));
        let messages: Vec<&str> = found.iter().map(|finding| finding.message.as_str()).collect();
        assert_eq!(messages.len(), expected.len(), "{messages:?}");
        for (message, part) in messages.iter().zip(expected) {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn edges_point_down_only() {
        check("node", &["cluster", "replica", "rustix"], &[]);
        check("cluster", &["model", "replica"], &["`cluster` must not know `replica`"]);
        check("model", &["node"], &["`model` must not know `node`"]);
    }

    #[test]
    fn pure_crates_have_a_short_list() {
        check("wire", &["postcard"], &[]);
        check("wire", &["rustix"], &["`wire` must not use `rustix`"]);
    }

    #[test]
    fn a_crate_outside_the_table_is_found() {
        check("extra", &[], &["not in the table"]);
    }

    #[test]
    fn the_table_itself_has_no_circle() {
        for (index, known) in CRATES.iter().enumerate() {
            for used in known.may_use {
                let at = CRATES.iter().position(|other| other.name == *used);
                assert!(at.is_some_and(|at| at < index), "{} uses {used}", known.name);
            }
        }
    }
}
