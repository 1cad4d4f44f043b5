//! The server's reply to an update or a delete command.

use mongodb::bson::{Bson, Document};

use crate::store::error::{Refusal, StoreError};

/// The number of documents that the command matched.
///
/// # Errors
/// A statement was refused, or the write was not confirmed. The driver does not look for either.
pub(crate) fn matched(reply: &Document) -> Result<u64, StoreError> {
    if let Ok(errors) = reply.get_array("writeErrors")
        && let Some(Bson::Document(first)) = errors.first()
    {
        return Err(StoreError::Refused(refusal(first)));
    }
    let matched = integer(reply.get("n"))
        .and_then(|n| u64::try_from(n).ok())
        .ok_or_else(|| StoreError::Unreadable(format!("no count in {reply}")))?;
    confirmed(reply, matched).map(|()| matched)
}

/// # Errors
/// No majority has what was carried out. The driver does not look for that.
pub(crate) fn confirmed(reply: &Document, matched: u64) -> Result<(), StoreError> {
    match reply.get_document("writeConcernError") {
        Ok(failure) => Err(StoreError::Unconfirmed {
            matched,
            reason: refusal(failure),
        }),
        Err(_) => Ok(()),
    }
}

pub(crate) fn refusal(failure: &Document) -> Refusal {
    Refusal {
        code: integer(failure.get("code")).map_or(0, |code| code as i32),
        message: failure.get_str("errmsg").unwrap_or_default().to_owned(),
    }
}

pub(crate) fn integer(value: Option<&Bson>) -> Option<i64> {
    match value? {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        Bson::Double(number) => Some(*number as i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    #[test]
    fn numbers_may_have_any_type() {
        assert_eq!(matched(&doc! { "ok": 1, "n": 3_i32 }).unwrap(), 3);
        assert_eq!(matched(&doc! { "ok": 1, "n": 3_i64 }).unwrap(), 3);
        assert_eq!(matched(&doc! { "ok": 1, "n": 3.0 }).unwrap(), 3);
        assert!(matched(&doc! { "ok": 1 }).is_err());
    }

    #[test]
    fn refusals_are_errors() {
        let error = doc! { "index": 0, "code": 13, "errmsg": "no rights" };
        let errors = doc! { "ok": 1, "n": 1, "writeErrors": [error.clone()] };
        let concern = doc! { "ok": 1, "n": 1, "writeConcernError": error };
        let refusal = Refusal {
            code: 13,
            message: "no rights".to_owned(),
        };
        match matched(&errors) {
            Err(StoreError::Refused(reason)) => assert_eq!(reason, refusal),
            other => panic!("{other:?}"),
        }
        match matched(&concern) {
            Err(StoreError::Unconfirmed { matched: 1, reason }) => assert_eq!(reason, refusal),
            other => panic!("{other:?}"),
        }
    }
}
