//! How a command names a stored document, whatever its `_id` is.
//!
//! The server stores strings that are not UTF-8, and the driver's documents cannot hold them. The
//! oldest supported driver takes no raw command. So a condition stands in for such an `_id`.

use mongodb::bson::{Bson, Document, RawDocument, RawDocumentBuf, doc, spec::ElementType};
use queue_api::MessageId;

/// Names a document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Key {
    Id(Bson),
    /// For an `_id` that no command can contain. It meets this condition, and no message id does.
    Near(Document),
}

impl Key {
    pub(crate) fn of(document: &RawDocument) -> Self {
        if let Ok(id) = document.get_str("_id") {
            return Self::Id(id.into());
        }
        match raw_id(document) {
            Some((kind, bytes)) => match exact_id(document) {
                Some(id) => Self::Id(id),
                None if kind == ElementType::String => Self::Near(around(text_of(bytes))),
                None => Self::Near(doc! { "$type": kind as i32 }),
            },
            // The server refuses documents without an `_id`.
            None => Self::Near(doc! { "$exists": false }),
        }
    }

    pub(crate) fn is(&self, id: &MessageId) -> bool {
        matches!(self, Self::Id(Bson::String(text)) if text == id.as_str())
    }

    /// Conditions on `_id` that select these documents.
    pub(crate) fn conditions(keys: impl IntoIterator<Item = Self>) -> Vec<Document> {
        let (mut ids, mut conditions) = (Vec::new(), Vec::new());
        for key in keys {
            match key {
                Self::Id(id) => ids.push(id),
                Self::Near(condition) => conditions.push(condition),
            }
        }
        // There is always a command to send: a majority write that matches nothing is an answer.
        if !ids.is_empty() || conditions.is_empty() {
            conditions.push(doc! { "$in": ids });
        }
        conditions
    }

    /// A condition on `_id`.
    pub(crate) fn condition(self) -> Document {
        match self {
            Self::Id(id) => doc! { "$eq": id },
            Self::Near(condition) => condition,
        }
    }
}

/// The message id of a damaged document. If its `_id` is none, a new one that begins like it: dead
/// letters are listed by id, so two must not have the same.
pub(crate) fn stand_in_id(document: &RawDocument) -> MessageId {
    let mut start = match (Key::of(document), raw_id(document)) {
        (Key::Id(Bson::String(text)), _) => match MessageId::new(&text) {
            Ok(id) => return id,
            Err(_) => text,
        },
        (Key::Id(id), _) => id.to_string(),
        (Key::Near(_), Some((ElementType::String, bytes))) => escaped(text_of(bytes)),
        (Key::Near(_), raw) => escaped(raw.map_or(&[], |(_, bytes)| bytes)),
    };
    let unique = format!("~{:016x}", fastrand::u64(..));
    start.retain(|c| !c.is_control());
    while start.len() + unique.len() > MessageId::MAX_BYTES {
        start.pop();
    }
    MessageId::new(&(start + &unique)).unwrap_or_else(|_| MessageId::generate())
}

/// As much as a message id has room for.
fn escaped(bytes: &[u8]) -> String {
    let bytes = bytes.get(..MessageId::MAX_BYTES).unwrap_or(bytes);
    bytes.escape_ascii().to_string()
}

/// The `_id`, if a command can contain every byte of it.
fn exact_id(document: &RawDocument) -> Option<Bson> {
    let id = Bson::try_from(document.get("_id").ok()??).ok()?;
    let again = RawDocumentBuf::from_document(&doc! { "_id": id.clone() }).ok()?;
    (raw_id(&again) == raw_id(document)).then_some(id)
}

/// The type and the bytes of the `_id`.
fn raw_id(document: &RawDocument) -> Option<(ElementType, &[u8])> {
    let mut at = 4;
    for element in document.iter_elements() {
        let element = element.ok()?;
        // Its type, and its name with a zero.
        at += 1 + element.key().len() + 1;
        let end = at + element.len();
        if element.key() == "_id" {
            return Some((element.element_type(), document.as_bytes().get(at..end)?));
        }
        at = end;
    }
    None
}

