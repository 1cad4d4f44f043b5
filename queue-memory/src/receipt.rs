//! Receipts: the token of a delivery in sixteen digits, a hyphen, and the id of the message.

use std::num::NonZeroU64;

use queue_api::{MessageId, Receipt};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Room for the longest receipt. It is written on the stack, as one is made for each delivery and
/// formatting costs more than all else that a lease does.
const MAX_BYTES: usize = 17 + MessageId::MAX_BYTES;

pub(crate) fn new(token: NonZeroU64, id: &MessageId) -> Receipt {
    let id = id.as_str().as_bytes();
    let mut text = [b'-'; MAX_BYTES];
    text[..16].copy_from_slice(&digits(token));
    text[17..17 + id.len()].copy_from_slice(id);
    let text = str::from_utf8(&text[..17 + id.len()]);
    Receipt::new(text.expect("digits, a hyphen and what was text"))
}

/// What claims to be a token, and the id.
pub(crate) fn parts(receipt: &Receipt) -> Option<(&str, &str)> {
    receipt.as_str().split_once('-')
}

/// Compared as text: there is one way to write a token, and any other is made up.
pub(crate) fn is_token(text: &str, token: NonZeroU64) -> bool {
    text.as_bytes() == digits(token)
}

fn digits(token: NonZeroU64) -> [u8; 16] {
    let token = token.get();
    std::array::from_fn(|digit| DIGITS[(token >> (60 - 4 * digit)) as usize & 15])
}
