//! The ledger: a small application whose every acknowledged transaction can be counted.
//!
//! A server keeps double-entry books in SQLite and acknowledges a transaction only once it is on
//! stable storage; a workload commits without pause through an address and remembers what was
//! acknowledged and when. After a failover the two answer what matters: how long was the outage,
//! and is anything lost? The workload drives PostgreSQL in the same way. Nothing here knows of
//! clusters.

pub mod client;
pub mod psql;
pub mod server;
mod store;
pub mod testimony;
#[cfg(test)]
mod tests;
pub mod workload;

pub use client::{Client, ClientError, LedgerClient};
pub use psql::{Psql, PsqlClient};
pub use testimony::{Acknowledged, Writer};
pub use workload::{Outage, Workload};

/// What the ledger's server could not do.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The database cannot be opened, or has been damaged.
    #[error("the ledger's database {path} cannot be opened: {source}")]
    Open {
        /// The file.
        path: std::path::PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The address cannot be listened on, or signals cannot be received.
    #[error("the ledger cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The kernel's answer.
        source: std::io::Error,
    },
}
