//! Payloads as values of your own types.

#[cfg(feature = "serde_json")]
mod finite;
#[cfg(feature = "serde_json")]
mod json;
mod listener;

pub use self::listener::{TypedLease, TypedListener, UndecodableLease};

use std::{error::Error as StdError, fmt, marker::PhantomData, time::Duration};

use crate::{
    Delivery, EnqueueOutcome, Error, ErrorKind, LeaseOptions, NewMessage, Queue, QueueTransaction,
    Result, catch_panic::catch,
};
use bytes::Bytes;

/// The error of a [`Codec`].
pub type CodecError = Box<dyn StdError + Send + Sync>;

/// Converts values to payloads and back.
pub trait Codec<T>: fmt::Debug + Send + Sync {
    /// Encodes `value` as a payload.
    ///
    /// # Errors
    /// The value cannot be encoded, or could not be decoded again.
    fn encode(&self, value: &T) -> Result<Bytes, CodecError>;

    /// Decodes `payload`.
    ///
    /// # Errors
    /// The payload is not a valid encoding of a `T`.
    fn decode(&self, payload: &Bytes) -> Result<T, CodecError>;
}

/// The default codec: JSON, by serde.
///
/// A value that JSON cannot give back is an error of the sender. `serde_json` writes `null` for NaN
/// and infinity, so they are refused wherever they are. And the JSON is decoded once when it is
/// encoded, because only that shows all that a consumer could not read, such as values nested deeper
/// than 128. If that is too slow for large payloads, use a [`Codec`] of your own.
///
/// Needs the feature `serde_json`, which is on by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl Queue {
    /// This queue with payloads of type `T`, encoded by your own codec.
    pub fn typed_with<T, C: Codec<T>>(&self, codec: C) -> TypedQueue<T, C> {
        TypedQueue {
            queue: self.clone(),
            codec,
            payload: PhantomData,
        }
    }
}

/// A queue whose payloads are values of type `T`. [`Queue::typed_with`] creates it, and so
/// does `Queue::typed`.
///
/// Ack and change leases through the underlying [`queue`](TypedQueue::queue). For an id, a header, a
/// delay or a stream, make messages with [`message`](TypedQueue::message) and enqueue them there.
pub struct TypedQueue<T, C = Json> {
    queue: Queue,
    codec: C,
    payload: PhantomData<fn(T) -> T>,
}

impl<T, C: Codec<T>> TypedQueue<T, C> {
    /// The underlying queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Creates a message with `value` as its payload. Set its id, headers or delay, then enqueue
    /// it on the underlying [`queue`](TypedQueue::queue).
    ///
    /// # Errors
    /// [`Codec`](ErrorKind::Codec) if the value cannot be encoded, or JSON could not give it back: see
    /// [`Json`].
    pub fn message(&self, value: &T) -> Result<NewMessage> {
        let payload = self.codec.encode(value).map_err(|source| {
            Error::new(ErrorKind::Codec, "enqueue", "the value cannot be encoded")
                .with_source(source)
        })?;
        Ok(NewMessage::new(payload))
    }

    /// Stores `value` as a message with the defaults of [`NewMessage::new`].
    ///
    /// Every call creates a new message with a new id. To repeat a failed enqueue safely, create
    /// the message with [`message`](TypedQueue::message) and enqueue that one again.
    ///
    /// # Errors
    /// As [`message`](TypedQueue::message) and [`Queue::enqueue`].
    pub async fn enqueue(&self, value: &T) -> Result<EnqueueOutcome> {
        self.queue.enqueue(&self.message(value)?).await
    }

    /// Stores each value as [`enqueue`](TypedQueue::enqueue) does. Returns for each, in order, whether
    /// it was new.
    ///
    /// # Errors
    /// As [`message`](TypedQueue::message), before anything is sent, and [`Queue::enqueue_batch`].
    pub async fn enqueue_batch(&self, values: &[T]) -> Result<Vec<EnqueueOutcome>> {
        self.queue.enqueue_batch(&self.messages(values)?).await
    }

    /// Stores each value when `transaction` commits.
    ///
    /// # Errors
    /// As [`message`](TypedQueue::message), before anything is sent, and [`Queue::enqueue_in`].
    pub async fn enqueue_in(
        &self,
        transaction: &mut dyn QueueTransaction,
        values: &[T],
    ) -> Result<Vec<EnqueueOutcome>> {
        let messages = self.messages(values)?;
        self.queue.enqueue_in(transaction, &messages).await
    }

