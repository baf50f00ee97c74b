//! `cargo xtask soak watchdog`: a node in a guest of its own, whose watchdog resets the machine or
//! does not. Nothing but a guest can be reset by a test, so none of this is part of CI.
//!
//! qemu says itself when its watchdog has ended the guest; the guest says how far it has come. Each
//! run is counted in `tests/soak/watchdog.json`.

mod image;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::soak;
use crate::watchdog::image::Image;

/// What the lines begin with by which the guest says how far it has come.
const MARK: &str = "MARK ";
/// How long a case may take: all of it is emulated.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long qemu may take until it answers.
const QEMU_PATIENCE: Duration = Duration::from_secs(30);

/// What is done to a node, and what has to come of it.
struct Case {
    name: &'static str,
    /// How far the guest must come, in order, after it has booted.
    marks: &'static [&'static str],
    /// Whether its watchdog ends it, after the last mark.
    reset: bool,
}

/// Each is a function of `init.sh`.
const CASES: &[Case] = &[
    Case {
        name: "kept",
        marks: &["armed", "fed", "executed", "followed", "stopped", "end"],
        reset: false,
    },
    Case { name: "frozen", marks: &["armed", "frozen"], reset: true },
    Case { name: "killed", marks: &["armed", "killed"], reset: true },
    Case { name: "stuck", marks: &["armed", "starves"], reset: true },
    Case { name: "endless", marks: &["armed", "stopped"], reset: true },
];

/// Something that came out of a guest.
enum Sign {
    Line(String),
    /// Its watchdog has ended it.
    Watchdog,
    /// One of both sources has no more.
    End,
}

/// How a guest went.
#[derive(Default)]
struct Course {
    marks: Vec<String>,
    reset: bool,
}

/// Runs all cases, or one.
///
/// # Errors
/// The guest did not do what it has to, or could not be run.
pub fn watchdog(root: &Path, only: Option<&str>) -> Result<(), String> {
    let cases: Vec<&Case> =
        CASES.iter().filter(|case| only.is_none_or(|only| only == case.name)).collect();
    if cases.is_empty() {
        let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        return Err(format!("there is no such case; there are: {}", known.join(", ")));
    }
    let image = image::make(root)?;
    let mut figures = Vec::new();
    let mut failures = Vec::new();
    for case in cases {
        println!("\n== {}", case.name);
        match run(&image, case).and_then(|course| judge(case, &course).map(|()| course)) {
            Ok(course) => figures.push(figure(case, &course)),
            Err(why) => failures.push(format!("{}: {why}", case.name)),
        }
    }
    soak::count_pass(root, "watchdog", &figures, failures.is_empty())?;
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// Boots a guest and sees how it ends.
fn run(image: &Image, case: &Case) -> Result<Course, String> {
    let socket = image.folder.join("qmp.sock");
    // One that an earlier guest has left.
    let _ = fs::remove_file(&socket);
    let console = image.folder.join(format!("{}.log", case.name));
    let log = File::create(&console).map_err(|error| error.to_string())?;
    let mut guest = Guest(boot(image, case, &socket)?);
    let output = guest.0.stdout.take().ok_or("qemu has no output")?;
    let (signs, seen) = channel();
    let lines = signs.clone();
    thread::spawn(move || read_console(BufReader::new(output), log, &lines));
    let stream = connect(&socket)?;
    thread::spawn(move || read_events(stream, &signs));
    let course = follow(&seen)?;
    println!("   (its console: {})", console.display());
    Ok(course)
}

/// A guest, which ends with this.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn boot(image: &Image, case: &Case, socket: &Path) -> Result<Child, String> {
    let append = format!("console=ttyS0 panic=-1 -- {}", case.name);
    Command::new("qemu-system-x86_64")
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-machine", "pc,accel=tcg", "-m", "1536", "-smp", "1", "-serial", "stdio"])
        .args(["-device", "i6300esb", "-append", &append])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.archive)
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", socket.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start qemu: {error}"))
}

