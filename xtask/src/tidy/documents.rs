//! Documents against the repository: links lead somewhere, pages are in the book, and every code
//! that the cluster may show is explained.
//!
//! Whether a document is true is beyond this; that it points at things that exist is not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Finding, files};

/// Where the codes of reasons and events are explained.
const REASONS: &str = "docs/reasons.md";

/// Calls of the cluster whose first text is the code of a reason or an event.
const CODE_CALLS: &[&str] = &["block(", "lose(", "info(", "warn(", "explain(", "push(("];

/// All checks of this file.
pub(super) fn check(root: &Path) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    let summary = read(&root.join("docs/SUMMARY.md"))?;
    for path in pages(root)? {
        let text = read(&path)?;
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let folder = path.parent().unwrap_or(root);
        findings.extend(dead_links(&name, &text, |target| folder.join(target).exists()));
        let page = name.strip_prefix("docs/").unwrap_or("SUMMARY.md");
        if page != "SUMMARY.md" && !summary.contains(&format!("({page})")) {
            let message = "this page is not in docs/SUMMARY.md".to_owned();
            findings.push(Finding { file: name, line: 0, message });
        }
    }
    let mut code = String::new();
    for path in files(root, &["crates/cluster/src"], "rs")? {
        code.push_str(&read(&path)?);
    }
    findings.extend(unexplained(&code, &read(&root.join(REASONS))?));
    Ok(findings)
}

/// Links to files, relative to the page, that do not exist.
fn dead_links(name: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let inline = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let defined = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        for target in inline.chain(defined.map(|(_, target)| target)) {
            let file = target.split('#').next().unwrap_or_default();
            let outside = target.contains("://") || file.is_empty();
            if !outside && !exists(file) {
                let message = format!("the link to {target} leads nowhere");
                findings.push(Finding { file: name.to_owned(), line: index + 1, message });
            }
        }
    }
    findings
}

/// Codes in the cluster's code that the page on reasons does not list.
fn unexplained(code: &str, reasons: &str) -> Vec<Finding> {
    let listed = |code: &String| reasons.contains(&format!("| `{code}` |"));
    let missing = codes(code).into_iter().filter(|code| !listed(code));
    missing
        .map(|code| Finding {
            file: REASONS.to_owned(),
            line: 0,
            message: format!("the code `{code}`, which the cluster may show, is not explained"),
        })
        .collect()
}

/// The codes that the code shows: the first text in the calls that take one.
fn codes(text: &str) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for call in CODE_CALLS {
        for (at, _) in text.match_indices(call) {
            let arguments = &text[at + call.len()..];
            let Some((before, rest)) = arguments.split_once('"') else {
                continue;
            };
            let plain = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_:,.".contains(c);
            let Some((code, _)) = rest.split_once('"').filter(|_| before.chars().all(plain)) else {
                continue;
            };
            let kebab = |c: char| c.is_ascii_lowercase() || c == '-';
            if !code.is_empty() && code.chars().all(kebab) {
                codes.insert(code.to_owned());
            }
        }
    }
    codes
}

/// The documents at the root and every page of the book.
fn pages(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut pages = files(root, &["docs"], "md")?;
    for name in ["README.md", "ARCHITECTURE.md", "STYLE.md", "CHANGELOG.md"] {
        pages.push(root.join(name));
    }
    Ok(pages)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_must_lead_somewhere() {
        let text = "[a](here.md) [b](gone.md#part)\n[c](https://example.org) [d](#part)\n\n\
                    [e]: here.md\n[f]: gone.md\n";
        let found = dead_links("docs/x.md", text, |target| target == "here.md");
        let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [1, 5]);
    }

    #[test]
    fn every_code_must_be_explained() {
        let text = "self.block(\"data-missing\", why);\n\
                    found.push((\n    \"alone\",\n    Severity::Info));\n\
                    self.explain(Severity::Info, \"moved\", s);\nself.info(format!(\"{x}\"));\n\
                    list.push(\"no-code\");\n";
        assert_eq!(codes(text), ["alone", "data-missing", "moved"].map(str::to_owned).into());
        let found = unexplained(text, "| `alone` | ... |\n| `moved` | ... |\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("`data-missing`"), "{}", found[0].message);
    }
}