    fn messages(&self, values: &[T]) -> Result<Vec<NewMessage>> {
        values.iter().map(|value| self.message(value)).collect()
    }

    /// Leases one message, if one is ready.
    ///
    /// # Errors
    /// As [`Queue::lease`]. The inner error means that the payload cannot be decoded.
    pub async fn lease(&self) -> Result<Option<Result<TypedDelivery<T>, DecodeError>>> {
        let delivery = self.queue.lease().await?;
        Ok(delivery.map(|delivery| self.decode(delivery)))
    }

    /// Leases several messages and decodes each of them.
    ///
    /// # Errors
    /// As [`Queue::lease_batch`]. An inner error means that this payload cannot be decoded. It
    /// does not affect the other messages.
    pub async fn lease_batch(
        &self,
        options: &LeaseOptions,
    ) -> Result<Vec<Result<TypedDelivery<T>, DecodeError>>> {
        let deliveries = self.queue.lease_batch(options).await?;
        Ok(self.decode_all(deliveries))
    }

    /// Leases one message. If none is ready, waits for one, at most for `at_most`.
    ///
    /// # Errors
    /// As [`Queue::lease_within`]. The inner error means that the payload cannot be decoded.
    pub async fn lease_within(
        &self,
        at_most: Duration,
    ) -> Result<Option<Result<TypedDelivery<T>, DecodeError>>> {
        let delivery = self.queue.lease_within(at_most).await?;
        Ok(delivery.map(|delivery| self.decode(delivery)))
    }

    /// Leases several messages and decodes each of them. If none is ready, waits until some are,
    /// at most for `at_most`.
    ///
    /// # Errors
    /// As [`Queue::lease_batch_within`]. An inner error means that this payload cannot be decoded.
    pub async fn lease_batch_within(
        &self,
        options: &LeaseOptions,
        at_most: Duration,
    ) -> Result<Vec<Result<TypedDelivery<T>, DecodeError>>> {
        let deliveries = self.queue.lease_batch_within(options, at_most).await?;
        Ok(self.decode_all(deliveries))
    }

    fn decode_all(&self, deliveries: Vec<Delivery>) -> Vec<Result<TypedDelivery<T>, DecodeError>> {
        let decode = |delivery| self.decode(delivery);
        deliveries.into_iter().map(decode).collect()
    }

    fn decode(&self, delivery: Delivery) -> Result<TypedDelivery<T>, DecodeError> {
        match decode(&self.codec, &delivery.payload) {
            Ok(value) => Ok(TypedDelivery { value, delivery }),
            Err(source) => Err(DecodeError {
                delivery: Box::new(delivery),
                source,
            }),
        }
    }
}

/// A panic of the codec is an error: otherwise the caller could settle neither this message nor the
/// others of its batch.
fn decode<T, C: Codec<T>>(codec: &C, payload: &Bytes) -> Result<T, CodecError> {
    let decoded = catch(|| codec.decode(payload));
    decoded.unwrap_or_else(|panic| Err(format!("the codec {panic}").into()))
}

impl<T, C: Clone> Clone for TypedQueue<T, C> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            codec: self.codec.clone(),
            payload: PhantomData,
        }
    }
}

impl<T, C: fmt::Debug> fmt::Debug for TypedQueue<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedQueue")
            .field("queue", &self.queue)
            .field("codec", &self.codec)
            .finish()
    }
}

/// A delivery with its decoded payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TypedDelivery<T> {
    /// The decoded payload.
    pub value: T,
    /// The delivery. Its receipt acks or changes the lease.
    pub delivery: Delivery,
}

/// A payload that cannot be decoded.
///
/// The message is still leased: ack or change it, for example with [`Queue::dead_letter`].
#[derive(Debug, thiserror::Error)]
#[error("the payload of message {} cannot be decoded", delivery.id)]
#[non_exhaustive]
pub struct DecodeError {
    /// The delivery with this payload.
    pub delivery: Box<Delivery>,
    /// The error of the codec.
    #[source]
    pub source: CodecError,
}
