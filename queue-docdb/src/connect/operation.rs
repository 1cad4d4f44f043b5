//! The name of the operation in its errors.

use queue_api::Error;

pub(crate) const OPERATION: &str = "connect";

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::invalid(OPERATION, message)
}
