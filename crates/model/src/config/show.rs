//! Values of a configuration in few words, for people who compare two of them.

use toml::{Table, Value};

/// Longest text shown of a value, in characters.
const SHOWN_MAX: usize = 60;

/// A value on one line.
pub(super) fn value(value: &Value) -> String {
    shorten(whole(value))
}

/// A table on one line.
pub(super) fn table(table: &Table) -> String {
    shorten(whole_table(table))
}

/// What an entry of a list is called that has no name: by what it says first of all.
pub(super) fn list_label(table: &Table) -> String {
    let known = ["service", "command", "pid_file", "program", "port", "kind"];
    let found = known.iter().find_map(|key| table.get(*key));
    found.map_or_else(|| "entry".to_owned(), |found| whole(found).trim_matches('"').to_owned())
}

fn whole(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", text.replace('\n', "↵")),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(yes) => yes.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(list) => {
            let list: Vec<String> = list.iter().map(whole).collect();
            format!("[{}]", list.join(", "))
        }
        Value::Table(table) => whole_table(table),
    }
}

fn whole_table(table: &Table) -> String {
    let entries: Vec<String> =
        table.iter().map(|(key, value)| format!("{key} = {}", whole(value))).collect();
    format!("{{ {} }}", entries.join(", "))
}

fn shorten(text: String) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
