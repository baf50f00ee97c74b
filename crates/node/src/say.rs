//! Lines for the log of a process of a node.
//!
//! The standard macro of this name panics when its line cannot be written, and a panic ends a
//! process. But logs lie on disks that fill up, or go to somebody who has ended: what a node serves
//! must not depend on them. So in this crate the name stands for a line that may be lost.

/// Writes a line to standard error, if that takes it.
macro_rules! eprintln {
    ($($argument:tt)*) => {
        $crate::say::line(format_args!($($argument)*))
    };
}

/// See the macro.
pub(crate) fn line(text: std::fmt::Arguments<'_>) {
    line_to(&mut std::io::stderr().lock(), text);
}

/// One write for the whole line, so that lines of several processes in one log stay whole.
fn line_to(log: &mut impl std::io::Write, text: std::fmt::Arguments<'_>) {
    let _ = log.write_all(format!("{text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_nobody_takes_is_lost_and_does_no_harm() {
        let mut full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        line_to(&mut full, format_args!("lost {}", 1));
        let mut log = Vec::new();
        line_to(&mut log, format_args!("kept {}", 2));
        assert_eq!(log, b"kept 2\n");
    }
}
