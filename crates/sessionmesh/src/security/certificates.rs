//! What a node shows to others, and whose certificates it accepts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sessionmesh_core::membership::Identity;
use sessionmesh_core::{BootId, NodeName};

use super::Secret;
use super::authority::Authority;
use crate::error::SecurityError;

/// The operator's own: PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) authority: Option<PathBuf>,
}

/// Read or minted.
pub(super) struct Certificates {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) accepted: Arc<RootCertStore>,
}

impl Certificates {
    /// Minted for this start of this node; others' are accepted if made under the authority of one of the secrets.
    pub(super) fn mint<'a>(
        cluster: &str,
        secret: &Secret,
        others: impl Iterator<Item = &'a Secret>,
        me: &Identity,
    ) -> Result<Self, SecurityError> {
        let authority = Authority::derive(cluster, secret)?;
        let minted = authority.mint(&minted_name(me.boot, &me.name))?;
        let mut accepted = RootCertStore::empty();
        accepted.add(authority.certificate()).map_err(|error| SecurityError::Mint(error.to_string()))?;
        for other in others {
            let other = Authority::derive(cluster, other)?.certificate();
            accepted.add(other).map_err(|error| SecurityError::Mint(error.to_string()))?;
        }
        Ok(Self { chain: vec![minted.certificate], key: minted.key, accepted: accepted.into() })
    }

    /// The operator's.
    pub(super) fn read(
        certificate: &Path,
        key: &Path,
        authority: &Path,
        me: &Identity,
    ) -> Result<Self, SecurityError> {
        let chain = read_all(certificate)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error))?;
        let mut accepted = RootCertStore::empty();
        for trusted in read_all(authority)? {
            accepted.add(trusted).map_err(|error| unusable(authority, error))?;
        }
        // Others would refuse it: better said here, and now.
        let own = chain.first().ok_or_else(|| unusable(certificate, "no certificate in it"))?;
        check_name(own, me.name.as_str()).map_err(|error| unusable(certificate, error))?;
        Ok(Self { chain, key, accepted: accepted.into() })
    }
}

/// What a minted certificate is valid for: one start of one node.
pub(super) fn minted_name(boot: BootId, name: &NodeName) -> String {
    // Names of nodes are longer than a label may be, and tell upper from lower case.
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_str().as_bytes());
    let label: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{boot}.{label}.sessionmesh")
}

/// Whether a certificate is valid for a name.
pub(super) fn check_name(certificate: &CertificateDer<'_>, name: &str) -> Result<(), rustls::Error> {
    let parsed = rustls::server::ParsedCertificate::try_from(certificate)?;
    let name = ServerName::try_from(name)
        .map_err(|_| rustls::Error::General(format!("{name:?} can't be a name in a certificate")))?;
    rustls::client::verify_server_name(&parsed, &name)
}

fn read_all(path: &Path) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unusable(path, error))?;
    if certificates.is_empty() { Err(unusable(path, "no certificate in it")) } else { Ok(certificates) }
}

fn unusable(path: &Path, error: impl std::fmt::Display) -> SecurityError {
    SecurityError::Certificate { path: path.display().to_string(), detail: error.to_string() }
}
