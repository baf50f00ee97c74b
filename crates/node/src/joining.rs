//! A node joins a cluster: what it does with a token, before it has a daemon.
//!
//! The token says whom to call and which authority must have signed the certificate that is shown
//! there. Only to that node it proves that it has the token's secret, for this connection alone,
//! and never says it. Nothing is written before it is admitted.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use model::{NetworkName, NodeName};
use rcgen::KeyPair;
use rustls::ClientConnection;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use wire::hello::{Hello, Protection, Purpose, Welcome, put_hello, take_welcome};
use wire::join::{Admission, JOIN_BYTES_MAX, Reply, Request, put_request, take_reply};

use crate::clock;
use crate::connection::{self, PEER_PORT, Until};
use crate::durable;
use crate::keys::{
    self, AUTHORITY_FILE, AUTHORITY_KEY_FILE, CERTIFICATE_FILE, CLUSTER_KEY_FILE, KEY_FILE,
};
use crate::layout::Layout;
use crate::pinned::fingerprint_of;
use crate::token::Token;

/// Within this time a node of the cluster must answer the call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Within this time it must have told all others.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(60);

/// Label of the secret that both ends of a connection derive from it.
pub(crate) const EXPORT_LABEL: &[u8] = b"EXPORTER-evenkeel-join";

/// How a node shall be known.
#[derive(Debug, Clone)]
pub struct Joining {
    /// The token.
    pub token: Token,
    /// Its name.
    pub node: NodeName,
    /// Its addresses; the one from which it calls need not be among them.
    pub addresses: BTreeMap<NetworkName, IpAddr>,
}

/// Why a node has not joined. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// This machine belongs to a cluster, or once did.
    #[error("{0} is there already: this machine belongs to a cluster; `evenkeel leave` first")]
    Belongs(String),
    /// Nobody was found.
    #[error("no node of the cluster can be reached: {0}")]
    Unreachable(String),
    /// Whoever was found is not, or not certainly, of the cluster, or does not want this node.
    #[error("{0}")]
    Refused(String),
    /// It was admitted, but something could not be written here.
    #[error(
        "the cluster has admitted this node, but {0}; mend that, `evenkeel leave --node` there, \
         and join again"
    )]
    Local(io::Error),
}

impl Joining {
    /// Joins, and returns the names of the cluster's nodes.
    ///
    /// # Errors
    /// As the error says.
    pub fn join(&self, layout: &Layout) -> Result<Vec<NodeName>, JoinError> {
        check_is_new(layout).map_err(JoinError::Belongs)?;
        let refused = |error: io::Error| JoinError::Refused(error.to_string());
        let key = KeyPair::generate().map_err(io::Error::other).map_err(refused)?;
        let mut failures = Vec::new();
        for address in &self.token.addresses {
            let address = SocketAddr::new(*address, PEER_PORT);
            let Ok(socket) = TcpStream::connect_timeout(&address, CALL_TIMEOUT).map_err(|error| {
                failures.push(format!("{address}: {error}"));
            }) else {
                continue;
            };
            let asked = self.ask(&socket, &key);
            let asked = asked.map_err(|error| JoinError::Refused(format!("{address}: {error}")));
            return match asked? {
                Reply::Refused(why) => Err(JoinError::Refused(why)),
                Reply::Admitted(admission) => {
                    self.settle(layout, &key, &admission).map_err(JoinError::Local)
                }
            };
        }
        Err(JoinError::Unreachable(failures.join("; ")))
    }

