//! Errors as a server words them.

use mongodb::bson::{Bson, Document, doc};

use crate::{
    schedule::{Fault, Place},
    wire::Command,
};

const TEXT: &str = "forged by the fault explorer";

/// How a primary that has been voted out ends a write that no majority has.
const STEPPED_DOWN: i32 = 189;

/// The answer to a command that was not carried out.
pub(crate) fn refusal(fault: Fault, command: &Command) -> Document {
    let (code, place, has_label) = match fault {
        Fault::Error {
            code,
            place,
            has_label,
        } => (code, place, has_label),
        Fault::Refusing(code) => (code, Place::Refused, false),
        _ => return doc! { "ok": 1 },
    };
    if place == Place::Statements {
        let count = i32::try_from(command.statements()).unwrap_or(i32::MAX);
        let errors = (0..count).map(|index| statement(index, code));
        return doc! { "ok": 1, "n": 0, "writeErrors": errors.collect::<Vec<_>>() };
    }
    let label = match command.is_in_transaction() && command.statements() > 0 {
        true => "TransientTransactionError",
        false => "RetryableWriteError",
    };
    top_level(code, has_label.then_some(label))
}

/// The answer to a command that was carried out, at least in part: `reply` is the true one.
pub(crate) fn error(fault: Fault, mut reply: Document, is_part: bool) -> Document {
    let Fault::Error {
        code,
        place,
        has_label,
    } = fault
    else {
        return reply;
    };
    let label = has_label.then_some("RetryableWriteError");
    match place {
        Place::Concern => {
            reply.insert("writeConcernError", doc! { "code": code, "errmsg": TEXT });
            if let Some(label) = label {
                reply.insert("errorLabels", vec![label]);
            }
            reply
        }
        Place::Statement if is_part => {
            let mut errors = vec![Bson::Document(statement(0, code))];
            for error in reply.get_array("writeErrors").into_iter().flatten() {
                let mut error = error.as_document().cloned().unwrap_or_default();
                let index = error.get_i32("index").unwrap_or(0);
                error.insert("index", index + 1);
                errors.push(Bson::Document(error));
            }
            reply.insert("writeErrors", errors);
            reply
        }
        _ => top_level(code, label),
    }
}

/// The answer of a primary whose write is undone. If the client wants a majority, it is told that
/// none has it.
pub(crate) fn undone(mut reply: Document, is_told: bool) -> Document {
    if is_told {
        let error = doc! { "code": STEPPED_DOWN, "errmsg": TEXT };
        reply.insert("writeConcernError", error);
    }
    reply
}

fn statement(index: i32, code: i32) -> Document {
    doc! { "index": index, "code": code, "errmsg": TEXT }
}

fn top_level(code: i32, label: Option<&str>) -> Document {
    let mut error = doc! { "ok": 0, "code": code, "codeName": "Forged", "errmsg": TEXT };
    if let Some(label) = label {
        error.insert("errorLabels", vec![label]);
    }
    error
}
