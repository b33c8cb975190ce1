//! Encrypted connections, and whom they accept: TLS 1.3 only, both sides with a certificate.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme,
};
use sessionmesh_core::membership::Identity;
use sessionmesh_core::wire::{Hello, Role};

use super::certificates::{CertificateFiles, Certificates, check_name, minted_name};
use crate::config::Config;
use crate::error::SecurityError;

/// Both sides must name it, so that no other protocol's connection becomes a link.
const ALPN: &[u8] = b"sessionmesh/1";

/// Makes encrypted connections.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    /// The operator's certificates name nodes; minted ones name one start of a node.
    minted: bool,
    /// Changes with the operator's authorities: what others had opened must be opened again.
    pub(crate) authorities: AuthoritiesId,
}

/// Which authorities' certificates are accepted; the same for all that are made from secrets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuthoritiesId([u8; 32]);

/// Why an encrypted connection did not come about, or broke.
#[derive(Debug, thiserror::Error)]
#[error("{cause}: {detail}")]
pub(crate) struct TlsFailed {
    /// One of few, for counting.
    pub(crate) cause: &'static str,
    detail: rustls::Error,
}

impl From<rustls::Error> for TlsFailed {
    fn from(detail: rustls::Error) -> Self {
        use rustls::Error::{
            AlertReceived, DecryptError, InvalidCertificate, InvalidMessage, NoApplicationProtocol,
            NoCertificatesPresented, PeerIncompatible, PeerMisbehaved,
        };
        let cause = match detail {
            InvalidCertificate(_) => "its certificate is not accepted",
            NoCertificatesPresented => "it shows no certificate",
            AlertReceived(_) => "it refuses to encrypt",
            DecryptError => "encrypted bytes were changed on the way",
            InvalidMessage(_) | PeerMisbehaved(_) => "no TLS",
            PeerIncompatible(_) | NoApplicationProtocol => "another TLS",
            _ => "TLS failed",
        };
        Self { cause, detail }
    }
}

impl Tls {
    /// Of a node; `None` if its configuration has no secret.
    pub(crate) fn new(config: &Config, me: &Identity) -> Result<Option<Self>, SecurityError> {
        let Some(secret) = config.secret.as_ref().filter(|_| crate::host::ENCRYPTS) else { return Ok(None) };
        let CertificateFiles { certificate, key, authority } = &config.certificates;
        let (certificates, minted) = match (certificate, key, authority) {
            (Some(certificate), Some(key), Some(authority)) => {
                (Certificates::read(certificate, key, authority, me)?, false)
            }
            _ => (Certificates::mint(&config.cluster, secret, config.other_secret.iter(), me)?, true),
        };
        Self::of(certificates, minted).map(Some).map_err(|error| match certificate {
            Some(path) => SecurityError::Certificate {
                path: path.display().to_string(),
                detail: format!("others would refuse it: {error}"),
            },
            None => SecurityError::Mint(error.to_string()),
        })
    }

    fn of(certificates: Certificates, minted: bool) -> Result<Self, rustls::Error> {
        let Certificates { chain, key, accepted } = certificates;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(accepted.clone(), provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut authorities = AuthoritiesId::default();
        if !minted {
            let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
            accepted.roots.iter().for_each(|root| digest.update(&root.subject_public_key_info));
            authorities.0.copy_from_slice(digest.finish().as_ref());
        }
        let servers = Arc::new(AnyNode { accepted, provider: provider.clone() });
        // Others would refuse what is refused here: better said at once.
        if let (false, [own, rest @ ..]) = (minted, &chain[..]) {
            let (anybody, now) = (any_name()?, UnixTime::now());
            clients.verify_client_cert(own, rest, now)?;
            servers.verify_server_cert(own, rest, &anybody, &[], now)?;
        }
        let time: Arc<dyn TimeProvider> =
            if minted { Arc::new(NoClock) } else { Arc::new(rustls::time_provider::DefaultTimeProvider) };

        let mut server = ServerConfig::builder_with_details(provider.clone(), time.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())?;
        // Each link proves itself anew: what a secret that is no longer accepted has opened ends with its link.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.alpn_protocols = vec![ALPN.to_vec()];
        let mut client = ClientConfig::builder_with_details(provider, time)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(servers)
            .with_client_auth_cert(chain, key)?;
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        client.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { client: client.into(), server: server.into(), minted, authorities })
    }

    /// One side of a connection, nothing said yet.
    pub(crate) fn begin(&self, role: Role) -> Result<Connection, TlsFailed> {
        let mut connection = match role {
            Role::Dialer => Connection::from(ClientConnection::new(self.client.clone(), any_name()?)?),
            Role::Acceptor => Connection::from(ServerConnection::new(self.server.clone())?),
        };
        // The outbox is what is bounded; here is only what it has given out.
        connection.set_buffer_limit(None);
        Ok(connection)
    }

    /// Whether the other side knows what is spoken here.
    pub(crate) fn check_protocol(connection: &Connection) -> Result<(), TlsFailed> {
        if connection.alpn_protocol() == Some(ALPN) {
            return Ok(());
        }
        Err(rustls::Error::NoApplicationProtocol.into())
    }

    /// Whether the other side is who its Hello says.
    pub(crate) fn check_identity(&self, connection: &Connection, hello: &Hello) -> Result<(), TlsFailed> {
        let shown = connection.peer_certificates().and_then(<[_]>::first);
        let shown = shown.ok_or(rustls::Error::NoCertificatesPresented)?;
        let wanted = if self.minted { minted_name(hello.boot, &hello.name) } else { hello.name.to_string() };
        check_name(shown, &wanted)
            .map_err(|detail| TlsFailed { cause: "its certificate is another node's", detail })
    }
}

/// Who is called is not known before it has said so.
fn any_name() -> Result<ServerName<'static>, rustls::Error> {
    ServerName::try_from("sessionmesh").map_err(|error| rustls::Error::General(error.to_string()))
}

/// Accepts whoever has a certificate of the authority: which node it is, its Hello says.
struct AnyNode {
    accepted: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for AnyNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyNode")
    }
}

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.accepted,
            intermediates,
            now,
            algorithms,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// For certificates that end with a boot: a wrong clock must not split the cluster.
#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        /// 2030 or so, within what is minted.
        const WITHIN: Duration = Duration::from_secs(60 * 365 * 24 * 60 * 60);
        Some(UnixTime::since_unix_epoch(WITHIN))
    }
}
