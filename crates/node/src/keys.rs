//! The cluster's keys on this node: who may speak with it, and how it shows who it is.
//!
//! Four files: the certificate of the cluster's own authority, this node's certificate for its
//! name, the key of that, and the key that all nodes share for heartbeats. They are read for every
//! connection, so that renewed ones count from the next connection on. They are not made here.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{Fingerprint, NodeName};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};
use wire::hello::Protection;

use crate::enrolled;
use crate::pinned::{Pinned, check_signed, fingerprint_of};
use crate::seal::ClusterKey;

/// Certificate of the cluster's authority.
pub(crate) const AUTHORITY_FILE: &str = "ca.pem";
/// Certificate of the node, for its name.
pub(crate) const CERTIFICATE_FILE: &str = "node.pem";
/// Key of the node's certificate.
pub(crate) const KEY_FILE: &str = "node.key";

/// Key of the cluster's authority.
pub(crate) const AUTHORITY_KEY_FILE: &str = "ca.key";
/// Key of the cluster, for heartbeats.
pub(crate) const CLUSTER_KEY_FILE: &str = "cluster.key";

/// Directories that had keys since this process began.
static SEEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Where the keys of a node are, if it has any.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    directory: PathBuf,
}

/// What is read of the keys.
struct Read {
    provider: Arc<CryptoProvider>,
    authority: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Reads the keys of a node, if there are any in this directory, and says what is wrong with them.
///
/// # Errors
/// They are of no use, for the reason given.
pub fn check(directory: &Path, node: &NodeName) -> io::Result<()> {
    let keys = Keys::new(directory);
    if keys.exist() { keys.check(node) } else { Ok(()) }
}

impl Keys {
    /// The keys in this directory.
    pub(crate) fn new(directory: &Path) -> Keys {
        Keys { directory: directory.to_owned() }
    }

    /// Whether there are any. Half of them is an error of whoever uses them, and no reason to go on
    /// without: once there were some, they are wanted for as long as this process runs.
    pub(crate) fn exist(&self) -> bool {
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(&self.directory) {
            return true;
        }
        // What cannot be looked at may be there.
        let exist = self.directory.try_exists().unwrap_or(true);
        if exist {
            seen.insert(self.directory.clone());
        }
        exist
    }

    /// The file of the key that all nodes share.
    pub(crate) fn cluster_key_file(&self) -> PathBuf {
        self.directory.join(CLUSTER_KEY_FILE)
    }

    /// How connections are protected here, whose payload is to be encrypted or not.
    pub(crate) fn protection(&self, encrypt: bool) -> Protection {
        match (self.exist(), encrypt) {
            (false, _) => Protection::None,
            (true, false) => Protection::Authenticated,
            (true, true) => Protection::Encrypted,
        }
    }

    /// Whether a caller protects its connection as this node does; says in a sentence how not.
    pub(crate) fn agree(&self, wanted: Protection, encrypt: bool) -> Result<(), String> {
        let here = self.directory.display();
        match (wanted, self.protection(encrypt)) {
            (wanted, ours) if wanted == ours => Ok(()),
            (Protection::None, _) => Err(format!(
                "this node has keys of the cluster ({here}) and speaks with nobody who has none"
            )),
            (_, Protection::None) => Err(format!("this node has no keys of the cluster ({here})")),
            _ => Err("`encrypt` is not the same on both nodes".to_owned()),
        }
    }

    fn check(&self, node: &NodeName) -> io::Result<()> {
        let read = self.read()?;
        let own = read.chain.first().ok_or(io::ErrorKind::InvalidData)?;
        is_for(own, node).map_err(|why| self.wrong(CERTIFICATE_FILE, &why))?;
        let cluster_key = ClusterKey::read(&self.cluster_key_file());
        cluster_key.map_err(|error| self.wrong(CLUSTER_KEY_FILE, &error))?;
        self.called().map(drop)
    }

    /// The side of a connection that calls this node.
    pub(crate) fn calling(&self, whom: &NodeName) -> io::Result<Connection> {
        let Read { provider, authority, chain, key } = self.read()?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(authority)
            .with_client_auth_cert(chain, key)
            .map_err(|error| self.wrong(KEY_FILE, &error))?;
        let name = server_name(whom).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        Ok(connection.into())
    }

