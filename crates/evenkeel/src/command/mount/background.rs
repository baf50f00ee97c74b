//! Serving in the background: a second process serves, the first waits until it does.
//!
//! The second is a new one and no copy, for threads do not survive being copied. It has no terminal
//! and says what it has to say through its standard input, which leads to the first.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};

use super::Outcome;

/// Said when the mount stands.
const READY: &str = "ready";

/// Starts `evenkeel` with these words in the background, and waits until its mount stands.
pub(super) fn start(words: Vec<OsString>) -> Outcome {
    let (ours, theirs) = UnixStream::pair()?;
    // Where the program itself is, whatever name it was called by.
    let mut server = Command::new("/proc/self/exe")
        .args(words.into_iter().filter(|word| word != "--background"))
        .arg("--serve-for-parent")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut said = String::new();
    BufReader::new(ours).read_line(&mut said)?;
    match said.trim_end() {
        READY => Ok(()),
        "" => Err(format!("the serving process ended early: {}", server.wait()?).into()),
        why => Err(why.to_owned().into()),
    }
}

/// Serves, and tells the process that waits how that began.
pub(super) fn serve_for_parent(serve: impl FnOnce(&mut dyn FnMut(&str)) -> Outcome) -> ExitCode {
    // Fails only for the leader of a group, which cannot be hit by a terminal's signals either.
    let _ = rustix::process::setsid();
    // Nobody listens any more when the first process is gone.
    let tell = |line: &str| {
        if let Ok(parent) = std::io::stdin().as_fd().try_clone_to_owned() {
            let _ = UnixStream::from(parent).write_all(format!("{line}\n").as_bytes());
        }
    };
    let ready = |_: &str| {
        // The directory that it was started in may be unmounted some day.
        let _ = std::env::set_current_dir("/");
        tell(READY);
    };
    match serve(&mut { ready }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
