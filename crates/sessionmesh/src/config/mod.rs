//! How a node is configured: one table of options, the same in code, file and environment.

mod error;
mod options;
mod value;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use sessionmesh_core::NodeName;
use sessionmesh_core::membership::MembershipConfig;
use sessionmesh_core::placement::Mode;
use sessionmesh_core::replication::AckLevel;
use sessionmesh_core::session::SessionLimits;
use sessionmesh_core::wire::ClusterKey;

use crate::net::heartbeat::HEARD_IN_ONE;
use crate::security::{CertificateFiles, Secret};

pub use error::ConfigError;
pub use options::{OPTIONS, OptionInfo};

/// A batch of a comparison, and a session of up to half as much that does not fit in it any more. Longer
/// sessions are covered by 2 x session_bytes.
const LEAST_FRAME_BYTES: usize = 256 << 10;

/// What a node with no other ready member does with a write at level `one` or `all`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alone {
    /// Answers `1 of 1`, and counts it.
    #[default]
    Accept,
    /// Refuses the write.
    Refuse,
}

/// The configuration of a node.
///
/// Every option has a default; [`OPTIONS`] lists them all with meaning and unit. Set them by method,
/// by name ([`Config::set`]), from a TOML file ([`Config::load_file`]) or from the environment
/// ([`Config::load_env`]); later wins.
///
/// ```
/// # use sessionmesh::Config;
/// let mut config = Config::new();
/// config.load_toml("name = \"n1\"\nfrequency = \"250ms\"")?;
/// config.set("seeds", "10.0.0.1:4000, 10.0.0.2:4000")?;
/// # Ok::<(), sessionmesh::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Config {
    pub(crate) cluster: String,
    pub(crate) name: Option<NodeName>,
    pub(crate) zone: Option<NodeName>,
    pub(crate) multicast: Option<bool>,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) interface: Option<String>,
    pub(crate) ttl: u32,
    pub(crate) bind: SocketAddr,
    pub(crate) auto_bind: u16,
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) seeds: Vec<String>,
    pub(crate) membership: MembershipConfig,
    pub(crate) backup_only: bool,
    pub(crate) copies: u8,
    pub(crate) ack: AckLevel,
    pub(crate) ack_timeout: Duration,
    pub(crate) alone: Alone,
    pub(crate) fetch_timeout: Duration,
    pub(crate) token_timeout: Duration,
    pub(crate) leave_timeout: Duration,
    pub(crate) idle: Duration,
    pub(crate) absolute: Option<Duration>,
    pub(crate) touch_interval: Option<Duration>,
    pub(crate) limits: SessionLimits,
    pub(crate) max_sessions: usize,
    pub(crate) max_ends: usize,
    pub(crate) unknown_ends: usize,
    pub(crate) lookups: usize,
    pub(crate) frame_bytes: usize,
    pub(crate) outbox_bytes: usize,
    pub(crate) handshakes: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) secret: Option<Secret>,
    /// Accepted too, while secrets are rotated.
    pub(crate) other_secret: Option<Secret>,
    pub(crate) certificates: CertificateFiles,
    pub(crate) insecure: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: "sessionmesh".into(),
            name: None,
            zone: None,
            multicast: None,
            address: Ipv4Addr::new(228, 0, 0, 4).into(),
            port: 45564,
            interface: None,
            ttl: 1,
            bind: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 4000),
            auto_bind: 100,
            advertise: None,
            seeds: Vec::new(),
            membership: MembershipConfig::default(),
            backup_only: false,
            copies: 1,
            ack: AckLevel::Async,
            ack_timeout: Duration::from_millis(500),
            alone: Alone::Accept,
            fetch_timeout: Duration::from_millis(50),
            token_timeout: Duration::from_millis(50),
            leave_timeout: Duration::from_secs(5),
            idle: Duration::from_secs(30 * 60),
            absolute: None,
            touch_interval: None,
            limits: SessionLimits::default(),
            max_sessions: 10_000_000,
            max_ends: 1_000_000,
            unknown_ends: 10_000,
            lookups: 1_024,
            frame_bytes: 16 << 20,
            outbox_bytes: 32 << 20,
            handshakes: 64,
            handshake_timeout: Duration::from_secs(2),
            secret: None,
            other_secret: None,
            certificates: CertificateFiles::default(),
            insecure: false,
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not derived: the secret must not show.
        f.debug_struct("Config")
            .field("cluster", &self.cluster)
            .field("name", &self.name)
            .field("bind", &self.bind)
            .field("seeds", &self.seeds)
            .field("mode", &self.mode())
            .field("ack", &self.ack)
            .field("membership", &self.membership)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets an option by its name, from text as in a file or a flag.
    ///
    /// # Errors
    /// There is no such option, or the value is none for it; the error says what would do.
    pub fn set(&mut self, key: &str, value: &str) -> Result<&mut Self, ConfigError> {
        options::set(self, key, value)?;
        Ok(self)
    }

    /// Takes options from the text of a TOML file: top-level keys, no tables.
    ///
    /// # Errors
    /// The text is not TOML, or as [`Config::set`].
    pub fn load_toml(&mut self, text: &str) -> Result<&mut Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            // Not as it prints itself: the line may be that of the secret.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            ConfigError::Syntax { detail: format!("line {line}: {}", error.message()) }
        })?;
        for (key, value) in &table {
            options::set(self, key, &value::from_toml(key, value)?)?;
        }
        Ok(self)
    }

    /// Takes options from a TOML file.
    ///
    /// # Errors
    /// The file can't be read, or as [`Config::load_toml`].
    pub fn load_file(&mut self, path: impl AsRef<Path>) -> Result<&mut Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::File {
            what: "the configuration file",
            path: path.display().to_string(),
            detail: error.to_string(),
        })?;
        self.load_toml(&text)
    }

    /// Takes options from environment variables: `SESSIONMESH_` and the option's name in capitals.
    ///
    /// # Errors
    /// As [`Config::set`].
    pub fn load_env(&mut self) -> Result<&mut Self, ConfigError> {
        self.load_vars(std::env::vars())
    }

    fn load_vars(&mut self, vars: impl Iterator<Item = (String, String)>) -> Result<&mut Self, ConfigError> {
        for (variable, value) in vars {
            if let Some(key) = variable.strip_prefix("SESSIONMESH_") {
                options::set(self, &key.to_ascii_lowercase(), &value)?;
            }
        }
        Ok(self)
    }

    /// The node's name and sticky route. Default: `node-` and the process number.
    ///
    /// # Errors
    /// It is not 1 to 64 of `A-Z a-z 0-9 _ -`.
    pub fn name(&mut self, name: &str) -> Result<&mut Self, ConfigError> {
        self.set("name", name)
    }

    /// Where links are accepted. Default `0.0.0.0:4000`; port 0 takes any free one.
    pub fn bind(&mut self, bind: SocketAddr) -> &mut Self {
        self.bind = bind;
        self
    }

    /// The cluster's secret: the same on every node, at least 16 bytes.
    ///
    /// # Errors
    /// It is shorter.
    pub fn secret(&mut self, secret: impl Into<Vec<u8>>) -> Result<&mut Self, ConfigError> {
        self.secret = Some(check_secret(secret.into())?);
        Ok(self)
    }

    /// Another secret, of which nodes are accepted too: while secrets are rotated.
    ///
    /// # Errors
    /// It is shorter than 16 bytes.
    pub fn other_secret(&mut self, secret: impl Into<Vec<u8>>) -> Result<&mut Self, ConfigError> {
        self.other_secret = Some(check_secret(secret.into())?);
        Ok(self)
    }

    /// From text: a secret in a line of its own, and perhaps a second one that is accepted too.
    fn secrets(&mut self, key: &'static str, text: &str) -> Result<(), ConfigError> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        self.secret(lines.next().unwrap_or_default())?;
        self.other_secret = None;
        if let Some(other) = lines.next() {
            self.other_secret(other)?;
        }
        if lines.next().is_some() {
            return Err(ConfigError::BadValue {
                key,
                value: "more than two lines".into(),
                expected: "use one line with the secret, and during a rotation one more with another that is accepted \
                           too"
                .into(),
            });
        }
        Ok(())
    }

    /// Start without a secret: only on loopback, for a first try.
    pub fn insecure(&mut self, insecure: bool) -> &mut Self {
        self.insecure = insecure;
        self
    }

    /// Nodes to ask for the cluster, `host:port`. Not empty: no multicast unless `multicast = true`.
    pub fn seeds<S: Into<String>>(&mut self, seeds: impl IntoIterator<Item = S>) -> &mut Self {
        self.seeds = seeds.into_iter().map(Into::into).collect();
        self
    }

    /// How long an unused session lasts. Default 30 min.
    pub fn idle(&mut self, idle: Duration) -> &mut Self {
        self.idle = idle;
        self
    }

    /// How many holders must have a write before it is answered. Default `async`.
    pub fn ack(&mut self, ack: AckLevel) -> &mut Self {
        self.ack = ack;
        self
    }

    /// Every node holds every session. The default.
    pub fn all_peers(&mut self) -> &mut Self {
        self.backup_only = false;
        self
    }

    /// One node and `copies` more hold each session: writes cost the same in any cluster.
    ///
    /// # Errors
    /// `copies` is not 1 to 7.
    pub fn backup_only(&mut self, copies: u8) -> Result<&mut Self, ConfigError> {
        self.set("mode", "backup-only")?.set("copies", &copies.to_string())
    }

    /// How sessions are placed.
    pub fn mode(&self) -> Mode {
        if self.backup_only { Mode::BackupOnly { copies: self.copies } } else { Mode::AllPeers }
    }

    /// Whether heartbeats go to the multicast group.
    pub(crate) fn uses_multicast(&self) -> bool {
        self.multicast.unwrap_or(self.seeds.is_empty())
    }

    /// Between accesses of one session that other nodes are told of.
    pub(crate) fn touch_interval(&self) -> Duration {
        self.touch_interval.unwrap_or_else(|| (self.idle / 10).min(Duration::from_secs(60)))
    }

    /// Checks what options mean together.
    ///
    /// # Errors
    /// The first combination that can't work, and what would do.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let impossible = |detail: String| Err(ConfigError::Impossible { detail });
        if !self.backup_only && self.copies != 1 {
            return impossible(format!(
                "copies = {} means nothing in mode = \"all-peers\", where every node holds every session: set mode = \
                 \"backup-only\" or leave it out",
                self.copies
            ));
        }
        self.membership.validate().map_err(|error| ConfigError::Impossible { detail: error.to_string() })?;
        if !self.address.is_multicast() {
            return impossible(format!(
                "address = {:?} is no multicast address: use one of 224.0.0.0 to 239.255.255.255, or ff00::/8",
                self.address.to_string()
            ));
        }
        if self.uses_multicast()
            && self.bind.is_ipv4() != self.address.is_ipv4()
            && !self.bind.ip().is_unspecified()
        {
            return impossible(format!(
                "bind = \"{}\" and address = \"{}\" are of different IP versions: give both as v4 or both as v6",
                self.bind, self.address
            ));
        }
        if !self.uses_multicast() && self.seeds.is_empty() {
            return impossible(
                "multicast = false without seeds: this node could never find another; name some seeds".into(),
            );
        }
        if self.frame_bytes < 2 * self.limits.session_bytes {
            return impossible(format!(
                "frame_bytes = {} is less than 2 x session_bytes ({}): a session must fit a frame; raise the one or \
                 lower the other",
                self.frame_bytes, self.limits.session_bytes
            ));
        }
        if self.frame_bytes < LEAST_FRAME_BYTES {
            return impossible(format!(
                "frame_bytes = {} is too little: comparing sessions takes frames of up to {LEAST_FRAME_BYTES}; use at least that",
                self.frame_bytes
            ));
        }
        if self.outbox_bytes < self.frame_bytes {
            return impossible(format!(
                "outbox_bytes = {} is less than frame_bytes ({}): raise the one or lower the other",
                self.outbox_bytes, self.frame_bytes
            ));
        }
        if self.touch_interval() * 2 > self.idle {
            return impossible(format!(
                "touch_interval = {:?} is more than half of idle ({:?}): other nodes would hear of an access too late; \
                 use at most {:?}",
                self.touch_interval(),
                self.idle,
                self.idle / 2
            ));
        }
        let parts = u32::try_from(self.membership.max_members.div_ceil(HEARD_IN_ONE)).unwrap_or(u32::MAX);
        if parts > 1 && self.membership.drop_time < self.membership.frequency * 3 * parts {
            return impossible(format!(
                "drop_time = {:?} is too short for max_members = {}: past {HEARD_IN_ONE} members it takes {parts} \
                 heartbeats to name all; use at least {:?}",
                self.membership.drop_time,
                self.membership.max_members,
                self.membership.frequency * 3 * parts
            ));
        }
        if self.membership.horizon < self.membership.drop_time * 20 {
            return impossible(format!(
                "horizon = {:?} is less than 20 x drop_time ({:?}): ended sessions could come back; use at least {:?}",
                self.membership.horizon,
                self.membership.drop_time,
                self.membership.drop_time * 20
            ));
        }
        self.validate_security()
    }

    fn validate_security(&self) -> Result<(), ConfigError> {
        let impossible = |detail: String| Err(ConfigError::Impossible { detail });
        let CertificateFiles { certificate, key, authority } = &self.certificates;
        let files = [("certificate_file", certificate), ("key_file", key), ("authority_file", authority)];
        let missing: Vec<&str> =
            files.iter().filter(|(_, path)| path.is_none()).map(|(option, _)| *option).collect();
        if !missing.is_empty() && missing.len() < files.len() {
            return impossible(format!(
                "{} missing: certificates of your own take certificate_file, key_file and authority_file; without any of \
                 them the secret is all there is to manage",
                missing.join(" and ")
            ));
        }
        if self.insecure && missing.is_empty() {
            return impossible(
                "insecure = true with certificates: without a secret nothing is encrypted; set secret_file"
                    .into(),
            );
        }
        if self.secret.is_none() {
            if self.other_secret.is_some() {
                return impossible(
                    "other_secret without secret: the one that this node uses is missing".into(),
                );
            }
            return if self.insecure { self.validate_insecure() } else { Err(ConfigError::NoSecret) };
        }
        if self.insecure {
            return impossible(
                "insecure = true with a secret: drop one of them, so that it is plain which is meant".into(),
            );
        }
        Ok(())
    }

    /// Without a secret, every address in use must be loopback.
    fn validate_insecure(&self) -> Result<(), ConfigError> {
        let beyond = |option, value: String| Err(ConfigError::InsecureBeyondLoopback { option, value });
        if !self.bind.ip().is_loopback() {
            return beyond("bind", self.bind.to_string());
        }
        if let Some(advertise) = self.advertise.filter(|advertise| !advertise.ip().is_loopback()) {
            return beyond("advertise", advertise.to_string());
        }
        let is_far = |seed: &&String| seed.parse::<SocketAddr>().is_ok_and(|seed| !seed.ip().is_loopback());
        if let Some(seed) = self.seeds.iter().find(is_far) {
            return beyond("seeds", seed.clone());
        }
        let interface = self.interface.as_deref().and_then(|interface| interface.parse::<IpAddr>().ok());
        if let Some(interface) = interface.filter(|interface| !interface.is_loopback()) {
            return beyond("interface", interface.to_string());
        }
        Ok(())
    }
}

fn check_secret(secret: Vec<u8>) -> Result<Secret, ConfigError> {
    // Wiped in any case.
    let secret = Secret::from(secret);
    if secret.len() < ClusterKey::MIN_SECRET_BYTES {
        return Err(ConfigError::SecretTooShort { bytes: secret.len(), least: ClusterKey::MIN_SECRET_BYTES });
    }
    Ok(secret)
}

#[cfg(test)]
mod tests;
