//! What strangers reach.

use bytes::BytesMut;
use sessionmesh_core::BootId;
use sessionmesh_core::fuzzing::{parse_heartbeat, parse_hello};
use sessionmesh_core::wire::{
    ClusterKey, FrameDecoder, FrameLimit, HEADER_BYTES, Handshake, Heartbeat, Probe, Role, SEAL_BYTES,
};

fn key() -> ClusterKey {
    ClusterKey::derive("fuzz", b"0123456789abcdef")
}

pub(crate) fn peer() -> BootId {
    BootId::new(7).expect("is not zero")
}

/// A datagram as it comes, then as the body of one that a member signed.
pub fn heartbeat(data: &[u8]) {
    let key = key();
    assert!(Heartbeat::open(&key, data).is_err(), "nobody guesses a tag");
    assert!(!matches!(Probe::open(&key, data), Some(Ok(_))), "nobody guesses a tag");
    if let Some(heartbeat) = parse_heartbeat(data) {
        let again = Heartbeat::open(&key, &heartbeat.seal(&key));
        // Too long a list of members is cut when it is sent.
        if let Ok(again) = again {
            assert_eq!(
                (again.boot, again.counter, again.state),
                (heartbeat.boot, heartbeat.counter, heartbeat.state)
            );
        }
    }
}

/// The bytes of a handshake as they come, then as the body of a Hello that a member signed.
pub fn hello(data: &[u8]) {
    let key = key();
    let mut handshake = Handshake::new(Role::Acceptor, true, [3; 24]);
    if let Some((header, _)) = data.split_first_chunk::<HEADER_BYTES>() {
        assert!(handshake.read_header(&key, header).is_err(), "nobody guesses a tag");
    }
    // Past the header, for whoever has recorded one.
    if let Some((seal, body)) = data.split_first_chunk::<SEAL_BYTES>()
        && Handshake::hello_bytes(seal).is_ok()
    {
        assert!(handshake.open(&key, seal, body).is_err(), "nobody guesses a tag");
    }
    if let Some(hello) = parse_hello(data) {
        let mut dialer = Handshake::new(Role::Dialer, true, [4; 24]);
        handshake.read_header(&key, &dialer.header(&key)).expect("our own");
        dialer.read_header(&key, &handshake.header(&key)).expect("our own");
        let sealed = dialer.seal(&key, &hello);
        let (seal, body) = sealed.split_first_chunk::<SEAL_BYTES>().expect("a seal");
        if Handshake::hello_bytes(seal).is_ok_and(|length| length == body.len()) {
            assert_eq!(handshake.open(&key, seal, body).map(|(hello, _)| hello).as_ref(), Ok(&hello));
        }
    }
}

/// A link's bytes: the first byte says how they are cut into reads.
pub fn frames(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let decoder = FrameDecoder::new(peer(), FrameLimit(64 << 10));
    let mut whole = BytesMut::from(bytes);
    let mut buffer = BytesMut::new();
    for read in bytes.chunks(usize::from(*cut).max(1)) {
        buffer.extend_from_slice(read);
        loop {
            let frame = decoder.next(&mut buffer);
            // Nothing more comes of a stream after an error: the link is closed.
            let Ok(frame) = frame else {
                assert_eq!(decoder.next(&mut whole), frame);
                return;
            };
            let Some(frame) = frame else { break };
            assert_eq!(decoder.next(&mut whole).as_ref(), Ok(&Some(frame.clone())), "cut otherwise");
            let mut again = BytesMut::from(&frame.clone().encode()[..]);
            assert_eq!(decoder.next(&mut again), Ok(Some(frame)), "sent again");
            assert!(again.is_empty());
        }
    }
}
