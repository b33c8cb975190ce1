//! The operator's own certificates: a node is whom its certificate names.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use cluster_tests::{Net, eventually};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256,
};
use sessionmesh::{Cluster, Config, StartError};

use super::liar::Liar;
use super::target::{caused, counted};

/// An authority of the operator's, with its files.
struct Pki {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Pki {
    fn new(label: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("sessionmesh-pki-{}-{label}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        write_pem(&dir.join("authority.pem"), "CERTIFICATE", certificate.der());
        Self { dir, issuer: Issuer::new(params, key) }
    }

    /// Writes the files of a node.
    fn issue(&self, name: &str) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        write_pem(&self.dir.join(format!("{name}.pem")), "CERTIFICATE", certificate.der());
        write_pem(&self.dir.join(format!("{name}.key")), "PRIVATE KEY", &key.serialize_der());
    }

    fn configure(&self, config: &mut Config, name: &str) {
        let path = |file: &str| self.dir.join(file).display().to_string();
        config.set("certificate_file", &path(&format!("{name}.pem"))).unwrap();
        config.set("key_file", &path(&format!("{name}.key"))).unwrap();
        config.set("authority_file", &path("authority.pem")).unwrap();
    }

    async fn start(&self, net: &Net, name: &str, shown: &str) -> Result<Cluster, StartError> {
        let mut config = net.config(name);
        self.configure(&mut config, shown);
        Cluster::start(config).await
    }
}

fn write_pem(path: &Path, label: &str, der: &[u8]) {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    std::fs::write(path, format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")).unwrap();
}

#[tokio::test]
async fn nodes_with_certificates_of_one_authority_are_a_cluster() {
    let (net, pki) = (Net::multicast(), Pki::new("cluster"));
    pki.issue("n1");
    pki.issue("n2");
    let first = pki.start(&net, "n1", "n1").await.unwrap();
    let second = pki.start(&net, "n2", "n2").await.unwrap();
    let met = || async {
        let (one, two) = (first.members().await.len(), second.members().await.len());
        (one == 1 && two == 1 && first.is_ready().is_ok() && second.is_ready().is_ok()).then_some(())
    };
    eventually("both are members", met).await;

    // The secret alone does not do.
    let liar = Liar::new(&net.name(), 66);
    assert!(liar.greet(first.address()).await.is_err());
    counted(&first, "handshake failed: its certificate is not accepted").await;
    // Nor does a certificate of another authority.
    let foreign = Pki::new("foreign");
    foreign.issue("n3");
    let stranger = foreign.start(&net, "n3", "n3").await.unwrap();
    eventually("it is refused", || async {
        (caused(&stranger, "handshake failed: its certificate is not accepted") > 0
            || caused(&stranger, "handshake failed: it refuses to encrypt") > 0)
            .then_some(())
    })
    .await;
    assert!(stranger.members().await.is_empty());

    // Certificates run out: others are taken from their files while the node runs.
    pki.issue("n2");
    let mut config = net.config("n2");
    pki.configure(&mut config, "n2");
    second.reload_secrets(&config).unwrap();
    eventually("both are members still", met).await;
}

#[tokio::test]
async fn a_node_does_not_start_with_another_nodes_certificate_or_with_half_of_its_files() {
    let (net, pki) = (Net::multicast(), Pki::new("another"));
    pki.issue("n1");
    let said = pki.start(&net, "n2", "n1").await.unwrap_err().to_string();
    assert!(said.contains("n1.pem") && said.contains("name"), "{said}");
    let mut config = net.config("n1");
    config.set("certificate_file", &pki.dir.join("n1.pem").display().to_string()).unwrap();
    let said = Cluster::start(config).await.unwrap_err().to_string();
    assert!(said.contains("key_file and authority_file missing"), "{said}");
    std::fs::write(pki.dir.join("n1.key"), "not a key").unwrap();
    let said = pki.start(&net, "n1", "n1").await.unwrap_err().to_string();
    assert!(said.contains("n1.key"), "{said}");
}
