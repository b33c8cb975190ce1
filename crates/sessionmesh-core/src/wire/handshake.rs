//! How a connection becomes a link: two fixed headers, then two authenticated Hellos, encrypted if the cluster
//! has a secret.
//!
//! Each side sends `"SML1" | cluster tag (4) | nonce (24) | keyed BLAKE3 tag (16)`, then, encrypted from here on,
//! `u16 length | tag (32) | Hello`. The header's tag keeps strangers from everything that costs more than one
//! comparison; recorded, it gets its bearer to the encryption's handshake and no further. The Hello's covers both headers'
//! nonces and the side. Nothing is decoded before its tag is right. A side without encryption
//! (`insecure`) says `"SMP0"`, so that the two tell each other apart.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::auth::{ClusterKey, KeyId, TAG_BYTES};
use super::contact::{Contact, decode_address, encode_address};
use super::error::{HandshakeError, PeerMisbehaved};
use super::generated as pb;
use crate::membership::MemberState;
use crate::placement::Mode;
use crate::{BootId, NodeName};

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = UNTAGGED_BYTES + TAG_BYTES;
/// Bytes before a Hello: its length and its tag.
pub const SEAL_BYTES: usize = 2 + 32;
const ENCRYPTED: &[u8; 4] = b"SML1";
const PLAIN: &[u8; 4] = b"SMP0";
const NONCE_BYTES: usize = 24;
const UNTAGGED_BYTES: usize = 4 + 4 + NONCE_BYTES;
const MAX_HELLO_BYTES: usize = 24 << 10;

/// The fixed header.
pub type Header = [u8; HEADER_BYTES];

/// Which side of a connection a node is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It connected.
    Dialer,
    /// It accepted.
    Acceptor,
}

impl Role {
    fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }

    /// As tags cover it.
    fn as_byte(self) -> u8 {
        u8::from(self == Self::Dialer)
    }
}

/// Who a node is, said once per link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Protocol versions spoken, lowest and highest.
    pub versions: (u32, u32),
    /// This start of the node.
    pub boot: BootId,
    /// How often this boot has started empty again.
    pub incarnation: u32,
    /// Its name.
    pub name: NodeName,
    /// Where it accepts links.
    pub address: SocketAddr,
    /// Its state.
    pub state: MemberState,
    /// How sessions are placed.
    pub mode: Mode,
    /// What is lost together with it.
    pub zone: Option<NodeName>,
    /// The ready members that it sees, by their hash.
    pub view: u64,
    /// Greater in every connection that one boot dials.
    pub dial: u64,
    /// The members that it knows.
    pub members: Vec<Contact>,
    /// How large its side is.
    pub side: Side,
    /// Whom nobody on its side has heard for the horizon: boots, and the incarnation that was last known.
    pub forgotten: BTreeMap<BootId, u32>,
    /// Members that its side misses, not yet forgotten.
    pub absent: Vec<Absent>,
    /// It asks who is there, and is not to be admitted.
    pub probe: bool,
    /// Its wall clock as it said this, in milliseconds since 1970. Decides nothing.
    pub clock_ms: u64,
}

/// A member that was dropped, did not leave and has not come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Its boot.
    pub boot: BootId,
    /// How often that boot had started empty again.
    pub incarnation: u32,
    /// Its name.
    pub name: NodeName,
    /// Since anybody on its former side heard it.
    pub silent: Duration,
}

impl Absent {
    fn to_wire(&self) -> pb::Absent {
        let silent_ms = u64::try_from(self.silent.as_millis()).unwrap_or(u64::MAX);
        let (boot, incarnation) = (self.boot.get(), self.incarnation);
        pb::Absent { boot, incarnation, name: self.name.as_str().into(), silent_ms }
    }

    fn from_wire(absent: pb::Absent) -> Result<Self, PeerMisbehaved> {
        Ok(Self {
            boot: BootId::new(absent.boot).ok_or(PeerMisbehaved::Invalid("boot"))?,
            incarnation: absent.incarnation,
            name: NodeName::new(&absent.name).map_err(|_| PeerMisbehaved::Invalid("name"))?,
            silent: Duration::from_millis(absent.silent_ms),
        })
    }
}

/// One side of a cut, as a node on it sees it: of two, the smaller yields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Ready members.
    pub size: u32,
    /// The lowest boot among them; `None` if there is none.
    pub lowest: Option<BootId>,
}

impl Side {
    /// Whether whoever said this serves on none, or was paused and does not know its side.
    pub fn is_unknown(self) -> bool {
        self.size == 0
    }

