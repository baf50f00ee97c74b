//! What the demo shows: steps, findings, and one line that moves while something is under way.
//!
//! On a terminal the moving line is drawn over itself, in colour unless `NO_COLOR` is set.
//! Elsewhere each line is printed once, without colour, and the moving one every few seconds. With
//! JSON everything goes to standard error. Knows nothing of clusters.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the moving line is printed where it cannot be drawn over itself.
const PLAIN_PERIOD: Duration = Duration::from_secs(2);
/// How often it is drawn.
const DRAW_PERIOD: Duration = Duration::from_millis(100);
/// Columns assumed when the terminal does not tell.
const COLUMNS: usize = 80;
/// Width of a bar, in characters.
const BAR: usize = 24;

/// Shape and colour of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// ✔ in green.
    Good,
    /// ▲ in amber.
    Risk,
    /// ↻ in blue.
    Change,
    /// ✖ in red.
    Bad,
}

/// Where the demo is shown.
pub(super) struct Screen {
    out: Box<dyn Write>,
    terminal: bool,
    colour: bool,
    columns: usize,
    /// Whether a moving line stands below the last one.
    moving: bool,
    moved: Option<Instant>,
    /// Whether anything was shown.
    begun: bool,
}

impl Screen {
    /// Standard output, or standard error when that is kept for JSON.
    pub(super) fn new(json: bool) -> Screen {
        let terminal = if json { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        let size = match json {
            true => rustix::termios::tcgetwinsize(io::stderr()),
            false => rustix::termios::tcgetwinsize(io::stdout()),
        };
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = variable("TERM").is_none_or(|term| term == "dumb");
        let out: Box<dyn Write> =
            if json { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
        Screen {
            out,
            terminal: terminal && !dumb,
            colour: terminal && !dumb && variable("NO_COLOR").is_none(),
            columns: size.map_or(COLUMNS, |size| usize::from(size.ws_col)).max(40),
            moving: false,
            moved: None,
            begun: false,
        }
    }

    /// What all of this is.
    pub(super) fn title(&mut self, text: &str) {
        let text = self.paint(text, "1");
        self.line(&text);
    }

    /// A step begins.
    pub(super) fn step(&mut self, number: usize, text: &str) {
        let text = self.paint(&format!("{number}. {text}"), "1");
        self.line(&format!("\n{text}"));
    }

    /// Something was found or has happened.
    pub(super) fn say(&mut self, mark: Mark, text: &str) {
        let mark = self.mark(mark);
        self.line(&format!("   {mark} {text}"));
    }

    /// The demo, or one of its promises, failed.
    pub(super) fn failed(&mut self, text: &str) {
        let mark = self.mark(Mark::Bad);
        let apart = if self.begun { "\n" } else { "" };
        self.line(&format!("{apart}{mark} {text}"));
    }

    /// Text as it is.
    pub(super) fn plain(&mut self, text: &str) {
        self.line(text);
    }

    /// Something is under way; the next call or line takes the place of this one. Cheap to call
    /// often.
    pub(super) fn moving(&mut self, text: &str) {
        let period = if self.terminal { DRAW_PERIOD } else { PLAIN_PERIOD };
        if self.moved.is_some_and(|moved| moved.elapsed() < period) {
            return;
        }
        // What passes by within the first moment needs no line where lines stay.
        let first = self.moved.replace(Instant::now()).is_none();
        if !self.terminal && first {
            return;
        }
        let mark = self.mark(Mark::Change);
        // A line that the terminal breaks could not be drawn over.
        let text: String = text.chars().take(self.columns.saturating_sub(6)).collect();
        if self.terminal {
            self.write(&format!("\r\x1b[K   {mark} {text}"));
            self.moving = true;
        } else {
            self.write(&format!("   {mark} {text}\n"));
        }
    }

    fn line(&mut self, text: &str) {
        if std::mem::take(&mut self.moving) {
            self.write("\r\x1b[K");
        }
        self.moved = None;
        self.begun = true;
        self.write(&format!("{text}\n"));
    }

    fn mark(&self, mark: Mark) -> String {
        let (shape, colour) = match mark {
            Mark::Good => ("✔", "32"),
            Mark::Risk => ("▲", "33"),
            Mark::Change => ("↻", "34"),
            Mark::Bad => ("✖", "31"),
        };
        self.paint(shape, colour)
    }

    fn paint(&self, text: &str, code: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn write(&mut self, text: &str) {
        // The demo's outcome does not depend on anybody reading.
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if std::mem::take(&mut self.moving) {
            self.write("\n");
        }
    }
}

/// A bar with its percentage; empty when the whole is unknown.
pub(super) fn bar(done: f64, whole: f64) -> String {
    if whole <= 0.0 {
        return String::new();
    }
    let part = (done / whole).clamp(0.0, 1.0);
    let full = (part * BAR as f64) as usize;
    format!("[{}{}] {:3.0} %", "█".repeat(full), "░".repeat(BAR - full), part * 100.0)
}

/// Bytes in the largest fitting unit.
pub(super) fn size(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// A duration as a person reads it.
pub(super) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{} ms", duration.as_millis());
    }
    format!("{:.2} s", duration.as_secs_f64())
}

/// A count with its thousands apart.
pub(super) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(size(512.0), "512 B");
        assert_eq!(size(67_108_864.0), "64.0 MiB");
        assert_eq!(seconds(Duration::from_millis(312)), "312 ms");
        assert_eq!(seconds(Duration::from_millis(2_417)), "2.42 s");
        assert_eq!(count(7), "7");
        assert_eq!(count(1_234_567), "1 234 567");
    }

    #[test]
    fn bars_have_one_width() {
        assert_eq!(bar(1.0, 0.0), "");
        assert_eq!(bar(0.0, 8.0), format!("[{}]   0 %", "░".repeat(BAR)));
        assert_eq!(bar(9.0, 8.0), format!("[{}] 100 %", "█".repeat(BAR)));
        assert_eq!(bar(1.0, 2.0).chars().count(), bar(1.0, 1.0).chars().count());
    }

    #[test]
    fn elsewhere_than_on_a_terminal_nothing_moves() {
        let mut screen = Screen::new(true);
        (screen.colour, screen.terminal) = (false, false);
        screen.moved = Some(Instant::now());
        screen.moving("a");
        assert!(!screen.moving);
        assert_eq!(screen.paint("x", "1"), "x");
    }
}
