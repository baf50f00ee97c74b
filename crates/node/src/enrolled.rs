//! A witness's own certificate, and the clusters that it serves: each known by the authority that
//! signs its nodes' certificates.
//!
//! ```text
//! witness.pem, witness.key    made at the first start; nodes know them by their fingerprint
//! clusters/ID.pem             an authority; ID is the beginning of its fingerprint
//! ```
//! A caller says by the server name of its handshake to which cluster it belongs, and must then
//! show a certificate of that cluster's authority. What is asked is not known here.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Fingerprint, ModuleName};
use rustix::fs::FlockOperation;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{Acceptor, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use crate::authority;
use crate::connection::Until;
use crate::durable;
use crate::keys;
use crate::pinned::fingerprint_of;

const CERTIFICATE_FILE: &str = "witness.pem";
const KEY_FILE: &str = "witness.key";
const CLUSTERS: &str = "clusters";
/// Behind a cluster's id, so that no server name looks like a number.
const DOMAIN: &str = ".evenkeel";
/// Longest file of an authority that is read.
const AUTHORITY_BYTES_MAX: u64 = 64 << 10;

/// A witness's directory, as far as it is about who is who.
#[derive(Debug, Clone)]
pub struct Enrolled {
    directory: PathBuf,
}

/// A cluster that a witness serves.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EnrolledCluster {
    /// By which its registers are kept.
    pub id: String,
    /// What the cluster's authority calls itself, if it was made by `evenkeel init`.
    pub name: Option<String>,
}

/// A caller whose handshake is done.
pub(crate) struct Caller {
    pub(crate) tls: ServerConnection,
    /// The id of its cluster, of which it has shown a certificate; what it said when there is no
    /// such cluster, of which it has shown nothing.
    pub(crate) cluster: Result<ModuleName, String>,
}

impl Enrolled {
    /// What a witness has in this directory.
    #[must_use]
    pub fn new(directory: &Path) -> Enrolled {
        Enrolled { directory: directory.to_owned() }
    }

    /// The fingerprint of the witness's certificate, which is made if there is none.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn fingerprint(&self) -> io::Result<Fingerprint> {
        let (certificate, key) = (self.file(CERTIFICATE_FILE), self.file(KEY_FILE));
        fs::create_dir_all(&self.directory)?;
        // A witness that starts and somebody who asks for this may both find none.
        let lock = File::create(self.file("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        if !key.try_exists()? {
            authority::self_signed("evenkeel witness", &certificate, &key)?;
        }
        Ok(fingerprint_of(&one_certificate(&certificate)?))
    }

    /// Serves a cluster from now on, known by its authority's file.
    ///
    /// # Errors
    /// The file holds no certificate, or nothing can be written.
    pub fn add(&self, authority: &Path) -> io::Result<EnrolledCluster> {
        let certificate = one_certificate(authority)?;
        let added = RootCertStore::empty().add(certificate.clone());
        added.map_err(|error| named(authority, &error))?;
        let id = id_of(&certificate);
        let place = self.file(CLUSTERS).join(format!("{id}.pem"));
        durable::write_text(&place, &fs::read_to_string(authority)?)?;
        Ok(EnrolledCluster { name: name_in(&certificate), id })
    }

