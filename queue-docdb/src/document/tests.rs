//! What an instance remembers of an entry that it wrote is what the entry's document says.

use mongodb::bson::{DateTime, Document, RawDocumentBuf, Uuid};
use proptest::{collection::vec, prelude::*};
use queue_api::NewMessage;

use super::{
    encode::NewEntry,
    entry::{Action, Entry, Millis, NewLease, Part},
    fields::REV,
    stored::Stored,
};

fn read(document: &Document) -> Stored {
    let raw = RawDocumentBuf::from_document(document).expect("encoded");
    Stored::read_all(&raw).expect("readable")
}

/// What the server does with an update.
fn apply(document: &mut Document, update: &Document, added: i64) {
    for (field, value) in update.get_document("$set").expect("sets") {
        document.insert(field, value.clone());
    }
    for field in update
        .get_document("$unset")
        .iter()
        .flat_map(|it| it.keys())
    {
        document.remove(field);
    }
    let rev = document.get_i64(REV).expect("a revision");
    document.insert(REV, rev + added);
}

/// Changes an entry as a call may. Returns whether messages are left.
fn change(entry: &mut Entry, kind: u8, number: usize, at: Millis) -> bool {
    let nonce = Uuid::from_bytes([kind; 16]);
    let lease = entry.part(number).and_then(Part::lease);
    match (kind, lease) {
        (0..3, _) => {
            let claim = NewLease {
                nonce,
                now: at,
                until: at + 5,
            };
            if let Some(ready) = entry.visible_at() {
                entry.lease(ready, &claim, number + 1, |_| false);
            }
        }
        (3..7, Some(lease)) => {
            let action = match kind {
                3 => Action::Ack,
                4 => Action::Nack { until: at },
                5 => Action::Extend { until: at },
                _ => Action::DeadLetter {
                    at,
                    reason: "why".to_owned(),
                },
            };
            assert!(entry.settle(number, lease, &action));
        }
        (7, _) => {
            entry.redrive(number, at);
        }
        _ => {}
    }
    !entry.is_gone()
}

proptest! {
    #[test]
    fn an_entry_is_remembered_as_it_was_written(
        size in 1..5_usize,
        changes in vec((0..8_u8, 0..5_usize, 0..20_i64, 1..9_i64), 1..12),
    ) {
        let messages: Vec<_> = (0..size)
            .map(|n| NewMessage::new(format!("{n}")).with_max_attempts(2))
            .collect();
        let now = DateTime::from_millis(3);
        let entry = NewEntry::new(&messages, (0..size).collect(), false, now);
        let mut document = entry.document(&messages);
        let mut remembered = read(&document);
        for (kind, number, at, added) in changes {
            let mut after = remembered.entry.clone();
            if !change(&mut after, kind, number, at) {
                break;
            }
            apply(&mut document, &remembered.update(&after), added);
            let rev = remembered.rev + added;
            remembered = remembered.updated(after, rev);
            prop_assert_eq!(&remembered, &read(&document));
        }
    }
}
