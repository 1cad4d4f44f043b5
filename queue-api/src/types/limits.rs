//! The limits of a backend, and the checks against them.

use std::{num::NonZeroUsize, time::Duration};

use crate::{Error, InvalidInput, LeaseAction, MAX_REASON_BYTES, NewMessage, Result};

/// The limits of a backend. The handle enforces them, so a backend need not.
///
/// ```
/// use std::num::NonZeroUsize;
/// use queue_api::Limits;
///
/// // A backend for SQS, which takes ten messages in a call.
/// let limits = Limits::STANDARD
///     .with_max_batch(NonZeroUsize::new(10).expect("not zero"))
///     .with_max_payload_bytes(256 << 10);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The most messages, receipts or changes in one call. The handle splits longer batches.
    pub max_batch: NonZeroUsize,
    /// The largest payload, in bytes.
    pub max_payload_bytes: usize,
    /// The largest total size of all header names and values, in bytes.
    pub max_header_bytes: usize,
    /// The longest visibility timeout or extension. The shortest is 0.
    pub max_visibility_timeout: Duration,
    /// The longest delay of an enqueue or a nack. The shortest is 0.
    pub max_delay: Duration,
}

setters!(Limits {
    with_max_batch max_batch: NonZeroUsize,
    with_max_payload_bytes max_payload_bytes: usize,
    with_max_header_bytes max_header_bytes: usize,
    with_max_visibility_timeout max_visibility_timeout: Duration,
    with_max_delay max_delay: Duration,
});

impl Limits {
    /// The limits of all backends in this project: batches of 1000, payloads of 8 MiB, headers of
    /// 64 KiB, leases up to 7 days, delays up to 366 days.
    ///
    /// They are the same so that an application tested on one backend runs on the others.
    pub const STANDARD: Self = Self {
        max_batch: NonZeroUsize::new(1000).unwrap(),
        max_payload_bytes: 8 << 20,
        max_header_bytes: 64 << 10,
        max_visibility_timeout: Duration::from_secs(7 * 24 * 3600),
        max_delay: Duration::from_secs(366 * 24 * 3600),
    };

    /// Checks messages against these limits. The handle does so before every enqueue. Call it
    /// yourself where a backend accepts messages in another way, such as in a transaction.
    ///
    /// ```
    /// use queue_api::{Limits, NewMessage};
    ///
    /// let small = NewMessage::new("hello");
    /// let large = NewMessage::new(vec![0; Limits::STANDARD.max_payload_bytes + 1]);
    /// assert!(Limits::STANDARD.check_messages(&[small.clone()]).is_ok());
    /// let error = Limits::STANDARD.check_messages(&[small, large]).unwrap_err();
    /// assert!(error.to_string().contains("message 1"));
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) with the index of the message, the value
    /// that exceeds a limit, and the limit; also as [`Error::invalid_input`].
    pub fn check_messages(&self, messages: &[NewMessage]) -> Result<()> {
        for (index, message) in messages.iter().enumerate() {
            self.check_message(message).map_err(|wrong| {
                let item = format!("message {index} ({})", message.id);
                Error::invalid_value("enqueue", wrong.of_item(index, item))
            })?;
        }
        Ok(())
    }

    fn check_message(&self, message: &NewMessage) -> Result<(), InvalidInput> {
        check_bytes(
            "payload size",
            message.payload.len(),
            self.max_payload_bytes,
        )?;
        check_bytes("header size", message.header_bytes(), self.max_header_bytes)?;
        if message.headers.contains_key("") {
            let allowed = "at least 1 byte long";
            return Err(InvalidInput::new("header name", "empty", allowed));
        }
        check_attempts(message.max_attempts_or_default())?;
        self.check_visibility(message.visibility_timeout_or_default())?;
        self.check_delay(message.delay_or_default())
    }

    pub(crate) fn check_action(&self, action: &LeaseAction) -> Result<(), InvalidInput> {
        match action {
            LeaseAction::Extend(by) => self.check_visibility(*by),
            LeaseAction::Nack { delay } => self.check_delay(*delay),
            LeaseAction::Release => Ok(()),
            LeaseAction::DeadLetter { reason } => {
                check_bytes("reason size", reason.len(), MAX_REASON_BYTES)
            }
        }
    }

    pub(crate) fn check_visibility(&self, timeout: Duration) -> Result<(), InvalidInput> {
        check_duration("visibility timeout", timeout, self.max_visibility_timeout)
    }

    pub(crate) fn check_delay(&self, delay: Duration) -> Result<(), InvalidInput> {
        check_duration("delay", delay, self.max_delay)
    }
}

pub(crate) fn check_attempts(attempts: u32) -> Result<(), InvalidInput> {
    if attempts == 0 {
        return Err(InvalidInput::new("max_attempts", "0", "at least 1"));
    }
    Ok(())
}

fn check_duration(what: &'static str, value: Duration, most: Duration) -> Result<(), InvalidInput> {
    if value > most {
        let (value, allowed) = (format!("{value:?}"), format!("at most {most:?}"));
        return Err(InvalidInput::new(what, value, allowed));
    }
    Ok(())
}

fn check_bytes(what: &'static str, bytes: usize, most: usize) -> Result<(), InvalidInput> {
    if bytes > most {
        let (value, allowed) = (format!("{bytes} bytes"), format!("at most {most}"));
        return Err(InvalidInput::new(what, value, allowed));
    }
    Ok(())
}
