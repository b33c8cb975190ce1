//! The one table of options.

use std::io::{self, Read};
use std::net::SocketAddr;

use sessionmesh_core::NodeName;
use sessionmesh_core::placement::Mode;
use sessionmesh_core::replication::AckLevel;
use zeroize::Zeroizing;

use super::value::{bad, bytes, duration, in_range, parse, word};
use super::{Alone, Config, ConfigError};

/// One option, for documentation and help texts.
#[derive(Clone, Copy, Debug)]
pub struct OptionInfo {
    /// Its name.
    pub key: &'static str,
    /// Its default, as it would be written.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

type Set = fn(&mut Config, &'static str, &str) -> Result<(), ConfigError>;

macro_rules! options {
    ($($key:literal, $default:literal, $meaning:literal, $set:expr;)*) => {
        /// All options, in the order in which a reader meets them.
        pub const OPTIONS: &[OptionInfo] = &[$(OptionInfo { key: $key, default: $default, meaning: $meaning }),*];
        const SETTERS: &[Set] = &[$($set),*];
    };
}

const BOOL: &[(&str, bool)] = &[("true", true), ("false", false)];

options! {
    "cluster", "sessionmesh", "The cluster's name; clusters with other names on the same group do not meet.",
        |config, key, value| {
            if value.is_empty() || value.len() > 64 {
                return Err(bad(key, value, "use 1 to 64 bytes"));
            }
            config.cluster = value.into();
            Ok(())
        };
    "name", "node-<pid>", "This node's name and its route in a sticky cookie: 1 to 64 of A-Z a-z 0-9 _ -. Unique.",
        |config, key, value| {
            config.name = Some(NodeName::new(value).map_err(|error| bad(key, value, error.to_string()))?);
            Ok(())
        };
    "secret", "", "The cluster's secret, at least 16 bytes, the same on every node. Better: secret_file.",
        |config, key, value| config.secrets(key, value);
    "secret_file", "", "A file with the secret in one line; in a second line, another that is accepted too, while secrets are rotated.",
        |config, key, value| {
            let text = secret_text(value)
                .map_err(|error| ConfigError::File { what: "secret_file", path: value.into(), detail: error.to_string() })?;
            config.secrets(key, &text)
        };
    "insecure", "false", "Start without a secret, and without encryption. Only on loopback.",
        |config, key, value| { config.insecure = word(key, value, BOOL)?; Ok(()) };
    "certificate_file", "minted from the secret", "This node's certificate and what leads to the authority, PEM, valid for the node's name, for client and server.",
        |config, _, value| { config.certificates.certificate = Some(value.into()); Ok(()) };
    "key_file", "minted from the secret", "The certificate's key, PEM.",
        |config, _, value| { config.certificates.key = Some(value.into()); Ok(()) };
    "authority_file", "made from the secret", "The authorities whose certificates are accepted, PEM.",
        |config, _, value| { config.certificates.authority = Some(value.into()); Ok(()) };
    "multicast", "true without seeds", "Find other nodes by multicast heartbeats.",
        |config, key, value| { config.multicast = Some(word(key, value, BOOL)?); Ok(()) };
    "address", "228.0.0.4", "The multicast group, IPv4 or IPv6.",
        |config, key, value| { config.address = parse(key, value, "use an IP address")?; Ok(()) };
    "port", "45564", "The multicast port.",
        |config, key, value| { config.port = in_range(key, value, 1, u16::MAX)?; Ok(()) };
    "interface", "that of bind, else of the route to address", "The network interface for multicast, by name or address.",
        |config, _, value| { config.interface = Some(value.trim().into()); Ok(()) };
    "ttl", "1", "How many routers a heartbeat may pass.",
        |config, key, value| { config.ttl = in_range(key, value, 0, 255)?; Ok(()) };
    "bind", "0.0.0.0:4000", "Where links are accepted; unicast heartbeats come to the same port number.",
        |config, key, value| {
            config.bind = parse(key, value, "use ADDRESS:PORT, like 0.0.0.0:4000 or [::1]:4000")?;
            Ok(())
        };
    "auto_bind", "100", "How many ports are tried, from bind's upwards.",
        |config, key, value| { config.auto_bind = in_range(key, value, 1, 1000)?; Ok(()) };
    "advertise", "bind's address, else the interface's", "Where other nodes reach this one, ADDRESS or ADDRESS:PORT.",
        |config, key, value| {
            let expected = "use ADDRESS or ADDRESS:PORT of this node, not 0.0.0.0";
            let address: SocketAddr = match value.trim().parse() {
                Ok(address) => address,
                Err(_) => SocketAddr::new(parse(key, value, expected)?, 0),
            };
            if address.ip().is_unspecified() || address.ip().is_multicast() {
                return Err(bad(key, value, expected));
            }
            config.advertise = Some(address);
            Ok(())
        };
    "seeds", "", "Nodes to ask for the cluster: HOST:PORT, a list. Need not be complete; names are resolved again and again.",
        |config, key, value| {
            let seeds: Vec<String> =
                value.split(',').map(str::trim).filter(|seed| !seed.is_empty()).map(Into::into).collect();
            for seed in &seeds {
                let port = seed.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
                if port.is_none_or(|port| port == 0) {
                    return Err(bad(key, seed, "use HOST:PORT"));
                }
            }
            config.seeds = seeds;
            Ok(())
        };
    "frequency", "500ms", "Between heartbeats.",
        |config, key, value| { config.membership.frequency = duration(key, value)?; Ok(()) };
    "drop_time", "3s", "A member silent for so long, and whose process answers no ping, is dropped. At least 3 x frequency.",
        |config, key, value| { config.membership.drop_time = duration(key, value)?; Ok(()) };
    "join_wait", "2s", "How long a node that hears nobody listens before it founds a cluster.",
        |config, key, value| { config.membership.join_wait = duration(key, value)?; Ok(()) };
    "ping_timeout", "500ms", "How long a member's process may take to answer a ping.",
        |config, key, value| { config.membership.ping_timeout = duration(key, value)?; Ok(()) };
    "found", "false", "Found a cluster though a seed neither answers nor refuses.",
        |config, key, value| { config.membership.found = word(key, value, BOOL)?; Ok(()) };
    "pass_interval", "60s", "Between comparisons of all sessions with one member in turn.",
        |config, key, value| { config.membership.pass_interval = duration(key, value)?; Ok(()) };
    "mode", "all-peers", "all-peers: every node holds every session; backup-only: one node and `copies` more do.",
        |config, key, value| {
            config.backup_only = word(key, value, &[("all-peers", false), ("backup-only", true)])?;
            Ok(())
        };
    "copies", "1", "In backup-only mode, on how many more nodes each session is held: 1 to 7.",
        |config, key, value| { config.copies = in_range(key, value, 1, Mode::MAX_COPIES)?; Ok(()) };
    "zone", "none", "What is lost together with this node, a rack or a data centre: copies go to other zones first, then to other addresses.",
        |config, key, value| {
            let zone = || NodeName::new(value).map_err(|_| bad(key, value, "use none, or 1 to 64 of A-Z a-z 0-9 _ -"));
            config.zone = if value.trim() == "none" { None } else { Some(zone()?) };
            Ok(())
        };
    "ack", "async", "Who must have a write before it is answered: async nobody, one other holder, or all holders.",
        |config, key, value| {
            let words = [("async", AckLevel::Async), ("one", AckLevel::One), ("all", AckLevel::All)];
            config.ack = word(key, value, &words)?;
            Ok(())
        };
    "ack_timeout", "500ms", "How long a write waits for its level; then it is reported, kept, and still sent.",
        |config, key, value| { config.ack_timeout = duration(key, value)?; Ok(()) };
    "alone", "accept", "What a node without any other ready member does with a write at level one or all: accept or refuse.",
        |config, key, value| {
            config.alone = word(key, value, &[("accept", Alone::Accept), ("refuse", Alone::Refuse)])?;
            Ok(())
        };
    "fetch_timeout", "50ms", "How long a request waits for a session that only other nodes may hold.",
        |config, key, value| { config.fetch_timeout = duration(key, value)?; Ok(()) };
    "token_timeout", "50ms", "How long a read waits for what its client has seen on another node.",
        |config, key, value| { config.token_timeout = duration(key, value)?; Ok(()) };
    "leave_timeout", "5s", "How long a node that leaves waits, without any progress, for others to have all that it holds.",
        |config, key, value| { config.leave_timeout = duration(key, value)?; Ok(()) };
    "idle", "30m", "How long an unused session lasts.",
        |config, key, value| { config.idle = duration(key, value)?; Ok(()) };
    "absolute", "none", "How long any session lasts, used or not.",
        |config, key, value| {
            config.absolute = if value.trim() == "none" { None } else { Some(duration(key, value)?) };
            Ok(())
        };
    "touch_interval", "idle / 10, at most 60s", "Between accesses of one session that other nodes are told of.",
        |config, key, value| { config.touch_interval = Some(duration(key, value)?); Ok(()) };
    "horizon", "24h", "How long the end of a session is remembered: the longest cut after which it can't come back.",
        |config, key, value| { config.membership.horizon = duration(key, value)?; Ok(()) };
    "session_bytes", "1MiB", "Bytes of all names and values of one session.",
        |config, key, value| { config.limits.session_bytes = bytes(key, value)?; Ok(()) };
    "session_attributes", "256", "Attributes of one session.",
        |config, key, value| { config.limits.attributes = in_range(key, value, 1, 65_536)?; Ok(()) };
    "name_bytes", "256", "Bytes of one attribute's name.",
        |config, key, value| { config.limits.name_bytes = in_range(key, value, 1, 4_096)?; Ok(()) };
    "max_sessions", "10000000", "Sessions that this node may hold, ended ones left out; past it, new ones are refused, and logins past a tenth more.",
        |config, key, value| { config.max_sessions = in_range(key, value, 1, usize::MAX)?; Ok(()) };
    "max_ends", "1000000", "Ended sessions that are remembered; past it, the oldest are forgotten before the horizon.",
        |config, key, value| { config.max_ends = in_range(key, value, 1, usize::MAX)?; Ok(()) };
    "unknown_ends", "10000", "Ends remembered of ids that no node knew; as many again while a member may be cut off.",
        |config, key, value| { config.unknown_ends = in_range(key, value, 0, 10_000_000)?; Ok(()) };
    "lookups", "1024", "Requests that may wait at once for sessions that only other nodes may hold.",
        |config, key, value| { config.lookups = in_range(key, value, 1, 1_000_000)?; Ok(()) };
    "frame_bytes", "16MiB", "The longest frame that is read from a link. At least 2 x session_bytes, and 256KiB.",
        |config, key, value| { config.frame_bytes = bytes(key, value)?; Ok(()) };
    "outbox_bytes", "32MiB", "Bytes that may wait for one slow member; past it, the stream is cut and sessions are compared later.",
        |config, key, value| { config.outbox_bytes = bytes(key, value)?; Ok(()) };
    "max_members", "64", "Members at most.",
        |config, key, value| { config.membership.max_members = in_range(key, value, 2, 256)?; Ok(()) };
    "handshakes", "64", "Connections at once that have not proved who they are.",
        |config, key, value| { config.handshakes = in_range(key, value, 1, 10_000)?; Ok(()) };
    "handshake_timeout", "2s", "How long a connection may take to prove who it is.",
        |config, key, value| { config.handshake_timeout = duration(key, value)?; Ok(()) };
}

/// A file that holds a secret is short: whatever is longer is another file.
fn secret_text(path: &str) -> io::Result<Zeroizing<String>> {
    const MOST_BYTES: u64 = 64 << 10;
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("longer than {MOST_BYTES} bytes: no file with a secret")));
    }
    Ok(text)
}

pub(super) fn set(config: &mut Config, key: &str, value: &str) -> Result<(), ConfigError> {
    let index = OPTIONS
        .iter()
        .position(|option| option.key == key)
        .ok_or_else(|| ConfigError::UnknownKey { key: key.into(), near: nearest(key) })?;
    match (OPTIONS.get(index), SETTERS.get(index)) {
        (Some(option), Some(set)) => set(config, option.key, value),
        _ => Ok(()),
    }
}

/// The option that shares the most letter pairs with a mistyped one.
fn nearest(key: &str) -> &'static str {
    let pairs = |text: &str| -> Vec<[u8; 2]> {
        text.to_ascii_lowercase()
            .replace(['-', '.'], "_")
            .as_bytes()
            .windows(2)
            .map(|pair| [pair[0], pair[1]])
            .collect()
    };
    let wanted = pairs(key);
    let likeness = |option: &&OptionInfo| {
        let own = pairs(option.key);
        let shared = own.iter().filter(|pair| wanted.contains(pair)).count();
        2 * shared * 1_000 / (own.len() + wanted.len()).max(1)
    };
    OPTIONS.iter().max_by_key(likeness).map_or("name", |option| option.key)
}
