//! The plain types: conversions, texts, and pointers to backends.

use std::{fmt::Debug, str::FromStr, sync::Arc};

use queue_api::{
    Error, ErrorKind, MessageId, NewMessage, Queue, QueueAdmin, QueueBackend, QueueName, Receipt,
    Result,
};
use queue_memory::MemoryBackend;
use serde::{Serialize, de::DeserializeOwned};

/// Every way from text to a value and back.
fn converts<T>(text: &str)
where
    T: Clone + Debug + PartialEq + ToString + AsRef<str> + Serialize + DeserializeOwned,
    T: FromStr<Err: Debug> + for<'a> TryFrom<&'a str, Error: Debug> + TryFrom<String, Error: Debug>,
{
    let value = T::from_str(text).expect("valid");
    assert_eq!(T::try_from(text).expect("valid"), value);
    assert_eq!(T::try_from(text.to_owned()).expect("valid"), value);
    assert_eq!((value.as_ref(), value.to_string().as_str()), (text, text));
    let json = serde_json::to_string(&value).expect("text");
    assert_eq!(json, format!("{text:?}"));
    assert_eq!(serde_json::from_str::<T>(&json).expect("valid"), value);
}

#[test]
fn names_ids_and_receipts_convert_from_and_to_text() {
    converts::<QueueName>("mail.out");
    converts::<MessageId>("invoice 2041, Zürich");
    converts::<Receipt>("4f1c.17");
}

#[test]
fn text_that_is_not_valid_is_refused_by_every_conversion() {
    for name in ["", "$cmd", "a b", &"x".repeat(QueueName::MAX_BYTES + 1)] {
        assert!(QueueName::try_from(name.to_owned()).is_err(), "{name}");
        let json = serde_json::to_string(name).expect("text");
        let error = serde_json::from_str::<QueueName>(&json).expect_err(name);
        assert!(error.to_string().contains("is not a queue name"), "{error}");
    }
    for id in ["", "\n", &"x".repeat(MessageId::MAX_BYTES + 1)] {
        assert!(MessageId::try_from(id.to_owned()).is_err(), "{id}");
        let json = serde_json::to_string(id).expect("text");
        assert!(serde_json::from_str::<MessageId>(&json).is_err(), "{id}");
    }
}

#[test]
fn a_queue_is_named_by_text_or_by_a_name() -> Result<()> {
    let backend: Arc<dyn QueueBackend> = Arc::new(MemoryBackend::new());
    let (name, text) = (QueueName::new("mail")?, "mail".to_owned());
    for queue in [
        Queue::new(backend.clone(), "mail"),
        Queue::new(backend.clone(), &text),
        Queue::new(backend.clone(), text.clone()),
        Queue::new(backend.clone(), &name),
        Queue::new(backend.clone(), name.clone()),
    ] {
        assert_eq!(*queue?.name(), name);
    }
    let error = Queue::new(backend, "not a name").expect_err("a space");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    Ok(())
}

/// Both traits, for pointers to a type and to a trait object.
#[tokio::test]
async fn a_pointer_to_a_backend_is_a_backend() -> Result<()> {
    async fn stores(backend: impl QueueBackend) -> Result<()> {
        let queue = Queue::new(Arc::new(backend), "mail")?;
        queue.enqueue(&NewMessage::new("x")).await?;
        let delivery = queue.lease().await?.expect("it is ready");
        assert!(queue.ack(&delivery.receipt).await?.is_applied());
        Ok(())
    }
    async fn lists(admin: impl QueueAdmin) -> Result<usize> {
        Ok(admin.list_queues().await?.len())
    }
    let backend = MemoryBackend::new();
    let (shared, boxed) = (Arc::new(backend.clone()), Box::new(backend.clone()));
    stores(shared.clone()).await?;
    stores(boxed.clone()).await?;
    stores(shared.clone() as Arc<dyn QueueBackend>).await?;
    stores(boxed.clone() as Box<dyn QueueBackend>).await?;
    let queues = lists(backend).await?;
    assert_eq!(lists(shared.clone()).await?, queues);
    assert_eq!(lists(boxed).await?, queues);
    assert_eq!(lists(shared as Arc<dyn QueueAdmin>).await?, queues);
    Ok(())
}

#[test]
fn the_long_form_of_an_error_has_all_causes_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("handshake failed: {0}")]
    struct Handshake(#[source] std::io::Error);

    let io = std::io::Error::other("certificate expired");
    let error = Error::new(ErrorKind::Unavailable, "connect", "no server answered")
        .with_source(Handshake(io));
    assert_eq!(error.to_string(), "connect: no server answered");
    assert_eq!(
        format!("{error:#}"),
        "connect: no server answered: handshake failed: certificate expired"
    );
}

#[test]
fn every_kind_of_error_has_a_text() {
    let kinds = [
        (ErrorKind::InvalidInput, "invalid input"),
        (ErrorKind::Unavailable, "unavailable"),
        (ErrorKind::TimedOut, "timed out"),
        (ErrorKind::QueueFull, "queue full"),
        (ErrorKind::Denied, "denied"),
        (ErrorKind::Codec, "codec"),
        (ErrorKind::Internal, "internal"),
    ];
    for (kind, text) in kinds {
        assert_eq!((kind.as_str(), kind.to_string().as_str()), (text, text));
    }
}
