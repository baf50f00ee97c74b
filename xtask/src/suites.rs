//! `cargo xtask soak suites`: test suites of others, on a native directory and on `evenkeel mount`.
//!
//! Each suite is a script in `tests/soak/suites`, which runs in an empty directory and prints a
//! line `FAILED CASE` for each case that failed. It runs once on ext4 in an image and once on the
//! mount over the same file system; what fails only there is a defect. What was found is kept in
//! `tests/soak/suites.json` as soon as a suite ends, by commit and machine, so that a run can be
//! stopped and taken up again. Nothing is installed: a missing program is named.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::run;
use crate::soak::{Place, change, read};

/// Longest time for a suite in one place, in seconds.
const SECONDS_MAX: &str = "1800";
/// Size of the image that everything happens in.
const IMAGE_BYTES: u64 = 8 << 30;

/// A script and what it needs.
struct Suite {
    name: String,
    script: PathBuf,
    /// A program, and how to install it.
    needs: (String, String),
}

/// Runs the suites that have no result for this commit and machine yet, or all of them `again`.
///
/// # Errors
/// A suite could not run, or something failed only on the mount.
pub fn suites(root: &Path, again: bool) -> Result<(), String> {
    let here = Place::of(root)?;
    let path = root.join("tests/soak/suites.json");
    run::run(root, &[], "cargo", &["build", "--quiet", "--package", "evenkeel"])?;
    let mut failures = Vec::new();
    for suite in suites_of(root)? {
        let known =
            read(&path)?.iter().any(|entry| here.is(entry) && !entry[&suite.name].is_null());
        if known && !again {
            println!("soak suites: {} has a result already", suite.name);
            continue;
        }
        let result = Stage::new(root)?.compare(&suite)?;
        println!("soak suites: {}: {result}", suite.name);
        if result["only_on_mount"] != json!([]) {
            failures.push(suite.name.clone());
        }
        change(&path, |entries| {
            let at = entries.iter().position(|entry| here.is(entry)).unwrap_or_else(|| {
                entries.push(json!({ "commit": here.commit, "machine": here.machine }));
                entries.len() - 1
            });
            entries[at][&suite.name] = result;
        })?;
    }
    if failures.is_empty() { Ok(()) } else { Err(format!("failed: {}", failures.join(", "))) }
}

fn suites_of(root: &Path) -> Result<Vec<Suite>, String> {
    let folder = root.join("tests/soak/suites");
    let wrong = |error: std::io::Error| format!("cannot read {}: {error}", folder.display());
    let mut suites = Vec::new();
    for entry in fs::read_dir(&folder).map_err(wrong)? {
        let script = entry.map_err(wrong)?.path();
        let text = fs::read_to_string(&script).map_err(wrong)?;
        let name = script.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let needs = needs(&text).ok_or_else(|| format!("{name} does not say what it needs"))?;
        suites.push(Suite { name, script, needs });
    }
    suites.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(suites)
}

/// The line `#! PROGRAM: how to install it` of a script.
fn needs(script: &str) -> Option<(String, String)> {
    let line = script.lines().find_map(|line| line.strip_prefix("#! "))?;
    let (program, how) = line.split_once(": ")?;
    Some((program.to_owned(), how.to_owned()))
}

/// The cases that a suite said have failed.
fn failed(said: &str) -> BTreeSet<&str> {
    said.lines().filter_map(|line| line.strip_prefix("FAILED ")).collect()
}

/// An image with ext4, a native directory in it, and another one with a mount over it.
struct Stage {
    root: PathBuf,
    at: PathBuf,
}

impl Stage {
    fn new(root: &Path) -> Result<Stage, String> {
        // Not below the repository: names of sockets hold no more than 108 bytes.
        let stage = Stage { root: root.to_owned(), at: std::env::temp_dir().join("ek") };
        stage.clear();
        let wrong =
            |error: std::io::Error| format!("cannot prepare {}: {error}", stage.at.display());
        fs::create_dir_all(stage.at.join("disk")).map_err(wrong)?;
        File::create(stage.at.join("image")).and_then(|f| f.set_len(IMAGE_BYTES)).map_err(wrong)?;
        stage.run("mkfs.ext4", &["-q", "-m", "1", "image"])?;
        stage.run("mount", &["-o", "loop", "image", "disk"])?;
        for below in ["native", "source", "view"] {
            fs::create_dir_all(stage.at.join("disk").join(below)).map_err(wrong)?;
        }
        let binary = root.join("target/debug/evenkeel").display().to_string();
        stage.run(&binary, &["mount", "disk/source", "disk/view", "--background"])?;
        Ok(stage)
    }

    fn compare(&self, suite: &Suite) -> Result<Value, String> {
        let (program, how) = &suite.needs;
        if self.run("sh", &["-c", &format!("command -v {program} > /dev/null")]).is_err() {
            return Err(format!("{} needs `{program}`: {how}", suite.name));
        }
        let native = self.play(suite, "native")?;
        let mount = self.play(suite, "view")?;
        let (expected, seen) = (failed(&native), failed(&mount));
        let below =
            ["disk/view", "disk/source"].map(|place| format!("{place}/{}/work", suite.name));
        let mut only: Vec<&str> = seen.difference(&expected).copied().collect();
        // Sockets, pipes and devices have nothing to compare.
        let same = ["-rq", "--no-dereference", "--exclude=.git", &below[0], &below[1]];
        if self.run("diff", &same).is_err() {
            only.push("mount and directory differ");
        }
        let both = seen.intersection(&expected).count();
        let last = |said: &str| said.lines().last().unwrap_or_default().to_owned();
        let said = json!({ "native": last(&native), "mount": last(&mount) });
        Ok(json!({ "only_on_mount": only, "fail_on_both": both, "last_lines": said }))
    }

    /// Runs a suite below a directory; what it said.
    fn play(&self, suite: &Suite, place: &str) -> Result<String, String> {
        println!("\n== {} on {place}", suite.name);
        let work = self.at.join("disk").join(place).join(&suite.name).join("work");
        fs::create_dir_all(&work)
            .map_err(|error| format!("cannot create {}: {error}", work.display()))?;
        let (elsewhere, repository) =
            (self.at.display().to_string(), self.root.display().to_string());
        let environment = [("ELSEWHERE", elsewhere.as_str()), ("REPOSITORY", repository.as_str())];
        let script = suite.script.display().to_string();
        let mut said = String::new();
        run::lines(
            &work,
            &environment,
            "timeout",
            &[SECONDS_MAX, "bash", "-eu", &script],
            &mut |line| {
                said.push_str(line);
                said.push('\n');
            },
        )?;
        Ok(said)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        run::run(&self.at, &[], program, arguments)
    }

    /// Takes away what this or an earlier run left.
    fn clear(&self) {
        for place in ["disk/view", "disk"] {
            let place = self.at.join(place).display().to_string();
            // Mostly there is nothing.
            let _ = run::output(Path::new("/"), "umount", &["-l", &place]);
        }
        let _ = fs::remove_dir_all(&self.at);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_say_what_they_need_and_what_failed() {
        let script = "# Words.\n#! fio: apt-get install fio\nfio\n";
        assert_eq!(needs(script), Some(("fio".into(), "apt-get install fio".into())));
        assert_eq!(needs("fio\n"), None);
        let said = "x\nFAILED b\nFAILED a::b\nFAILED b\n";
        assert_eq!(failed(said).into_iter().collect::<Vec<_>>(), ["a::b", "b"]);
    }
}
