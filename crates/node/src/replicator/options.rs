//! What a replicator is told when it is started, and what follows from that alone.
//!
//! What it does is told by its daemon, over and over.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluster::effect::Serve;
use model::{ModuleName, NodeName};
use mount::backing::Root;
use replica::Exclude;
use wire::hello::{Hello, Joint, Protection, Purpose};

use crate::connection::Callee;
use crate::keys::Keys;

/// How to run a replicator. Standard input is its listening socket.
#[derive(Debug, Clone)]
pub struct ReplicatorOptions {
    /// Module.
    pub module: ModuleName,
    /// Cluster, for the greeting of peers.
    pub cluster: ModuleName,
    /// This node.
    pub node: NodeName,
    /// Last operation number of the copy.
    pub number: u64,
    /// File of the activity log.
    pub log: PathBuf,
    /// Directory of the cluster's keys.
    pub keys: PathBuf,
    /// Directories to replicate, in the order of the configuration.
    pub directories: Vec<PathBuf>,
    /// Patterns of what is not replicated of them.
    pub exclude: Vec<String>,
    /// The descriptor that leads to the keeper.
    pub keeper: Option<i32>,
    /// File that says until when what a dead replicator had left covered the directories, if it
    /// is there: wall time, in seconds and nanoseconds.
    pub covered: PathBuf,
}

/// A replicated directory.
#[derive(Clone)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// Opened before anything was mounted over it.
    pub(super) root: Arc<Root>,
    /// What is not replicated of it.
    pub(super) exclude: Exclude,
}

impl ReplicatorOptions {
    /// Digest of what is left out; 0 when that is nothing.
    pub(super) fn excluded(&self) -> u128 {
        if self.exclude.is_empty() {
            return 0;
        }
        let hash = blake3::hash(self.exclude.join("\n").as_bytes());
        let (first, _) = hash.as_bytes().split_first_chunk().unwrap_or((&[0; 16], &[]));
        u128::from_le_bytes(*first)
    }

    pub(super) fn directory(&self, path: &Path, root: Arc<Root>) -> Directory {
        let exclude = Exclude::new(self.exclude.iter().map(String::as_str));
        Directory { path: path.to_owned(), root, exclude }
    }

    /// Whom to call for a session, and how to greet it.
    pub(super) fn to(&self, serve: &Serve, peer: &[SocketAddr]) -> Option<(Hello, Callee)> {
        let session = serve.session.as_ref()?;
        let keys = Keys::new(&self.keys);
        let hello = Hello {
            cluster: self.cluster.clone(),
            from: self.node.clone(),
            purpose: Purpose::Replication {
                module: self.module.clone(),
                session: session.id,
                joint: Joint::default(),
            },
            // Filled in with each call.
            protection: Protection::None,
        };
        let (name, addresses) = (session.target.clone(), peer.to_vec());
        let encrypt = serve.replication.encrypt;
        Some((hello, Callee { name, addresses, keys, encrypt }))
    }
}
