//! Fields of messages, for what is encoded and decoded by hand: as prost writes them, what is zero left out.
//!
//! A few instructions each, on every request's way: inline, though another module calls them.

use alloc::vec::Vec;

use bytes::BufMut;
use prost::encoding::{
    WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint, key_len,
};

const FIXED_LEN: usize = 8;
const BOOL_LEN: usize = 1;

#[inline]
pub(super) fn bool_len(tag: u32, set: bool) -> usize {
    if set { key_len(tag) + BOOL_LEN } else { 0 }
}

#[inline]
pub(super) fn put_bool(tag: u32, set: bool, bytes: &mut Vec<u8>) {
    if set {
        encode_key(tag, WireType::Varint, bytes);
        bytes.put_u8(1);
    }
}

#[inline]
pub(super) fn fixed_len(tag: u32, number: u64) -> usize {
    if number == 0 { 0 } else { key_len(tag) + FIXED_LEN }
}

#[inline]
pub(super) fn varint_len(tag: u32, number: u64) -> usize {
    if number == 0 { 0 } else { key_len(tag) + encoded_len_varint(number) }
}

#[inline]
pub(super) fn put_varint(tag: u32, number: u64, bytes: &mut Vec<u8>) {
    if number != 0 {
        encode_key(tag, WireType::Varint, bytes);
        encode_varint(number, bytes);
    }
}

#[inline]
pub(super) fn block_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

#[inline]
pub(super) fn open_block(tag: u32, len: usize, bytes: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, bytes);
    encode_varint(len as u64, bytes);
}

#[inline]
pub(super) fn put_block(tag: u32, block: &[u8], bytes: &mut Vec<u8>) {
    open_block(tag, block.len(), bytes);
    bytes.put_slice(block);
}

#[inline]
pub(super) fn put_fixed(tag: u32, number: u64, bytes: &mut Vec<u8>) {
    if number != 0 {
        encode_key(tag, WireType::SixtyFourBit, bytes);
        bytes.put_u64_le(number);
    }
}

pub(super) enum Field<'a> {
    Varint(u64),
    Fixed(u64),
    Block(&'a [u8]),
}

#[inline]
pub(super) fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u32, Field<'a>)> {
    let (tag, wire_type) = decode_key(bytes).ok()?;
    let field = match wire_type {
        WireType::Varint => Field::Varint(decode_varint(bytes).ok()?),
        WireType::SixtyFourBit => {
            let (number, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Field::Fixed(u64::from_le_bytes(*number))
        }
        WireType::LengthDelimited => {
            let len = usize::try_from(decode_varint(bytes).ok()?).ok()?;
            let (block, rest) = bytes.split_at_checked(len)?;
            *bytes = rest;
            Field::Block(block)
        }
        _ => return None,
    };
    Some((tag, field))
}
