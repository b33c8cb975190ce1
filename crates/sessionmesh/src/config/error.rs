//! What can be wrong with a configuration.

/// A configuration that can't be used. Each message names the option, its value and what would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no such option.
    #[error("unknown option {key:?}: did you mean {near:?}? All options are listed in docs/configuration.md")]
    UnknownKey {
        /// As given.
        key: String,
        /// The option most like it.
        near: &'static str,
    },
    /// The value is none for this option.
    #[error("{key} = {value:?} is not usable: {expected}")]
    BadValue {
        /// The option.
        key: &'static str,
        /// As given.
        value: String,
        /// What would do.
        expected: String,
    },
    /// The text is not TOML.
    #[error("the configuration is not TOML: {detail}")]
    Syntax {
        /// Where and why.
        detail: String,
    },
    /// The file can't be read.
    #[error("can't read {what} {path:?}: {detail}")]
    File {
        /// What it should hold.
        what: &'static str,
        /// As given.
        path: String,
        /// Why.
        detail: String,
    },
    /// Options that contradict each other.
    #[error("{detail}")]
    Impossible {
        /// Which, and what would do.
        detail: String,
    },
    /// A secret that could be guessed.
    #[error(
        "the secret has {bytes} bytes, at least {least} are needed: make one with `openssl rand -hex 32` and give every \
         node the same"
    )]
    SecretTooShort {
        /// Of the secret.
        bytes: usize,
        /// The least.
        least: usize,
    },
    /// Neither a secret nor the word that there is none.
    #[error(
        "no secret: make one with `openssl rand -hex 32 > mesh.secret`, give every node the same by secret_file (or \
         SESSIONMESH_SECRET); for a first try on loopback, insecure = true does without"
    )]
    NoSecret,
    /// No secret, and strangers could reach the node.
    #[error(
        "insecure = true with {option} = \"{value}\": without a secret a node only starts on loopback (bind = \
         \"127.0.0.1:4000\"); make a secret with `openssl rand -hex 32 > mesh.secret` and set secret_file"
    )]
    InsecureBeyondLoopback {
        /// The option that leads beyond.
        option: &'static str,
        /// As given.
        value: String,
    },
}
