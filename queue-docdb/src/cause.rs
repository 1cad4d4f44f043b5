//! The texts of public errors, and the driver's error behind them.

use std::{borrow::Cow, error::Error as StdError, fmt};

use mongodb::error::{Error as DriverError, ErrorKind as DriverKind};
use queue_api::{Error, ErrorKind};

use crate::words::words;

/// The public error for a driver's error: `message`, and the cause in words.
pub(crate) fn explained_by(
    source: DriverError,
    kind: ErrorKind,
    operation: &'static str,
    message: &str,
) -> Error {
    let message = format!("{message}: {}", words(&source));
    caused_by(source, kind, operation, message)
}

/// The same for a text that needs no words of the cause.
pub(crate) fn caused_by(
    source: DriverError,
    kind: ErrorKind,
    operation: &'static str,
    message: String,
) -> Error {
    Error::new(kind, operation, message).with_source(Cause::of(source))
}

/// A driver's error as the source of a public one: its text is in words, and so are its causes.
struct Cause {
    error: DriverError,
    source: Option<Box<Self>>,
}

impl Cause {
    fn of(error: DriverError) -> Self {
        let source = error.source().and_then(<dyn StdError>::downcast_ref);
        let source = source.map(|source: &DriverError| Box::new(Self::of(source.clone())));
        Self { error, source }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&words(&self.error))
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match (&self.source, &*self.error.kind) {
            (Some(source), _) => Some(source.as_ref()),
            (None, DriverKind::Io(cause)) => Some(cause.as_ref()),
            (None, _) => None,
        }
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The driver's has the server's reply in hex.
        let mut labels: Vec<_> = self.error.labels().iter().collect();
        labels.sort();
        f.debug_tuple("DriverError")
            .field(&words(&self.error))
            .field(&labels)
            .field(&self.source)
            .finish()
    }
}

/// The driver's error that is the cause of `error`, if it has one.
///
/// A loop that repeats transactions looks at its labels:
///
/// ```
/// use queue_docdb::mongodb::error::TRANSIENT_TRANSACTION_ERROR;
///
/// fn may_be_repeated(error: &queue_api::Error) -> bool {
///     queue_docdb::driver_error(error)
///         .is_some_and(|cause| cause.contains_label(TRANSIENT_TRANSACTION_ERROR))
/// }
/// # let error = queue_api::Error::new(queue_api::ErrorKind::Internal, "ack", "no");
/// # assert!(!may_be_repeated(&error));
/// ```
pub fn driver_error(error: &Error) -> Option<&DriverError> {
    let cause: &Cause = error.source()?.downcast_ref()?;
    Some(&cause.error)
}

/// What a failure leaves open. Nothing, unless the call writes.
pub(crate) fn doubt(operation: &str) -> &'static str {
    const READS: [&str; 7] = [
        "connect",
        "dead letters",
        "list queues",
        "peek",
        "start session",
        "stats",
        "wait",
    ];
    match READS.contains(&operation) {
        true => "",
        false => "; whether a write took effect is unknown",
    }
}

/// The message for a kind. The cause follows.
pub(crate) fn explanation(kind: ErrorKind, operation: &str) -> Cow<'static, str> {
    let text = match kind {
        ErrorKind::Unavailable => "the database is not available, or refuses this for now",
        ErrorKind::TimedOut => {
            let doubt = doubt(operation);
            return format!("the database reached a time limit{doubt}").into();
        }
        ErrorKind::Denied => "the database refuses this user",
        ErrorKind::InvalidInput => "the database does not accept this",
        _ => "the database answered with an error",
    };
    text.into()
}

#[cfg(test)]
mod tests {
    use mongodb::error::CommandError;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_drivers_error_can_be_had_and_its_debug_is_short() {
        let reply = json!({ "code": 13, "codeName": "", "errmsg": "no" });
        let refused: CommandError = serde_json::from_value(reply).expect("an error");
        let refused = DriverError::from(DriverKind::Command(refused));
        let error = explained_by(refused, ErrorKind::Denied, "ack", "refused");
        assert_eq!(error.to_string(), "ack: refused: code 13: no");
        assert_eq!(format!("{error:#}"), "ack: refused: code 13: no");
        let cause = driver_error(&error).expect("a driver's error");
        assert!(matches!(&*cause.kind, DriverKind::Command(_)));
        let debug = format!("{error:?}");
        assert!(debug.contains("code 13: no"), "{debug}");
        assert!(!debug.contains("RawDocument"), "{debug}");
        let broken = std::io::Error::other("broken");
        let error = explained_by(broken.into(), ErrorKind::Unavailable, "ack", "away");
        assert_eq!(format!("{error:#}"), "ack: away: broken", "told once");
        let cause = error.source().and_then(StdError::source);
        assert!(cause.is_some_and(|cause| cause.is::<std::io::Error>()));
        let other = Error::new(ErrorKind::Denied, "ack", "no").with_source("no");
        assert!(driver_error(&other).is_none());
    }
}
