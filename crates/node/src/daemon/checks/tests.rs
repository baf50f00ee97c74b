//! Checks of real processes, sockets and programs, without a daemon. What follows from a result is
//! tested with the core.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};

use cluster::effect::ServiceAction;
use model::config::{Source, parse_cluster, parse_module};
use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::daemon::application::Application;

const CLUSTER: &str = "cluster = 'tests'\n\
    node = [{ name = 'a', addresses = { lan0 = '10.0.0.1' } },\n\
            { name = 'b', addresses = { lan0 = '10.0.0.2' } }]\n";
/// Ends tests that hang; judges nothing.
const PATIENCE: Duration = Duration::from_secs(20);

/// A module whose application and checks run, and a directory, all gone at the end.
pub(super) struct Running {
    pub(super) application: Application,
    checks: Checks,
    events: Receiver<Event>,
    place: PathBuf,
    names: BTreeSet<ModuleName>,
    serial: u64,
}

impl Running {
    /// `PLACE` in the text stands for the test's directory.
    pub(super) fn new(name: &str, text: &str) -> Running {
        let name = format!("checks-{name}-{}", std::process::id());
        let place = std::env::temp_dir().join(&name);
        fs::create_dir_all(&place).unwrap();
        let text = text.replace("PLACE", place.to_str().unwrap());
        let head = format!("module = '{name}'\nkind = 'mirror'\nreplicate = ['/srv/x']\n");
        let cluster = parse_cluster(&Source { file: "cluster.toml", text: CLUSTER }).unwrap();
        let text = head + &text;
        let config = parse_module(&Source { file: "m.toml", text: &text }, &cluster).unwrap();
        let (sender, events) = channel();
        let (log, programs) = (place.join("log"), place.join("programs.json"));
        let application = Application::new(&config, log, programs, &sender).unwrap();
        let checks = Checks::new(application.shared(), &sender).unwrap();
        let names = config.checks.iter().map(|check| check.name.clone()).collect();
        Running { application, checks, events, place, names, serial: 0 }
    }

    fn start(&mut self) {
        start(&self.application, &self.events);
        self.check();
    }

    /// Has all checks begin anew.
    fn check(&mut self) {
        self.serial += 2;
        self.checks.run(self.serial - 1, BTreeSet::new());
        self.checks.run(self.serial, self.names.clone());
    }

    /// The next result.
    fn result(&self) -> (String, bool, Vec<String>) {
        loop {
            match self.events.recv_timeout(PATIENCE).unwrap() {
                Event::Input(Input::CheckResult { serial, check, up, evidence, .. })
                    if serial == self.serial =>
                {
                    break (check.to_string(), up, evidence);
                }
                _ => continue,
            }
        }
    }

    fn is_up(&self, check: &str) {
        assert_eq!(self.result(), (check.to_owned(), true, Vec::new()));
    }

    /// What the next result, which has to be a failure, shows.
    fn is_down(&self, check: &str) -> String {
        let (name, up, evidence) = self.result();
        assert_eq!((name.as_str(), up), (check, false), "{evidence:?}");
        evidence.join("; ")
    }

    /// Waits until the application has said something so often.
    fn has_said(&self, what: &str, times: usize) {
        let log = self.place.join("log");
        while fs::read_to_string(&log).unwrap_or_default().matches(what).count() < times {
            std::thread::yield_now();
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.place.join(name), text).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.checks.run(self.serial + 1, BTreeSet::new());
        self.application.kill_now().unwrap();
        let _ = fs::remove_dir_all(&self.place);
    }
}

fn start(application: &Application, events: &Receiver<Event>) {
    application.run(ServiceAction::Start);
    loop {
        match events.recv_timeout(PATIENCE).unwrap() {
            Event::Input(Input::ServiceDone { action: ServiceAction::Start, error, .. }) => {
                break assert_eq!(error, None);
            }
            _ => continue,
        }
    }
}

