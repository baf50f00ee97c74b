//! The configurations shown in the documents, read as they stand; and the keys that the page on
//! configuration must name.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panic")]

use std::fs;
use std::path::{Path, PathBuf};

use model::config::{self, ClusterConfig, Source};

#[test]
fn configurations_in_the_documents_are_right() {
    let root = root();
    let mut found = 0;
    let pages =
        ["README.md", "docs/introduction.md", "docs/configuration.md", "docs/first-cluster.md"];
    for name in pages {
        let text = fs::read_to_string(root.join(name)).unwrap();
        for (line, block) in blocks(&text) {
            let file = format!("{name}, block at line {line}");
            let source = Source { file: &file, text: &block };
            let outcome = if block.lines().any(|line| line.starts_with("module ")) {
                config::parse_module(&source, &cluster()).map(|_| ())
            } else if block.lines().any(|line| line.starts_with("cluster ")) {
                config::parse_cluster(&source).map(|_| ())
            } else {
                continue;
            };
            if let Err(mistakes) = outcome {
                panic!("{mistakes}");
            }
            found += 1;
        }
    }
    assert!(found >= 6, "only {found} configurations in {pages:?}");
}

#[test]
fn every_key_is_on_the_page_on_configuration() {
    let page = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let tables = [
        "",
        "[[network]]",
        "[[node]]",
        "[witness]",
        "[isolation]",
        "[fence]",
        "[health]",
        "[watchdog]",
        "[[vip]]",
        "[[command]]",
        "[scripts]",
        "[replication]",
        "[failover]",
    ];
    let wrong = tables.map(|table| format!("{table}\nzzz = 1\n")).concat();
    let source = Source { file: "a.toml", text: &wrong };
    let mut keys = 0;
    let cluster = config::parse_cluster(&source).unwrap_err();
    let module = config::parse_module(&source, &self::cluster()).unwrap_err();
    for help in cluster.0.iter().chain(&module.0).filter_map(|found| found.help.as_ref()) {
        let Some((_, list)) = help.split_once("allowed here: ") else {
            continue;
        };
        for key in list.split(", ") {
            let forms = [format!("`{key}`"), format!("`[{key}]`"), format!("`[[{key}]]`")];
            assert!(forms.iter().any(|form| page.contains(form)), "`{key}` is not on the page");
            keys += 1;
        }
    }
    assert!(keys >= 20, "only {keys} keys were found");
}

/// The TOML in a page: fenced blocks, and what a shell is told to write into a `.toml` file.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, &str, String)> = None;
    for (index, line) in page.lines().enumerate() {
        match &mut open {
            Some((_, end, _)) if line == *end => {
                blocks.extend(open.take().map(|(start, _, text)| (start, text)));
            }
            Some((_, _, text)) => {
                text.push_str(line);
                text.push('\n');
            }
            None if line == "```toml" => open = Some((index + 1, "```", String::new())),
            None if line.ends_with(".toml <<'END'") => {
                open = Some((index + 1, "END", String::new()));
            }
            None => {}
        }
    }
    blocks
}

fn cluster() -> ClusterConfig {
    let text = "cluster = 'a'\nnode = [{ name = 'a', addresses = { lan0 = '10.0.0.1' } },\n\
                { name = 'b', addresses = { lan0 = '10.0.0.2' } }]\n";
    config::parse_cluster(&Source { file: "cluster.toml", text }).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
