//! Certificates that are known by a fingerprint: their own, such as a witness's, or that of the
//! authority which has signed them. Both kinds are looked at by a node that knows nothing else of
//! the other end.

use model::Fingerprint;
use ring::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring as provider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, PeerIncompatible, RootCertStore,
    SignatureScheme,
};

/// Accepts one certificate, or whatever one authority has signed, which must be shown too.
#[derive(Debug)]
pub(crate) struct Pinned {
    known: Known,
    algorithms: WebPkiSupportedAlgorithms,
}

/// What is known of the other end.
#[derive(Debug)]
enum Known {
    Itself(Fingerprint),
    Authority(Fingerprint),
}

/// The fingerprint of a certificate.
pub(crate) fn fingerprint_of(certificate: &CertificateDer<'_>) -> Fingerprint {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    Fingerprint(bytes)
}

/// Whether an authority has signed a certificate, which counts at this time since 1970.
pub(crate) fn check_signed(
    shown: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    authority: &CertificateDer<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned())?;
    let parsed = ParsedCertificate::try_from(shown)?;
    let algorithms = provider::default_provider().signature_verification_algorithms.all;
    let verified =
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, others, now, algorithms);
    verified.map_err(|error| match error {
        Error::InvalidCertificate(
            CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
            | CertificateError::Expired
            | CertificateError::ExpiredContext { .. },
        ) => Error::General(format!("{error}: is the clock of this machine right?")),
        error => error,
    })
}

impl Pinned {
    /// Accepts the certificate with this fingerprint.
    pub(crate) fn itself(fingerprint: Fingerprint) -> Pinned {
        Pinned::new(Known::Itself(fingerprint))
    }

    /// Accepts what the authority with this fingerprint has signed.
    pub(crate) fn signed_by(authority: Fingerprint) -> Pinned {
        Pinned::new(Known::Authority(authority))
    }

    fn new(known: Known) -> Pinned {
        let algorithms = provider::default_provider().signature_verification_algorithms;
        Pinned { known, algorithms }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.known {
            Known::Itself(known) => {
                let found = fingerprint_of(shown);
                if found != *known {
                    return Err(Error::General(format!(
                        "its certificate has the fingerprint {found}, not {known}"
                    )));
                }
            }
            Known::Authority(known) => {
                let authority = others.iter().find(|other| fingerprint_of(other) == *known);
                let authority = authority.ok_or_else(|| {
                    let what = "it is not of the cluster that made the token: another cluster has \
                                this address now, or somebody is in between";
                    Error::General(what.to_owned())
                })?;
                check_signed(shown, others, authority, now)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
