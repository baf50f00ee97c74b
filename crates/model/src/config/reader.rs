//! Walking a parsed file table by table while collecting every mistake.
//!
//! This knows TOML and positions, but none of the keys: those are in `cluster_file` and
//! `module_file`. A wrong value is reported and then treated as absent, so that the walk goes on;
//! [`Report::finish`] makes sure that no configuration comes out of a file with a mistake.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Diagnostics, Source};
use super::nearest::nearest;

/// A value with its place.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// Why a value is refused, and how to mend it.
pub(super) struct Problem {
    pub message: String,
    pub help: Option<String>,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A value read from the file and where it stands.
#[derive(Clone)]
pub(super) struct Placed<T> {
    pub value: T,
    pub span: Range<usize>,
}

/// The mistakes of one file.
pub(super) struct Report<'s> {
    source: Source<'s>,
    found: Vec<(usize, Diagnostic)>,
    /// Set when the text is no TOML: then what is missing may just not have been understood.
    broken: bool,
}

impl<'s> Report<'s> {
    /// Parses the file; mistakes of syntax are the first entries of the report.
    pub(super) fn open(source: &Source<'s>) -> (Self, Spanned<DeTable<'s>>) {
        let (root, errors) = DeTable::parse_recoverable(source.text);
        let broken = !errors.is_empty();
        let mut report = Self { source: *source, found: Vec::new(), broken };
        for error in errors {
            report.add(error.span(), Problem::new(error.message().replace('\n', "; ")));
        }
        (report, root)
    }

    /// Adds a mistake at `span`, or about the file as a whole. A second mistake on the same line
    /// as one of syntax is left out, for it most likely follows from it.
    pub(super) fn add(&mut self, span: Option<Range<usize>>, problem: Problem) {
        let start = span.as_ref().map_or(0, |span| span.start);
        let Problem { message, help } = problem;
        let diagnostic = Diagnostic::place(&self.source, span, message, help);
        if self.broken && self.found.iter().any(|(_, known)| known.line == diagnostic.line) {
            return;
        }
        self.found.push((start, diagnostic));
    }

    /// Adds that something is absent, unless the text as a whole was not understood.
    pub(super) fn missing(&mut self, span: Option<Range<usize>>, problem: Problem) {
        if !self.broken {
            self.add(span, problem);
        }
    }

    /// How many mistakes there are so far; follow-up mistakes are left out when it has grown.
    pub(super) fn count(&self) -> usize {
        self.found.len()
    }

    /// The configuration if there was no mistake.
    pub(super) fn finish<T>(mut self, config: Option<T>) -> Result<T, Diagnostics> {
        match config {
            Some(config) if self.found.is_empty() => Ok(config),
            _ => {
                debug_assert!(!self.found.is_empty(), "a refused file must say why");
                self.found.sort_by_key(|(start, _)| *start);
                Err(Diagnostics(self.found.into_iter().map(|(_, diagnostic)| diagnostic).collect()))
            }
        }
    }

    /// Applies `parse` to a value that must be a text.
    fn parse<T>(
        &mut self,
        what: &str,
        value: &Value<'_>,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Option<Placed<T>> {
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(what, "a text in quotes", value);
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some(Placed { value: parsed, span: value.span() }),
            Err(problem) => {
                self.add(Some(value.span()), problem);
                None
            }
        }
    }

    /// A value that must be a whole number within limits (both included).
    fn whole(&mut self, key: &str, value: &Value<'_>, least: u32, most: u32) -> Option<u32> {
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(&format!("`{key}`"), "a whole number", value);
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let problem = Problem::new(format!("`{key}` is out of range"))
                .help(format!("use a whole number from {least} to {most}"));
            self.add(Some(value.span()), problem);
        }
        number
    }

    fn wrong_type(&mut self, what: &str, wanted: &str, value: &Value<'_>) {
        let article = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let message = format!("{what} must be {wanted}, but this is {article}");
        self.add(Some(value.span()), Problem::new(message));
    }
}