    /// Whether this side yields to the other: it is smaller, or as large with the higher lowest boot.
    pub fn yields_to(self, other: Self) -> bool {
        (self.size, core::cmp::Reverse(self.lowest)) < (other.size, core::cmp::Reverse(other.lowest))
    }
}

/// Why a node does not admit another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// No common protocol version.
    Version,
    /// A live member has the name.
    NameTaken,
    /// Mode or copies differ.
    Mode,
    /// There is a better link between the two.
    Duplicate,
    /// A node reached itself.
    Itself,
    /// The cluster is at its limit of members.
    Full,
    /// The node is leaving.
    Leaving,
    /// The two were cut off from each other for longer than the horizon: one must start empty.
    Forgotten,
}

/// A refusal, with plain words for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// In plain words, naming both sides.
    pub detail: String,
}

/// One side of a connection that is not yet a link.
#[derive(Debug)]
pub struct Handshake {
    role: Role,
    encrypted: bool,
    nonce: [u8; NONCE_BYTES],
    peer_nonce: [u8; NONCE_BYTES],
}

impl Handshake {
    /// Begins, with random bytes that are used once.
    pub fn new(role: Role, encrypted: bool, nonce: [u8; NONCE_BYTES]) -> Self {
        Self { role, encrypted, nonce, peer_nonce: [0; NONCE_BYTES] }
    }

    /// Which side this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The header to send.
    pub fn header(&self, key: &ClusterKey) -> Header {
        let mut header = [0; HEADER_BYTES];
        let (untagged, tag) = header.split_at_mut(UNTAGGED_BYTES);
        untagged[..4].copy_from_slice(if self.encrypted { ENCRYPTED } else { PLAIN });
        untagged[4..8].copy_from_slice(&key.cluster_tag());
        untagged[8..].copy_from_slice(&self.nonce);
        tag.copy_from_slice(&key.tag_header(self.role.as_byte(), untagged));
        header
    }

    /// Whether a header may begin so: another protocol's first words may be shorter than a header, and need not be
    /// waited for.
    pub fn may_begin(magic: &[u8]) -> bool {
        magic == ENCRYPTED || magic == PLAIN
    }

    /// The header that came.
    ///
    /// # Errors
    /// It is not one of this cluster's. Who is [`HandshakeError::Unauthenticated`] may be answered by this side's
    /// header, which tells an operator more than silence.
    pub fn read_header(&mut self, key: &ClusterKey, header: &Header) -> Result<(), HandshakeError> {
        let (untagged, tag) = header.split_at(UNTAGGED_BYTES);
        let (magic, rest) = untagged.split_at(4);
        if !Self::may_begin(magic) {
            return Err(HandshakeError::Foreign);
        }
        let (cluster, nonce) = rest.split_at(4);
        if cluster != key.cluster_tag() {
            return Err(HandshakeError::OtherCluster);
        }
        if (magic == ENCRYPTED) != self.encrypted {
            return Err(HandshakeError::Encryption { here: self.encrypted });
        }
        if !key.is_header_authentic(self.role.other().as_byte(), untagged, tag) {
            return Err(HandshakeError::Unauthenticated);
        }
        self.peer_nonce.copy_from_slice(nonce);
        Ok(())
    }

    /// The Hello to send.
    pub fn seal(&self, key: &ClusterKey, hello: &Hello) -> Bytes {
        let body = hello.to_wire().encode_to_vec();
        let mut sealed = Vec::with_capacity(SEAL_BYTES + body.len());
        sealed.extend_from_slice(&u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
        sealed.extend_from_slice(&key.tag_hello(&self.tagged(self.role, &body)));
        sealed.extend_from_slice(&body);
        sealed.into()
    }

    /// How many bytes of Hello follow the seal.
    ///
    /// # Errors
    /// More than any correct Hello has.
    pub fn hello_bytes(seal: &[u8; SEAL_BYTES]) -> Result<usize, HandshakeError> {
        let length = usize::from(u16::from_be_bytes([seal[0], seal[1]]));
        if length > MAX_HELLO_BYTES { Err(HandshakeError::TooLong(length)) } else { Ok(length) }
    }

    /// The Hello that came, and which secret it was made with.
    ///
    /// # Errors
    /// It is not authentic, or not understood.
    pub fn open(
        &self,
        key: &ClusterKey,
        seal: &[u8; SEAL_BYTES],
        body: &[u8],
    ) -> Result<(Hello, KeyId), HandshakeError> {
        let made_with = key.open_hello(&self.tagged(self.role.other(), body), &seal[2..]);
        let made_with = made_with.ok_or(HandshakeError::Unauthenticated)?;
        Ok((Hello::parse(body)?, made_with))
    }

    /// What the tag of the sender's Hello covers.
    fn tagged<'a>(&'a self, sender: Role, body: &'a [u8]) -> [&'a [u8]; 4] {
        let (dialer, acceptor) = match self.role {
            Role::Dialer => (&self.nonce, &self.peer_nonce),
            Role::Acceptor => (&self.peer_nonce, &self.nonce),
        };
        let sender: &[u8] = if sender == Role::Dialer { &[1] } else { &[0] };
        [sender, dialer, acceptor, body]
    }
}