fn pid_of(file: &Path) -> Pid {
    let text = fs::read_to_string(file).unwrap();
    let noted: serde_json::Value = serde_json::from_str(&text).unwrap();
    let pid = noted[0]["pid"].as_i64().unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

#[test]
fn the_death_of_a_program_is_known_at_once_with_its_last_words() {
    let command =
        "[[command]]\nname = 'app'\nrun = ['/bin/sh', '-c', 'echo last words; exec sleep 1000']\n";
    let mut running = Running::new("command", command);
    running.start();
    running.is_up("app");
    running.has_said("last words", 1);
    let programs = running.place.join("programs.json");
    kill_process(pid_of(&programs), Signal::KILL).unwrap();
    let shown = running.is_down("app");
    assert!(shown.contains("app ended: signal: 9 (SIGKILL)"), "{shown}");
    assert!(shown.contains("it said: last words"), "{shown}");
    // What was said before a start is of no matter for it.
    running.application.run(ServiceAction::Stop);
    running.start();
    running.is_up("app");
    running.has_said("last words", 2);
    kill_process(pid_of(&programs), Signal::TERM).unwrap();
    assert_eq!(running.is_down("app").matches("last words").count(), 1);
}

#[test]
fn a_program_is_found_again_by_the_daemon_that_follows() {
    let command = "[[command]]\nname = 'app'\nrun = ['/bin/sleep', '1000']\n";
    let mut running = Running::new("adopted", command);
    running.start();
    running.is_up("app");
    let shared = running.application.shared();
    let (sender, events) = channel();
    let file = running.place.join("programs.json");
    let log = running.place.join("log");
    let successor = Application::new(&shared.config, log, file.clone(), &sender).unwrap();
    let checks = Checks::new(successor.shared(), &sender).unwrap();
    checks.run(1, running.names.clone());
    let next = || match events.recv_timeout(PATIENCE).unwrap() {
        Event::Input(Input::CheckResult { up, evidence, .. }) => (up, evidence.join("; ")),
        _ => panic!("another event"),
    };
    assert_eq!(next(), (true, String::new()));
    kill_process(pid_of(&file), Signal::KILL).unwrap();
    let (up, shown) = next();
    assert!(!up && shown.contains("app ended"), "{shown}");
    checks.run(2, BTreeSet::new());
}

#[test]
fn a_start_ends_what_is_left_and_so_does_a_stop_at_once() {
    let command = "[[command]]\nname = 'app'\nrun = ['/bin/sleep', '1000']\n";
    let mut running = Running::new("left", command);
    running.start();
    let first = running.application.shared().members().unwrap();
    assert_eq!(first.len(), 1);
    // A daemon that does not know of it.
    let (sender, events) = channel();
    let (log, none) = (running.place.join("log"), running.place.join("none.json"));
    let config = running.application.shared().config.clone();
    let successor = Application::new(&config, log, none, &sender).unwrap();
    assert!(successor.is_running().unwrap());
    start(&successor, &events);
    let second = successor.shared().members().unwrap();
    assert!(second.len() == 1 && second != first, "{first:?} {second:?}");
    successor.kill_now().unwrap();
    assert!(!successor.is_running().unwrap());
}

#[test]
fn what_an_earlier_daemon_left_of_checks_is_ended() {
    let running = Running::new("checks-left", "");
    let shared = running.application.shared();
    let group = crate::daemon::cgroup::Cgroup::of(&shared.config.name, "check-old").unwrap();
    let mut left = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    fs::write(group.members_file(), left.id().to_string()).unwrap();
    assert!(group.is_populated());
    let (sender, _events) = channel();
    let _checks = Checks::new(shared, &sender).unwrap();
    assert!(!left.wait().unwrap().success());
    group.wait_empty().unwrap();
}

#[test]
fn a_connection_is_accepted_or_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let text = format!(
        "[[check]]\nkind = 'tcp'\nname = 'web'\nport = {}\ninterval = '100ms'\ngrace = '0s'\n",
        address.port()
    );
    let mut running = Running::new("tcp", &text);
    running.check();
    running.is_up("web");
    drop(listener);
    let shown = running.is_down("web");
    assert!(shown.contains(&address.to_string()) && shown.contains("refused"), "{shown}");
    let _listener = TcpListener::bind(address).unwrap();
    running.is_up("web");
}

#[test]
fn the_status_of_a_program_counts_and_what_it_said_is_shown() {
    let text = "[[check]]\nkind = 'exec'\nname = 'look'\ninterval = '100ms'\ngrace = '0s'\n\
                run = ['/bin/sh', '-c', 'echo looking; cat PLACE/well']\n";
    let mut running = Running::new("exec", text);
    running.write("well", "");
    running.check();
    running.is_up("look");
    fs::remove_file(running.place.join("well")).unwrap();
    let shown = running.is_down("look");
    assert!(shown.contains("it ended with exit status: 1"), "{shown}");
    assert!(shown.contains("it said: looking; it said: cat: "), "{shown}");
    running.write("well", "");
    running.is_up("look");
}

