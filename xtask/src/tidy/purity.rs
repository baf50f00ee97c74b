//! What pure crates must not mention, and what nothing but tests may do.
//!
//! The crates' own `clippy.toml` catch uses that the compiler resolves; this catches the mention,
//! renamed or not.

use super::Finding;
use super::scan::{File, line_of, words};

/// Crates whose behaviour follows from their arguments alone.
const PURE_CRATES: &[&str] = &["model", "cluster", "replica", "activity", "wire"];

/// Modules of `std` that reach outside the program.
const FORBIDDEN_MODULES: &[&str] =
    &["std::fs", "std::net", "std::process", "std::thread", "std::env", "std::os"];

/// Names that bring in a clock or an order that differs between runs.
const FORBIDDEN_WORDS: &[&str] = &["Instant", "SystemTime", "HashMap", "HashSet"];

/// What of `std::net` is mere data.
const ADDRESSES: &[&str] = &[
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
    "AddrParseError",
];

/// All checks of this file.
pub(super) fn check(file: &File<'_>) -> Vec<Finding> {
    let mut findings = unwraps(file);
    let pure = PURE_CRATES.iter().any(|name| file.name.starts_with(&format!("crates/{name}/src/")));
    if pure {
        findings.extend(modules(file));
        findings.extend(forbidden_words(file));
    }
    findings
}

/// `unwrap` tells nobody what was expected; outside tests an error is answered.
fn unwraps(file: &File<'_>) -> Vec<Finding> {
    let message = "`unwrap` outside tests: answer an error that names the place and the mend";
    let places = file.code.match_indices(".unwrap()").map(|(at, _)| at);
    places.filter_map(|at| find(file, at, message.to_owned())).collect()
}

fn modules(file: &File<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for at in words(&file.code, "std") {
        if !file.code[at..].starts_with("std::") {
            continue;
        }
        for path in paths(&file.code[at..]) {
            let address =
                path.strip_prefix("std::net::").is_some_and(|rest| ADDRESSES.contains(&rest));
            let within = |module: &&&str| {
                path.strip_prefix(**module)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            };
            if let Some(module) = FORBIDDEN_MODULES.iter().find(within).filter(|_| !address) {
                let message = format!("a pure crate must not use `{module}` (here: `{path}`)");
                findings.extend(find(file, at, message));
            }
        }
    }
    findings
}

fn forbidden_words(file: &File<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for word in FORBIDDEN_WORDS {
        for at in words(&file.code, word) {
            let message = format!("a pure crate must not mention `{word}`");
            findings.extend(find(file, at, message));
        }
    }
    findings
}

/// The whole paths of a tree such as `std::{fs, net::{self, IpAddr}}` at the start of `code`.
fn paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    expand(code, "", &mut paths);
    paths
}

/// Adds the paths of the tree at the start of `code`, each below `prefix`, and answers the rest.
fn expand<'c>(code: &'c str, prefix: &str, paths: &mut Vec<String>) -> &'c str {
    let mut path = prefix.to_owned();
    let mut rest = code.trim_start();
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            return expand_group(group, &path, paths);
        }
        let end =
            rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word != "self" {
            if !path.is_empty() {
                path.push_str("::");
            }
            path.push_str(word);
        }
        match after.strip_prefix("::") {
            Some(deeper) => rest = deeper.trim_start(),
            None => {
                paths.push(path);
                return after;
            }
        }
    }
}

fn expand_group<'c>(group: &'c str, prefix: &str, paths: &mut Vec<String>) -> &'c str {
    let mut rest = group.trim_start();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('}') {
            return after;
        }
        let after = expand(rest, prefix, paths);
        // Whatever follows a path, such as `as name`, is skipped up to the next entry.
        let next = after.find([',', '}']).unwrap_or(after.len());
        rest = after[next..].trim_start_matches(',').trim_start();
    }
    rest
}

fn find(file: &File<'_>, at: usize, message: String) -> Option<Finding> {
    let line = line_of(&file.code, at);
    (!file.in_test(line)).then(|| Finding { file: file.name.to_owned(), line, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str, expected: &[&str]) {
        let found = super::check(&File::new(name, text));
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (finding, part) in found.iter().zip(expected) {
            assert!(finding.message.contains(part), "{finding}");
        }
    }

    #[test]
    fn pure_crates_mention_nothing_outside() {
        let pure = "crates/cluster/src/a.rs";
        check(pure, "use std::fs;\n", &["`std::fs`"]);
        check(pure, "use std::{fmt, env::{self, args}};\n", &["`std::env`", "std::env::args"]);
        check(pure, "fn a() { std::thread::sleep(b) }\n", &["std::thread::sleep"]);
        check(pure, "use std::time::Instant;\n", &["`Instant`"]);
        check(pure, "// std::fs and HashMap\nconst A: &str = \"std::fs\";\n", &[]);
        check(pure, "use std::fmt; use std::fsx::A;\n", &[]);
        check("crates/node/src/a.rs", "use std::fs;\n", &[]);
        check(pure, "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n", &[]);
    }

    #[test]
    fn addresses_are_data_and_sockets_are_not() {
        let pure = "crates/model/src/a.rs";
        check(pure, "use std::net::{IpAddr, SocketAddr};\n", &[]);
        check(pure, "use std::net::{IpAddr, UdpSocket as S, SocketAddr};\n", &["UdpSocket"]);
        check(pure, "use std::net;\n", &["`std::net`"]);
    }

    #[test]
    fn unwrap_is_for_tests() {
        check("crates/node/src/a.rs", "fn a() { b.unwrap() }\n", &["`unwrap` outside tests"]);
        check("crates/node/src/a.rs", "fn a() { b.unwrap_or(c) } // .unwrap()\n", &[]);
        check("crates/node/tests/a.rs", "fn a() { b.unwrap() }\n", &[]);
    }
}
