//! Typed payloads: what a sender may send, and streams of decoded leases.

use std::{collections::BTreeMap, error::Error as _, fmt::Debug, sync::Arc, time::Duration};

use futures::StreamExt;
use queue_api::{
    Bytes, Codec, CodecError, ErrorKind, Json, NewMessage, Queue, Result, consumer::ListenOptions,
};
use queue_memory::MemoryBackend;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

fn queue() -> Queue {
    Queue::new(Arc::new(MemoryBackend::new()), "q").expect("valid")
}

/// Every way in which serde can hold a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Holder<T> {
    Newtype(T),
    Tuple(u8, T),
    Struct { value: T },
    Wrapped(Wrapper<T>),
    Pair(Pair<T>),
    Record(Record<T>),
    Some(Option<T>),
    List(Vec<T>),
    Map(BTreeMap<String, T>),
    Array([T; 2]),
    Boxed(Box<Holder<T>>),
    Tagged(Tagged<T>),
    Untagged(Untagged<T>),
    Flat(Flat<T>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wrapper<T>(T);
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pair<T>(T, T);
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record<T> {
    value: T,
}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged<T> {
    One(Record<T>),
}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged<T> {
    One(T),
}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flat<T> {
    #[serde(flatten)]
    record: Record<T>,
}

fn holders<T: Clone>(value: T) -> Vec<Holder<T>> {
    let copy = || value.clone();
    vec![
        Holder::Newtype(copy()),
        Holder::Tuple(1, copy()),
        Holder::Struct { value: copy() },
        Holder::Wrapped(Wrapper(copy())),
        Holder::Pair(Pair(copy(), copy())),
        Holder::Record(Record { value: copy() }),
        Holder::Some(Some(copy())),
        Holder::List(vec![copy(), copy()]),
        Holder::Map([("key".to_owned(), copy())].into()),
        Holder::Array([copy(), copy()]),
        Holder::Boxed(Box::new(Holder::Some(Some(copy())))),
        Holder::Tagged(Tagged::One(Record { value: copy() })),
        Holder::Untagged(Untagged::One(copy())),
        Holder::Flat(Flat {
            record: Record { value: copy() },
        }),
    ]
}

async fn comes_back<T>(value: T)
where
    T: Debug + PartialEq + Serialize + DeserializeOwned,
{
    let typed = queue().typed::<T>();
    typed.enqueue(&value).await.expect("it can be encoded");
    let leased = typed.lease().await.expect("leased").expect("one is ready");
    assert_eq!(leased.expect("it can be decoded").value, value);
    // The bytes are those of plain serde_json.
    let bytes: Bytes = serde_json::to_vec(&value)
        .expect("it can be encoded")
        .into();
    assert_eq!(Json.encode(&value).expect("it can be encoded"), bytes);
}

async fn is_refused<T: Debug + Serialize + DeserializeOwned>(value: &T, why: &str) {
    let queue = queue();
    let error = queue.typed::<T>().enqueue(value).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Codec, "{value:?}");
    let text = format!("{error:#}");
    assert!(text.contains(why), "{value:?}: {text}");
    assert!(error.source().is_some());
    assert_eq!(queue.stats().await.expect("counted").ready, 0, "{value:?}");
}

#[tokio::test]
async fn numbers_that_json_cannot_hold_are_refused_wherever_they_are() {
    for (number, text) in [
        (f64::NAN, "a number is NaN; in JSON it must be finite"),
        (f64::INFINITY, "a number is inf"),
        (f64::NEG_INFINITY, "a number is -inf"),
    ] {
        is_refused(&number, text).await;
        is_refused(&(number as f32), text).await;
        for holder in holders(number) {
            is_refused(&holder, text).await;
        }
        for holder in holders(number as f32) {
            is_refused(&holder, text).await;
        }
    }
}

