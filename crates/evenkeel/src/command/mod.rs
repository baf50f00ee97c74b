//! One file per command, and what they share.

pub(crate) mod act;
pub(crate) mod check;
pub(crate) mod checks;
pub(crate) mod configuration;
pub(crate) mod demo;
pub(crate) mod events;
pub(crate) mod found;
pub(crate) mod heal;
pub(crate) mod lab;
pub(crate) mod lab_init;
mod machine;
pub(crate) mod membership;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod replay;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod web;
pub(crate) mod why;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use node::Layout;
use serde_json::json;
use wire::control::{Exit, Reply, Verb};

use crate::client::Client;

/// What holds for every command.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Directory that holds this node's /etc, /var and /run.
    pub(crate) root: PathBuf,
    /// Whether to print JSON.
    pub(crate) json: bool,
}

impl Context {
    /// Where this node's files are.
    pub(crate) fn layout(&self) -> Layout {
        Layout::new(&self.root)
    }

    /// Asks this node's daemon. Progress goes to standard error.
    pub(crate) fn ask(&self, verb: Verb) -> Reply {
        let socket = self.layout().control_socket();
        let mut tell = |text: &str| eprintln!("↻ {text}");
        Client::at(&socket).request(verb, &mut tell).unwrap_or_else(|error| {
            let outcome = match error.kind() {
                io::ErrorKind::PermissionDenied => Exit::Unauthorised,
                _ => Exit::Unreachable,
            };
            let mut reply = Reply::new(
                outcome,
                format!("the daemon does not answer at {}: {error}", socket.display()),
            );
            reply.next = vec![match error.kind() {
                io::ErrorKind::PermissionDenied => "run the command as root".to_owned(),
                _ => format!("start it: evenkeel --root {} daemon", self.root.display()),
            }];
            reply
        })
    }

    /// Prints a reply, its data through `text` unless JSON is wanted, and gives its exit code.
    pub(crate) fn finish(&self, reply: &Reply, text: impl FnOnce(&Reply) -> String) -> ExitCode {
        if self.json {
            print(&json!(reply).to_string());
        } else if reply.outcome == Exit::Done {
            print(&text(reply));
        } else {
            eprintln!("✖ {}", reply.sentence);
            reply.next.iter().for_each(|next| eprintln!("  → {next}"));
        }
        ExitCode::from(reply.outcome.code())
    }
}

/// Prints a line; that nobody reads it is no error.
pub(crate) fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}
