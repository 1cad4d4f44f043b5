//! Receipts: the claim and the message that a receipt stands for.

use std::fmt;

use mongodb::bson::Uuid;
use queue_api::Receipt;

/// A parsed receipt of this backend.
///
/// As text it is the claim's nonce and the entry in hex, the message's number in the entry, and a
/// checksum: `{nonce}{entry}.{number}.{checksum}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ParsedReceipt {
    pub(crate) nonce: Uuid,
    pub(crate) entry: Uuid,
    pub(crate) number: usize,
}

impl ParsedReceipt {
    /// Parses `receipt`; `None` if this backend cannot have made it.
    pub(crate) fn parse(receipt: &Receipt) -> Option<Self> {
        let mut fields = receipt.as_str().split('.');
        let (nonce, entry) = fields.next()?.split_at_checked(32)?;
        let uuid = |hex: &str| {
            let number = u128::from_str_radix(hex, 16).ok()?;
            Some(Uuid::from_bytes(number.to_be_bytes()))
        };
        let parsed = Self {
            nonce: uuid(nonce)?,
            entry: uuid(entry)?,
            number: fields.next()?.parse().ok()?,
        };
        // A receipt has one text: "4F" is not "4f", "01" is not "1", and another number is of another
        // message or of none.
        (parsed.to_string() == receipt.as_str()).then_some(parsed)
    }

    pub(crate) fn receipt(self) -> Receipt {
        Receipt::new(self.to_string())
    }
}

impl fmt::Display for ParsedReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |uuid: Uuid| u128::from_be_bytes(uuid.bytes());
        let (nonce, entry) = (hex(self.nonce), hex(self.entry));
        let text = format!("{nonce:032x}{entry:032x}.{}", self.number);
        write!(f, "{text}.{:08x}", checksum(&text))
    }
}

/// FNV-1a. It finds a receipt whose text was changed, for example cut off.
fn checksum(text: &str) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    text.bytes().fold(0x811c_9dc5, step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Option<ParsedReceipt> {
        ParsedReceipt::parse(&Receipt::new(text))
    }

    proptest! {
        #[test]
        fn a_receipt_is_parsed_as_it_was_made(
            nonce: [u8; 16], entry: [u8; 16], number: usize,
        ) {
            let parsed = ParsedReceipt {
                nonce: Uuid::from_bytes(nonce),
                entry: Uuid::from_bytes(entry),
                number,
            };
            prop_assert_eq!(ParsedReceipt::parse(&parsed.receipt()), Some(parsed));
        }

        #[test]
        fn other_text_is_not_a_receipt(text in "\\PC*") {
            prop_assert_eq!(parse(&text), None);
        }
    }

    #[test]
    fn a_receipt_has_one_text() {
        let parsed = ParsedReceipt {
            nonce: Uuid::from_bytes([0xab; 16]),
            entry: Uuid::from_bytes([1; 16]),
            number: 3,
        };
        let text = parsed.to_string();
        assert_eq!(parse(&text), Some(parsed));
        for forged in [
            text.to_uppercase(),
            text.replace(".3", ".03"),
            text.replace(".3", ".+3"),
            text.replace(".3", ".4"),
            text.replacen("ab", "+b", 1),
            format!("{text}.0"),
            format!("0{text}"),
            text[1..].to_owned(),
            text.replacen("ab", "é", 1),
        ] {
            assert_eq!(parse(&forged), None, "{forged}");
        }
    }
}
