//! What nodes record: a failover with daemons killed and power lost on the way is decided alike
//! when it is replayed; damaged files lose what is behind the damage, and what would be decided
//! otherwise is named.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use cluster::replay::Entry;
use node::recordings;
use serde_json::Value;
use wire::recording::{Reader, Writer};

use self::support::applications::ledger;
use self::support::{Cluster, NODES, PATIENCE, ROOT, SYNC_PATIENCE, other, run};

/// Where a node records.
fn recordings_of(cluster: &Cluster, node: &str) -> PathBuf {
    cluster.host(node).path(Path::new(ROOT).join("var/lib/evenkeel/recordings")).unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

/// What a replay of these files says at its end, as JSON.
fn verdict(path: &Path) -> Value {
    let output = run(&["--json", "replay", path.to_str().unwrap()]);
    let shown = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<Value> =
        shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.pop().unwrap();
    assert!(lines.iter().all(|step| step["text"].is_string()), "{shown}");
    last
}

/// A copy of a node's recordings, of which the newest segment was changed.
fn changed(directory: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let copy = std::env::temp_dir().join(format!("evenkeel-replay-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir_all(&copy).unwrap();
    let segments = recordings::segments(directory).unwrap();
    for segment in &segments {
        fs::copy(segment, copy.join(segment.file_name().unwrap())).unwrap();
    }
    let newest = copy.join(segments.last().unwrap().file_name().unwrap());
    let mut bytes = fs::read(&newest).unwrap();
    change(&mut bytes);
    fs::write(&newest, bytes).unwrap();
    copy
}

#[test]
fn a_failover_is_decided_alike_when_it_is_replayed() {
    let cluster = Cluster::protected(ledger(""));
    let primary = cluster.primary();
    let secondary = other(primary);
    let daemon = cluster.daemon(secondary);
    daemon.kill(9).unwrap();
    daemon.wait().unwrap();
    cluster.start_daemon(secondary);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    cluster.lab().kill(primary).unwrap();
    cluster.wait_for(secondary, "alone", PATIENCE);
    cluster.boot_node(primary);
    cluster.wait_for(secondary, "protected", SYNC_PATIENCE);
    cluster.must(secondary, &["switchover", cluster.module()]);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);

    for (node, words) in [
        (primary, ["a daemon begins", "offers: ", "follows: "]),
        (secondary, ["contact-lost: ", "takes-over: ", "record.epoch.number"]),
    ] {
        // The daemon goes on meanwhile: what it is just writing is torn at most.
        let shown = cluster.must(node, &["replay"]);
        assert!(shown.contains("every decision came out as recorded"), "{shown}");
        for word in words {
            assert!(shown.contains(word), "{node} does not show `{word}`:\n{shown}");
        }
        let none =
            cluster.must(node, &["replay", "--module", "another", "--from", "1970-01-01T00:00"]);
        assert!(!none.contains("takes-over"), "{none}");
        let last = verdict(&recordings_of(&cluster, node));
        assert_eq!(last["outcome"], "done", "{last}");
        assert!(last["data"]["inputs"].as_u64().unwrap() > 20, "{last}");
        for segment in recordings::segments(&recordings_of(&cluster, node)).unwrap() {
            assert_eq!(fs::metadata(&segment).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
    damaged_and_different(&recordings_of(&cluster, primary));
    for node in NODES {
        let daemon = cluster.daemon(node);
        daemon.kill(15).unwrap();
        daemon.wait().unwrap();
        let last = verdict(&recordings_of(&cluster, node));
        assert_eq!(
            (&last["outcome"], last["data"]["damaged"].as_array().unwrap().len()),
            (&"done".into(), 0)
        );
    }
}

/// Recordings that are not whole, or not of this program.
fn damaged_and_different(directory: &Path) {
    let whole = verdict(directory)["data"]["inputs"].as_u64().unwrap();
    let torn = changed(directory, "torn", |bytes| bytes.truncate(bytes.len() - 5));
    let flipped = changed(directory, "flipped", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    });
    for damaged in [&torn, &flipped] {
        let last = verdict(damaged);
        assert_eq!(last["outcome"], "done", "{last}");
        assert_eq!(last["data"]["damaged"].as_array().unwrap().len(), 1, "{last}");
        let inputs = last["data"]["inputs"].as_u64().unwrap();
        // What was recorded since the whole one was looked at is in the copies too.
        assert!(inputs > 0 && (damaged == &torn || inputs < whole), "{inputs} of {whole}");
        assert!(text(&run(&["replay", damaged.to_str().unwrap()])).contains("could not be read"));
    }
    let other = changed(directory, "other", without_an_input);
    let output = run(&["replay", other.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("this program"), "{}", text(&output));
    assert!(text(&output).contains("decided here: "), "{}", text(&output));
    let nothing = changed(directory, "nothing", |bytes| *bytes = b"nothing".to_vec());
    assert!(text(&run(&["replay", nothing.to_str().unwrap()])).contains("not a recording"));
    for copy in [torn, flipped, other, nothing] {
        fs::remove_dir_all(copy).unwrap();
    }
    let missing = run(&["replay", "/nowhere/at/all"]);
    assert_eq!(missing.status.code(), Some(2), "{}", text(&missing));
    assert!(text(&missing).contains("/nowhere/at/all"));
}

/// The same segment without the effects of its first input that had any.
fn without_an_input(bytes: &mut Vec<u8>) {
    let (mut writer, mut left_out, mut begun) = (Writer::new(), false, false);
    let mut reader = Reader::new(bytes).unwrap();
    while let Ok(Some(read)) = reader.read() {
        match read.entry.unwrap() {
            Entry::Boot(boot) => writer.boot(read.at, read.wall_ms, "0.0.1", &boot),
            Entry::State { node, continues } => {
                writer.state(read.at, read.wall_ms, "0.0.1", &node, continues);
            }
            Entry::Input(input) => {
                begun = true;
                writer.input(read.at, &input);
            }
            Entry::Effects(_) if begun && !left_out => left_out = true,
            Entry::Effects(effects) => writer.effects(read.at, &effects),
        }
    }
    assert!(left_out, "something was decided");
    *bytes = writer.take();
}

#[test]
fn what_would_happen_is_told_from_the_present_state() {
    let cluster = Cluster::protected(ledger(""));
    let primary = cluster.primary();
    let secondary = other(primary);
    let scenario = format!("power {primary}; run 10s; boot {primary}; run 10s");
    for node in NODES {
        let told = cluster.must(node, &["simulate", &scenario]);
        assert!(told.contains(&format!("{secondary} serves: ")), "{told}");
        assert!(told.contains(&format!("{secondary} is PRIM")), "{told}");
        assert!(told.contains(&format!("{primary} is SECOND")), "{told}");
    }
    assert_eq!(cluster.role(primary), "PRIM", "nothing real has happened");
    let wrong = cluster.command(primary, &["simulate", "explode node1"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong));
    assert!(text(&wrong).contains("there is no command `explode node1`"), "{}", text(&wrong));
    let unmet = cluster.command(primary, &["simulate", &format!("expect {primary} SECOND")]);
    assert_eq!(unmet.status.code(), Some(1), "{}", text(&unmet));

    cluster.lab().kill(secondary).unwrap();
    cluster.wait_for(primary, "alone", PATIENCE);
    let unreachable = cluster.command(primary, &["simulate", "run 1s"]);
    assert!(!unreachable.status.success());
    assert!(text(&unreachable).contains("--recording"), "{}", text(&unreachable));
    // The files of the node that is down lie on its disk; they are copied as a person would.
    let copy = changed(&recordings_of(&cluster, primary), "what-if", |_| {});
    let own = copy.to_str().unwrap();
    let none = run(&["simulate", "run 1s", "--recording", own, "--recording", own]);
    assert_eq!(none.status.code(), Some(2), "{}", text(&none));
    cluster.boot_node(secondary);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    let scenario = format!("switchover {primary}; run 5s; expect {secondary} PRIM");
    // What was decided last is on the disk a moment later.
    cluster.until("a switchover that could be made", PATIENCE, || {
        let copies = NODES
            .map(|node| changed(&recordings_of(&cluster, node), &format!("end-of-{node}"), |_| {}));
        let paths = copies.each_ref().map(|path| path.to_str().unwrap());
        let told = run(&["simulate", &scenario, "--recording", paths[0], "--recording", paths[1]]);
        println!("{}", text(&told));
        for copy in &copies {
            fs::remove_dir_all(copy).unwrap();
        }
        told.status.success()
    });
    fs::remove_dir_all(copy).unwrap();
}
