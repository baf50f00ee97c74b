//! `evenkeel replay`: leads this program through what a node recorded, and shows what it decided.
//!
//! Nothing is changed, and no daemon is asked. The same program comes to the same decisions; the
//! first one that differs is named. What is compared is `cluster::replay`'s.

mod changes;
mod moment;
mod show;
mod text;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use cluster::replay::{Difference, Entry, Replay};
use model::ModuleName;
use node::recordings;
use serde_json::json;
use wire::control::{Exit, Reply};
use wire::recording::{Read, Reader};

use self::moment::Moment;
use self::show::Show;
use crate::command::Context;
use crate::render;

/// What to replay.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// A file of a recording, or a directory of them; this node's own by default.
    path: Option<PathBuf>,
    /// Show only what happened from then on: 14:02, 14:02:11 or 2026-11-29T14:02:11, in UTC.
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    from: Option<Moment>,
    /// Show only what concerns this module.
    #[arg(long, value_name = "MODULE", value_parser = ModuleName::new)]
    module: Option<ModuleName>,
}

pub(crate) fn run(context: &Context, args: ReplayArgs) -> ExitCode {
    let path = args.path.unwrap_or_else(|| context.layout().recording_directory());
    let show = Show::new(context.json, args.from.map_or(0, Moment::ms), args.module);
    let mut session = Session::new(show);
    let reply = match session.replay(&path) {
        Ok(()) => session.reply(),
        Err(error) => Reply::new(Exit::Usage, format!("{}: {error}", path.display())),
    };
    context.finish(&reply, |reply| format!("✔ {}", reply.sentence))
}

/// A replay under way.
struct Session {
    replay: Replay,
    show: Show,
    node: Option<String>,
    inputs: u64,
    bytes: u64,
    span: Option<(u64, u64)>,
    /// Segments that could not be read to their end.
    damaged: Vec<String>,
    /// The first record that was not understood.
    unknown: Option<String>,
    difference: Option<String>,
}

impl Session {
    fn new(show: Show) -> Session {
        Session {
            replay: Replay::default(),
            show,
            node: None,
            inputs: 0,
            bytes: 0,
            span: None,
            damaged: Vec::new(),
            unknown: None,
            difference: None,
        }
    }

    /// Replays all segments, up to the first difference.
    fn replay(&mut self, path: &Path) -> io::Result<()> {
        let segments = recordings::segments(path)?;
        if segments.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "there is no recording in it"));
        }
        for segment in segments {
            let bytes = recordings::read(&segment)?;
            self.bytes += bytes.len() as u64;
            self.segment(&segment, &bytes);
            if self.difference.is_some() {
                break;
            }
        }
        Ok(())
    }

    fn segment(&mut self, path: &Path, bytes: &[u8]) {
        let Ok(mut reader) = Reader::new(bytes) else {
            return self.damaged(path, "this is not a recording, or one of another kind");
        };
        while self.difference.is_none() {
            match reader.read() {
                Ok(Some(read)) => self.take(reader.program(), read),
                Ok(None) => return,
                Err(damage) => return self.damaged(path, &damage.to_string()),
            }
        }
    }

    /// The rest of a segment is lost. The next one begins with a state, or with a daemon.
    fn damaged(&mut self, path: &Path, what: &str) {
        let what = format!("{}: {what}", path.display());
        self.show.note(&what);
        self.damaged.push(what);
        self.replay.lose();
    }

    fn take(&mut self, program: &str, read: Read) {
        let (first, _) = self.span.unwrap_or((read.wall_ms, 0));
        self.span = Some((first, read.wall_ms));
        let entry = match read.entry {
            Ok(entry) => entry,
            Err(why) => {
                let what = format!(
                    "a record of {}, written by version {program}, is not understood by this \
                     version ({}): {why}",
                    moment::full(read.wall_ms),
                    env!("CARGO_PKG_VERSION")
                );
                self.show.note(&what);
                self.unknown.get_or_insert(what);
                return self.replay.lose();
            }
        };
        self.show.at(read.at, read.wall_ms);
        self.show.before(&entry, self.replay.node());
        let shown = entry.clone();
        match self.replay.take(read.at, entry) {
            Ok(effects) => {
                let effects = effects.to_vec();
                let Some(node) = self.replay.node() else { return };
                self.node.get_or_insert_with(|| node.status(read.at).node.to_string());
                self.inputs += u64::from(matches!(shown, Entry::Input(_)));
                self.show.step(program, &shown, &effects, node);
            }
            Err(difference) => {
                let at = moment::full(read.wall_ms);
                self.show.difference(&difference);
                let what = match difference {
                    Difference::Effects { .. } => "other effects than were recorded",
                    Difference::State { .. } => "another state than was recorded",
                };
                self.difference = Some(format!(
                    "after {} inputs, at {at}, this program ({}) comes to {what} (by {program})",
                    self.inputs,
                    env!("CARGO_PKG_VERSION")
                ));
            }
        }
    }

    /// How it ended.
    fn reply(&self) -> Reply {
        let node = self.node.as_deref().unwrap_or("no node");
        let span = self.span.map(|(first, last)| {
            format!(" from {} to {}", moment::full(first), moment::full(last))
        });
        let size = render::size(self.bytes as f64);
        let span = span.unwrap_or_default();
        let what = format!("{} inputs of {node}{span}, {size},", self.inputs);
        let (outcome, sentence) = match (&self.difference, &self.unknown, self.inputs) {
            (Some(difference), ..) => (Exit::Failed, difference.clone()),
            (None, Some(unknown), _) => (Exit::Failed, format!("{what} replayed, but {unknown}")),
            (None, None, 0) => (Exit::Failed, "nothing could be replayed".to_owned()),
            (None, None, _) => {
                (Exit::Done, format!("{what} replayed: every decision came out as recorded"))
            }
        };
        let damaged = match self.damaged.len() {
            0 => String::new(),
            count => format!("; {count} segments could not be read to their end"),
        };
        let data = json!({
            "node": self.node,
            "inputs": self.inputs,
            "bytes": self.bytes,
            "from_ms": self.span.map(|(first, _)| first),
            "to_ms": self.span.map(|(_, last)| last),
            "damaged": self.damaged,
            "difference": self.difference,
        });
        Reply { data, ..Reply::new(outcome, sentence + &damaged) }
    }
}
