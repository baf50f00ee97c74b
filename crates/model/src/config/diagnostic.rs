//! Mistakes in configuration files, each with its place and its mend.
//!
//! Finding mistakes is the work of the readers beside this file; here is only how one is placed in
//! the text and how it looks. Nothing is printed here.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::reader;

/// A configuration file that has been read into memory.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The path as it is shown to people.
    pub file: &'a str,
    /// The whole content.
    pub text: &'a str,
}

/// Every mistake found, in the order of the files and of their text; never empty as an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(pub Vec<Diagnostic>);

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file, as it is shown to people.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// The line and, on a second line, a mark under the place; empty when something is missing
    /// from the file as a whole.
    pub snippet: String,
}

impl Diagnostic {
    /// A mistake at the value that `path` leads to, such as `["replicate", "1"]` for the second
    /// entry of `replicate`. For what only the shell can find out: that a directory is missing,
    /// for instance. When the path leads nowhere, its last part that exists is marked.
    #[must_use]
    pub fn at(source: &Source<'_>, path: &[&str], message: &str, help: Option<&str>) -> Self {
        let span = reader::find(source, path);
        Self::place(source, span, message.to_owned(), help.map(str::to_owned))
    }

    /// A mistake at a range of bytes, or in the file as a whole.
    pub(super) fn place(
        source: &Source<'_>,
        span: Option<Range<usize>>,
        message: String,
        help: Option<String>,
    ) -> Self {
        let file = source.file.to_owned();
        let (message, help) = (printable(&message), help.as_deref().map(printable));
        let Some(span) = span else {
            return Self { file, line: 1, column: 1, message, help, snippet: String::new() };
        };
        let spot = Spot::new(source.text, &span);
        Self { file, line: spot.line, column: spot.column, message, help, snippet: spot.snippet }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        let mut number = self.line.to_string();
        for line in self.snippet.lines() {
            writeln!(f, "{number:>5} | {line}")?;
            number.clear();
        }
        if let Some(help) = &self.help {
            writeln!(f, "      = {help}")?;
        }
        Ok(())
    }
}

/// Where a range of bytes lies for a reader of the text.
struct Spot {
    line: usize,
    column: usize,
    snippet: String,
}

impl Spot {
    fn new(text: &str, span: &Range<usize>) -> Self {
        let start = char_boundary(text, span.start);
        let end = char_boundary(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let before = &text[line_start..start];
        let marked = text[start..end.min(line_end)].trim_end().chars().count().max(1);
        // Tabs are kept so that the mark stays below its place however wide they are shown.
        let indent: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let shown = text[line_start..line_end].trim_end();
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: before.chars().count() + 1,
            snippet: format!("{}\n{indent}{}", printable(shown), "^".repeat(marked)),
        }
    }
}

/// The text without what a terminal would obey.
fn printable(text: &str) -> String {
    let show = |c: char| {
        if c.is_control() && c != '\t' { '\u{fffd}' } else { c }
    };
    text.chars().map(show).collect()
}

/// The nearest place at or before `at` that does not split a character.
fn char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, span: Range<usize>, expected: &str) {
        let source = Source { file: "a.toml", text };
        let found = Diagnostic::place(&source, Some(span), "wrong".into(), Some("mend it".into()));
        assert_eq!(found.to_string(), expected);
    }

    #[test]
    fn the_mark_lies_below_its_place() {
        check(
            "a = 1\nb = 2\n",
            6..7,
            "a.toml:2:1: wrong\n    2 | b = 2\n      | ^\n      = mend it\n",
        );
        check(
            "é = \"ü\"",
            5..9,
            "a.toml:1:5: wrong\n    1 | é = \"ü\"\n      |     ^^^\n      = mend it\n",
        );
    }

    #[test]
    fn a_file_cannot_command_the_terminal() {
        check(
            "a = '\u{1b}[2J'",
            5..6,
            "a.toml:1:6: wrong\n    1 | a = '\u{fffd}[2J'\n      |      ^\n      = mend it\n",
        );
    }

    #[test]
    fn a_range_over_several_lines_or_past_the_end_marks_the_first_line() {
        check(
            "a = [\n1]",
            4..8,
            "a.toml:1:5: wrong\n    1 | a = [\n      |     ^\n      = mend it\n",
        );
        check("ab", 2..90, "a.toml:1:3: wrong\n    1 | ab\n      |   ^\n      = mend it\n");
    }
}
