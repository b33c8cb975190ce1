//! What a peer or a stranger can do wrong.

/// An authenticated peer sent what no correct peer sends. The link is closed; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A frame says that it is longer than the limit.
    #[error("a frame of {bytes} bytes is over the limit of {limit} (frame_bytes)")]
    FrameTooLong {
        /// As announced.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A frame is not a message of this protocol.
    #[error("a frame that can't be decoded")]
    Undecodable,
    /// A field is missing or holds an impossible value.
    #[error("a frame with an invalid {0}")]
    Invalid(&'static str),
    /// A frame came where the protocol has no place for it.
    #[error("an unexpected {0} frame")]
    Unexpected(&'static str),
    /// The peer asks for more at once than any correct peer.
    #[error("too many outstanding {0}")]
    TooMany(&'static str),
}

/// Why a datagram was thrown away, before anything was believed of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum HeartbeatRejected {
    /// Not a sessionmesh heartbeat: another product on the group, or garbage.
    #[error("not a sessionmesh heartbeat")]
    Foreign,
    /// Of a cluster with another name.
    #[error("of another cluster")]
    OtherCluster,
    /// Not made with this cluster's secret.
    #[error("not made with this cluster's secret")]
    Unauthenticated,
    /// Made with the secret, but not understood: another version's.
    #[error("authentic but not understood")]
    Undecodable,
}

/// Why a connection did not become a link, before the peer's Hello was believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Not a sessionmesh node.
    #[error("not a sessionmesh node")]
    Foreign,
    /// Of a cluster with another name.
    #[error("of another cluster")]
    OtherCluster,
    /// Its Hello is longer than any correct one.
    #[error("a hello of {0} bytes is too long")]
    TooLong(usize),
    /// Only one of both encrypts its links.
    #[error("{}", if *here { "not encrypted: it runs with insecure = true" } else { "encrypted: this node runs with insecure = true" })]
    Encryption {
        /// Whether this side does.
        here: bool,
    },
    /// Its header or its Hello was not made with this cluster's secret.
    #[error("not made with this cluster's secret")]
    Unauthenticated,
    /// Its Hello is authentic but can't be understood.
    #[error(transparent)]
    Misbehaved(#[from] PeerMisbehaved),
}