impl Hello {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, PeerMisbehaved> {
        let hello = pb::Hello::decode(body).map_err(|_| PeerMisbehaved::Undecodable)?;
        Self::from_wire(hello)
    }

    fn to_wire(&self) -> pb::Hello {
        let (mode, copies) = self.mode.to_wire();
        pb::Hello {
            version_min: self.versions.0,
            version_max: self.versions.1,
            boot: self.boot.get(),
            incarnation: self.incarnation,
            name: self.name.as_str().into(),
            address: encode_address(self.address),
            state: self.state.to_wire().into(),
            mode: mode.into(),
            copies,
            zone: self.zone.as_ref().map(|zone| zone.as_str().into()).unwrap_or_default(),
            view: self.view,
            dial: self.dial,
            members: self.members.iter().map(Contact::to_wire).collect(),
            view_size: self.side.size,
            view_lowest: self.side.lowest.map_or(0, BootId::get),
            forgotten: self
                .forgotten
                .iter()
                .map(|(boot, incarnation)| pb::Forgotten { boot: boot.get(), incarnation: *incarnation })
                .collect(),
            absent: self.absent.iter().map(Absent::to_wire).collect(),
            probe: self.probe,
            clock_ms: self.clock_ms,
        }
    }

    fn from_wire(hello: pb::Hello) -> Result<Self, PeerMisbehaved> {
        Ok(Self {
            versions: (hello.version_min, hello.version_max),
            boot: BootId::new(hello.boot).ok_or(PeerMisbehaved::Invalid("boot"))?,
            incarnation: hello.incarnation,
            name: NodeName::new(&hello.name).map_err(|_| PeerMisbehaved::Invalid("name"))?,
            address: decode_address(&hello.address).ok_or(PeerMisbehaved::Invalid("address"))?,
            state: MemberState::from_wire(hello.state()).ok_or(PeerMisbehaved::Invalid("state"))?,
            mode: Mode::from_wire(hello.mode(), hello.copies).ok_or(PeerMisbehaved::Invalid("mode"))?,
            zone: zone_from_wire(&hello.zone)?,
            view: hello.view,
            dial: hello.dial,
            side: Side { size: hello.view_size, lowest: BootId::new(hello.view_lowest) },
            forgotten: hello
                .forgotten
                .iter()
                .filter_map(|forgotten| Some((BootId::new(forgotten.boot)?, forgotten.incarnation)))
                .collect(),
            absent: hello.absent.into_iter().map(Absent::from_wire).collect::<Result<_, _>>()?,
            probe: hello.probe,
            clock_ms: hello.clock_ms,
            members: hello.members.into_iter().map(Contact::from_wire).collect::<Result<_, _>>()?,
        })
    }
}

fn zone_from_wire(zone: &str) -> Result<Option<NodeName>, PeerMisbehaved> {
    let given = (!zone.is_empty()).then(|| NodeName::new(zone));
    given.transpose().map_err(|_| PeerMisbehaved::Invalid("zone"))
}

impl Refusal {
    pub(super) fn to_wire(refusal: Option<&Self>) -> pb::Verdict {
        let reason = match refusal.map(|refusal| refusal.reason) {
            None => pb::RefusalReason::Unspecified,
            Some(RefusalReason::Version) => pb::RefusalReason::Version,
            Some(RefusalReason::NameTaken) => pb::RefusalReason::NameTaken,
            Some(RefusalReason::Mode) => pb::RefusalReason::Mode,
            Some(RefusalReason::Duplicate) => pb::RefusalReason::Duplicate,
            Some(RefusalReason::Itself) => pb::RefusalReason::Self_,
            Some(RefusalReason::Full) => pb::RefusalReason::Full,
            Some(RefusalReason::Leaving) => pb::RefusalReason::Leaving,
            Some(RefusalReason::Forgotten) => pb::RefusalReason::Forgotten,
        };
        let detail = refusal.map(|refusal| refusal.detail.clone()).unwrap_or_default();
        pb::Verdict { refused: reason.into(), detail }
    }

