//! Encryption as links have it, without their sockets.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use bytes::BytesMut;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig, ServerConnection, SideData,
};

use crate::Error;

/// Both ends of a connection, in memory: TLS 1.3 with the provider that links use.
pub(crate) struct Encrypted {
    client: ClientConnection,
    server: ServerConnection,
}

impl Encrypted {
    pub(crate) fn new() -> Result<Self, Error> {
        let (client, server) = shake_hands()?;
        Ok(Self { client, server })
    }

    /// What the client's end makes of plain bytes.
    pub(crate) fn encrypt(&mut self, plain: &[u8], cipher: &mut Vec<u8>) -> Result<(), Error> {
        self.client.writer().write_all(plain)?;
        while self.client.wants_write() {
            self.client.write_tls(cipher)?;
        }
        Ok(())
    }

    /// What the server's end makes of that.
    pub(crate) fn decrypt(&mut self, mut cipher: &[u8], plain: &mut BytesMut) -> Result<(), Error> {
        while !cipher.is_empty() {
            self.server.read_tls(&mut cipher)?;
            let state = self.server.process_new_packets()?;
            let (before, length) = (plain.len(), state.plaintext_bytes_to_read());
            plain.resize(before + length, 0);
            self.server.reader().read_exact(&mut plain[before..])?;
        }
        Ok(())
    }
}

fn shake_hands() -> Result<(ClientConnection, ServerConnection), Error> {
    let made = rcgen::generate_simple_self_signed(vec!["node".into()])?;
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from("node")?)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    client.set_buffer_limit(None);
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        hand_over(&mut client, &mut server)?;
        hand_over(&mut server, &mut client)?;
    }
    Ok((client, server))
}

/// What one end has to say, to the other.
fn hand_over<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Result<(), Error> {
    let mut said = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut said)?;
    }
    let mut rest = &said[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest)?;
        to.process_new_packets()?;
    }
    Ok(())
}
