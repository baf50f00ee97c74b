//! A node joins a cluster: what it does with a token, before it has a daemon.
//!
//! The token says whom to call and which authority must have signed the certificate that is shown
//! there. Only to that node it proves that it has the token's secret, for this connection alone,
//! and never says it. Nothing is written before it is admitted.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use model::{NetworkName, NodeName};
use rcgen::KeyPair;
use rustls::ClientConnection;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use wire::hello::{Hello, Protection, Purpose, Welcome, put_hello, take_welcome};
use wire::join::{Admission, JOIN_BYTES_MAX, Reply, Request, put_request, take_reply};

use crate::belonging;
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

/// Why a node has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// This machine belongs to a cluster, or once did. Nothing was changed.
    #[error("{0}")]
    Belongs(String),
    /// This machine cannot be what it is to be. Nobody was asked.
    #[error("nobody was asked yet, as {0}")]
    Here(String),
    /// Nobody was found.
    #[error("no node of the cluster can be reached: {0}")]
    Unreachable(String),
    /// Whoever was found is not, or not certainly, of the cluster, or does not want this node.
    /// Nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// It was asked to admit this node, and how it answered is not known.
    #[error(
        "{address} was asked to admit {node}, and then {error}: whether it did is not known here. \
         If cluster.toml there names {node}, `evenkeel leave --node {node}` there; then join by a \
         new token"
    )]
    Unsure {
        /// Who was asked.
        address: SocketAddr,
        /// This node.
        node: NodeName,
        /// What happened.
        error: io::Error,
    },
    /// It was admitted, but something could not be written here.
    #[error(
        "the cluster has admitted this node, but {0}; mend that, `evenkeel leave --node` there, \
         and join again"
    )]
    Local(io::Error),
    /// It was admitted and belongs to the cluster, but the last file is not in place.
    #[error(
        "the cluster has admitted this node, and all is here but not in place: {0}; mend that, and \
         start the daemon, which completes it"
    )]
    Late(io::Error),
}

/// Why there is no answer to a request.
enum NoAnswer {
    /// It was not sent.
    Before(io::Error),
    /// It was, or part of it.
    After(io::Error),
}

impl From<io::Error> for NoAnswer {
    fn from(error: io::Error) -> NoAnswer {
        NoAnswer::Before(error)
    }
}

impl Joining {
    /// Joins, and returns the names of the cluster's nodes.
    ///
    /// # Errors
    /// As the error says.
    pub fn join(&self, layout: &Layout) -> Result<Vec<NodeName>, JoinError> {
        belonging::check_is_new(layout).map_err(JoinError::Belongs)?;
        check_addresses(self.addresses.values().copied()).map_err(JoinError::Here)?;
        let writable = belonging::make_aside(layout);
        writable.map_err(|error| JoinError::Here(format!("nothing can be kept here: {error}")))?;
        let joined = self.be_admitted(layout);
        if joined.is_err() {
            // It is of no use, and does no harm if it stays.
            let _ = belonging::remove_aside(layout);
        }
        joined
    }

    fn be_admitted(&self, layout: &Layout) -> Result<Vec<NodeName>, JoinError> {
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
            return match self.ask(&socket, &key) {
                Err(NoAnswer::Before(error)) => {
                    Err(JoinError::Refused(format!("{address}: {error}")))
                }
                Err(NoAnswer::After(error)) => {
                    Err(JoinError::Unsure { address, node: self.node.clone(), error })
                }
                Ok(Reply::Refused(why)) => Err(JoinError::Refused(why)),
                Ok(Reply::Admitted(admission)) => {
                    let nodes = self.settle(layout, &key, &admission).map_err(JoinError::Local)?;
                    belonging::finish(layout).map_err(JoinError::Late)?;
                    Ok(nodes)
                }
            };
        }
        Err(JoinError::Unreachable(failures.join("; ")))
    }

    /// Greets a node, finds out whether it is of the token's cluster, and asks to be admitted.
    fn ask(&self, socket: &TcpStream, key: &KeyPair) -> Result<Reply, NoAnswer> {
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
            Welcome::Refused(why) | Welcome::Absent(why) => {
                return Err(io::Error::other(why).into());
            }
        }
        let mut tls = keys::calling_unknown(self.token.authority)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut patient)?;
        }
        let mut request = Vec::new();
        put_request(&mut request, &self.request(socket, &tls, key)?);
        let mut patient = Until::within(ADMISSION_TIMEOUT, socket);
        let mut stream = rustls::Stream::new(&mut tls, &mut patient);
        let answered = stream.write_all(&request).and_then(|()| {
            stream.flush()?;
            connection::read_frame(&mut stream, JOIN_BYTES_MAX, &mut frame)?;
            take_reply(&frame).map_err(io::Error::other)
        });
        answered.map_err(NoAnswer::After)
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

    /// Writes what was given, by which this machine becomes a node of the cluster, or nothing.
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
        let aside = belonging::make_aside(layout)?;
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
        belonging::commit(layout, &given.cluster_file)?;
        Ok(read.cluster.nodes.into_iter().map(|node| node.name).collect())
    }
}

/// What a proof is about: this connection, this name, this key.
pub(crate) fn about(secret: &[u8; 32], node: &NodeName, public_key: &[u8]) -> Vec<u8> {
    [&secret[..], node.as_str().as_bytes(), &[0], public_key].concat()
}

/// Whether this machine has all of these addresses; else a sentence.
pub(crate) fn check_addresses(addresses: impl Iterator<Item = IpAddr>) -> Result<(), String> {
    let foreign = { addresses }.find(|address| !has_address(*address));
    foreign.map_or(Ok(()), |address| Err(format!("this machine has no address {address}")))
}

/// Whether this machine has an address.
pub(crate) fn has_address(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}
