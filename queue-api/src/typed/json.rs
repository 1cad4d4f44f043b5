//! The default codec.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{Codec, CodecError, finite::Finite};

impl<T: Serialize + DeserializeOwned> Codec<T> for super::Json {
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
