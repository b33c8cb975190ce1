//! What a node proves itself with, and what it demands of others.
//!
//! | file | what |
//! |---|---|
//! | `secret` | the cluster's secret in memory |
//! | `authority` | the certificate authority that everybody who has the secret is |
//! | `certificates` | what a node shows: minted under that authority, or the operator's own |
//! | `tls` | encrypted connections, and whom they accept |
//!
//! The keys of heartbeats and headers are in `sessionmesh-core`, with what they protect.

mod authority;
mod certificates;
mod secret;
mod tls;

use sessionmesh_core::membership::Identity;
use sessionmesh_core::wire::{ClusterKey, KeyId};

pub(crate) use certificates::CertificateFiles;
pub(crate) use secret::Secret;
pub(crate) use tls::{AuthoritiesId, Tls, TlsFailed};

use crate::config::Config;
use crate::error::SecurityError;

/// All of it; replaced as a whole when secrets or certificates are.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) key: ClusterKey,
    /// `None`: links are not encrypted, because there is no secret.
    pub(crate) tls: Option<Tls>,
}

impl Credentials {
    /// Of a node of this configuration.
    pub(crate) fn new(config: &Config, me: &Identity) -> Result<Self, SecurityError> {
        Ok(Self { key: cluster_key(config), tls: Tls::new(config, me)? })
    }

    /// What opens a link with one who has this secret.
    pub(crate) fn opening(&self, secret: KeyId) -> Opening {
        Opening { secret, authorities: self.tls.as_ref().map(|tls| tls.authorities) }
    }

    /// Whether what opened a link still would.
    pub(crate) fn accept(&self, opening: &Opening) -> bool {
        self.key.accepts(opening.secret) && *opening == self.opening(opening.secret)
    }
}

/// What opened a link: the other's secret, and the authorities that vouched for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    secret: KeyId,
    authorities: Option<AuthoritiesId>,
}

/// The keys of heartbeats, headers and Hellos.
pub(crate) fn cluster_key(config: &Config) -> ClusterKey {
    let key = ClusterKey::derive(&config.cluster, config.secret.as_deref().unwrap_or_default());
    match &config.other_secret {
        Some(other) => key.accepting(&config.cluster, other),
        None => key,
    }
}