    /// Greets a node, finds out whether it is of the token's cluster, and asks to be admitted.
    fn ask(&self, socket: &TcpStream, key: &KeyPair) -> io::Result<Reply> {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(CALL_TIMEOUT))?;
        let mut patient = Until::within(CALL_TIMEOUT, socket);
        let (cluster, from) = (self.token.cluster.clone(), self.node.clone());
        let (purpose, protection) = (Purpose::Join, Protection::Encrypted);
        let mut out = Vec::new();
        put_hello(&mut out, &Hello { cluster, from, purpose, protection });
        patient.write_all(&out)?;
        // Said in the clear, and believed only as a reason why there is no connection.
        let mut frame = Vec::new();
        connection::read_frame(&mut patient, JOIN_BYTES_MAX, &mut frame)?;
        match take_welcome(&frame).map_err(io::Error::other)? {
            Welcome::Accepted(_) => {}
            Welcome::Refused(why) | Welcome::Absent(why) => return Err(io::Error::other(why)),
        }
        let mut tls = keys::calling_unknown(self.token.authority)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut patient)?;
        }
        let mut request = Vec::new();
        put_request(&mut request, &self.request(socket, &tls, key)?);
        let mut patient = Until::within(ADMISSION_TIMEOUT, socket);
        let mut stream = rustls::Stream::new(&mut tls, &mut patient);
        stream.write_all(&request)?;
        stream.flush()?;
        connection::read_frame(&mut stream, JOIN_BYTES_MAX, &mut frame)?;
        take_reply(&frame).map_err(io::Error::other)
    }

    fn request(
        &self,
        socket: &TcpStream,
        tls: &ClientConnection,
        key: &KeyPair,
    ) -> io::Result<Request> {
        let public_key = key.public_key_raw().to_vec();
        let secret = tls.export_keying_material([0; 32], EXPORT_LABEL, None);
        let about = about(&secret.map_err(io::Error::other)?, &self.node, &public_key);
        Ok(Request {
            token: self.token.id,
            proof: self.token.proof(&about),
            node: self.node.clone(),
            addresses: self.addresses.clone(),
            here: socket.local_addr()?.ip(),
            public_key,
            wall_ms: u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Writes what was given: first all keys aside, then all at once, then the configuration, by
    /// which a daemon knows that it may start.
    fn settle(
        &self,
        layout: &Layout,
        key: &KeyPair,
        given: &Admission,
    ) -> io::Result<Vec<NodeName>> {
        let authority = CertificateDer::from_pem_slice(given.authority.as_bytes());
        if authority.ok().as_ref().map(fingerprint_of) != Some(self.token.authority) {
            return Err(io::Error::other("the authority that it gave is not the token's"));
        }
        let read = crate::cluster_text::read(&given.cluster_file).map_err(io::Error::other)?;
        let directory = layout.keys_directory();
        let aside = directory.with_extension("new");
        if aside.try_exists()? {
            fs::remove_dir_all(&aside)?;
        }
        let private = key.serialize_pem();
        let files = [
            (AUTHORITY_FILE, &given.authority),
            (AUTHORITY_KEY_FILE, &given.authority_key),
            (CERTIFICATE_FILE, &given.certificate),
            (KEY_FILE, &private),
            (CLUSTER_KEY_FILE, &given.cluster_key),
        ];
        for (name, text) in files {
            durable::write_secret(&aside.join(name), text)?;
        }
        fs::rename(&aside, &directory)?;
        durable::write_text(&layout.cluster_file(), &given.cluster_file)?;
        Ok(read.cluster.nodes.into_iter().map(|node| node.name).collect())
    }
}

/// What a proof is about: this connection, this name, this key.
pub(crate) fn about(secret: &[u8; 32], node: &NodeName, public_key: &[u8]) -> Vec<u8> {
    [&secret[..], node.as_str().as_bytes(), &[0], public_key].concat()
}

/// Whether a machine has nothing of a cluster yet; else the file that says so.
pub(crate) fn check_is_new(layout: &Layout) -> Result<(), String> {
    for place in [layout.cluster_file(), layout.keys_directory()] {
        // What cannot be looked at may be there.
        if place.try_exists().unwrap_or(true) {
            return Err(place.display().to_string());
        }
    }
    Ok(())
}

/// Whether this machine has an address.
pub(crate) fn has_address(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

/// Removes what makes a machine a node of a cluster; the configuration is kept aside.
pub(crate) fn forget_cluster(layout: &Layout) -> io::Result<()> {
    remove_directory(&layout.keys_directory())?;
    let file = layout.cluster_file();
    fs::rename(&file, file.with_extension("left"))
}

fn remove_directory(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
