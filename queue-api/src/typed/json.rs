//! The default codec.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{Codec, CodecError, Json, TypedQueue, finite::Finite};
use crate::Queue;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        let mut json = Vec::new();
        value.serialize(Finite(&mut serde_json::Serializer::new(&mut json)))?;
        // A sender can still mend what a consumer cannot read. JSON has values that encode and do
        // not decode: values nested too deep, or types whose two impls disagree for some values.
        serde_json::from_slice::<T>(&json)
            .map_err(|error| format!("its JSON cannot be read back: {error}"))?;
        Ok(json.into())
    }

    fn decode(&self, payload: &Bytes) -> Result<T, CodecError> {
        Ok(serde_json::from_slice(payload)?)
    }
}

impl Queue {
    /// This queue with payloads of type `T`, encoded as JSON.
    ///
    /// Needs the feature `serde_json`, which is on by default.
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
    /// assert!(queue.ack(&first.delivery.receipt).await?.is_applied());
    ///
    /// // If a payload cannot be decoded, the error has the delivery.
    /// let error = mails.lease().await?.expect("one is ready").unwrap_err();
    /// assert!(queue.dead_letter(&error.delivery.receipt, error.to_string()).await?.is_applied());
    /// # Ok(())
    /// # }
    /// ```
    pub fn typed<T: Serialize + DeserializeOwned>(&self) -> TypedQueue<T> {
        self.typed_with(Json)
    }
}