    pub(super) fn from_wire(verdict: pb::Verdict) -> Result<Option<Self>, PeerMisbehaved> {
        if verdict.refused == i32::from(pb::RefusalReason::Unspecified) {
            return Ok(None);
        }
        let reason = match verdict.refused() {
            pb::RefusalReason::Unspecified => return Err(PeerMisbehaved::Invalid("refusal reason")),
            pb::RefusalReason::Version => RefusalReason::Version,
            pb::RefusalReason::NameTaken => RefusalReason::NameTaken,
            pb::RefusalReason::Mode => RefusalReason::Mode,
            pb::RefusalReason::Duplicate => RefusalReason::Duplicate,
            pb::RefusalReason::Self_ => RefusalReason::Itself,
            pb::RefusalReason::Full => RefusalReason::Full,
            pb::RefusalReason::Leaving => RefusalReason::Leaving,
            pb::RefusalReason::Forgotten => RefusalReason::Forgotten,
        };
        Ok(Some(Self { reason, detail: verdict.detail }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    fn hello() -> Hello {
        Hello {
            versions: super::super::PROTOCOL_VERSIONS,
            boot: BootId::new(7).unwrap(),
            incarnation: 1,
            name: NodeName::new("n1").unwrap(),
            address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 4001),
            state: MemberState::Joining,
            mode: Mode::AllPeers,
            zone: None,
            view: 5,
            dial: 1,
            members: Vec::new(),
            side: Side::default(),
            forgotten: [(BootId::new(8).unwrap(), 2)].into(),
            absent: Vec::new(),
            probe: false,
            clock_ms: 1,
        }
    }

    fn pair(key: &ClusterKey) -> (Handshake, Handshake) {
        let mut dialer = Handshake::new(Role::Dialer, true, [1; 24]);
        let mut acceptor = Handshake::new(Role::Acceptor, true, [2; 24]);
        acceptor.read_header(key, &dialer.header(key)).unwrap();
        dialer.read_header(key, &acceptor.header(key)).unwrap();
        (dialer, acceptor)
    }

    fn open(side: &Handshake, key: &ClusterKey, sealed: &[u8]) -> Result<Hello, HandshakeError> {
        let (seal, body) = sealed.split_first_chunk::<SEAL_BYTES>().unwrap();
        assert_eq!(Handshake::hello_bytes(seal)?, body.len());
        side.open(key, seal, body).map(|(hello, _)| hello)
    }

    #[test]
    fn each_side_opens_the_others_hello_and_not_its_own_reflected() {
        let key = ClusterKey::derive("shop", b"0123456789abcdef");
        let (dialer, acceptor) = pair(&key);
        let sealed = dialer.seal(&key, &hello());
        assert_eq!(open(&acceptor, &key, &sealed), Ok(hello()));
        assert_eq!(open(&dialer, &key, &sealed), Err(HandshakeError::Unauthenticated));
        let mut reflected = Handshake::new(Role::Dialer, true, [1; 24]);
        assert_eq!(reflected.read_header(&key, &dialer.header(&key)), Err(HandshakeError::Unauthenticated));
    }

    #[test]
    fn a_hello_recorded_on_another_connection_is_rejected() {
        let key = ClusterKey::derive("shop", b"0123456789abcdef");
        let recorded = pair(&key).0.seal(&key, &hello());
        let mut acceptor = Handshake::new(Role::Acceptor, true, [3; 24]);
        let replayer = Handshake::new(Role::Dialer, true, [1; 24]);
        acceptor.read_header(&key, &replayer.header(&key)).unwrap();
        assert_eq!(open(&acceptor, &key, &recorded), Err(HandshakeError::Unauthenticated));
    }

    #[test]
    fn strangers_get_no_further_than_the_header() {
        let key = ClusterKey::derive("shop", b"0123456789abcdef");
        let came = |header: &Header| Handshake::new(Role::Acceptor, true, [2; 24]).read_header(&key, header);
        let dialer = Handshake::new(Role::Dialer, true, [1; 24]);
        let right = dialer.header(&key);
        assert_eq!(came(&right), Ok(()));
        let wrong = ClusterKey::derive("shop", b"fedcba9876543210");
        assert_eq!(came(&dialer.header(&wrong)), Err(HandshakeError::Unauthenticated));
        let other = ClusterKey::derive("blog", b"0123456789abcdef");
        assert_eq!(came(&dialer.header(&other)), Err(HandshakeError::OtherCluster));
        let plain = Handshake::new(Role::Dialer, false, [1; 24]);
        assert_eq!(came(&plain.header(&key)), Err(HandshakeError::Encryption { here: true }));
        assert_eq!(
            came(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"),
            Err(HandshakeError::Foreign)
        );
        for bit in 0..right.len() * 8 {
            let mut flipped = right;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(came(&flipped).is_err(), "bit {bit}");
        }
    }
}
