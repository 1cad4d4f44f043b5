//! What is stored of what was sent: all of it, unless a bug loses some.

use std::time::Duration;

use queue_api::{Bytes, MessageId, NewMessage, Result};

use crate::{
    bug::Bug,
    harness::LIMITS,
    state::{State, refused},
};

impl State {
    pub(crate) fn as_kept(&self, messages: &[NewMessage]) -> Result<Vec<NewMessage>> {
        let mut kept = messages.to_vec();
        let size: usize = messages.iter().map(|message| message.payload.len()).sum();
        if size > 1 << 20 && self.has(Bug::BatchTooLarge) {
            return Err(refused("enqueue", "a request that is too large"));
        }
        match self.bug {
            Some(Bug::DelayIgnoredInBatch) if kept.len() > 1 => {
                kept.iter_mut()
                    .for_each(|message| message.delay = Duration::ZERO);
            }
            Some(Bug::DelayOfFirstForBatch) => {
                kept.iter_mut()
                    .for_each(|message| message.delay = messages[0].delay);
            }
            Some(Bug::LaterOfTwoInBatchWins) => {
                let later = |id| {
                    messages
                        .iter()
                        .rfind(|m| m.id == id)
                        .expect("it is one of them")
                };
                kept.iter_mut()
                    .for_each(|message| *message = later(message.id.clone()).clone());
            }
            _ => {}
        }
        kept.into_iter()
            .map(|message| self.one_as_kept(message))
            .collect()
    }

    fn one_as_kept(&self, mut message: NewMessage) -> Result<NewMessage> {
        let payload = &message.payload;
        match self.bug {
            Some(Bug::EmptyPayloadRefused) if payload.is_empty() => {
                return Err(refused("enqueue", "no payload"));
            }
            Some(Bug::EmptyPayloadIsNull) if payload.is_empty() => {
                message.payload = Bytes::from_static(b"null");
            }
            Some(Bug::PayloadCutAt64K) => message.payload = cut(payload, 64 << 10),
            Some(Bug::PayloadCutAtNul) => {
                let end = payload.iter().position(|byte| *byte == 0);
                message.payload = cut(payload, end.unwrap_or(payload.len()));
            }
            Some(Bug::PayloadLossyUtf8) => {
                message.payload = String::from_utf8_lossy(payload).into_owned().into();
            }
            Some(Bug::PayloadLimitTooHigh) if payload.len() > LIMITS.max_payload_bytes - 1024 => {
                return Err(refused("enqueue", "a document that is too large"));
            }
            Some(Bug::HeadersLost) => message.headers.clear(),
            Some(Bug::HeadersCutAtNul) => {
                let cut = |text: String| text.split('\0').next().unwrap_or_default().to_owned();
                let headers = message.headers.into_iter();
                message.headers = headers.map(|(name, text)| (cut(name), cut(text))).collect();
            }
            Some(Bug::EmptyHeaderDropped) => message.headers.retain(|_, text| !text.is_empty()),
            Some(Bug::LongHeaderCut) => {
                message
                    .headers
                    .values_mut()
                    .for_each(|text| text.truncate(4096));
            }
            Some(Bug::HeaderNamesLowerCased | Bug::HeaderDotsReplaced) => {
                let named = message
                    .headers
                    .into_iter()
                    .map(|(name, text)| match self.bug {
                        Some(Bug::HeaderDotsReplaced) => (name.replace('.', "_"), text),
                        _ => (name.to_lowercase(), text),
                    });
                message.headers = named.collect();
            }
            Some(Bug::IdsTrimmed) => message.id = id(message.id.as_str().trim()),
            Some(Bug::IdsCutAt64Bytes) if message.id.as_str().is_ascii() => {
                message.id = id(&message.id.as_str()[..message.id.as_str().len().min(64)]);
            }
            Some(Bug::IdsPercentDecoded) => {
                message.id = id(&message.id.as_str().replace("%41", "A"));
            }
            Some(Bug::DelayInU32) => {
                let millis = message.delay.as_millis() as u32;
                message.delay = Duration::from_millis(u64::from(millis));
            }
            Some(Bug::DelayIgnored) => message.delay = Duration::ZERO,
            Some(Bug::DelayInWholeSeconds) => {
                message.delay = Duration::from_secs(message.delay.as_secs());
            }
            Some(Bug::MaxAttemptsAlwaysDefault) => {
                message.max_attempts = NewMessage::DEFAULT_MAX_ATTEMPTS;
            }
            _ => {}
        }
        Ok(message)
    }
}

fn cut(payload: &Bytes, end: usize) -> Bytes {
    payload.slice(..payload.len().min(end))
}

fn id(text: &str) -> MessageId {
    MessageId::new(text).expect("a valid id is changed into a valid one")
}
