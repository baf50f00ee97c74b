//! How long lines, functions and files may be, and how a file begins.

use super::Finding;
use super::scan::{File, closing, line_of, words};

const LINE_COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 60;
const FILE_LINES_MAX: usize = 500;
const TEST_FILE_LINES_MAX: usize = 800;

/// All checks of this file.
pub(super) fn check(file: &File<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(opening(file));
    findings.extend(file_length(file));
    findings.extend(columns(file));
    findings.extend(functions(file));
    findings
}

/// Every file opens with a paragraph that says what it is.
fn opening(file: &File<'_>) -> Option<Finding> {
    let opens = file.text.lines().next().is_some_and(|line| line.starts_with("//! "));
    let message = "open the file with a `//!` paragraph: what it is, what it leaves to others";
    (!opens).then(|| find(file, 1, message.to_owned()))
}

fn file_length(file: &File<'_>) -> Option<Finding> {
    let (lines, limit) = if file.is_test {
        (file.text.lines().count(), TEST_FILE_LINES_MAX)
    } else {
        let count = file.text.lines().count();
        ((1..=count).filter(|line| !file.in_test(*line)).count(), FILE_LINES_MAX)
    };
    let message = format!("{lines} lines without tests, at most {limit}: split it by subject");
    (lines > limit).then(|| find(file, 0, message))
}

fn columns(file: &File<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > LINE_COLUMNS_MAX {
            let message = format!("{columns} columns, at most {LINE_COLUMNS_MAX}");
            findings.push(find(file, index + 1, message));
        }
    }
    findings
}

/// From the line of `fn` to that of the closing brace.
fn functions(file: &File<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for at in words(&file.code, "fn") {
        let rest = &file.code[at + 2..];
        // `fn(` is a type; a `;` before the brace ends a declaration without a body.
        if !rest.trim_start().starts_with(|c: char| c.is_alphabetic() || c == '_') {
            continue;
        }
        let Some(open) = body(rest) else { continue };
        let Some(close) = closing(&file.code, at + 2 + open) else {
            continue;
        };
        let first = line_of(&file.code, at);
        let lines = line_of(&file.code, close) - first + 1;
        if lines > FUNCTION_LINES_MAX {
            let name: String = rest
                .trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let message = format!(
                "`{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}: split it where the \
                 subject changes"
            );
            findings.push(find(file, first, message));
        }
    }
    findings
}

/// The place of the brace that opens a function's body, if it has one. A `;` in brackets belongs
/// to an array's type.
fn body(rest: &str) -> Option<usize> {
    let mut depth = 0i32;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(at),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn find(file: &File<'_>, line: usize, message: String) -> Finding {
    Finding { file: file.name.to_owned(), line, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(usize, &str)]) {
        let found = super::check(&File::new("crates/x/src/a.rs", text));
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (finding, (line, part)) in found.iter().zip(expected) {
            assert_eq!(finding.line, *line, "{finding}");
            assert!(finding.message.contains(part), "{finding}");
        }
    }

    #[test]
    fn a_file_opens_with_a_paragraph() {
        check("//! A file.\n", &[]);
        check("use std::fmt;\n", &[(1, "open the file")]);
        check("", &[(1, "open the file")]);
    }

    #[test]
    fn lines_have_a_hundred_columns() {
        check(&format!("//! A.\n// {}\n", "ü".repeat(97)), &[]);
        check(&format!("//! A.\n// {}\n", "ü".repeat(98)), &[(2, "101 columns")]);
    }

    #[test]
    fn functions_have_sixty_lines() {
        let function = |lines: usize| {
            format!("//! A.\nfn long(a: [u8; 4]) {{\n{}}}\n", "    a();\n".repeat(lines - 2))
        };
        check(&function(60), &[]);
        check(&function(61), &[(2, "`long` has 61 lines")]);
        check("//! A.\ntrait A {\n    fn a();\n}\ntype F = fn(u8);\n", &[]);
    }

    #[test]
    fn files_have_five_hundred_lines_without_tests() {
        let file = |lines: usize, tests: usize| {
            format!(
                "//! A.\n{}#[cfg(test)]\nmod tests {{\n{}}}\n",
                "use a;\n".repeat(lines - 1),
                "use b;\n".repeat(tests)
            )
        };
        check(&file(500, 400), &[]);
        check(&file(501, 0), &[(0, "501 lines")]);
        let test = |lines: usize| "//! A.\n".repeat(lines);
        assert_eq!(super::check(&File::new("crates/x/tests/a.rs", &test(800))), []);
        assert_eq!(super::check(&File::new("crates/x/tests/a.rs", &test(801))).len(), 1);
    }
}
