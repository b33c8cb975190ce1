//! Flags. They win over the environment, which wins over the file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sessionmesh::{Config, ConfigError};
use sessionmesh_axum::CookieConfig;

/// A web node with replicated sessions.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "session-node", version, args_override_self = true)]
pub struct Args {
    /// This node's name and sticky route, unique in the cluster.
    #[arg(long)]
    pub name: Option<String>,
    /// Where HTTP is served.
    #[arg(long, default_value = "127.0.0.1:8081")]
    pub http: SocketAddr,
    /// Where links from other nodes are accepted; unicast heartbeats use the same port number.
    #[arg(long)]
    pub bind: Option<String>,
    /// A TOML file of options (see docs/configuration.md).
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// all-peers or backup-only.
    #[arg(long)]
    pub mode: Option<String>,
    /// In backup-only mode, on how many more nodes each session is held.
    #[arg(long)]
    pub copies: Option<String>,
    /// Who must have a write before it is answered: async, one or all.
    #[arg(long)]
    pub ack: Option<String>,
    /// How long a write waits for that.
    #[arg(long)]
    pub ack_timeout: Option<String>,
    /// The multicast group and port, like 228.0.0.4:45564.
    #[arg(long)]
    pub multicast: Option<SocketAddr>,
    /// The network interface for multicast, by name or address.
    #[arg(long)]
    pub interface: Option<String>,
    /// A node to ask for the cluster, HOST:PORT; repeat for more. Without --multicast: no multicast.
    #[arg(long = "seed")]
    pub seeds: Vec<String>,
    /// Between heartbeats.
    #[arg(long)]
    pub frequency: Option<String>,
    /// How long a silent member stays one.
    #[arg(long)]
    pub drop_time: Option<String>,
    /// How long an unused session lasts.
    #[arg(long)]
    pub idle: Option<String>,
    /// How long running requests may take when the node stops.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub drain: Duration,
    /// A file with the cluster's secret.
    #[arg(long)]
    pub secret_file: Option<String>,
    /// Start without a secret, only on loopback.
    #[arg(long)]
    pub insecure: bool,
    /// Whether the session cookie is only for TLS; auto: not on plain HTTP, which is all this node
    /// serves.
    #[arg(long, default_value = "auto", value_parser = ["auto", "true", "false"])]
    pub cookie_secure: String,
    /// Without the token and the route in the session cookie: a read on another node than the last may be a moment old.
    #[arg(long)]
    pub no_token: bool,
    /// Ask the node that serves at --http whether it is ready, and exit: 0 if it is. For health checks in
    /// images that have no other program.
    #[arg(long)]
    pub health: bool,
    /// Look at what a node of these options would find (sockets, multicast, names, other nodes, secret, clocks), say what is
    /// wrong in plain words, and exit: 0 if nothing is. May run beside a node.
    #[arg(long)]
    pub diagnose: bool,
    /// Any other option, KEY=VALUE (see docs/configuration.md); repeat for more.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    // The crate's own parser, so that all durations are written alike.
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err("use a whole number with a unit, like 500ms, 2s or 1m".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "use a whole number with a unit, like 500ms, 2s or 1m")?;
    Ok(Duration::from_millis(number.saturating_mul(unit)))
}

impl Args {
    /// The node's configuration: file, environment, flags, the last wins.
    ///
    /// # Errors
    /// An option can't be used.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let mut config = Config::new();
        if let Some(file) = &self.config {
            config.load_file(file)?;
        }
        config.load_env()?;
        let flags = [
            ("name", &self.name),
            ("bind", &self.bind),
            ("mode", &self.mode),
            ("copies", &self.copies),
            ("ack", &self.ack),
            ("ack_timeout", &self.ack_timeout),
            ("interface", &self.interface),
            ("frequency", &self.frequency),
            ("drop_time", &self.drop_time),
            ("idle", &self.idle),
            ("secret_file", &self.secret_file),
        ];
        for (key, value) in flags {
            if let Some(value) = value {
                config.set(key, value)?;
            }
        }
        if !self.seeds.is_empty() {
            config.set("seeds", &self.seeds.join(","))?.set("multicast", "false")?;
        }
        if let Some(group) = self.multicast {
            config.set("multicast", "true")?.set("address", &group.ip().to_string())?;
            config.set("port", &group.port().to_string())?;
        }
        if self.insecure {
            config.insecure(true);
        }
        for pair in &self.set {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if key == "secret" {
                return Err(ConfigError::Impossible {
                    detail:
                        "--set=secret: every user of this host can read a command line; use --secret-file or \
                             SESSIONMESH_SECRET"
                            .into(),
                });
            }
            config.set(key, value)?;
        }
        Ok(config)
    }

    /// How the session cookie is set.
    pub fn cookie(&self) -> CookieConfig {
        CookieConfig {
            secure: self.cookie_secure == "true",
            token: !self.no_token,
            ..CookieConfig::default()
        }
    }
}
