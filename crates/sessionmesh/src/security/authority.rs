//! The certificate authority that everybody who has the secret is: its key is derived from the secret, so that
//! there is nothing else to hand out or to keep.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, date_time_ymd,
};
use ring::hkdf;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::error::SecurityError;

const KEY_BYTES: usize = 32;
/// PKCS #8 around an Ed25519 key (RFC 8410, section 7).
const ED25519_PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// An authority, and its own certificate.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate that an authority made, with its key.
pub(super) struct Minted {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivateKeyDer<'static>,
}

struct KeyBytes;

impl hkdf::KeyType for KeyBytes {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

impl Authority {
    /// HKDF-SHA256 (RFC 5869): salt the cluster's name, input the secret, output an Ed25519 key.
    pub(super) fn derive(cluster: &str, secret: &[u8]) -> Result<Self, SecurityError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, cluster.as_bytes())
            .extract(secret)
            .expand(&[b"sessionmesh 2026 certificate authority v1"], KeyBytes)
            .and_then(|output| output.fill(&mut *key))
            .map_err(|_| SecurityError::Mint("the authority's key can't be derived".into()))?;
        let pkcs8 = PrivatePkcs8KeyDer::from([&ED25519_PKCS8[..], &*key].concat());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ED25519).map_err(mint)?;
        let mut params = params("sessionmesh authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).map_err(mint)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate: certificate.into() })
    }

    /// As others must know it.
    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// A certificate of a key that was never used before, valid for one name, for either side of a connection.
    pub(super) fn mint(&self, name: &str) -> Result<Minted, SecurityError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(mint)?;
        let mut params = params("sessionmesh node");
        params.subject_alt_names = vec![rcgen::SanType::DnsName(name.try_into().map_err(mint)?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(mint)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Ok(Minted { certificate: certificate.into(), key })
    }
}

fn params(subject: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    // No clock decides who is a member: a certificate ends with the boot that it was minted for.
    params.not_before = date_time_ymd(1975, 1, 1);
    params.not_after = date_time_ymd(4096, 1, 1);
    params
}

fn mint(error: rcgen::Error) -> SecurityError {
    SecurityError::Mint(error.to_string())
}