/// The keys of one kind of table.
pub(super) struct Keys {
    /// How the table is written, for messages.
    pub place: &'static str,
    /// What is understood.
    pub known: &'static [&'static str],
    /// What the design has and this version has not.
    pub later: &'static [&'static str],
}

/// A table whose keys have been checked.
pub(super) struct Section<'t, 'i> {
    keys: &'static Keys,
    table: &'t DeTable<'i>,
    /// Where the table stands; nothing for the file as a whole.
    pub span: Option<Range<usize>>,
}

impl<'t, 'i> Section<'t, 'i> {
    /// The file as a whole.
    pub(super) fn root(
        report: &mut Report<'_>,
        root: &'t Spanned<DeTable<'i>>,
        keys: &'static Keys,
    ) -> Self {
        let section = Self { keys, table: root.get_ref(), span: None };
        section.check_keys(report);
        section
    }

    /// The table at `key`, if there is one.
    pub(super) fn section(
        &self,
        report: &mut Report<'_>,
        key: &str,
        keys: &'static Keys,
    ) -> Option<Self> {
        let value = self.get(key)?;
        Self::open(report, key, value, keys)
    }

    /// The tables at `key`, written `[[key]]`.
    pub(super) fn sections(
        &self,
        report: &mut Report<'_>,
        key: &str,
        keys: &'static Keys,
    ) -> Vec<Self> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            report.wrong_type(
                &format!("`{key}`"),
                &format!("tables, each headed {}", keys.place),
                value,
            );
            return Vec::new();
        };
        array.iter().filter_map(|value| Self::open(report, key, value, keys)).collect()
    }

    /// Every entry of a table whose keys are names, such as `addresses`.
    pub(super) fn entries<T>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Option<Vec<(Placed<String>, Placed<T>)>> {
        let value = self.get(key)?;
        let Some(table) = value.get_ref().as_table() else {
            report.wrong_type(
                &format!("`{key}`"),
                "a table such as { lan0 = \"10.0.0.1\" }",
                value,
            );
            return None;
        };
        let mut entries = Vec::new();
        for (name, value) in table {
            let placed = Placed { value: name.get_ref().to_string(), span: name.span() };
            if let Some(parsed) = report.parse(&format!("`{}`", placed.value), value, &parse) {
                entries.push((placed, parsed));
            }
        }
        Some(entries)
    }

    /// Every entry of a table of whole numbers within limits (both included), such as `weights`.
    pub(super) fn wholes(
        &self,
        report: &mut Report<'_>,
        key: &str,
        least: u32,
        most: u32,
    ) -> Option<Vec<(Placed<String>, u32)>> {
        let value = self.get(key)?;
        let Some(table) = value.get_ref().as_table() else {
            report.wrong_type(&format!("`{key}`"), "a table such as { node1 = 100 }", value);
            return None;
        };
        let mut entries = Vec::new();
        for (name, value) in table {
            let placed = Placed { value: name.get_ref().to_string(), span: name.span() };
            if let Some(number) = report.whole(&placed.value, value, least, most) {
                entries.push((placed, number));
            }
        }
        Some(entries)
    }

    /// The text at `key`, parsed; nothing when absent or wrong.
    pub(super) fn text<T>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Option<Placed<T>> {
        let value = self.get(key)?;
        report.parse(&format!("`{key}`"), value, parse)
    }

    /// Like [`Section::text`], but absence is a mistake, mended by the line `example`.
    pub(super) fn required<T>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Option<Placed<T>> {
        if self.get(key).is_none() {
            self.missing(report, key, example);
        }
        self.text(report, key, parse)
    }

    /// The list of texts at `key`; nothing when absent, without what was wrong in it.
    pub(super) fn texts<T>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Option<Vec<Placed<T>>> {
        let value = self.get(key)?;
        let Some(array) = value.get_ref().as_array() else {
            report.wrong_type(&format!("`{key}`"), "a list of texts in [ ]", value);
            return None;
        };
        let what = format!("each entry of `{key}`");
        Some(array.iter().filter_map(|value| report.parse(&what, value, &parse)).collect())
    }

    /// Value of a key that is `true` or `false`.
    pub(super) fn truth(&self, report: &mut Report<'_>, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            report.wrong_type(&format!("`{key}`"), "`true` or `false`", value);
        }
        truth
    }

    /// The whole number at `key`, within limits (both included); nothing when absent or wrong.
    pub(super) fn whole(
        &self,
        report: &mut Report<'_>,
        key: &str,
        least: u32,
        most: u32,
    ) -> Option<u32> {
        let value = self.get(key)?;
        report.whole(key, value, least, most)
    }

    /// Reports that `key` is absent, unless a misspelling of it has been reported.
    pub(super) fn missing(&self, report: &mut Report<'_>, key: &str, example: &str) {
        let known = self.keys.known;
        let misspelt = |found: &str| {
            !known.contains(&found) && nearest(found, known.iter().copied()) == Some(key)
        };
        if self.table.keys().any(|found| misspelt(found.get_ref())) {
            return;
        }
        let problem = Problem::new(format!("`{key}` is missing in {}", self.keys.place))
            .help(format!("add: {example}"));
        report.missing(self.span.clone(), problem);
    }

    /// Where the value of `key` stands, or else the table.
    pub(super) fn span_of(&self, key: &str) -> Option<Range<usize>> {
        self.get(key).map(Spanned::span).or_else(|| self.span.clone())
    }

    /// Where the value stands that `path` leads to, through tables; nothing if there is none.
    pub(super) fn value_at(&self, path: &[&str]) -> Option<Range<usize>> {
        let (first, rest) = path.split_first()?;
        let mut value = self.get(first)?;
        for step in rest {
            value = value.get_ref().as_table()?.get(*step)?;
        }
        Some(value.span())
    }

    /// Whether the file has `key`, rightly or wrongly.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether the table at `key` has `entry`, rightly or wrongly.
    pub(super) fn has_entry(&self, key: &str, entry: &str) -> bool {
        let table = self.get(key).and_then(|value| value.get_ref().as_table());
        table.is_some_and(|table| table.contains_key(entry))
    }

    /// Whether the value of `key` is this text.
    pub(super) fn is_text(&self, key: &str, text: &str) -> bool {
        self.get(key).and_then(|value| value.get_ref().as_str()) == Some(text)
    }

    fn get(&self, key: &str) -> Option<&'t Value<'i>> {
        self.table.get(key)
    }

    fn open(
        report: &mut Report<'_>,
        key: &str,
        value: &'t Value<'i>,
        keys: &'static Keys,
    ) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            report.wrong_type(
                &format!("`{key}`"),
                &format!("a table headed {}", keys.place),
                value,
            );
            return None;
        };
        let section = Self { keys, table, span: Some(value.span()) };
        section.check_keys(report);
        Some(section)
    }

    fn check_keys(&self, report: &mut Report<'_>) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if self.keys.known.contains(&name) {
                continue;
            }
            let problem = if self.keys.later.contains(&name) {
                Problem::new(format!("`{name}` is not supported in this version"))
                    .help("remove it: nothing is done with it yet")
            } else {
                Problem::new(format!("unknown key `{name}` in {}", self.keys.place))
                    .help(allowed(name, self.keys.known))
            };
            report.add(Some(key.span()), problem);
        }
    }
}

/// "did you mean", when something is near, and all that is allowed.
pub(super) fn allowed(found: &str, known: &[&str]) -> String {
    let known_list = known.join(", ");
    match nearest(found, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? Allowed here: {known_list}"),
        None => format!("allowed here: {known_list}"),
    }
}

/// The place of the value that `path` leads to, or of the last value on the way.
pub(super) fn find(source: &Source<'_>, path: &[&str]) -> Option<Range<usize>> {
    let (root, _) = DeTable::parse_recoverable(source.text);
    let (first, rest) = path.split_first()?;
    let mut value = root.get_ref().get(*first)?;
    for step in rest {
        let next = match value.get_ref() {
            DeValue::Table(table) => table.get(*step),
            DeValue::Array(array) => step.parse().ok().and_then(|index: usize| array.get(index)),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => None,
        };
        let Some(next) = next else { break };
        value = next;
    }
    Some(value.span())
}
