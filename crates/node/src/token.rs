//! Tokens: what a new node needs to find a cluster, to know it, and to be admitted, once and soon.
//!
//! ```text
//! evk1+CLUSTER+ADDRESS[,ADDRESS]+AUTHORITY+ID+SECRET
//! ```
//! with the fingerprint of the cluster's authority, and all three last ones as hexadecimal digits.
//! The node that made it keeps it until it has expired, and says which one was used already.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{Fingerprint, ModuleName, NodeName};
use ring::hmac;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::durable;
use crate::seal::{from_hex, hex, random};

const MARK: &str = "evk1";
/// How long a token can be used.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// How long one that is of no use any more is remembered, only to say so.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Tokens that are kept at a time.
const TOKENS_MAX: usize = 100;
const ADDRESSES_MAX: usize = 16;

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub(crate) cluster: ModuleName,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) authority: Fingerprint,
    pub(crate) id: [u8; 8],
    pub(crate) secret: [u8; 16],
}

/// A token as the node that made it keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    id: String,
    secret: String,
    /// Time since 1970, in milliseconds.
    expires_ms: u64,
    used_by: Option<NodeName>,
}

/// The tokens that a node has made.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    file: PathBuf,
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let (addresses, id, secret) = (addresses.join(","), hex(&self.id), hex(&self.secret));
        write!(f, "{MARK}+{}+{addresses}+{}+{id}+{secret}", self.cluster, self.authority)
    }
}

impl std::str::FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Token, String> {
        let wrong =
            |what: &str| format!("it is no token of `evenkeel token`, or not whole: {what}");
        let parts: Vec<&str> = text.trim().split('+').collect();
        let &[mark, cluster, addresses, authority, id, secret] = &*parts else {
            return Err(wrong("it has six parts, joined by `+`"));
        };
        if mark != MARK {
            return Err(wrong(&format!("it begins with `{MARK}+`")));
        }
        let addresses = addresses.split(',').map(str::parse).collect::<Result<Vec<IpAddr>, _>>();
        let addresses = addresses.ok().filter(|addresses| addresses.len() <= ADDRESSES_MAX);
        Ok(Token {
            cluster: ModuleName::new(cluster).map_err(|_| wrong("the cluster's name"))?,
            addresses: addresses.ok_or_else(|| wrong("the addresses"))?,
            authority: authority.parse().map_err(|_| wrong("the authority's fingerprint"))?,
            id: from_hex(id).ok_or_else(|| wrong("the id"))?,
            secret: from_hex(secret).ok_or_else(|| wrong("the secret"))?,
        })
    }
}

impl Token {
    /// A token of a node for its cluster; it is kept, and what is of no use any more is not.
    pub(crate) fn issue(
        tokens: &Tokens,
        cluster: &ModuleName,
        addresses: Vec<IpAddr>,
        authority: Fingerprint,
    ) -> io::Result<Token> {
        let (cluster, id, secret) = (cluster.clone(), random()?, random()?);
        let token = Token { cluster, addresses, authority, id, secret };
        tokens
            .change(|kept, now| {
                kept.retain(|kept| now < kept.expires_ms + millis(REMEMBERED));
                if kept.len() >= TOKENS_MAX {
                    return Err(format!("{TOKENS_MAX} tokens were made within a day"));
                }
                let expires_ms = now + millis(TOKEN_LIFETIME);
                let (id, secret) = (hex(&token.id), hex(&token.secret));
                kept.push(Kept { id, secret, expires_ms, used_by: None });
                Ok(())
            })?
            .map_err(io::Error::other)?;
        Ok(token)
    }

    /// What only somebody who has the token can say about bytes.
    pub(crate) fn proof(&self, about: &[u8]) -> [u8; 32] {
        let mut proof = [0; 32];
        proof.copy_from_slice(hmac::sign(&key(&self.secret), about).as_ref());
        proof
    }
}

impl Tokens {
    pub(crate) fn new(state_directory: &Path) -> Tokens {
        Tokens { file: state_directory.join("tokens.json") }
    }

    /// Whether anybody could come with a token now.
    pub(crate) fn any(&self) -> bool {
        let now = millis(clock::wall());
        let usable = |kept: &Kept| kept.used_by.is_none() && now < kept.expires_ms;
        durable::read::<Vec<Kept>>(&self.file).is_ok_and(|kept| kept.iter().flatten().any(usable))
    }

    /// Whether a token can be used, and `proof` about these bytes is right.
    pub(crate) fn check(
        &self,
        id: [u8; 8],
        proof: (&[u8], &[u8]),
    ) -> io::Result<Result<(), String>> {
        let mut kept: Vec<Kept> = durable::read(&self.file)?.unwrap_or_default();
        Ok(find(&mut kept, millis(clock::wall()), id, proof).map(drop))
    }

    /// Uses a token up for a node, if it can be used.
    pub(crate) fn take(
        &self,
        id: [u8; 8],
        proof: (&[u8], &[u8]),
        node: &NodeName,
    ) -> io::Result<Result<(), String>> {
        self.change(|kept, now| {
            find(kept, now, id, proof)?.used_by = Some(node.clone());
            Ok(())
        })
    }

    /// A token was used, but nothing came of it.
    pub(crate) fn give_back(&self, id: [u8; 8]) -> io::Result<()> {
        self.change(|kept, _| {
            for kept in kept.iter_mut().filter(|kept| kept.id == hex(&id)) {
                kept.used_by = None;
            }
            Ok(())
        })?
        .map_err(io::Error::other)
    }

    /// Changes what is kept, durably, unless the change is refused.
    fn change(
        &self,
        change: impl FnOnce(&mut Vec<Kept>, u64) -> Result<(), String>,
    ) -> io::Result<Result<(), String>> {
        let lock = self.file.with_extension("lock");
        if let Some(directory) = lock.parent() {
            fs::create_dir_all(directory)?;
        }
        let lock = File::create(lock)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        let mut kept: Vec<Kept> = durable::read(&self.file)?.unwrap_or_default();
        let changed = change(&mut kept, millis(clock::wall()));
        if changed.is_ok() {
            let text = serde_json::to_string_pretty(&kept).map_err(io::Error::other)?;
            durable::write_secret(&self.file, &text)?;
        }
        Ok(changed)
    }
}

/// The token that is meant, if it can be used.
fn find<'a>(
    kept: &'a mut [Kept],
    now: u64,
    id: [u8; 8],
    (about, proof): (&[u8], &[u8]),
) -> Result<&'a mut Kept, String> {
    let found = kept.iter_mut().find(|kept| kept.id == hex(&id));
    let unknown = "this node has made no such token, or long ago";
    let found = found.ok_or_else(|| format!("{unknown}; {ANOTHER}"))?;
    let secret: [u8; 16] = from_hex(&found.secret).ok_or("the token's file is damaged")?;
    // Whether it can be used is told only to whoever has it.
    if hmac::verify(&key(&secret), about, proof).is_err() {
        return Err(format!("the token is not the one that was made here; {ANOTHER}"));
    }
    if let Some(node) = &found.used_by {
        return Err(format!("the token was used already, by {node}; {ANOTHER}"));
    }
    if now >= found.expires_ms {
        let minutes = (now - found.expires_ms) / 60_000;
        return Err(format!("the token has expired {minutes} minutes ago; {ANOTHER}"));
    }
    Ok(found)
}

const ANOTHER: &str = "`evenkeel token` makes another";

fn key(secret: &[u8; 16]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