/// A string without its length and its final zero.
fn text_of(bytes: &[u8]) -> &[u8] {
    bytes.get(4..bytes.len().saturating_sub(1)).unwrap_or(&[])
}

/// A range with these bytes, which are not UTF-8, but without any message id.
///
/// The server orders strings by bytes, so an invalid one lies between two characters. A string
/// that begins with the one before it, and follows the lower bound, is longer than any message id.
fn around(bytes: &[u8]) -> Document {
    let valid = match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(error) => error.valid_up_to(),
    };
    let (start, invalid) = bytes.split_at(valid);
    let start = String::from_utf8_lossy(start).into_owned();
    let mut range = Document::new();
    if let Some(before) = char_before(invalid) {
        let longest = char::MAX.to_string().repeat(MessageId::MAX_BYTES / 4);
        range.insert("$gt", format!("{start}{before}{longest}"));
    }
    if let Some(after) = following(&start, invalid) {
        range.insert("$lt", after);
    }
    range
}

/// The first string that follows all that begin with `start` and `invalid`.
fn following(start: &str, invalid: &[u8]) -> Option<String> {
    let next = char_at(chars_before(invalid));
    if let Some(next) = next {
        return Some(format!("{start}{next}"));
    }
    let mut chars = start.chars();
    while let Some(last) = chars.next_back() {
        if last < char::MAX {
            let next = char_at(chars_before(last.to_string().as_bytes()) + 1)?;
            return Some(format!("{}{next}", chars.as_str()));
        }
    }
    None
}

fn char_before(bytes: &[u8]) -> Option<char> {
    char_at(chars_before(bytes).checked_sub(1)?)
}

fn char_at(index: usize) -> Option<char> {
    ('\0'..=char::MAX).nth(index)
}

/// How many characters precede these bytes.
fn chars_before(bytes: &[u8]) -> usize {
    let precedes =
        |index| char_at(index).is_some_and(|c| c.encode_utf8(&mut [0; 4]).as_bytes() < bytes);
    let (mut low, mut high) = (0, 0x11_0000);
    while low < high {
        let middle = usize::midpoint(low, high);
        if precedes(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_within(range: &Document, bytes: &[u8]) -> bool {
        let bound = |name| range.get_str(name).ok().map(str::as_bytes);
        bound("$gt").is_some_and(|low| low < bytes) && bound("$lt").is_none_or(|high| bytes < high)
    }

    proptest! {
        #[test]
        fn a_range_has_its_bytes_and_no_message_id(
            bytes in prop::collection::vec(any::<u8>(), 1..8),
            start in "[^\\p{Cc}]{0,2}",
            end in "[^\\p{Cc}]{0,32}",
            pick: prop::sample::Index,
        ) {
            let bytes = [start.as_bytes(), &bytes].concat();
            let Err(error) = std::str::from_utf8(&bytes) else {
                return Ok(());
            };
            let range = around(&bytes);
            prop_assert!(is_within(&range, &bytes), "{range}");
            // Valid ids near the bytes: the valid start, or the characters beside the invalid ones.
            let (valid, invalid) = bytes.split_at(error.valid_up_to());
            let valid = String::from_utf8(valid.to_vec()).expect("valid");
            let beside = [chars_before(invalid).checked_sub(1), Some(chars_before(invalid))];
            let beside = beside[pick.index(2)].and_then(char_at);
            for id in [
                format!("{valid}{end}"),
                format!("{valid}{}{end}", beside.map_or(String::new(), String::from)),
            ] {
                if MessageId::new(&id).is_ok() {
                    prop_assert!(!is_within(&range, id.as_bytes()), "{id:?} in {range}");
                }
            }
        }
    }

    #[test]
    fn the_longest_ids_are_out_of_range() {
        for invalid in [
            b"\x80".as_slice(),
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"\xff",
        ] {
            let before = char_before(invalid).expect("a character");
            let longest = char::MAX.to_string().repeat(MessageId::MAX_BYTES / 4 - 1);
            let id = MessageId::new(&format!("{before}{longest}"));
            let id = id.unwrap_or_else(|_| MessageId::new(&longest).expect("short"));
            assert!(!is_within(&around(invalid), id.as_str().as_bytes()));
        }
    }
}
