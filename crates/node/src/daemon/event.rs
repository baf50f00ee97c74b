//! Everything that can wake the daemon, as one closed list.

use std::net::TcpStream;
use std::sync::mpsc::Sender;

use cluster::Input;
use cluster::witness;
use model::ModuleName;
use wire::control::{Reply, Verb};
use wire::local::{Caller, FromReplicator};

use crate::daemon::configuring::Reservation;

/// Something that happened, from any thread.
pub(crate) enum Event {
    /// Something the cluster's decisions depend on.
    Input(Input),
    /// A replicator process said something.
    Replicator {
        /// Module.
        module: ModuleName,
        /// Identifies the process, so that the words of a dead one are not taken for its
        /// successor's.
        generation: u64,
        /// What it said.
        message: FromReplicator,
    },
    /// A replicator process ended.
    ReplicatorEnded {
        /// Module.
        module: ModuleName,
        /// Identifies the process.
        generation: u64,
        /// How, as a sentence.
        how: String,
    },
    /// A peer opened a replication session.
    Connection {
        /// Module.
        module: ModuleName,
        /// Who it says it is, and for which session it comes.
        caller: Caller,
        /// The connection; its greeting is not answered yet.
        stream: TcpStream,
    },
    /// Whether the witness answered, for the status.
    WitnessHeard {
        /// Module.
        module: ModuleName,
        /// What was asked.
        request: witness::Request,
        /// The answer, or why there is none.
        result: Result<witness::Answer, String>,
    },
    /// A request of the command line or of another daemon.
    Request {
        /// What is asked.
        verb: Verb,
        /// Where lines of progress and the reply go.
        lines: Sender<Line>,
    },
    /// Something to be remembered that the core did not decide.
    Explain(cluster::effect::Event),
    /// A configuration needs modules to stay stopped.
    Reserve(Reservation),
    /// The daemon is to start anew with a new configuration; what it runs goes on.
    Again,
    /// The daemon is to end; what it runs goes on.
    Terminate,
}

/// A line to whoever asked.
pub(crate) enum Line {
    /// How it is getting on, one sentence.
    Progress(String),
    /// The end.
    Reply(Reply),
    /// The end, and what is to happen once it was said.
    Last(Reply, Box<Event>),
}
