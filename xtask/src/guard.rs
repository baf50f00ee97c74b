//! Runs a program whose parts may hang, and whatever they started, so that none of it outlives the
//! task: silence for too long is shown with its evidence and ended, and leftovers are named.
//!
//! It judges no test. What a hang was is told by what the processes waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process, set_child_subreaper, wait,
};

use crate::fusectl;
use crate::run::shown;

/// No test of a slice is silent for longer.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// After so many hangs the rest would not end within any useful time.
const HANGS_MAX: u32 = 3;
/// How long a killed process may need to go, before what it waits for is ended too.
const DEATH_MAX: Duration = Duration::from_secs(5);

/// Runs a program as `run::run` does. A part of it that is silent for ten minutes is killed, so
/// that the program sees it fail and can go on with the next one.
///
/// # Errors
/// As `run::run`, and when something hung.
pub fn run(
    folder: &Path,
    environment: &[(&str, &str)],
    program: &str,
    arguments: &[&str],
) -> Result<(), String> {
    let name = shown(program, arguments);
    // Whatever loses its parent becomes a child of this process, so that it can be found.
    set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| format!("cannot become a subreaper: {errno}"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start `{name}`: {error}"))?;
    let root = child.id();
    let heard = Arc::new(Heard::default());
    // Through pipes of our own, so that nothing which is left keeps the caller's output open.
    forward(child.stdout.take(), std::io::stdout(), &heard);
    forward(child.stderr.take(), std::io::stderr(), &heard);
    let before = fusectl::connections();
    let (sender, ended) = channel();
    std::thread::spawn(move || sender.send(reap_until(root)));
    let mut hangs = 0;
    let status = loop {
        match ended.recv_timeout(heard.rest(SILENCE_MAX)) {
            Ok(status) => break status,
            Err(RecvTimeoutError::Disconnected) => return Err(format!("`{name}` was lost")),
            Err(RecvTimeoutError::Timeout) if heard.rest(SILENCE_MAX).is_zero() => {
                hangs += 1;
                eprintln!("\n✖ no output for {} s, after: {}", SILENCE_MAX.as_secs(), heard.last());
                let all = hangs == HANGS_MAX;
                end(&descendants(), |process| !all && is_runner(process, root), &before);
                heard.mark();
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    };
    let left = descendants();
    if !left.is_empty() {
        eprintln!("\n{} processes were left behind and are ended now:", left.len());
        end(&left, |_| false, &before);
    }
    let status = status.map_err(|error| format!("cannot wait for `{name}`: {error}"))?;
    match (hangs, status.exit_status()) {
        (0, Some(0)) => Ok(()),
        (0, _) => Err(format!("`{name}` failed: {status:?}")),
        (hangs, _) => Err(format!("`{name}` hung {hangs} times: {status:?}")),
    }
}

/// Waits for a child, and takes leave of all others that die meanwhile: they were orphans, and
/// whoever looks at them shall see them gone.
fn reap_until(child: u32) -> Result<WaitStatus, Errno> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get().cast_unsigned() == child => {
                return Ok(status);
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// When something was last heard, and what.
struct Heard {
    start: Instant,
    /// Milliseconds since the start.
    at: AtomicU64,
    tail: Mutex<Vec<u8>>,
}

impl Default for Heard {
    fn default() -> Heard {
        Heard { start: Instant::now(), at: AtomicU64::new(0), tail: Mutex::default() }
    }
}

impl Heard {
    fn mark(&self) {
        self.at.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn hear(&self, bytes: &[u8]) {
        self.mark();
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(bytes);
        let surplus = tail.len().saturating_sub(200);
        tail.drain(..surplus);
    }

    fn last(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&tail).lines().last().unwrap_or_default().to_owned()
    }

    /// How much of `limit` is left of the present silence.
    fn rest(&self, limit: Duration) -> Duration {
        let at = self.start + Duration::from_millis(self.at.load(Ordering::Relaxed));
        limit.saturating_sub(at.elapsed())
    }
}

fn forward(
    from: Option<impl Read + Send + 'static>,
    mut to: impl Write + Send + 'static,
    heard: &Arc<Heard>,
) {
    let Some(mut from) = from else { return };
    let heard = Arc::clone(heard);
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let bytes = buffer.get(..length).unwrap_or_default();
            heard.hear(bytes);
            // A caller that does not listen any more must not stop the tests.
            let _ = to.write_all(bytes).and_then(|()| to.flush());
        }
    });
}

/// A process below this one.
struct Process {
    pid: u32,
    name: String,
    state: String,
    waits_for: String,
}

/// All processes below this one, but those that are dead already.
fn descendants() -> Vec<Process> {
    let mut children: BTreeMap<u32, Vec<Process>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some((parent, process)) = look(pid) {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut found = Vec::new();
    let mut parents = vec![std::process::id()];
    while let Some(parent) = parents.pop() {
        for process in children.remove(&parent).unwrap_or_default() {
            parents.push(process.pid);
            found.push(process);
        }
    }
    found.retain(|process| process.state != "Z");
    found
}

/// What is known of a process without asking anything of its memory, which may be stuck.
fn look(pid: u32) -> Option<(u32, Process)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (front, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.to_owned();
    let parent = fields.next()?.parse().ok()?;
    let name = front.split_once('(').map(|(_, name)| name.to_owned())?;
    let mut waits: BTreeSet<String> = BTreeSet::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        waits.extend(fs::read_to_string(task.path().join("wchan")).ok());
    }
    let waits_for = waits.into_iter().collect::<Vec<_>>().join(" ");
    Some((parent, Process { pid, name, state, waits_for }))
}

/// What must go on so that the rest is run: cargo itself, and the tasks that run programs.
fn is_runner(process: &Process, root: u32) -> bool {
    process.pid == root || matches!(process.name.as_str(), "cargo" | "rustc" | "xtask")
}

/// Shows and kills processes, and then ends the file systems they still wait for.
fn end(processes: &[Process], spared: impl Fn(&Process) -> bool, before: &BTreeSet<u32>) {
    let doomed: Vec<&Process> = processes.iter().filter(|process| !spared(process)).collect();
    for process in &doomed {
        let Process { pid, name, state, waits_for } = process;
        eprintln!("  {pid} {name} ({state}) waits in: {waits_for}");
    }
    let kill = |process: &&Process| {
        let pid = Pid::from_raw(process.pid.cast_signed());
        // An error means that it has gone by itself.
        let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
    };
    doomed.iter().for_each(kill);
    let start = Instant::now();
    let remains = || doomed.iter().any(|old| descendants().iter().any(|new| new.pid == old.pid));
    while remains() {
        if start.elapsed() > DEATH_MAX {
            for connection in fusectl::connections().difference(before) {
                eprintln!("  the FUSE connection {connection} is ended");
                fusectl::abort(*connection);
            }
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a script under guard in a process of its own, for it takes leave of every child.
    fn guarded(script: &str) -> String {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["guard::tests::body", "--exact", "--ignored", "--nocapture"])
            .env("SCRIPT", script)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    #[ignore = "started by the other tests"]
    fn body() {
        let script = std::env::var("SCRIPT").unwrap();
        println!("{:?}", run(Path::new("/"), &[], "sh", &["-c", &script]));
        println!("{} left", descendants().len());
    }

    #[test]
    fn what_is_left_behind_is_ended_and_holds_nothing_up() {
        let said = guarded("setsid sleep 1000 & echo done");
        assert!(said.contains("done") && said.contains("Ok(())\n0 left"), "{said}");
    }

    #[test]
    fn orphans_that_die_are_gone() {
        // tail waits as long as there is such a process, be it a dead one.
        let said = guarded("pid=$( (sleep 0.2 & echo $!) ); tail --pid=$pid -f /dev/null");
        assert!(said.contains("Ok(())\n0 left"), "{said}");
    }

    #[test]
    fn a_failure_is_told_with_its_status() {
        let said = guarded("exit 3");
        assert!(said.contains("`sh -c exit 3` failed"), "{said}");
    }
}
