//! The processes of a node: the daemon, the replicator of each mirror module, the witness.
//!
//! All shell: threads, sockets, files and clocks around the pure cores `cluster` and `replica`.
//! No decision is taken here; an effect is performed as told, and its outcome told back.

#[macro_use]
mod say;

mod authority;
mod belonging;
mod callers;
mod clock;
mod cluster_text;
mod complaint;
mod configuration;
mod connection;
pub mod daemon;
mod durable;
mod enrolled;
mod files;
mod founding;
mod joining;
pub mod keeper;
mod keys;
mod layout;
mod marker;
mod owners;
mod packet;
mod pinned;
pub mod recordings;
pub mod replicator;
mod room;
mod seal;
mod sealed;
mod stream;
mod token;
mod urgent;
mod validity;
mod witness;

pub use authority::Authority;
pub use configuration::accept::directory_fault;
pub use daemon::DaemonOptions;
pub use enrolled::{Enrolled, EnrolledCluster};
pub use files::{Configuration, load as load_configuration, load_cluster};
pub use founding::{Founding, issue_token};
pub use joining::{JoinError, Joining};
pub use keeper::KeeperOptions;
pub use keys::check as check_keys;
pub use layout::Layout;
pub use replicator::ReplicatorOptions;
pub use token::{TOKEN_LIFETIME, Token};
pub use witness::{WitnessOptions, run as run_witness};
