//! Verifications that are under way: who asked for one, how it is getting on, and its end.
//!
//! What is compared, and how, is the replicator's business.

use std::sync::mpsc::Sender;

use model::{ModuleName, NodeName};
use serde_json::json;
use wire::control::{Exit, Reply, Verb};
use wire::local::Verification;

use crate::daemon::Daemon;
use crate::daemon::event::Line;
use crate::daemon::requests::{Part, ended, gather_apart};

/// A verification that somebody waits for.
pub(crate) struct Asked {
    serial: u64,
    lines: Sender<Line>,
}

impl Daemon {
    /// Has the node that serves compare both copies.
    pub(super) fn verify(
        &mut self,
        module: ModuleName,
        node: Option<NodeName>,
        repair: bool,
        lines: Sender<Line>,
    ) {
        let reply = match (self.nodes_for(&module, node.clone()), node) {
            (Err(reply), _) => *reply,
            (Ok(_), node) => match node.or_else(|| self.primary_of(&module)) {
                None => Reply::new(Exit::Refused, format!("no node serves {module}")),
                Some(node) if node == self.name => {
                    return self.verify_here(&module, repair, lines);
                }
                Some(node) => {
                    let peer = Box::new(self.peer(&node));
                    let verb = Verb::Verify { module, node: Some(node.clone()), repair };
                    return gather_apart(vec![(node, Part::Remote(peer, verb))], lines);
                }
            },
        };
        let _ = lines.send(Line::Reply(reply));
    }

    fn verify_here(&mut self, name: &ModuleName, repair: bool, lines: Sender<Line>) {
        self.next_job += 1;
        let serial = self.next_job;
        let Some(module) = self.modules.get_mut(name) else {
            let _ = lines.send(Line::Reply(ended()));
            return;
        };
        let problem = match (&module.replicator, &module.verifying) {
            (None, _) => Some(format!("{name} is not running on {}", self.name)),
            (_, Some(_)) => Some(format!("a verification of {name} is under way")),
            (Some(replicator), None) => {
                let told = replicator.verify(serial, repair);
                told.err().map(|error| format!("the replicator cannot be told: {error}"))
            }
        };
        match problem {
            Some(why) => drop(lines.send(Line::Reply(Reply::new(Exit::Refused, why)))),
            None => module.verifying = Some(Asked { serial, lines }),
        }
    }

    /// A replicator tells of its verification.
    pub(super) fn verified(&mut self, name: &ModuleName, report: &Verification) {
        let Some(module) = self.modules.get_mut(name) else { return };
        let Some(asked) = module.verifying.take_if(|asked| asked.serial == report.serial) else {
            return;
        };
        if report.running {
            let text = format!(
                "{} objects and {} MiB compared, {} differ: {}",
                report.entries,
                report.bytes >> 20,
                report.differences,
                report.current
            );
            // Whoever does not listen any more has the end of it in the log.
            let _ = asked.lines.send(Line::Progress(text));
            module.verifying = Some(asked);
            return;
        }
        let reply = reply(name, report);
        if reply.outcome != Exit::Done {
            eprintln!("! {name} verify: {}", reply.sentence);
        }
        let _ = asked.lines.send(Line::Reply(reply));
    }

    /// The replicator that was verifying has died.
    pub(super) fn verification_died(&mut self, name: &ModuleName) {
        let asked = self.modules.get_mut(name).and_then(|module| module.verifying.take());
        if let Some(asked) = asked {
            let why = "the replicator died meanwhile: start the verification anew".to_owned();
            let _ = asked.lines.send(Line::Reply(Reply::new(Exit::Failed, why)));
        }
    }
}

fn reply(name: &ModuleName, report: &Verification) -> Reply {
    let Verification { entries, bytes, differences, .. } = report;
    let mut reply = match (&report.ended, differences) {
        (Some(why), _) => Reply::new(Exit::Refused, format!("{name} was not compared: {why}")),
        (None, 0) => {
            let sentence = format!(
                "both copies of {name} are equal: {entries} objects and {bytes} bytes were compared"
            );
            Reply::new(Exit::Done, sentence)
        }
        (None, _) => {
            let mut sentence = format!("{differences} of {entries} objects of {name} differ");
            for told in &report.told {
                sentence += &format!("\n  {told}");
            }
            let outcome = if report.repairing { Exit::Done } else { Exit::Failed };
            if report.repairing {
                sentence += "\nthey are being brought up to date by a resync";
            }
            Reply::new(outcome, sentence)
        }
    };
    if *differences > 0 && !report.repairing {
        reply.next = vec![
            format!("evenkeel verify {name} --repair makes the peer's copy equal to this one"),
            "look at the peer's disk, and for programs that wrote past the replication".to_owned(),
        ];
    }
    reply.data = json!(report);
    reply
}
