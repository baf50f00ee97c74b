//! Running other programs with their output shown as it comes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// What a program was asked to do, for messages.
pub fn shown(program: &str, arguments: &[&str]) -> String {
    let mut words = vec![program];
    words.extend(arguments);
    words.join(" ")
}

/// Runs a program in `folder` with additional environment variables.
///
/// # Errors
/// The program cannot be started or ends with another status than 0; the text names it.
pub fn run(
    folder: &Path,
    environment: &[(&str, &str)],
    program: &str,
    arguments: &[&str],
) -> Result<(), String> {
    let name = shown(program, arguments);
    let status = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(folder)
        .status()
        .map_err(|error| format!("cannot start `{name}`: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{name}` failed: {status}")) }
}

/// Runs a program as [`run`] does, and hands on each line of its output, which is shown too.
///
/// # Errors
/// As [`run`].
pub fn lines(
    folder: &Path,
    environment: &[(&str, &str)],
    program: &str,
    arguments: &[&str],
    on_line: &mut dyn FnMut(&str),
) -> Result<(), String> {
    let name = shown(program, arguments);
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start `{name}`: {error}"))?;
    for line in child.stdout.take().into_iter().flat_map(|output| BufReader::new(output).lines()) {
        // A line that is no text, or an end too early: its status tells what matters.
        let Ok(line) = line else { break };
        println!("{line}");
        on_line(&line);
    }
    let status = child.wait().map_err(|error| format!("cannot wait for `{name}`: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{name}` failed: {status}")) }
}

/// Runs a program and answers what it printed.
///
/// # Errors
/// As [`run`].
pub fn output(folder: &Path, program: &str, arguments: &[&str]) -> Result<String, String> {
    let (said, outcome) = told(folder, program, arguments)?;
    outcome.map(|()| said)
}

/// Runs a program and returns its output, also if it fails, and how it ended.
///
/// # Errors
/// It cannot be started.
pub fn told(
    folder: &Path,
    program: &str,
    arguments: &[&str],
) -> Result<(String, Result<(), String>), String> {
    let name = shown(program, arguments);
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .map_err(|error| format!("cannot start `{name}`: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok((said, Ok(())));
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Ok((said, Err(format!("`{name}` failed: {}: {}", output.status, message.trim()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_named_with_its_status() {
        let here = Path::new("/");
        assert_eq!(run(here, &[("A", "b")], "sh", &["-c", "test $A = b"]), Ok(()));
        let mut seen = Vec::new();
        lines(here, &[("A", "b")], "sh", &["-c", "echo 1; echo $A"], &mut |line| {
            seen.push(line.to_owned());
        })
        .unwrap();
        assert_eq!(seen, ["1", "b"]);
        let error = run(here, &[], "false", &["x"]).unwrap_err();
        assert!(error.contains("`false x` failed"), "{error}");
        let error = output(here, "no-such-program", &[]).unwrap_err();
        assert!(error.contains("cannot start `no-such-program`"), "{error}");
        assert_eq!(output(here, "echo", &["a"]).unwrap(), "a\n");
    }
}
