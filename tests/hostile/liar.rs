//! A peer of the tests' own: what it says is made from docs/security.md, not by the code under test, so that it can also
//! say what no node would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use ring::{digest, hkdf};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use sessionmesh::{BootId, MemberState, Mode, NodeName};
use sessionmesh_core::wire::{ClusterKey, HEADER_BYTES, Handshake, Hello, Role, SEAL_BYTES, Side};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const SECRET: &[u8] = b"0123456789abcdef";
/// After a rotation.
pub(crate) const NEW_SECRET: &[u8] = b"fedcba9876543210";

/// What a liar shows when a connection is encrypted.
#[derive(Clone, Debug)]
pub(crate) enum Shows {
    /// A certificate for whom its Hello names.
    Itself,
    Nothing,
    /// A certificate made under the authority of another secret.
    OtherAuthority,
    /// A right certificate of another start of another node.
    Another(u64, &'static str),
    /// Its own, in TLS for another protocol, or for none in particular.
    OtherProtocol(Option<&'static str>),
}

/// Who it is, and what it knows.
#[derive(Clone, Debug)]
pub(crate) struct Liar {
    pub(crate) cluster: String,
    pub(crate) secret: Vec<u8>,
    pub(crate) shows: Shows,
    pub(crate) hello: Hello,
}

/// What a connection of a liar's is.
pub(crate) type Connection = TlsStream<TcpStream>;

impl Liar {
    /// Knows the secret, and is a node like any other.
    pub(crate) fn new(cluster: &str, boot: u64) -> Self {
        Self { cluster: cluster.into(), secret: SECRET.into(), shows: Shows::Itself, hello: hello(boot) }
    }

    pub(crate) fn key(&self) -> ClusterKey {
        // Hears what nodes say before and after a rotation, too.
        let other = if self.secret == NEW_SECRET { SECRET } else { NEW_SECRET };
        ClusterKey::derive(&self.cluster, &self.secret).accepting(&self.cluster, other)
    }

    /// Up to the headers, both ways.
    pub(crate) async fn headers(&self, to: SocketAddr) -> std::io::Result<(TcpStream, Handshake)> {
        let mut stream = TcpStream::connect(to).await?;
        let mut handshake = Handshake::new(Role::Dialer, true, [7; 24]);
        stream.write_all(&handshake.header(&self.key())).await?;
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header).await?;
        handshake.read_header(&self.key(), &header).map_err(std::io::Error::other)?;
        Ok((stream, handshake))
    }

    /// Up to the other's Hello.
    pub(crate) async fn greet(&self, to: SocketAddr) -> std::io::Result<Connection> {
        let (stream, handshake) = self.headers(to).await?;
        let name = ServerName::try_from("sessionmesh").unwrap();
        let mut stream = TlsConnector::from(self.config()).connect(name, stream).await?;
        self.hellos(&mut stream, &handshake).await?;
        Ok(stream)
    }

    pub(crate) async fn hellos(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        handshake: &Handshake,
    ) -> std::io::Result<()> {
        stream.write_all(&handshake.seal(&self.key(), &self.hello)).await?;
        let mut seal = [0; SEAL_BYTES];
        stream.read_exact(&mut seal).await?;
        let mut body = vec![0; Handshake::hello_bytes(&seal).map_err(std::io::Error::other)?];
        stream.read_exact(&mut body).await?;
        handshake.open(&self.key(), &seal, &body).map_err(std::io::Error::other)?;
        Ok(())
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody));
        let mut config = match self.certificate() {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
                config.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        let protocol =
            if let Shows::OtherProtocol(other) = self.shows { other } else { Some("sessionmesh/1") };
        config.alpn_protocols = protocol.into_iter().map(Into::into).collect();
        config.into()
    }

    /// What it shows.
    pub(crate) fn certificate(&self) -> Option<(CertificateDer<'static>, KeyPair)> {
        let (boot, name) = (self.hello.boot.get(), self.hello.name.as_str());
        match &self.shows {
            Shows::Nothing => None,
            Shows::Itself | Shows::OtherProtocol(_) => Some(self.mint(&self.secret, boot, name)),
            Shows::OtherAuthority => Some(self.mint(b"another secret..", boot, name)),
            Shows::Another(boot, name) => Some(self.mint(&self.secret, *boot, name)),
        }
    }

    /// As docs/security.md says.
    fn mint(&self, secret: &[u8], boot: u64, name: &str) -> (CertificateDer<'static>, KeyPair) {
        struct Bytes32;
        impl hkdf::KeyType for Bytes32 {
            fn len(&self) -> usize {
                32
            }
        }
        let mut seed = [0; 32];
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, self.cluster.as_bytes()).extract(secret);
        let expanded = extracted.expand(&[b"sessionmesh 2026 certificate authority v1"], Bytes32).unwrap();
        expanded.fill(&mut seed).unwrap();
        // RFC 8410.
        let prefix = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        let pkcs8 = PrivatePkcs8KeyDer::from([&prefix[..], &seed].concat());
        let authority = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519).unwrap();
        let mut issuer = CertificateParams::default();
        issuer.distinguished_name = rcgen::DistinguishedName::new();
        issuer.distinguished_name.push(DnType::CommonName, "sessionmesh authority");
        issuer.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));

        let digest = digest::digest(&digest::SHA256, name.as_bytes());
        let label: String = digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let mut params = CertificateParams::new(vec![format!("{boot:016x}.{label}.sessionmesh")]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let certificate = params.signed_by(&key, &Issuer::new(issuer, authority)).unwrap();
        (certificate.into(), key)
    }
}

/// A Hello that is right, of a node named `liar`.
pub(crate) fn hello(boot: u64) -> Hello {
    Hello {
        probe: false,
        clock_ms: 0,
        versions: (1, 1),
        boot: BootId::new(boot).unwrap(),
        incarnation: 0,
        name: NodeName::new("liar").unwrap(),
        address: "127.0.0.1:9".parse().unwrap(),
        state: MemberState::Ready,
        mode: Mode::AllPeers,
        zone: None,
        view: 0,
        dial: 1,
        members: Vec::new(),
        side: Side::default(),
        forgotten: BTreeMap::new(),
        absent: Vec::new(),
    }
}

/// A liar does not care whom it talks to.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
