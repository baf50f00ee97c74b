//! A new node is admitted: what it says is judged, and if all is well it gets its certificate, and
//! every node the new configuration.
//!
//! Whoever comes has shown nothing but that it has a token's secret. All refusals leave everything
//! as it was, are counted, and told in the log now and then.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::NetworkName;
use rustls::ServerConnection;
use wire::hello::{Hello, Joint, Welcome, put_welcome};
use wire::join::{Admission, JOIN_BYTES_MAX, Reply, Request, put_reply, take_request};

use crate::authority::{Authority, CLOCKS_APART_MAX};
use crate::clock;
use crate::cluster_text;
use crate::complaint::Complaints;
use crate::connection::{self, Until};
use crate::daemon::event::Event;
use crate::daemon::membership::Membership;
use crate::joining::{EXPORT_LABEL, about};
use crate::token::Tokens;

/// Within this time a new node must have said all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a public key, the first of which says that both coordinates follow.
const PUBLIC_KEY_BYTES: usize = 65;
const BOTH_COORDINATES: u8 = 4;

/// Where new nodes come in.
pub(super) struct Door {
    membership: Membership,
    tokens: Tokens,
    /// One at a time.
    admitting: Mutex<()>,
    refused: Complaints,
}

impl Door {
    pub(super) fn new(membership: Membership) -> Door {
        let tokens = Tokens::new(&membership.layout.state_directory());
        Door { membership, tokens, admitting: Mutex::default(), refused: Complaints::default() }
    }

    /// The cluster as this node has it.
    pub(super) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Whether anybody may come: somebody could have a token.
    pub(super) fn is_open(&self) -> bool {
        self.tokens.any()
    }

    /// How many callers were turned away so far.
    pub(super) fn refused(&self) -> u64 {
        self.refused.so_far()
    }

    /// Counts a caller that is turned away, and tells the log now and then.
    pub(super) fn turn_away(&self, from: &dyn std::fmt::Display, why: &dyn std::fmt::Display) {
        self.refused.tell(&format_args!("a caller from {from} was turned away: {why}"));
    }

    /// Hears a caller that wants to join. What fails before it is judged is an error.
    pub(super) fn hear(
        &self,
        (socket, from): (&TcpStream, IpAddr),
        hello: &Hello,
        events: &Sender<Event>,
    ) -> io::Result<()> {
        let mut patient = Until::within(PATIENCE, socket);
        let mut out = Vec::new();
        put_welcome(&mut out, &Welcome::Accepted(Joint::default()));
        patient.write_all(&out)?;
        let mut tls = self.membership.keys.called_by_unknown()?;
        while tls.is_handshaking() {
            tls.complete_io(&mut patient)?;
        }
        let mut frame = Vec::new();
        let mut stream = rustls::Stream::new(&mut tls, &mut patient);
        connection::read_frame(&mut stream, JOIN_BYTES_MAX, &mut frame)?;
        let request = take_request(&frame).map_err(io::Error::other)?;
        let admitted = if request.node == hello.from {
            self.admit(&request, socket, &tls, events)
        } else {
            Err("it has given two names".to_owned())
        };
        let reply = match &admitted {
            Ok(admission) => Reply::Admitted(Box::new(admission.clone())),
            Err(why) => Reply::Refused(why.clone()),
        };
        out.clear();
        put_reply(&mut out, &reply);
        let mut stream = rustls::Stream::new(&mut tls, &mut patient);
        let said = stream.write_all(&out).and_then(|()| {
            stream.conn.send_close_notify();
            stream.flush()
        });
        match admitted {
            // It belongs to the cluster also when it was not there to hear it.
            Ok(_) => drop(events.send(Event::Again)),
            Err(why) => self.turn_away(&from, &why),
        }
        // Whether it has heard that is its own matter.
        drop(said);
        Ok(())
    }