/// Waits for qemu to listen, and has it tell its events.
fn connect(socket: &Path) -> Result<UnixStream, String> {
    let begin = Instant::now();
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if begin.elapsed() > QEMU_PATIENCE => {
                return Err(format!("qemu does not listen: {error}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    };
    let asked = stream.write_all(b"{\"execute\": \"qmp_capabilities\"}\n");
    asked.map_err(|error| format!("qemu cannot be asked: {error}"))?;
    Ok(stream)
}

fn read_console(console: impl BufRead, mut log: File, signs: &Sender<Sign>) {
    for line in console.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let _ = writeln!(log, "{line}");
        let _ = signs.send(Sign::Line(line));
    }
    let _ = signs.send(Sign::End);
}

fn read_events(stream: UnixStream, signs: &Sender<Sign>) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if event["event"] == "WATCHDOG" {
            let _ = signs.send(Sign::Watchdog);
        }
    }
    let _ = signs.send(Sign::End);
}

/// Hears a guest until it has ended.
fn follow(seen: &Receiver<Sign>) -> Result<Course, String> {
    let begin = Instant::now();
    let mut course = Course::default();
    let mut ends = 0;
    while ends < 2 {
        let left = PATIENCE.saturating_sub(begin.elapsed());
        match seen.recv_timeout(left) {
            Ok(Sign::Line(line)) => {
                let Some((_, mark)) = line.split_once(MARK) else { continue };
                println!("   {:4} s  {mark}", begin.elapsed().as_secs());
                course.marks.push(mark.to_owned());
            }
            Ok(Sign::Watchdog) => {
                println!("   {:4} s  reset by its watchdog", begin.elapsed().as_secs());
                course.reset = true;
            }
            Ok(Sign::End) => ends += 1,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let seconds = PATIENCE.as_secs();
                return Err(format!("it has not ended after {seconds} seconds"));
            }
        }
    }
    Ok(course)
}

/// Whether a guest went as it has to.
fn judge(case: &Case, course: &Course) -> Result<(), String> {
    let marks: Vec<&str> = course.marks.iter().map(String::as_str).collect();
    let known = marks.split_first().filter(|(first, _)| first.starts_with("booted "));
    if known.is_none_or(|(_, rest)| rest != case.marks) {
        return Err(format!("it came through {marks:?}, and not through {:?}", case.marks));
    }
    match (case.reset, course.reset) {
        (true, false) => Err("its watchdog has not ended it".to_owned()),
        (false, true) => Err("its watchdog has ended it".to_owned()),
        (true, true) | (false, false) => Ok(()),
    }
}

fn figure(case: &Case, course: &Course) -> Map<String, Value> {
    let figure = json!({ "kind": case.name, "rounds": 1, "resets": u64::from(course.reset) });
    figure.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(marks: &[&str], reset: bool) -> Course {
        let marks = marks.iter().map(|mark| (*mark).to_owned()).collect();
        Course { marks, reset }
    }

    #[test]
    fn a_guest_must_come_as_far_as_it_has_to_and_end_as_it_has_to() {
        let [kept, frozen, ..] = CASES else { panic!("there are cases") };
        let all = ["booted 6.1", "armed", "fed", "executed", "followed", "stopped", "end"];
        assert_eq!(judge(kept, &course(&all, false)), Ok(()));
        assert!(judge(kept, &course(&all, true)).is_err());
        assert!(judge(kept, &course(&all[..6], false)).is_err());
        assert!(judge(kept, &course(&all[1..], false)).is_err());
        let all = ["booted 6.1", "armed", "frozen"];
        assert_eq!(judge(frozen, &course(&all, true)), Ok(()));
        assert!(judge(frozen, &course(&all, false)).is_err());
        // It was reset before anybody froze it.
        assert!(judge(frozen, &course(&all[..2], true)).is_err());
    }

    #[test]
    fn each_case_is_a_function_of_the_guest() {
        let init = include_str!("init.sh");
        for case in CASES {
            assert!(init.contains(&format!("\n{}() {{", case.name)), "{}", case.name);
        }
    }
}
