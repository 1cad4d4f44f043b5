//! The handle for managing queues.

use std::{
    num::NonZeroUsize,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::FutureExt;
use queue_api::{
    Admin, DeadLetterPage, Delivery, EnqueueOutcome, Error, ErrorKind, LeaseChange, LeaseOptions,
    LeaseOutcome, Limits, MessageId, MessagePage, NewMessage, PageOptions, PageToken,
    PeekedMessage, Purge, Queue, QueueAdmin, QueueBackend, QueueName, QueueStats, Receipt, Redrive,
    Result, async_trait,
};
use queue_memory::MemoryBackend;

/// A memory backend with batches of 3. It records the sizes of its admin calls, and can fail.
#[derive(Debug, Default)]
struct Small {
    inner: MemoryBackend,
    sizes: Mutex<Vec<usize>>,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    SecondPageFails,
    SameTokenForever,
    PagesHaveOneItem,
    SecondPagePanics,
}

#[async_trait]
impl QueueBackend for Small {
    fn limits(&self) -> Limits {
        Limits::STANDARD.with_max_batch(NonZeroUsize::new(3).expect("not zero"))
    }

    async fn enqueue(&self, queue: &QueueName, all: &[NewMessage]) -> Result<Vec<EnqueueOutcome>> {
        self.inner.enqueue(queue, all).await
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        self.inner.lease(queue, options).await
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        self.inner.ack(queue, receipts).await
    }

    async fn change(&self, queue: &QueueName, all: &[LeaseChange]) -> Result<Vec<LeaseOutcome>> {
        self.inner.change(queue, all).await
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        self.inner.wait(queue, at_most).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.inner.stats(queue).await
    }
}

#[async_trait]
impl QueueAdmin for Small {
    async fn peek(&self, queue: &QueueName, max: usize) -> Result<Vec<PeekedMessage>> {
        self.sizes.lock().unwrap().push(max);
        self.inner.peek(queue, max).await
    }

    async fn messages(&self, queue: &QueueName, page: &PageOptions) -> Result<MessagePage> {
        let listed = self.inner.messages(queue, &self.begin(page)?).await?;
        let next = self.next(listed.next.clone());
        Ok(listed.with_next(next))
    }

    async fn purge(&self, queue: &QueueName, what: Purge) -> Result<u64> {
        self.inner.purge(queue, what).await
    }

    async fn dead_letters(&self, queue: &QueueName, page: &PageOptions) -> Result<DeadLetterPage> {
        let listed = self.inner.dead_letters(queue, &self.begin(page)?).await?;
        let next = self.next(listed.next.clone());
        Ok(listed.with_next(next))
    }

    async fn redrive(&self, queue: &QueueName, which: &Redrive) -> Result<u64> {
        if let Redrive::Ids(ids) = which {
            self.sizes.lock().unwrap().push(ids.len());
        }
        self.inner.redrive(queue, which).await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<()> {
        self.inner.delete_queue(queue).await
    }

    async fn list_queues(&self) -> Result<Vec<QueueName>> {
        self.inner.list_queues().await
    }
}

impl Small {
    /// The page to list instead.
    fn begin(&self, page: &PageOptions) -> Result<PageOptions> {
        self.sizes.lock().unwrap().push(page.max());
        match self.fault {
            Some(Fault::SecondPageFails) if page.token().is_some() => {
                Err(Error::new(ErrorKind::Unavailable, "test", "it is away"))
            }
            Some(Fault::SecondPagePanics) if page.token().is_some() => panic!("it panics"),
            Some(Fault::PagesHaveOneItem) => Ok(page.clone().with_max(1)),
            _ => Ok(page.clone()),
        }
    }

    fn next(&self, next: Option<PageToken>) -> Option<PageToken> {
        match self.fault {
            Some(Fault::SameTokenForever) => Some(PageToken::new("m1")),
            _ => next,
        }
    }
}

/// A backend whose queue `q` has dead letters `m0` to `m6`.
async fn with_dead_letters(fault: Option<Fault>) -> (Arc<Small>, Admin) {
    let backend = Arc::new(Small {
        fault,
        ..Small::default()
    });
    let queue = Queue::new(backend.clone(), "q").expect("valid");
    for n in 0..7 {
        let message = NewMessage::new("").with_id(id(n));
        queue.enqueue(&message).await.expect("stored");
        let delivery = queue.lease().await.expect("leased").expect("one is ready");
        let died = queue.dead_letter(&delivery.receipt, "no").await;
        assert!(died.expect("changed").is_applied());
    }
    (backend.clone(), Admin::new(backend))
}

fn id(n: u32) -> MessageId {
    MessageId::new(&format!("m{n}")).expect("valid")
}

fn sizes(backend: &Small) -> Vec<usize> {
    std::mem::take(&mut backend.sizes.lock().unwrap())
}

#[tokio::test]
async fn sizes_out_of_range_and_names_are_refused_before_a_call() -> Result<()> {
    let (backend, admin) = with_dead_letters(None).await;
    for max in [0, 4, usize::MAX] {
        let page = PageOptions::new(max);
        let errors = [
            admin.peek("q", max).await.map(drop),
            admin.messages("q", &page).await.map(drop),
            admin.dead_letters("q", &page).await.map(drop),
        ];
        for error in errors.map(Result::unwrap_err) {
            let wrong = error.invalid_input().expect("out of range");
            let parts = (wrong.name, wrong.value.as_str(), wrong.allowed.as_str());
            assert_eq!(parts, ("max", max.to_string().as_str(), "1 to 3"));
        }
    }
    for error in [
        admin.peek("no name", 1).await.map(drop),
        admin.purge("no name", Purge::Dead).await.map(drop),
        admin
            .dead_letters("no name", &PageOptions::new(1))
            .await
            .map(drop),
        admin.all_dead_letters("no name").map(drop),
        admin
            .messages("no name", &PageOptions::new(1))
            .await
            .map(drop),
        admin.all_messages("no name").map(drop),
        admin.redrive("no name", &Redrive::All).await.map(drop),
        admin.delete_queue("no name").await,
        admin.stats("no name").await.map(drop),
    ] {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert!(sizes(&backend).is_empty());
    assert_eq!(admin.peek("q", 3).await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn dead_letters_come_in_pages_and_as_a_stream() -> Result<()> {
    for fault in [None, Some(Fault::PagesHaveOneItem)] {
        let (backend, admin) = with_dead_letters(fault).await;
        let expected: Vec<_> = (0..7).map(id).collect();
        let mut listed = Vec::new();
        let mut page = PageOptions::new(2);
        loop {
            let letters = admin.dead_letters("q", &page).await?;
            listed.extend(letters.iter().map(|letter| letter.id.clone()));
            let Some(token) = letters.next else { break };
            // It survives a round trip as JSON.
            let text = serde_json::to_string(&token).expect("text");
            page = PageOptions::new(2).with_token(serde_json::from_str(&text).expect("text"));
        }
        assert_eq!(listed, expected);

        sizes(&backend);
        let mut letters = admin.all_dead_letters("q")?;
        assert!(
            sizes(&backend).is_empty(),
            "nothing is read before it is polled"
        );
        let mut listed = vec![letters.next().await.expect("seven")?.id];
        assert_eq!(sizes(&backend), [3], "one page is read");
        while let Some(letter) = letters.next().await {
            listed.push(letter?.id);
        }
        assert_eq!(listed, expected);
        assert!(letters.next().await.is_none(), "it stays at its end");
    }
    Ok(())
}

#[tokio::test]
async fn messages_come_in_pages_and_as_a_stream() -> Result<()> {
    for fault in [None, Some(Fault::PagesHaveOneItem)] {
        let (backend, admin) = with_dead_letters(fault).await;
        admin.redrive("q", &Redrive::All).await?;
        let expected: Vec<_> = (0..7).map(id).collect();
        let mut listed = Vec::new();
        let mut page = PageOptions::new(2);
        loop {
            let messages = admin.messages("q", &page).await?;
            listed.extend(messages.iter().map(|message| message.id.clone()));
            let Some(token) = messages.next else { break };
            page = page.with_token(token);
        }
        assert_eq!(listed, expected);

        sizes(&backend);
        let mut messages = admin.all_messages("q")?;
        let mut listed = Vec::new();
        while let Some(message) = messages.next().await {
            listed.push(message?.id);
            let read = backend.sizes.lock().unwrap().len();
            assert!(read <= listed.len(), "{read} pages for {listed:?}");
        }
        assert_eq!(listed, expected);
        assert!(messages.next().await.is_none(), "it stays at its end");
    }
    Ok(())
}

#[tokio::test]
async fn the_first_error_ends_the_stream() -> Result<()> {
    let cases = [
        (Fault::SecondPageFails, ErrorKind::Unavailable, 3),
        (Fault::SameTokenForever, ErrorKind::Internal, 3),
    ];
    for (fault, kind, expected) in cases {
        let (_, admin) = with_dead_letters(Some(fault)).await;
        let mut letters = admin.all_dead_letters("q")?;
        let mut seen = 0;
        let error = loop {
            match letters.next().await.expect("it ends with an error") {
                Ok(_) => seen += 1,
                Err(error) => break error,
            }
            assert!(seen < 100, "it does not end");
        };
        assert_eq!((error.kind(), seen), (kind, expected), "{fault:?}");
        assert!(letters.next().await.is_none());
    }
    Ok(())
}

#[tokio::test]
async fn a_text_that_is_no_token_is_refused() {
    let (_, admin) = with_dead_letters(None).await;
    let page = PageOptions::new(1).with_token(PageToken::new("\n"));
    for error in [
        admin.dead_letters("q", &page).await.map(drop),
        admin.messages("q", &page).await.map(drop),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let text = r#"page token is "\n"; it must be one that this backend returned"#;
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn ids_are_redriven_in_chunks() -> Result<()> {
    let (backend, admin) = with_dead_letters(None).await;
    let ids = Redrive::Ids([0, 1, 9, 2, 3, 0, 4].map(id).to_vec());
    assert_eq!(admin.redrive("q", &ids).await?, 5);
    assert_eq!(sizes(&backend), [3, 3, 1]);
    assert_eq!(admin.redrive("q", &Redrive::Ids(Vec::new())).await?, 0);
    assert_eq!(admin.redrive("q", &Redrive::All).await?, 2);
    assert!(sizes(&backend).is_empty());

    let stats = admin.stats("q").await?;
    assert_eq!((stats.ready, stats.dead), (7, 0));
    assert_eq!(admin.list_queues().await?, [QueueName::new("q")?]);
    assert_eq!(admin.purge("q", Purge::Live).await?, 7);
    admin.delete_queue("q").await?;
    assert!(admin.list_queues().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_page_that_panics_ends_the_stream() -> Result<()> {
    let (_, admin) = with_dead_letters(Some(Fault::SecondPagePanics)).await;
    let mut letters = admin.all_dead_letters("q")?;
    for _ in 0..3 {
        assert!(letters.next().await.is_some());
    }
    let panics = AssertUnwindSafe(letters.next()).catch_unwind().await;
    assert!(panics.is_err());
    assert!(letters.next().await.is_none());
    Ok(())
}