#[tokio::test]
async fn all_other_values_come_back() {
    for number in [0.0, -0.0, 1.5, f64::MAX, f64::MIN_POSITIVE, f64::EPSILON] {
        for holder in holders(number) {
            comes_back(holder).await;
        }
    }
    for text in ["", "null", "NaN", "\0\u{1f600}\"\\"] {
        for holder in holders(text.to_owned()) {
            comes_back(holder).await;
        }
    }
    comes_back(()).await;
    comes_back(Some(true)).await;
    comes_back(None::<u8>).await;
    comes_back(('x', i8::MIN, i64::MIN, u64::MAX, i128::MIN, u128::MAX)).await;
    comes_back(BTreeMap::from([(1_u8, "one".to_owned())])).await;
    comes_back(vec![0_u8, 255]).await;
    comes_back(Duration::MAX).await;
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Nested(Vec<Nested>);

#[derive(Debug, Serialize, Deserialize)]
struct Skipping {
    #[serde(skip_serializing_if = "String::is_empty")]
    text: String,
}

#[tokio::test]
async fn what_encodes_and_does_not_decode_is_refused() {
    let mut nested = Nested::default();
    for _ in 0..200 {
        nested = Nested(vec![nested]);
    }
    is_refused(&nested, "cannot be read back: recursion limit exceeded").await;
    let missing = Skipping {
        text: String::new(),
    };
    is_refused(&missing, "cannot be read back: missing field `text`").await;
    let keys = BTreeMap::from([((1, 2), 3)]);
    is_refused(&keys, "key must be a string").await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_decodes_and_goes_on_after_what_does_not() -> Result<()> {
    let queue = queue();
    let numbers = queue.typed::<u8>();
    numbers.enqueue(&1).await?;
    queue.enqueue(&NewMessage::new("not a number")).await?;
    numbers.enqueue(&3).await?;

    let mut listener = numbers.listen(ListenOptions::new(5))?;
    let first = listener.next().await.expect("three").expect("a number");
    assert_eq!((first.value, first.lease.attempt()), (1, 1));
    assert!(first.lease.ack().await?.is_applied());
    let second = listener.next().await.expect("three").expect_err("text");
    assert!(second.to_string().contains("cannot be decoded"), "{second}");
    assert!(second.source().is_some());
    assert!(second.lease.dead_letter("text").await?.is_applied());
    // As a stream too. Dropped, it comes back after a while.
    let third = StreamExt::next(&mut listener).await.expect("three");
    assert_eq!(third.expect("a number").value, 3);

    listener.stop().await;
    assert!(listener.next().await.is_none());
    listener.drain().await;
    let stats = queue.stats().await?;
    assert_eq!((stats.delayed, stats.leased, stats.dead), (1, 0, 1));
    assert!(numbers.listen(ListenOptions::new(0)).is_err());
    Ok(())
}

#[derive(Clone, Debug)]
struct PanickingCodec;

impl Codec<u8> for PanickingCodec {
    fn encode(&self, value: &u8) -> Result<Bytes, CodecError> {
        Ok(vec![*value].into())
    }

    fn decode(&self, _: &Bytes) -> Result<u8, CodecError> {
        panic!("the codec's own panic")
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_codec_keeps_the_lease() -> Result<()> {
    let numbers = queue().typed_with::<u8, _>(PanickingCodec);
    numbers.enqueue(&1).await?;
    let mut listener = numbers.listen(ListenOptions::new(1))?;
    let error = listener.next().await.expect("one").expect_err("a panic");
    assert!(error.source.to_string().contains("the codec's own panic"));
    assert!(error.lease.nack(Duration::ZERO).await?.is_applied());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_stored_whole_or_not_at_all_if_a_value_cannot_be_encoded() {
    let queue = queue();
    let numbers = queue.typed::<f64>();
    let error = numbers.enqueue_batch(&[1.0, f64::NAN]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Codec);
    assert_eq!(queue.stats().await.unwrap().ready, 0);

    assert_eq!(numbers.enqueue_batch(&[1.0, 2.0]).await.unwrap().len(), 2);
    assert_eq!(queue.stats().await.unwrap().ready, 2);
}
