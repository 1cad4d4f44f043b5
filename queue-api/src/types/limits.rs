//! What a backend takes, and the one check against it.

use std::time::Duration;

use crate::{Error, LeaseAction, MAX_REASON_BYTES, NewMessage, Result};

/// What a backend accepts. The handle checks and chunks against it, so a backend need not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most messages, receipts or changes in one call; the handle chunks longer ones.
    pub max_batch: usize,
    /// The largest payload.
    pub max_payload_bytes: usize,
    /// The most bytes of header names and values together.
    pub max_header_bytes: usize,
    /// The longest visibility timeout or extension; the shortest is 1 ms.
    pub max_visibility_timeout: Duration,
    /// The longest delay of an enqueue or a nack; the shortest is none.
    pub max_delay: Duration,
}

impl Limits {
    /// What the backends of this project share, so that an application which passes its
    /// tests on one of them does not meet a tighter limit on another: batches of 1000,
    /// payloads of 8 MiB, headers of 64 KiB, leases up to 7 days, delays up to 366 days.
    pub const STANDARD: Self = Self {
        max_batch: 1000,
        max_payload_bytes: 8 << 20,
        max_header_bytes: 64 << 10,
        max_visibility_timeout: Duration::from_secs(7 * 24 * 3600),
        max_delay: Duration::from_secs(366 * 24 * 3600),
    };

    /// Refuses messages of which any is outside these limits. The handle does it before every
    /// enqueue; it is for ways into a backend that pass the handle by, such as a transaction.
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
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), saying which message it is, what is
    /// wrong with it and what is allowed.
    pub fn check_messages(&self, messages: &[NewMessage]) -> Result<()> {
        for (index, message) in messages.iter().enumerate() {
            self.check_message(message).map_err(|wrong| {
                Error::invalid(
                    "enqueue",
                    format!("message {index} ({}): {wrong}", message.id),
                )
            })?;
        }
        Ok(())
    }

    fn check_message(&self, message: &NewMessage) -> Result<(), String> {
        let Limits {
            max_payload_bytes,
            max_header_bytes,
            ..
        } = *self;
        let payload = message.payload.len();
        if payload > max_payload_bytes {
            return Err(format!(
                "a payload of {payload} bytes, at most {max_payload_bytes} are allowed"
            ));
        }
        let headers = message.header_bytes();
        if headers > max_header_bytes {
            return Err(format!(
                "headers of {headers} bytes, at most {max_header_bytes} are allowed"
            ));
        }
        if message.headers.contains_key("") {
            return Err("a header without a name".into());
        }
        if message.max_attempts == 0 {
            return Err("max attempts of 0, at least 1 is needed".into());
        }
        self.check_visibility(message.visibility_timeout)?;
        self.check_delay(message.delay)
    }

    pub(crate) fn check_action(&self, action: &LeaseAction) -> Result<(), String> {
        match action {
            LeaseAction::Extend(by) => self.check_visibility(*by),
            LeaseAction::Nack { delay } => self.check_delay(*delay),
            LeaseAction::Release => Ok(()),
            LeaseAction::DeadLetter { reason } if reason.len() > MAX_REASON_BYTES => Err(format!(
                "a reason of {} bytes, at most {MAX_REASON_BYTES} are allowed",
                reason.len()
            )),
            LeaseAction::DeadLetter { .. } => Ok(()),
        }
    }

    pub(crate) fn check_visibility(&self, timeout: Duration) -> Result<(), String> {
        let most = self.max_visibility_timeout;
        if timeout < Duration::from_millis(1) || timeout > most {
            return Err(format!(
                "a visibility timeout of {timeout:?}, 1ms to {most:?} are allowed"
            ));
        }
        Ok(())
    }

    fn check_delay(&self, delay: Duration) -> Result<(), String> {
        let most = self.max_delay;
        if delay > most {
            return Err(format!(
                "a delay of {delay:?}, at most {most:?} are allowed"
            ));
        }
        Ok(())
    }
}
