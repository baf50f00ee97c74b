//! `cargo xtask mutants`: breaks the rules of the cluster one at a time: is that noticed?
//!
//! Each patch in `tests/mutants` breaks one rule in `crates/cluster`; its text before the diff says
//! which. It is applied to a copy of what the simulator needs, the stories are told and random
//! schedules run: what still passes shows a rule that nothing watches. The copy without a patch
//! must pass. Nothing here judges by itself; what is promised is written in `crates/sim`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

/// Schedules that a mutant has to survive to count as missed.
const SEEDS: &str = "20000";
/// Plans of farms that a mutant of theirs has to survive.
const FARM_PLANS: &str = "1000";
/// With this a patch's name begins that breaks a rule of farms: neither stories nor schedules have
/// any.
const FARMS: &str = "farm-";
/// Seconds after which a program counts as hanging: many times what the longest run takes.
const SECONDS_MAX: &str = "1200";
/// A build of this kind takes two seconds, and what it makes is hardly slower.
const QUICK: [(&str, &str); 2] =
    [("CARGO_INCREMENTAL", "1"), ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")];
/// The model check, first as deep as is a matter of seconds.
const QUICK_MODEL: [&str; 4] = ["--model", "--first", "--less", "3"];
/// And as deep as is a matter of minutes.
const DEEP_MODEL: [&str; 4] = ["--model", "--first", "--less", "0"];
/// What the copy consists of.
const PARTS: &[&str] =
    &["crates/model", "crates/cluster", "crates/replica", "crates/sim", "tests/scenarios"];

/// What became of a mutant.
enum Outcome {
    Caught(String),
    Missed,
}

/// How it is looked for.
struct Search<'a> {
    tree: PathBuf,
    seeds: &'a str,
    /// Plans of farms, for the mutants of theirs.
    plans: &'a str,
    stories: bool,
    /// By the model check alone.
    model: bool,
}

/// Tries the `wanted` mutants, or all; `--seeds N` schedules, or plans of farms, and no story with
/// `--no-stories`.
///
/// # Errors
/// One is not noticed, cannot be applied, built or judged, or the rules as they are do not pass.
pub fn mutants(root: &Path, wanted: &[&str]) -> Result<(), String> {
    let tree = root.join("target/mutants/tree");
    let mut search = Search { tree, seeds: SEEDS, plans: FARM_PLANS, stories: true, model: false };
    let mut names = Vec::new();
    let mut words = wanted.iter();
    while let Some(word) = words.next() {
        match *word {
            "--seeds" => {
                search.seeds = words.next().ok_or("--seeds needs a number")?;
                search.plans = search.seeds;
            }
            "--no-stories" => search.stories = false,
            name => names.push(name),
        }
    }
    look_for(root, &search, &names)
}

/// Whether the model check finds what the mutants lead to; without names, all of them.
///
/// # Errors
/// As for [`mutants`].
pub fn model(root: &Path, names: &[&str]) -> Result<(), String> {
    let tree = root.join("target/mutants/tree");
    look_for(
        root,
        &Search { tree, seeds: SEEDS, plans: FARM_PLANS, stories: false, model: true },
        names,
    )
}

fn look_for(root: &Path, search: &Search<'_>, names: &[&str]) -> Result<(), String> {
    let mut patches = patches(root, names)?;
    if search.model {
        if let Some(name) = names.iter().find(|name| name.starts_with(FARMS)) {
            return Err(format!("the model has no farms: cargo xtask mutants {name}"));
        }
        patches.retain(|patch| !is_of_farms(patch));
    }
    renew(root, &search.tree)?;
    // The model check of the rules as they are is a command of its own, and takes minutes.
    for farms in [false, true] {
        if !search.model
            && patches.iter().any(|patch| is_of_farms(patch) == farms)
            && let Outcome::Caught(how) = search.judge(farms)?
        {
            return Err(format!("the rules as they are do not pass: {how}"));
        }
    }
    let (mut caught, mut missed, mut wrong) = (0, 0, Vec::new());
    for patch in &patches {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy();
        let began = Instant::now();
        renew(root, &search.tree)?;
        let outcome = apply(&search.tree, patch).and_then(|()| search.judge(is_of_farms(patch)));
        let seconds = began.elapsed().as_secs();
        match outcome {
            Ok(Outcome::Caught(how)) => {
                caught += 1;
                println!("{name}: {how} ({seconds} s)");
            }
            Ok(Outcome::Missed) => {
                missed += 1;
                println!("{name}: MISSED: {} ({seconds} s)", breaks(patch)?);
            }
            Err(error) => {
                println!("{name}: ERROR: {error}");
                wrong.push(name);
            }
        }
    }
    println!("mutants {} caught {caught} missed {missed}", patches.len());
    if missed == 0 && wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{missed} mutants are missed, and {} cannot be judged", wrong.len()))
}

/// The patches of these names, or all.
fn patches(root: &Path, names: &[&str]) -> Result<Vec<PathBuf>, String> {
    let folder = root.join("tests/mutants");
    let mut found = files(&folder)?;
    found.retain(|path| path.extension().is_some_and(|ending| ending == "patch"));
    found.sort();
    for name in names {
        if !found.iter().any(|path| path.file_stem().is_some_and(|stem| stem == *name)) {
            return Err(format!("there is no mutant {name}: see {}", folder.display()));
        }
    }
    let is_wanted = |path: &PathBuf| {
        let stem = path.file_stem().unwrap_or_default();
        names.is_empty() || names.iter().any(|name| stem == *name)
    };
    found.retain(is_wanted);
    if found.is_empty() {
        return Err(format!("there are no patches in {}", folder.display()));
    }
    Ok(found)
}

fn is_of_farms(patch: &Path) -> bool {
    patch.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FARMS))
}

