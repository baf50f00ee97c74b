//! `cargo xtask bench apply`: who works how much while a mirror is written to by many at once, told
//! by the processor time of each thread. It answers whether the one thread that applies at the
//! secondary is what limits; how fast anything is, is for the other benchmarks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use super::memory::processes;
use super::pair::{Pair, PairDisk};
use super::site::NODES;
use super::{commit, machine};

const LAB: &str = "bench-apply";
const MODULE: &str = "data";
const DATA: &str = "/srv/data";
/// How long each mode is written to, in seconds.
const SECONDS: u64 = 10;
/// Ticks of processor time in a second, as the kernel tells them on Linux.
const TICKS: f64 = 100.0;

/// Processor time by thread name, in seconds.
type Times = BTreeMap<String, f64>;

/// Measures and prints.
///
/// # Errors
/// The release binary is missing, or something fails while it is measured.
pub(crate) fn apply(root: &Path) -> Result<(), String> {
    let about = format!("{}, {}", machine(root)?, commit(root)?);
    let mut rows = Vec::new();
    for ack in ["write", "fsync"] {
        eprintln!("ack = {ack}");
        rows.push((ack, measure(root, ack)?));
    }
    for (ack, busy) in &rows {
        for (name, share) in busy {
            println!("{ack}.{name}\t{:.1}\t%", share * 100.0);
        }
    }
    println!("\n{about}; 8 threads overwrite large files by the MiB and 8 make, rename and remove");
    println!("small ones\n");
    println!("| ack | thread | share of a processor |");
    println!("|---|---|---|");
    for (ack, busy) in &rows {
        for (name, share) in busy {
            println!("| {ack} | {name} | {:.0} % |", share * 100.0);
        }
    }
    Ok(())
}

/// Shares of a processor, by node and thread; threads that do next to nothing are left out.
fn measure(root: &Path, ack: &str) -> Result<Times, String> {
    let mut pair = Pair::build(root, LAB, MODULE, DATA, PairDisk { gib: 2, mke2fs: None })?;
    pair.configure_more(&format!("[replication]\nack = \"{ack}\"\n"))?;
    pair.start()?;
    let mut before = Vec::new();
    for node in NODES {
        let namespace = pair.shell(node, "readlink /proc/self/ns/uts")?;
        let pid = processes::find(MODULE, namespace.trim());
        let pid = pid.ok_or_else(|| format!("no replicator runs on {node}"))?;
        before.push((node, pid, times(pid)?));
    }
    let start = Instant::now();
    let script = format!("{} bench-burst memory-press {DATA}/press:{SECONDS}", pair.task());
    eprint!("{}", pair.shell(NODES[0], &script)?);
    let seconds = start.elapsed().as_secs_f64();
    let mut busy = Times::new();
    for (node, pid, before) in before {
        for (thread, after) in times(pid)? {
            let share = (after - before.get(&thread).copied().unwrap_or(0.0)) / seconds;
            if share >= 0.01 {
                busy.insert(format!("{node}.{thread}"), share);
            }
        }
    }
    Ok(busy)
}

/// What the threads of a process have used so far; those of one name together.
fn times(pid: u32) -> Result<Times, String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_err(|error| error.to_string())?;
    let mut times = Times::new();
    for task in tasks.flatten() {
        // A thread that has ended meanwhile has nothing to tell.
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        if let Some((name, seconds)) = used(&stat) {
            *times.entry(name).or_default() += seconds;
        }
    }
    Ok(times)
}

/// Name and processor time of a thread, from its line `stat`.
fn used(stat: &str) -> Option<(String, f64)> {
    let (head, rest) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((name, (ticks()? + ticks()?) / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_thread_is_read() {
        let stat = "77 (a) b) S 1 77 77 0 -1 4194560 50 0 0 0 150 250 0 0 20 0 1 0";
        assert_eq!(used(stat), Some(("a) b".to_owned(), 4.0)));
        assert_eq!(used(""), None);
    }
}