#[test]
fn a_program_that_overruns_is_killed_with_all_it_started_and_none_piles_up() {
    // Each run looks whether another one is there, and leaves a process outside its process group.
    let text = "[[check]]\nkind = 'exec'\nname = 'slow'\ninterval = '100ms'\ntimeout = '300ms'\n\
                grace = '0s'\nfail_after = 3\nrun = ['/bin/sh', '-c', 'exec 9> PLACE/lock; \
                flock -n 9 || echo twice >> PLACE/twice; setsid sleep 1000 9>&- & \
                echo $! >> PLACE/children; while :; do echo busy; done']\n";
    let mut running = Running::new("slow", text);
    running.check();
    let shown = running.is_down("slow");
    assert!(shown.contains("had not ended after") && shown.contains("it said: busy"), "{shown}");
    running.checks.run(running.serial + 1, BTreeSet::new());
    let name = ModuleName::new("slow").unwrap();
    let module = &running.application.shared().config.name.clone();
    let group = crate::daemon::cgroup::Cgroup::of(module, &format!("check-{name}")).unwrap();
    group.wait_empty().unwrap();
    let children = fs::read_to_string(running.place.join("children")).unwrap();
    assert!(children.lines().count() >= 3, "{children}");
    assert!(!running.place.join("twice").exists(), "two runs at once");
}

#[test]
fn a_check_that_goes_on_says_again_what_it_knows_and_another_begins_anew() {
    let text = "[[check]]\nkind = 'exec'\nname = 'one'\nfail_after = 1\ngrace = '0s'\n\
                interval = '1h'\nrun = ['/bin/false']\n\
                [[check]]\nkind = 'exec'\nname = 'two'\ninterval = '1h'\nrun = ['/bin/true']\n";
    let mut running = Running::new("again", text);
    running.check();
    let told = [running.result(), running.result()].map(|(name, up, _)| (name, up));
    assert!(told.contains(&("one".to_owned(), false)), "{told:?}");
    // Its next look is an hour away.
    running.serial += 1;
    let one: BTreeSet<ModuleName> = running.names.iter().take(1).cloned().collect();
    running.checks.run(running.serial, one);
    assert!(running.is_down("one").contains("exit status: 1"));
    running.serial += 1;
    running.checks.run(running.serial, running.names.clone());
    assert!(running.is_down("one").contains("exit status: 1"));
    running.is_up("two");
}

#[test]
fn a_process_in_a_file_may_come_late_and_have_a_successor() {
    let text = "[[check]]\nkind = 'process'\nname = 'app'\npid_file = 'PLACE/pid'\n\
                interval = '100ms'\n";
    let mut running = Running::new("file", text);
    running.check();
    let sleep = || Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let end = |child: &mut Child| {
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let mut first = sleep();
    running.write("pid", &first.id().to_string());
    running.is_up("app");
    let mut second = sleep();
    running.write("pid", &format!("{}\n", second.id()));
    end(&mut first);
    // A successor is no news; its end is.
    let held = format!("Pid:\t{}\n", second.id());
    let is_held = || {
        let all = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
        all.filter_map(|entry| fs::read_to_string(entry.path()).ok())
            .any(|text| text.contains(&held))
    };
    while !is_held() {
        std::thread::yield_now();
    }
    end(&mut second);
    let shown = running.is_down("app");
    assert!(shown.contains(&format!("process {} has ended", second.id())), "{shown}");
}

#[test]
fn a_process_that_does_not_appear_fails_after_its_grace() {
    let text = "[[check]]\nkind = 'process'\nprogram = 'no-such-program'\ninterval = '100ms'\n\
                grace = '300ms'\n";
    let mut running = Running::new("late", text);
    running.check();
    let shown = running.is_down("no-such-program");
    assert_eq!(shown, "no process of the application runs no-such-program");
}

#[test]
fn a_program_that_a_script_started_is_found_by_its_name() {
    let text = "[scripts]\nstart = 'cp /bin/sleep PLACE/evenkeel-sleeper; \
                PLACE/evenkeel-sleeper 1000 & \
                echo $! > PLACE/pid'\n\
                [[check]]\nkind = 'process'\nprogram = 'evenkeel-sleeper'\n";
    let mut running = Running::new("named", text);
    running.start();
    running.is_up("evenkeel-sleeper");
    let pid = fs::read_to_string(running.place.join("pid")).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let shown = running.is_down("evenkeel-sleeper");
    assert!(shown.contains(&format!("process {pid} has ended")), "{shown}");
}
