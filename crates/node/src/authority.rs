//! A cluster's own authority: for each node a certificate for its name.
//!
//! So far only the lab and tests have one, and throw its key away; nothing is renewed here.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use model::NodeName;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use crate::keys::{AUTHORITY_FILE, CERTIFICATE_FILE, CLUSTER_KEY_FILE, KEY_FILE};
use crate::seal;

/// An authority with its key.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    cluster_key: String,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// There is no randomness to be had.
    pub fn new(cluster: &str) -> io::Result<Authority> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("authority of cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).map_err(io::Error::other)?.pem();
        let cluster_key = seal::new_key()?;
        Ok(Authority { certificate, issuer: Issuer::new(params, key), cluster_key })
    }

    /// Makes keys for a node and writes them into a directory that has none: `ca.pem`, `node.pem`,
    /// `node.key` and `cluster.key`.
    ///
    /// # Errors
    /// A file is there already, or cannot be written.
    pub fn furnish(&self, node: &NodeName, directory: &Path) -> io::Result<()> {
        let (certificate, key) = self.issue(node).map_err(io::Error::other)?;
        fs::create_dir_all(directory)?;
        let files = [
            (AUTHORITY_FILE, &self.certificate),
            (CERTIFICATE_FILE, &certificate),
            (KEY_FILE, &key),
            (CLUSTER_KEY_FILE, &self.cluster_key),
        ];
        for (name, text) in files {
            let path = directory.join(name);
            let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
            let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
        }
        Ok(())
    }

    /// A node's certificate and its key.
    fn issue(&self, node: &NodeName) -> Result<(String, String), rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([node.as_str().to_owned()])?;
        params.distinguished_name = named(node.as_str());
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok((certificate, key.serialize_pem()))
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
