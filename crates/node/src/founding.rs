//! A cluster begins: its authority, its key, its first node, and tokens for others.
//!
//! Nothing here needs a daemon, and nothing is changed on a machine that belongs to a cluster.

use std::io;
use std::net::{IpAddr, SocketAddr};

use model::config::ClusterConfig;
use model::{Fingerprint, ModuleName, NetworkName, NodeName};

use crate::authority::Authority;
use crate::belonging;
use crate::cluster_text;
use crate::joining::check_addresses;
use crate::keys::Keys;
use crate::layout::Layout;
use crate::token::{Token, Tokens};

/// A cluster that is to begin.
#[derive(Debug, Clone)]
pub struct Founding {
    /// Its name.
    pub cluster: ModuleName,
    /// Its first node.
    pub node: NodeName,
    /// The node's address on each network.
    pub addresses: Vec<(NetworkName, IpAddr)>,
    /// Where the witness listens, if there is one, and by what it is known.
    pub witness: Option<(SocketAddr, Fingerprint)>,
}

impl Founding {
    /// Makes keys and configuration.
    ///
    /// # Errors
    /// The machine belongs to a cluster, has not these addresses, or nothing can be written; then
    /// it belongs to none, unless the error says that it does.
    pub fn found(&self, layout: &Layout) -> io::Result<()> {
        belonging::check_is_new(layout).map_err(io::Error::other)?;
        check_addresses(self.addresses.iter().map(|(_, address)| *address))
            .map_err(io::Error::other)?;
        let mut text = cluster_text::first(self.cluster.as_str(), &self.node, &self.addresses);
        if let Some((address, fingerprint)) = &self.witness {
            text +=
                &format!("\n[witness]\naddress = \"{address}\"\nfingerprint = \"{fingerprint}\"\n");
        }
        cluster_text::read(&text).map_err(io::Error::other)?;
        let aside = belonging::make_aside(layout)?;
        Authority::new(self.cluster.as_str())?.furnish_with_authority(&self.node, &aside)?;
        belonging::commit(layout, &text)?;
        belonging::finish(layout).map(drop).map_err(|error| {
            let what = "all is made, but not in place, and is completed by the next start of the";
            io::Error::new(error.kind(), format!("{what} daemon: {error}"))
        })
    }
}

/// Makes a token by which another node can join the cluster of this one.
///
/// # Errors
/// This node is not of the cluster, or has no keys.
pub fn issue_token(layout: &Layout, cluster: &ClusterConfig, node: &NodeName) -> io::Result<Token> {
    let keys = Keys::new(&layout.keys_directory());
    let own = cluster.node(node).ok_or_else(|| {
        io::Error::other(format!("{} names no node {node}", layout.cluster_file().display()))
    })?;
    // Whoever cannot sign cannot admit anybody, and had better say so now.
    Authority::load(&layout.keys_directory())?;
    let addresses = own.addresses.values().copied().collect();
    let tokens = Tokens::new(&layout.state_directory());
    Token::issue(&tokens, &cluster.cluster, addresses, keys.authority()?)
}