/// What a patch says of itself.
fn breaks(patch: &Path) -> Result<String, String> {
    let text = read(patch)?;
    let said: Vec<&str> = text.lines().take_while(|line| !line.starts_with("--- ")).collect();
    Ok(said.join(" ").trim().to_owned())
}

impl Search<'_> {
    /// Builds the simulator of the copy and has it look for a difference.
    fn judge(&self, farms: bool) -> Result<Outcome, String> {
        let arguments = ["build", "--release", "--offline", "--quiet", "--package", "sim"];
        let target = self.tree.with_file_name("build");
        let mut build = Command::new("cargo");
        build.args(arguments).envs(QUICK).env("CARGO_TARGET_DIR", &target).current_dir(&self.tree);
        let built = output(&mut build)?;
        if !built.status.success() {
            let said = String::from_utf8_lossy(&built.stderr);
            let first = said.lines().find(|line| line.starts_with("error")).unwrap_or(&said);
            return Err(format!("it does not build: {first}"));
        }
        let program = target.join("release/sim");
        let stories = self.tree.join("tests/scenarios").display().to_string();
        let random = ["--seeds", self.seeds, "--stop-at", "1", "--plain"];
        let told = ["--stories", &stories];
        let plans = ["--farms", "--seeds", self.plans];
        let runs: &[&[&str]] = match (self.model, farms, self.stories) {
            (true, _, _) => &[&QUICK_MODEL, &DEEP_MODEL],
            (false, true, _) => &[&plans],
            (false, false, true) => &[&told, &random],
            (false, false, false) => &[&random],
        };
        for arguments in runs {
            if let Some(found) = look(&program, arguments)? {
                return Ok(Outcome::Caught(found));
            }
        }
        Ok(Outcome::Missed)
    }
}

/// What a run of the simulator finds, in its own words.
fn look(program: &Path, arguments: &[&str]) -> Result<Option<String>, String> {
    let mut command = Command::new("timeout");
    command.arg(SECONDS_MAX).arg(program).args(arguments);
    let done = output(&mut command)?;
    let said = String::from_utf8_lossy(&done.stdout);
    let begins =
        |line: &&str| ["story ", "seed ", "case "].iter().any(|word| line.starts_with(word));
    let found = said.lines().find(begins);
    match (done.status.code(), found) {
        (Some(0), None) => Ok(None),
        (Some(1), Some(found)) => Ok(Some(found.to_owned())),
        (Some(124), _) => Err(format!("the simulator hangs for {SECONDS_MAX} s")),
        _ => {
            let error = String::from_utf8_lossy(&done.stderr);
            Err(format!("the simulator ended with {}: {}", done.status, error.trim()))
        }
    }
}

fn output(command: &mut Command) -> Result<Output, String> {
    command.output().map_err(|error| format!("cannot start {command:?}: {error}"))
}

/// Applies a patch to the copy, and to nothing else.
fn apply(tree: &Path, patch: &Path) -> Result<(), String> {
    let mut git = Command::new("git");
    // Without this the copy would count as an ignored part of the repository that it lies in.
    git.env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree));
    let applied = output(git.args(["apply", "-p1"]).arg(patch).current_dir(tree))?;
    if applied.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&applied.stderr);
    Err(format!("it does not apply any more: {}", said.trim()))
}

/// Makes the copy as the repository is. What is equal stays untouched, so it is not built anew.
fn renew(root: &Path, tree: &Path) -> Result<(), String> {
    for part in PARTS {
        copy(&root.join(part), &tree.join(part))?;
    }
    let manifest = read(&root.join("Cargo.toml"))?;
    let members = |line: &str| line.starts_with("members = ");
    if !manifest.lines().any(members) {
        return Err("Cargo.toml names no `members` in one line".to_owned());
    }
    let lines = manifest.lines().filter(|line| !line.starts_with("default-members = "));
    let lines = lines.map(|line| if members(line) { "members = [\"crates/*\"]" } else { line });
    let manifest = lines.collect::<Vec<_>>().join("\n") + "\n";
    write(&tree.join("Cargo.toml"), manifest.as_bytes())?;
    // Cargo strikes from it what the copy does not need.
    copy(&root.join("Cargo.lock"), &tree.join("Cargo.lock"))
}

/// Makes a file or folder like another one.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    if !from.is_dir() {
        let content = fs::read(from).map_err(|error| wrong(from, &error))?;
        return write(to, &content);
    }
    let names = files(from)?;
    for stray in files(to).unwrap_or_default() {
        if !names.iter().any(|name| name.file_name() == stray.file_name()) {
            let gone =
                if stray.is_dir() { fs::remove_dir_all(&stray) } else { fs::remove_file(&stray) };
            gone.map_err(|error| wrong(&stray, &error))?;
        }
    }
    for name in names {
        copy(&name, &to.join(name.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| wrong(folder, &error))?;
    let paths: std::io::Result<Vec<PathBuf>> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect();
    paths.map_err(|error| wrong(folder, &error))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| wrong(path, &error))
}

fn write(path: &Path, content: &[u8]) -> Result<(), String> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|error| wrong(folder, &error))?;
    fs::write(path, content).map_err(|error| wrong(path, &error))
}

fn wrong(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]
    fn every_patch_applies_and_says_what_it_breaks() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for patch in patches(&root, &[]).unwrap() {
            let mut git = Command::new("git");
            git.args(["apply", "--check", "-p1"]).arg(&patch).current_dir(&root);
            let checked = output(&mut git).unwrap();
            let said = String::from_utf8_lossy(&checked.stderr);
            assert!(checked.status.success(), "{} does not apply: {said}", patch.display());
            assert!(!breaks(&patch).unwrap().is_empty(), "{} says nothing", patch.display());
        }
    }
}
