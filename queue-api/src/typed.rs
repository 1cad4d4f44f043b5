//! Payloads as values of the application's own types.

use std::{error::Error as StdError, fmt, marker::PhantomData};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Delivery, EnqueueOutcome, Error, ErrorKind, LeaseOptions, NewMessage, Queue, Result};

/// What a codec may fail with.
pub type CodecError = Box<dyn StdError + Send + Sync>;

/// Turns values into payloads and back.
pub trait Codec<T>: fmt::Debug + Send + Sync {
    /// The payload that stands for `value`.
    ///
    /// # Errors
    /// The value has no such form.
    fn encode(&self, value: &T) -> Result<Bytes, CodecError>;

    /// The value that `payload` stands for.
    ///
    /// # Errors
    /// The payload stands for none.
    fn decode(&self, payload: &Bytes) -> Result<T, CodecError>;
}

/// The default codec: JSON by serde.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        Ok(serde_json::to_vec(value)?.into())
    }

    fn decode(&self, payload: &Bytes) -> Result<T, CodecError> {
        Ok(serde_json::from_slice(payload)?)
    }
}

impl Queue {
    /// This queue with payloads of type `T`, as JSON.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use queue_api::{NewMessage, Queue};
    /// use queue_memory::MemoryBackend;
    ///
    /// #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    /// struct Mail { to: String }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let queue = Queue::new(Arc::new(MemoryBackend::new()), "mail")?;
    /// let mails = queue.typed::<Mail>();
    /// mails.enqueue(&Mail { to: "ada".into() }).await?;
    /// queue.enqueue(&NewMessage::new("not JSON")).await?;
    ///
    /// let first = mails.lease().await?.expect("two are ready")?;
    /// assert_eq!(first.value, Mail { to: "ada".into() });
    /// queue.ack(&first.delivery.receipt).await?;
    ///
    /// // What does not decode is not lost: the error carries the delivery.
    /// let error = mails.lease().await?.expect("one is ready").unwrap_err();
    /// queue.dead_letter(&error.delivery.receipt, error.to_string()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn typed<T: Serialize + DeserializeOwned>(&self) -> TypedQueue<T> {
        self.typed_with(Json)
    }

    /// This queue with payloads of type `T`, by a codec of your own.
    pub fn typed_with<T, C: Codec<T>>(&self, codec: C) -> TypedQueue<T, C> {
        TypedQueue {
            queue: self.clone(),
            codec,
            payload: PhantomData,
        }
    }
}

/// A queue whose payloads are values of type `T`; made by [`Queue::typed`].
///
/// Leases are settled through the [`Queue`] below it, whatever their payload.
pub struct TypedQueue<T, C = Json> {
    queue: Queue,
    codec: C,
    payload: PhantomData<fn(T) -> T>,
}

impl<T, C: Codec<T>> TypedQueue<T, C> {
    /// The queue below.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// A message with `value` as its payload, to be given an id, headers or a delay and then
    /// enqueued on [`queue`](TypedQueue::queue).
    ///
    /// # Errors
    /// [`Codec`](ErrorKind::Codec) when the value cannot be encoded.
    pub fn message(&self, value: &T) -> Result<NewMessage> {
        let payload = self.codec.encode(value).map_err(|source| {
            Error::new(ErrorKind::Codec, "enqueue", "the value cannot be encoded")
                .with_source(source)
        })?;
        Ok(NewMessage::new(payload))
    }

    /// Stores `value` as a message with the defaults of [`NewMessage::new`].
    ///
    /// To be able to repeat an enqueue that failed, make the message with
    /// [`message`](TypedQueue::message) and keep it: every call of this makes a new one.
    ///
    /// # Errors
    /// As [`message`](TypedQueue::message) and [`Queue::enqueue`].
    pub async fn enqueue(&self, value: &T) -> Result<EnqueueOutcome> {
        self.queue.enqueue(&self.message(value)?).await
    }

    /// Leases one message, if any is ready.
    ///
    /// # Errors
    /// As [`Queue::lease`]. A payload that does not decode is the inner error.
    pub async fn lease(&self) -> Result<Option<Result<TypedDelivery<T>, DecodeError>>> {
        let delivery = self.queue.lease().await?;
        Ok(delivery.map(|delivery| self.decode(delivery)))
    }

    /// Leases several messages, each decoded by itself.
    ///
    /// # Errors
    /// As [`Queue::lease_batch`]. A payload that does not decode is an inner error and leaves
    /// the others alone.
    pub async fn lease_batch(
        &self,
        options: &LeaseOptions,
    ) -> Result<Vec<Result<TypedDelivery<T>, DecodeError>>> {
        let deliveries = self.queue.lease_batch(options).await?;
        Ok(deliveries
            .into_iter()
            .map(|delivery| self.decode(delivery))
            .collect())
    }

    fn decode(&self, delivery: Delivery) -> Result<TypedDelivery<T>, DecodeError> {
        match self.codec.decode(&delivery.payload) {
            Ok(value) => Ok(TypedDelivery { value, delivery }),
            Err(source) => Err(DecodeError {
                delivery: Box::new(delivery),
                source,
            }),
        }
    }
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

/// A delivery with its payload decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedDelivery<T> {
    /// What the payload stands for.
    pub value: T,
    /// The delivery itself, with the receipt that settles it.
    pub delivery: Delivery,
}

/// A payload that does not decode, with the delivery that it came in: the message is leased
/// and waits for a verdict, such as [`Queue::dead_letter`].
#[derive(Debug, thiserror::Error)]
#[error("the payload of message {} cannot be decoded", delivery.id)]
pub struct DecodeError {
    /// The delivery as the queue gave it.
    pub delivery: Box<Delivery>,
    /// What the codec said.
    #[source]
    pub source: CodecError,
}
