//! A cluster's own authority: for each node a certificate for its name.
//!
//! Its key lies on every node, so that each can admit another and renew its own certificate. When
//! that is done is not known here.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use model::NodeName;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};

use wire::join::Admission;

use crate::keys::{
    self, AUTHORITY_FILE, AUTHORITY_KEY_FILE, CERTIFICATE_FILE, CLUSTER_KEY_FILE, KEY_FILE,
};
use crate::{clock, durable, enrolled, seal};

/// How an authority's name begins, before the name of its cluster.
pub(crate) const LABEL: &str = "authority of cluster ";

/// How long a node's certificate counts.
pub(crate) const VALID_FOR: Duration = Duration::from_secs(365 * 24 * 3600);
/// How much the clocks of two nodes may differ when one admits the other.
pub(crate) const CLOCKS_APART_MAX: Duration = Duration::from_secs(300);

/// An authority with its key.
pub struct Authority {
    certificate: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
    cluster_key: String,
}

/// A public key of a node, as its two coordinates.
struct PublicKey<'a>(&'a [u8]);

impl PublicKeyData for PublicKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl Authority {
    /// A new authority, with a new key of the cluster.
    ///
    /// # Errors
    /// There is no randomness to be had.
    pub fn new(cluster: &str) -> io::Result<Authority> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let params = params(cluster);
        let certificate = params.self_signed(&key).map_err(io::Error::other)?.pem();
        let (text, cluster_key) = (key.serialize_pem(), seal::new_key()?);
        Ok(Authority { certificate, key: text, issuer: Issuer::new(params, key), cluster_key })
    }

    /// The authority whose key a node has.
    pub(crate) fn load(directory: &Path) -> io::Result<Authority> {
        let text = |name: &str| {
            let path = directory.join(name);
            let text = fs::read_to_string(&path);
            text.map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })
        };
        let (certificate, key) = (text(AUTHORITY_FILE)?, text(AUTHORITY_KEY_FILE)?);
        keys::check_private(&directory.join(AUTHORITY_KEY_FILE))?;
        let wrong = |what: &str| {
            io::Error::other(format!("{}: {what}", directory.join(AUTHORITY_KEY_FILE).display()))
        };
        let name = enrolled::read_name(&directory.join(AUTHORITY_FILE))?;
        let name = name.ok_or_else(|| wrong("the authority was not made by `evenkeel init`"))?;
        let pair = KeyPair::from_pem(&key).map_err(|_| wrong("it is no key"))?;
        let (issuer, cluster_key) = (Issuer::new(params(&name), pair), text(CLUSTER_KEY_FILE)?);
        Ok(Authority { certificate, key, issuer, cluster_key })
    }

    /// Makes keys for a node and writes them into a directory that has none: `ca.pem`, `node.pem`,
    /// `node.key` and `cluster.key`.
    ///
    /// # Errors
    /// A file is there already, or cannot be written.
    pub fn furnish(&self, node: &NodeName, directory: &Path) -> io::Result<()> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = self.certify(node, key.public_key_raw())?;
        self.write(&certificate, &key.serialize_pem(), directory)
    }

    /// The same, and the authority's own key, so that the node can admit others.
    ///
    /// # Errors
    /// As before.
    pub fn furnish_with_authority(&self, node: &NodeName, directory: &Path) -> io::Result<()> {
        self.furnish(node, directory)?;
        durable::write_secret(&directory.join(AUTHORITY_KEY_FILE), &self.key)
    }

    /// A new certificate for the key that a node has.
    pub(crate) fn renew(&self, node: &NodeName, key: &Path, wall: Duration) -> io::Result<String> {
        keys::check_private(key)?;
        let pair = KeyPair::from_pem(&fs::read_to_string(key)?).map_err(io::Error::other)?;
        self.certify_at(wall, node, pair.public_key_raw())
    }

    /// What a node is given that is admitted.
    pub(crate) fn admission(&self, certificate: String, cluster_file: String) -> Admission {
        Admission {
            certificate,
            authority: self.certificate.clone(),
            authority_key: self.key.clone(),
            cluster_key: self.cluster_key.clone(),
            cluster_file,
        }
    }

    fn write(&self, certificate: &str, key: &str, directory: &Path) -> io::Result<()> {
        let files = [
            (AUTHORITY_FILE, &*self.certificate),
            (CERTIFICATE_FILE, certificate),
            (KEY_FILE, key),
            (CLUSTER_KEY_FILE, &*self.cluster_key),
        ];
        for (name, text) in files {
            let path = directory.join(name);
            if path.try_exists()? {
                let what = format!("{} is there already", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
            }
            durable::write_secret(&path, text)?;
        }
        Ok(())
    }

    /// A certificate for a node's public key.
    pub(crate) fn certify(&self, node: &NodeName, key: &[u8]) -> io::Result<String> {
        self.certify_at(clock::wall(), node, key)
    }

    /// The same at a time since 1970.
    fn certify_at(&self, wall: Duration, node: &NodeName, key: &[u8]) -> io::Result<String> {
        let params = CertificateParams::new([node.as_str().to_owned()]);
        let mut params = params.map_err(io::Error::other)?;
        params.distinguished_name = named(node.as_str());
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let now = rcgen::date_time_ymd(1970, 1, 1) + wall;
        params.not_before = now - 2 * CLOCKS_APART_MAX;
        params.not_after = now + VALID_FOR;
        let signed = params.signed_by(&PublicKey(key), &self.issuer).map_err(io::Error::other)?;
        Ok(signed.pem())
    }
}

/// Makes a certificate that nobody has signed but its own key, and writes both.
pub(crate) fn self_signed(name: &str, certificate: &Path, key: &Path) -> io::Result<()> {
    let pair = KeyPair::generate().map_err(io::Error::other)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    let signed = params.self_signed(&pair).map_err(io::Error::other)?;
    durable::write_text(certificate, &signed.pem())?;
    // Last, for whoever finds it finds the certificate too.
    durable::write_secret(key, &pair.serialize_pem())
}

fn params(cluster: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("{LABEL}{cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
