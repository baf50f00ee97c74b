//! The table of `docs/failures.md`: each story's situation, and how both nodes show it at the end.
//!
//! `EVENKEEL_BLESS=1 cargo test -p sim --test handbook` writes it as it is now.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use sim::World;

const PAGE: &str = "docs/failures.md";
const BEGIN: &str = "<!-- stories -->\n";
const END: &str = "<!-- end -->\n";

#[test]
#[allow(clippy::disallowed_methods, reason = "whether to write is asked of the caller")]
fn the_page_says_what_the_stories_show() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join(PAGE)).unwrap();
    let (head, rest) = page.split_once(BEGIN).expect("a mark where the table begins");
    let (written, tail) = rest.split_once(END).expect("a mark where it ends");
    let table = table(&stories(&root));
    if std::env::var_os("EVENKEEL_BLESS").is_some() {
        std::fs::write(root.join(PAGE), format!("{head}{BEGIN}{table}{END}{tail}")).unwrap();
    } else {
        assert_eq!(written, table, "{PAGE} says something else than the stories");
    }
}

fn stories(root: &Path) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(root.join("tests/scenarios")).unwrap();
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|path| number(path).parse::<u32>().unwrap());
    files
}

fn number(path: &Path) -> String {
    let name = path.file_stem().unwrap().to_string_lossy();
    name.split('-').next().unwrap().to_owned()
}

fn table(stories: &[PathBuf]) -> String {
    let mut table =
        "| Situation, and what happens | node1 then | node2 then | Story |\n".to_owned();
    table.push_str("|---|---|---|---|\n");
    for path in stories {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().map_while(|line| line.strip_prefix("# "));
        let situation = lines.collect::<Vec<_>>().join(" ");
        assert!(situation.ends_with('.'), "{} begins with no sentence", path.display());
        let (_, world) = sim::story::play(&text).unwrap_or_else(|wrong| panic!("{wrong}"));
        let [one, two] = [0, 1].map(|i| shown(&world, i));
        let number = number(path);
        writeln!(table, "| {situation} | {one} | {two} | {number} |").unwrap();
    }
    table
}

/// What a node shows at the end: its state, and the reasons of one that is not green.
fn shown(world: &World, i: usize) -> String {
    let light = world.light_status(i);
    let Some(status) = light.or_else(|| world.status(i)) else { return "down".to_owned() };
    let mut shown = status.role.to_string();
    for reason in status.reasons {
        write!(shown, " `{}`", reason.code).unwrap();
    }
    shown
}
