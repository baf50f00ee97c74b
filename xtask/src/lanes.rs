//! `cargo xtask tests`: builds every test program and runs them, two at a time.
//!
//! Most tests of the lab wait for timeouts of real nodes, so that two programs fit on two cores.
//! Each lane names its lab by itself, and within a program one test runs after the other. The
//! output of a program is shown whole when it has ended. What hangs is ended by whoever runs this
//! (`guard`).

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::Value;

use crate::run;

const LANES: usize = 2;
/// Its tests take longest, and so come first: what is short fills the gap at the end.
const FIRST: &str = "evenkeel";

/// A program with tests.
#[derive(Debug)]
struct Program {
    package: String,
    target: String,
    file: PathBuf,
    /// Where it expects to be started.
    folder: PathBuf,
}

/// Runs every test of the workspace, and then the examples in its documentation.
///
/// # Errors
/// The programs that failed, or that the tests cannot be built.
pub fn tests(root: &Path) -> Result<(), String> {
    let mut programs = build(root)?;
    if programs.is_empty() {
        return Err("there are no tests to run".to_owned());
    }
    programs.sort_by_key(|program| program.package != FIRST);
    let count = programs.len();
    let queue = Mutex::new(VecDeque::from(programs));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let (queue, failures) = (&queue, &failures);
            scope.spawn(move || run_lane(lane, queue, failures));
        }
    });
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.extend(run::run(root, &[], "cargo", &["test", "--workspace", "--doc"]).err());
    if failures.is_empty() {
        println!("\n{count} test programs passed");
        return Ok(());
    }
    Err(format!("{} test programs failed:\n  {}", failures.len(), failures.join("\n  ")))
}

fn run_lane(lane: usize, queue: &Mutex<VecDeque<Program>>, failures: &Mutex<Vec<String>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(program) = next else { return };
        if let Err(message) = run_program(lane, &program) {
            failures.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        }
    }
}

fn run_program(lane: usize, program: &Program) -> Result<(), String> {
    let Program { package, target, file, folder } = program;
    let start = Instant::now();
    // A file and no pipe: a pipe ends only with the last of what a test has left running.
    let path = file.with_extension("said");
    let said = File::create(&path).and_then(|said| Ok((said.try_clone()?, said)));
    let (out, err) = said.map_err(|error| format!("{}: {error}", path.display()))?;
    let status = Command::new(file)
        .arg("--test-threads=1")
        .env("EVENKEEL_LAB", format!("tests{lane}"))
        .env("CARGO_MANIFEST_DIR", folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .status()
        .map_err(|error| format!("cannot start {}: {error}", file.display()))?;
    let seconds = start.elapsed().as_secs();
    let unread = |error: std::io::Error| format!("{}: {error}\n", path.display()).into_bytes();
    let said = fs::read(&path).unwrap_or_else(unread);
    let _ = fs::remove_file(&path);
    let mut shown = std::io::stdout().lock();
    // Nobody may be left to read it; the outcome is told all the same.
    let _ = writeln!(shown, "\n     Ran {package} {target} ({seconds} s)")
        .and_then(|()| shown.write_all(&said))
        .and_then(|()| shown.flush());
    if status.success() {
        return Ok(());
    }
    Err(format!("{package} {target}: {status}; again: cargo test -p {package}"))
}

/// Builds all test programs and asks cargo what they are.
fn build(root: &Path) -> Result<Vec<Program>, String> {
    let arguments = ["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"];
    let mut child = Command::new("cargo")
        .args(arguments)
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    let lines = child.stdout.take().into_iter().flat_map(|output| BufReader::new(output).lines());
    let programs = lines.map_while(Result::ok).filter_map(|line| program(&line)).collect();
    let status = child.wait().map_err(|error| format!("cannot wait for cargo: {error}"))?;
    if status.success() { Ok(programs) } else { Err("the tests cannot be built".to_owned()) }
}

/// The program that a message of cargo tells of, if it is one with tests.
fn program(line: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["profile"]["test"] != true {
        return None;
    }
    let file = PathBuf::from(message["executable"].as_str()?);
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let target = message["target"]["name"].as_str()?.to_owned();
    let package = package(&folder)?;
    Some(Program { package, target, file, folder })
}

/// Packages are called as their folders are.
fn package(folder: &Path) -> Option<String> {
    Some(folder.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::program;

    #[test]
    fn a_test_program_is_told_from_what_is_built_for_it() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/w/crates/net/Cargo.toml",
            "target":{"name":"network"},"profile":{"test":true},"executable":"/t/network-1"}"#;
        let found = program(&line.replace('\n', "")).map(|found| (found.package, found.target));
        assert_eq!(found, Some(("net".to_owned(), "network".to_owned())));
        assert!(program(&line.replace("true", "false").replace('\n', "")).is_none());
        assert!(program(&line.replace("\"/t/network-1\"", "null").replace('\n', "")).is_none());
        assert!(program("warning: not a message").is_none());
    }
}
