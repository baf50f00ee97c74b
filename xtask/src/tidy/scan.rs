//! A Rust file as the checks see it: its lines, its code without comments and texts, and which
//! lines are tests.
//!
//! This is no parser. It knows just enough of the language not to be fooled by what stands in
//! comments, strings and characters.

use std::ops::RangeInclusive;

/// A Rust file.
pub(super) struct File<'a> {
    /// Path from the root of the repository.
    pub name: &'a str,
    /// The content.
    pub text: &'a str,
    /// The content with everything inside comments, strings and characters turned into blanks;
    /// same length in bytes, same lines.
    pub code: String,
    /// Lines of `#[cfg(test)]` modules, counted from 1.
    tests: Vec<RangeInclusive<usize>>,
    /// Whether the file as a whole is a test.
    pub is_test: bool,
}

impl<'a> File<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        let code = blank(text);
        let tests = test_modules(&code);
        let is_test = name.contains("/tests/") || name.ends_with("tests.rs");
        Self { name, text, code, tests, is_test }
    }

    /// Whether a line, counted from 1, belongs to a test.
    pub(super) fn in_test(&self, line: usize) -> bool {
        self.is_test || self.tests.iter().any(|lines| lines.contains(&line))
    }
}

/// The line, counted from 1, of a place in the text.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Places at which `word` stands as a whole word.
pub(super) fn words(code: &str, word: &str) -> Vec<usize> {
    let part = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let bytes = code.as_bytes();
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|&at| {
            let before = at.checked_sub(1).and_then(|before| bytes.get(before));
            !part(before) && !part(bytes.get(at + word.len()))
        })
        .collect()
}

/// The place of the bracket that closes the one at `open`.
pub(super) fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (offset, byte) in code.as_bytes()[open..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(open + offset);
                }
            }
            _ => {}
        }
    }
    None
}

fn test_modules(code: &str) -> Vec<RangeInclusive<usize>> {
    let mut modules = Vec::new();
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        let rest = &code[at + attribute.len()..];
        let Some(open) = rest.find('{') else { continue };
        let head = &rest[..open];
        if head.contains(';') || words(head, "mod").is_empty() {
            continue;
        }
        let open = at + attribute.len() + open;
        if let Some(close) = closing(code, open) {
            modules.push(line_of(code, at)..=line_of(code, close));
        }
    }
    modules
}

fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    while code.len() < bytes.len() {
        let at = code.len();
        let length = opaque(bytes, at);
        if length == 0 {
            code.push(bytes[at]);
        }
        for byte in &bytes[at..(at + length).min(bytes.len())] {
            code.push(if *byte == b'\n' { b'\n' } else { b' ' });
        }
    }
    // Only whole comments, strings and characters were replaced, each by ASCII.
    String::from_utf8_lossy(&code).into_owned()
}

/// Length in bytes of the comment, string or character that starts at `at`; 0 if none does.
fn opaque(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let part_of_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => string(rest),
        [b'\'', ..] => character(rest),
        [b'r' | b'b' | b'c', ..] if !part_of_word => raw_string(rest),
        _ => 0,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0usize);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                at += 2;
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// A character, but not a lifetime.
fn character(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        return rest.iter().skip(3).position(|byte| *byte == b'\'').map_or(0, |end| end + 4);
    }
    let text = String::from_utf8_lossy(&rest[1..rest.len().min(6)]).into_owned();
    let Some(first) = text.chars().next() else {
        return 0;
    };
    let end = 1 + first.len_utf8();
    if rest.get(end) == Some(&b'\'') { end + 1 } else { 0 }
}

/// `r"..."`, `r#"..."#` and the like with `b` or `c` before.
fn raw_string(rest: &[u8]) -> usize {
    let prefix = rest.iter().take_while(|byte| matches!(byte, b'b' | b'c')).count();
    if prefix > 1 || rest.get(prefix) != Some(&b'r') {
        return 0;
    }
    let hashes = rest[prefix + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = prefix + 1 + hashes;
    if rest.get(open) != Some(&b'"') {
        return 0;
    }
    let mut end = vec![b'"'];
    end.extend(std::iter::repeat_n(b'#', hashes));
    let found = rest[open + 1..].windows(end.len()).position(|window| window == end);
    found.map_or(rest.len(), |found| open + 1 + found + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_code_is_blank() {
        for (text, expected) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("}\"", x)"#, "f(     , x)"),
            ("r#\"a\"b\"# c", "         c"),
            ("b\"a\" br\"x\"", "b          "),
            ("'{' 'a '\\n' '\\u{7d}' 'é'", "    'a               "),
        ] {
            assert_eq!(blank(text).trim_end(), expected.trim_end(), "{text}");
        }
    }

    #[test]
    fn test_modules_are_found_by_their_braces() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod tests {\n    const A: &str = \"}\";\n}\nfn b() {}\n";
        let file = File::new("crates/x/src/a.rs", text);
        let in_test: Vec<bool> = (1..=6).map(|line| file.in_test(line)).collect();
        assert_eq!(in_test, [false, true, true, true, true, false]);
        assert!(File::new("crates/x/tests/a.rs", "").in_test(1));
        assert!(File::new("crates/x/src/a/tests.rs", "").in_test(1));
    }

    #[test]
    fn words_are_whole() {
        assert_eq!(words("Instant Instants an_Instant Instant", "Instant"), [0, 28]);
    }
}