    /// The side of a connection that calls a witness with this certificate.
    pub(crate) fn calling_witness(&self, known: Fingerprint) -> io::Result<ClientConnection> {
        let Read { provider, chain, key, .. } = self.read()?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned::itself(known)))
            .with_client_auth_cert(chain, key)
            .map_err(|error| self.wrong(KEY_FILE, &error))?;
        let authority = self.certificates(AUTHORITY_FILE)?;
        let authority = authority.first().ok_or(io::ErrorKind::InvalidData)?;
        let name = ServerName::try_from(enrolled::server_name_of(authority));
        let name = name.map_err(io::Error::other)?;
        ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)
    }

    /// The side of a connection that is called.
    pub(crate) fn called(&self) -> io::Result<Connection> {
        let Read { provider, authority, chain, key } = self.read()?;
        let verifier = WebPkiClientVerifier::builder_with_provider(authority, provider.clone())
            .build()
            .map_err(|error| self.wrong(AUTHORITY_FILE, &error))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| self.wrong(KEY_FILE, &error))?;
        // Every connection proves itself anew.
        config.send_tls13_tickets = 0;
        let connection = ServerConnection::new(Arc::new(config)).map_err(io::Error::other)?;
        Ok(connection.into())
    }

    /// The side of a connection that is called by somebody who has no certificate yet. It shows
    /// the authority too, so that its fingerprint is enough to know it.
    pub(crate) fn called_by_unknown(&self) -> io::Result<ServerConnection> {
        let Read { provider, mut chain, key, .. } = self.read()?;
        chain.extend(self.certificates(AUTHORITY_FILE)?);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| self.wrong(KEY_FILE, &error))?;
        config.send_tls13_tickets = 0;
        ServerConnection::new(Arc::new(config)).map_err(io::Error::other)
    }

    /// This node's own certificate.
    pub(crate) fn own(&self) -> io::Result<CertificateDer<'static>> {
        let own = self.certificates(CERTIFICATE_FILE)?.into_iter().next();
        own.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The fingerprint of the cluster's authority.
    pub(crate) fn authority(&self) -> io::Result<Fingerprint> {
        let authority = self.certificates(AUTHORITY_FILE)?;
        Ok(fingerprint_of(authority.first().ok_or(io::ErrorKind::InvalidData)?))
    }

    /// Whether a certificate would do as this node's own at this time since 1970: it is for its
    /// name, and the others, who know the authority, would accept it.
    pub(crate) fn would_do(&self, pem: &str, node: &NodeName, wall: Duration) -> io::Result<()> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
        let certificate = certificate.map_err(io::Error::other)?;
        is_for(&certificate, node).map_err(io::Error::other)?;
        let authorities = self.certificates(AUTHORITY_FILE)?;
        let authority = authorities.first().ok_or(io::ErrorKind::InvalidData)?;
        check_signed(&certificate, &[], authority, UnixTime::since_unix_epoch(wall))
            .map_err(|error| self.wrong(AUTHORITY_FILE, &error))
    }

    fn read(&self) -> io::Result<Read> {
        let mut authority = RootCertStore::empty();
        for certificate in self.certificates(AUTHORITY_FILE)? {
            let added = authority.add(certificate);
            added.map_err(|error| self.wrong(AUTHORITY_FILE, &error))?;
        }
        let chain = self.certificates(CERTIFICATE_FILE)?;
        let key = private_key(&self.directory.join(KEY_FILE));
        let key = key.map_err(|error| self.wrong(KEY_FILE, &error))?;
        let provider = Arc::new(provider());
        Ok(Read { provider, authority: Arc::new(authority), chain, key })
    }

    fn certificates(&self, name: &str) -> io::Result<Vec<CertificateDer<'static>>> {
        let read = CertificateDer::pem_file_iter(self.directory.join(name));
        let read = read.and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match read {
            Ok(read) if read.is_empty() => Err(self.wrong(name, &"it holds no certificate")),
            Ok(read) => Ok(read),
            Err(error) => Err(self.wrong(name, &error)),
        }
    }

    fn wrong(&self, name: &str, why: &dyn std::fmt::Display) -> io::Error {
        io::Error::other(format!("{}: {why}", self.directory.join(name).display()))
    }
}

/// The side of a connection that calls somebody of whom only the authority is known, and shows
/// nothing.
pub(crate) fn calling_unknown(authority: Fingerprint) -> io::Result<ClientConnection> {
    let config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned::signed_by(authority)))
        .with_no_client_auth();
    let name = ServerName::try_from("join.evenkeel").map_err(io::Error::other)?;
    ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)
}

/// Whether the other end of a connection has shown a certificate for this node's name.
pub(crate) fn is_of(connection: &Connection, node: &NodeName) -> Result<(), String> {
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    is_for(shown.ok_or("it has shown no certificate")?, node)
}

/// Reads a private key, which nobody else may read.
pub(crate) fn private_key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    check_private(path)?;
    PrivateKeyDer::from_pem_file(path).map_err(io::Error::other)
}

/// Whether nobody else may read a file.
pub(crate) fn check_private(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("others may read it; `chmod 600 {}`", path.display())))
}

pub(crate) fn is_for(certificate: &CertificateDer<'_>, node: &NodeName) -> Result<(), String> {
    let parsed = ParsedCertificate::try_from(certificate).map_err(|error| error.to_string())?;
    let wrong = |error| format!("it is not a certificate for the name {node}: {error}");
    verify_server_name(&parsed, &server_name(node)?).map_err(wrong)
}

fn server_name(node: &NodeName) -> Result<ServerName<'static>, String> {
    let wrong = |_| format!("{node} cannot be the name in a certificate");
    ServerName::try_from(node.as_str().to_owned()).map_err(wrong)
}

/// The shorter key first: it is as good as the longer one here, and faster.
pub(crate) fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    let shorter = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != shorter);
    provider
}

#[cfg(test)]
#[path = "keys_tests.rs"]
pub(crate) mod tests;