    fn admit(
        &self,
        request: &Request,
        socket: &TcpStream,
        tls: &ServerConnection,
        events: &Sender<Event>,
    ) -> Result<Admission, String> {
        let _one = self.admitting.lock().unwrap_or_else(PoisonError::into_inner);
        let secret = tls.export_keying_material([0; 32], EXPORT_LABEL, None);
        let secret = secret.map_err(|error| error.to_string())?;
        let about = about(&secret, &request.node, &request.public_key);
        let proof = (&*about, &request.proof[..]);
        let failed = |error: io::Error| error.to_string();
        self.tokens.check(request.token, proof).map_err(failed)??;
        check_clocks(request.wall_ms)?;
        let membership = &self.membership;
        let before = membership.present()?;
        if before.cluster.node(&request.node).is_some() {
            let node = &request.node;
            return Err(format!(
                "the cluster has a node {node} already: choose another name by `--node`; if that \
                 node is gone for ever, `evenkeel leave --node {node}` on {} first",
                membership.own
            ));
        }
        let addresses = self.addresses(request, socket)?;
        let after = cluster_text::with_node(&before, &request.node, &addresses)?;
        membership.check(&after)?;
        if request.public_key.len() != PUBLIC_KEY_BYTES
            || request.public_key.first() != Some(&BOTH_COORDINATES)
        {
            return Err("its public key is none".to_owned());
        }
        let authority = Authority::load(&membership.layout.keys_directory()).map_err(failed)?;
        let certificate = authority.certify(&request.node, &request.public_key).map_err(failed)?;
        self.tokens.take(request.token, proof, &request.node).map_err(failed)??;
        if let Err(why) = membership.change((&before, &after), None, events) {
            self.tokens.give_back(request.token).map_err(failed)?;
            return Err(why);
        }
        Ok(authority.admission(certificate, after.text))
    }

    /// The new node's addresses, one for each network; that of the network by which it calls need
    /// not be given.
    fn addresses(
        &self,
        request: &Request,
        socket: &TcpStream,
    ) -> Result<BTreeMap<NetworkName, IpAddr>, String> {
        let cluster = &self.membership.cluster;
        let mut addresses = request.addresses.clone();
        let known: Vec<&str> = cluster.networks.iter().map(|known| known.name.as_str()).collect();
        if let Some(name) = addresses.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("the cluster has no network {name}, only {}", known.join(", ")));
        }
        let called = socket.local_addr().map_err(|error| error.to_string())?.ip();
        let caller = socket.peer_addr().map_err(|error| error.to_string())?.ip();
        let own = cluster.node(&self.membership.own).map(|node| &node.addresses);
        for network in &cluster.networks {
            let name = &network.name;
            if addresses.contains_key(name) {
                continue;
            }
            if own.and_then(|own| own.get(name)) != Some(&called) {
                return Err(format!(
                    "its address on network {name} is missing: --address {name}=…"
                ));
            }
            if caller != request.here {
                return Err(format!(
                    "it calls from {}, which arrives as {caller}: addresses are translated in \
                     between, so give one that is not: --address {name}=…",
                    request.here
                ));
            }
            addresses.insert(name.clone(), caller);
        }
        Ok(addresses)
    }
}

fn check_clocks(theirs_ms: u64) -> Result<(), String> {
    let (ours, theirs) = (clock::wall(), Duration::from_millis(theirs_ms));
    let apart = ours.abs_diff(theirs);
    if apart <= CLOCKS_APART_MAX {
        return Ok(());
    }
    let side = if theirs > ours { "ahead" } else { "behind" };
    let minutes = apart.as_secs() / 60;
    Err(format!(
        "the new node's clock is {minutes} minutes {side} of this node's, and certificates count \
         by clocks: set them right first, such as by chrony"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_be_minutes_apart_but_not_hours() {
        let now = clock::wall();
        let judge = |theirs: Duration| check_clocks(theirs.as_millis().try_into().unwrap());
        judge(now).unwrap();
        judge(now + CLOCKS_APART_MAX / 2).unwrap();
        judge(now - CLOCKS_APART_MAX / 2).unwrap();
        let hours = Duration::from_secs(3 * 3600 + 59);
        let ahead = judge(now + hours).unwrap_err();
        assert!(ahead.contains("180 minutes ahead"), "{ahead}");
        let behind = judge(now - hours).unwrap_err();
        assert!(behind.contains("180 minutes behind"), "{behind}");
        assert!(check_clocks(0).is_err() && check_clocks(u64::MAX).is_err());
    }
}