    /// Serves a cluster no more. Its registers stay.
    ///
    /// # Errors
    /// There is no such cluster.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        let place = ModuleName::new(id).ok().map(|id| self.authority_file(&id));
        let gone = place.map(fs::remove_file);
        let unknown = || io::Error::other(format!("there is no cluster {id}"));
        gone.and_then(Result::ok).ok_or_else(unknown)
    }

    /// The clusters that are served.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn clusters(&self) -> io::Result<Vec<EnrolledCluster>> {
        let entries = match fs::read_dir(self.file(CLUSTERS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut clusters = Vec::new();
        for entry in entries {
            let path = entry?.path();
            match cluster_in(&path) {
                Ok(cluster) => clusters.push(cluster),
                // The others are served all the same.
                Err(error) => eprintln!("! no cluster is served by this file: {error}"),
            }
        }
        clusters.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(clusters)
    }

    /// Shakes hands with a caller.
    pub(crate) fn shake_hands(&self, socket: &mut Until<'_>) -> io::Result<Caller> {
        let mut acceptor = Acceptor::default();
        let accepted = loop {
            if acceptor.read_tls(socket)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => break accepted,
                Ok(None) => {}
                Err((error, mut alert)) => {
                    // So that the other end can say why too.
                    let _ = alert.write_all(socket);
                    return Err(io::Error::other(error));
                }
            }
        };
        let name = accepted.client_hello().server_name().unwrap_or_default().to_owned();
        let (config, cluster) = self.config_for(&name)?;
        let mut tls = match accepted.into_connection(config) {
            Ok(tls) => tls,
            Err((error, mut alert)) => {
                let _ = alert.write_all(socket);
                return Err(io::Error::other(error));
            }
        };
        while tls.is_handshaking() {
            tls.complete_io(socket)?;
        }
        Ok(Caller { tls, cluster })
    }

    /// How to shake hands with whoever gives this server name, and what that cluster is called.
    fn config_for(
        &self,
        name: &str,
    ) -> io::Result<(Arc<ServerConfig>, Result<ModuleName, String>)> {
        let provider = Arc::new(keys::provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?;
        // Names have no dots or slashes, so this leads nowhere else.
        let id = name.strip_suffix(DOMAIN).and_then(|id| ModuleName::new(id).ok());
        let known = id.filter(|id| self.authority_file(id).exists());
        let builder = match &known {
            // Only to tell it why nothing is answered.
            None => builder.with_no_client_auth(),
            Some(id) => {
                let file = self.authority_file(id);
                let mut authority = RootCertStore::empty();
                authority.add(one_certificate(&file)?).map_err(|error| named(&file, &error))?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(authority), provider);
                let verifier = verifier.build().map_err(|error| named(&file, &error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let (chain, key) = (self.file(CERTIFICATE_FILE), self.file(KEY_FILE));
        let private = keys::private_key(&key).map_err(|error| named(&key, &error))?;
        let mut config = builder
            .with_single_cert(vec![one_certificate(&chain)?], private)
            .map_err(|error| named(&key, &error))?;
        // Every connection proves itself anew.
        config.send_tls13_tickets = 0;
        Ok((Arc::new(config), known.ok_or_else(|| name.trim_end_matches(DOMAIN).to_owned())))
    }

    fn authority_file(&self, id: &ModuleName) -> PathBuf {
        self.file(CLUSTERS).join(format!("{id}.pem"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Caller {
    /// The certificate that the caller has shown.
    pub(crate) fn shown(&self) -> Option<CertificateDer<'static>> {
        let shown = self.tls.peer_certificates().and_then(<[_]>::first);
        shown.map(|shown| shown.clone().into_owned())
    }
}

/// By what a witness knows a cluster.
pub(crate) fn id_of(authority: &CertificateDer<'_>) -> String {
    // Half of the fingerprint is more than anybody can meet by chance or make on purpose.
    fingerprint_of(authority).to_string().chars().take(32).collect()
}

/// The server name by which a node of this cluster calls a witness.
pub(crate) fn server_name_of(authority: &CertificateDer<'_>) -> String {
    id_of(authority) + DOMAIN
}

/// The name of the cluster in the file of an authority.
pub(crate) fn read_name(authority: &Path) -> io::Result<Option<String>> {
    Ok(name_in(&one_certificate(authority)?))
}

/// What an authority made by `evenkeel init` calls its cluster.
fn name_in(authority: &CertificateDer<'_>) -> Option<String> {
    let label = authority::LABEL.as_bytes();
    let at = authority.windows(label.len()).position(|window| window == label)?;
    // The text's length stands before it in one byte, as names are short.
    let length = usize::from(*authority.get(at.checked_sub(1)?)?);
    let name = authority.get(at + label.len()..at + length)?;
    let name = ModuleName::new(std::str::from_utf8(name).ok()?).ok()?;
    Some(name.as_str().to_owned())
}

/// The cluster of a file in the directory of those that are served.
fn cluster_in(path: &Path) -> io::Result<EnrolledCluster> {
    let certificate = one_certificate(path)?;
    let cluster = EnrolledCluster { id: id_of(&certificate), name: name_in(&certificate) };
    let name = format!("{}.pem", cluster.id);
    if path.file_name().is_some_and(|found| *found == *name) {
        return Ok(cluster);
    }
    Err(named(path, &format!("it is looked for as {name}; `evenkeel witness add` does that")))
}

fn one_certificate(path: &Path) -> io::Result<CertificateDer<'static>> {
    let metadata = fs::metadata(path).map_err(|error| named(path, &error))?;
    if metadata.len() > AUTHORITY_BYTES_MAX {
        return Err(named(path, &"it is too long to be a certificate"));
    }
    CertificateDer::from_pem_file(path).map_err(|error| named(path, &error))
}

fn named(path: &Path, why: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {why}", path.display()))
}

#[cfg(test)]
#[path = "enrolled_tests.rs"]
mod tests;
