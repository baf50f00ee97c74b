//! An application of a unit, with a script in place of systemd: when it is killed, and how often.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

use std::fs;

use model::config::{Source, parse_cluster, parse_module};

use super::*;

const CLUSTER: &str = "cluster = 'tests'\n\
    node = [{ name = 'a', addresses = { lan0 = '10.0.0.1' } },\n\
            { name = 'b', addresses = { lan0 = '10.0.0.2' } }]\n";
/// Ends tests that hang; judges nothing.
const PATIENCE: Duration = Duration::from_secs(20);
/// Tells what it was asked, and takes for ever where a file of the name of the verb is there, which
/// it has looked for before it tells; of the verb and the unit, as long as it is there.
const SYSTEMCTL: &str = "#!/bin/sh\n\
    for unit; do :; done\n\
    hangs=; [ ! -e \"PLACE/$2-hangs\" ] || hangs=1\n\
    echo \"$2\" >>PLACE/asked; echo \"$2\" >>PLACE/asked-$unit\n\
    [ \"$2\" != is-active ] || cat PLACE/state 2>/dev/null || echo activating\n\
    [ ! -e \"PLACE/$2-fails\" ] || exit 1\n\
    while [ -e \"PLACE/$2-$unit-hangs\" ]; do sleep 0.05; done\n\
    [ -z \"$hangs\" ] || exec sleep 100000\n";

/// An application, and a directory, both gone at the end.
struct Trial {
    application: Application,
    events: Receiver<Event>,
    place: PathBuf,
}

impl Trial {
    fn new(name: &str) -> Trial {
        Trial::with(name, "'web'")
    }

    fn with(name: &str, services: &str) -> Trial {
        let name = format!("units-{name}-{}", std::process::id());
        let place = std::env::temp_dir().join(&name);
        fs::create_dir_all(&place).unwrap();
        let [script, systemctl] = ["script", "systemctl"].map(|file| place.join(file));
        fs::write(&script, SYSTEMCTL.replace("PLACE", place.to_str().unwrap())).unwrap();
        // By another process: what this one has open to write while another test starts a program
        // cannot be executed.
        let mut install = Command::new("install");
        assert!(
            install.args(["-m", "755"]).args([&script, &systemctl]).status().unwrap().success()
        );
        let text = format!(
            "module = '{name}'\nkind = 'mirror'\nreplicate = ['/srv/x']\nservices = [{services}]\n\
             [[command]]\nname = 'beside'\nrun = ['/bin/sleep', '100000']\n"
        );
        let cluster = parse_cluster(&Source { file: "cluster.toml", text: CLUSTER }).unwrap();
        let config = parse_module(&Source { file: "m.toml", text: &text }, &cluster).unwrap();
        let (sender, events) = channel();
        let (log, programs) = (place.join("log"), place.join("programs.json"));
        let units = (&sender, Units::with(systemctl));
        let application = Application::with(&config, log, programs, units).unwrap();
        Trial { application, events, place }
    }

    fn make(&self, name: &str) {
        fs::write(self.place.join(name), "").unwrap();
    }

    /// What systemd was asked so far.
    fn asked(&self) -> Vec<String> {
        let asked = fs::read_to_string(self.place.join("asked")).unwrap_or_default();
        asked.lines().map(str::to_owned).collect()
    }

    /// The next action that has ended, and its error.
    fn done(&self) -> (ServiceAction, Option<String>) {
        match self.events.recv_timeout(PATIENCE).unwrap() {
            Event::Input(Input::ServiceDone { action, error, .. }) => {
                (action, error.map(|error| error.how))
            }
            _ => panic!("the application says something else"),
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.place);
    }
}

#[test]
fn a_kill_does_not_wait_for_a_unit_that_is_being_started_or_stopped() {
    for (verb, action) in [("start", ServiceAction::Start), ("stop", ServiceAction::Stop)] {
        let trial = Trial::new(verb);
        trial.make(&format!("{verb}-hangs"));
        trial.application.run(action);
        while trial.asked().last().is_none_or(|asked| asked != verb) {
            std::thread::yield_now();
        }
        fs::remove_file(trial.place.join(format!("{verb}-hangs"))).unwrap();
        trial.application.run(ServiceAction::Kill);
        assert_eq!(trial.done(), (action, Some("it was cut short by a kill".to_owned())));
        assert_eq!(trial.done(), (ServiceAction::Kill, None));
        assert_eq!(trial.asked(), [verb, "is-active", "kill", "stop"]);
        assert!(!trial.application.shared.group.is_populated(), "the command was not begun");
    }
}

#[test]
fn what_cannot_be_ended_is_killed_again_until_it_has_ended() {
    let trial = Trial::new("stuck");
    trial.make("stop-fails");
    trial.application.run(ServiceAction::Kill);
    let (action, error) = trial.done();
    assert_eq!(action, ServiceAction::Kill);
    assert!(error.unwrap().contains("systemctl stop web"));
    let stops = || trial.asked().iter().filter(|asked| *asked == "stop").count();
    while stops() < 3 {
        std::thread::yield_now();
    }
    assert!(trial.events.try_recv().is_err(), "it is told once");
    fs::remove_file(trial.place.join("stop-fails")).unwrap();
    assert_eq!(trial.done(), (ServiceAction::Kill, None));
    let so_far = stops();
    trial.application.run(ServiceAction::Start);
    assert_eq!(trial.done(), (ServiceAction::Start, None));
    assert_eq!(stops(), so_far, "what was started is not killed");
    trial.application.run(ServiceAction::Kill);
    assert_eq!(trial.done(), (ServiceAction::Kill, None));
}

#[test]
fn a_start_that_an_earlier_daemon_ordered_may_come_yet() {
    let trial = Trial::new("doubtful");
    fs::write(trial.place.join("state"), "inactive\n").unwrap();
    trial.application.kill_now().unwrap();
    assert_eq!(trial.asked(), ["is-active"], "there is nothing to stop");
    trial.application.doubt();
    trial.application.kill_now().unwrap();
    trial.application.kill_now().unwrap();
    assert_eq!(trial.asked()[1..], ["is-active", "stop", "is-active"], "it is stopped once");

    let absent = Units::with("/no/such/systemctl".into());
    absent.doubt();
    absent.kill("web", None).unwrap();
}

#[test]
fn a_unit_that_does_not_end_keeps_no_other_waiting() {
    let trial = Trial::with("several", "'web', 'mail', 'news'");
    trial.make("kill-web-hangs");
    trial.application.run(ServiceAction::Kill);
    let stopped = |unit: &str| {
        let asked = fs::read_to_string(trial.place.join(format!("asked-{unit}")));
        asked.unwrap_or_default().lines().any(|verb| verb == "stop")
    };
    while !stopped("mail") || !stopped("news") {
        std::thread::yield_now();
    }
    assert!(!stopped("web") && trial.events.try_recv().is_err());
    // It ends at last.
    fs::remove_file(trial.place.join("kill-web-hangs")).unwrap();
    assert_eq!(trial.done(), (ServiceAction::Kill, None));
    assert!(stopped("web"));
}
