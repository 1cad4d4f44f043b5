//! Receipts: the claim and the message that a receipt stands for.

use std::fmt::{self, Write};

use mongodb::bson::Uuid;
use queue_api::{MessageId, Receipt};

/// A parsed receipt of this backend.
///
/// As text it is the claim's nonce in hex, a dot, and the message id. Bytes of the id that are
/// not printable ASCII are percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ParsedReceipt {
    pub(crate) nonce: Uuid,
    pub(crate) id: MessageId,
}

impl ParsedReceipt {
    /// Parses `receipt`; `None` if this backend cannot have made it.
    pub(crate) fn parse(receipt: &Receipt) -> Option<Self> {
        let (nonce, id) = receipt.as_str().split_once('.')?;
        let nonce = u128::from_str_radix(nonce, 16).ok()?;
        let parsed = Self {
            nonce: Uuid::from_bytes(nonce.to_be_bytes()),
            id: MessageId::new(&percent_decoded(id)?).ok()?,
        };
        // A receipt has one text: "4F" is not "4f", and "%61" is not "a".
        (parsed.to_string() == receipt.as_str()).then_some(parsed)
    }

    pub(crate) fn receipt(&self) -> Receipt {
        Receipt::new(self.to_string())
    }
}

impl fmt::Display for ParsedReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}.", u128::from_be_bytes(self.nonce.bytes()))?;
        for byte in self.id.as_str().bytes() {
            if byte.is_ascii_graphic() && byte != b'%' {
                f.write_char(char::from(byte))?;
            } else {
                write!(f, "%{byte:02x}")?;
            }
        }
        Ok(())
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_receipt_is_parsed_as_it_was_made(id in "[^\\p{Cc}]{1,32}", nonce: [u8; 16]) {
            let parsed = ParsedReceipt {
                nonce: Uuid::from_bytes(nonce),
                id: MessageId::new(&id).expect("1 to 128 bytes, no control characters"),
            };
            let receipt = parsed.receipt();
            prop_assert!(receipt.as_str().bytes().all(|b| b.is_ascii_graphic()));
            prop_assert_eq!(ParsedReceipt::parse(&receipt), Some(parsed));
        }

        #[test]
        fn other_text_is_not_a_receipt(text in "\\PC*") {
            prop_assert_eq!(ParsedReceipt::parse(&Receipt::new(text)), None);
        }
    }

    #[test]
    fn a_receipt_has_one_text() {
        let parsed = ParsedReceipt {
            nonce: Uuid::from_bytes([0xab; 16]),
            id: MessageId::new("a.b 100%").expect("valid"),
        };
        let text = parsed.to_string();
        assert_eq!(text, "abababababababababababababababab.a.b%20100%25");
        for forged in [
            text.to_uppercase(),
            text.replace('a', "A"),
            text.replace("%20", " "),
            text.replace(".b", ".%62"),
            format!("0{text}"),
            format!("+{text}"),
            text[1..].to_owned(),
            text.replace("%25", "%2"),
            text.replace("%25", "%2é"),
        ] {
            assert_eq!(
                ParsedReceipt::parse(&Receipt::new(forged.as_str())),
                None,
                "{forged}"
            );
        }
    }
}
