//! Recorded calls on a whole queue.

use queue_api::{MessageId, PageOptions, PeekedMessage, Purge, QueueName, Redrive};

use super::{
    event::{ManageCall, Operation, RecordedMessage, RecordedStats},
    recorder::Recorder,
};

fn live(seen: Vec<PeekedMessage>) -> Vec<RecordedMessage> {
    let live = |message: PeekedMessage| RecordedMessage {
        id: String::from_utf8_lossy(&message.payload).into_owned(),
        attempts: message.attempts,
        exhausted: false,
    };
    seen.into_iter().map(live).collect()
}

impl Recorder {
    async fn manage(
        &mut self,
        queue: &QueueName,
        unanswered: ManageCall,
        make: impl AsyncFnOnce(&mut Self) -> Option<ManageCall>,
    ) {
        let operation = |call| Operation::Manage {
            queue: queue.to_string(),
            call,
        };
        let mut calls = self.begin(1, |_| operation(unanswered.clone()));
        let answer = make(self).await;
        let is_answered = answer.is_some();
        let call = calls.remove(0);
        self.end(call, operation(answer.unwrap_or(unanswered)), is_answered);
    }

    pub(super) async fn stats(&mut self, queue: &QueueName) {
        let backend = self.connection.backend.clone();
        self.manage(queue, ManageCall::Stats(None), async |this| {
            let stats = this.answer(backend.stats(queue)).await?;
            Some(ManageCall::Stats(Some(RecordedStats {
                ready: stats.ready,
                delayed: stats.delayed,
                leased: stats.leased,
                dead: stats.dead,
            })))
        })
        .await;
    }

    pub(super) async fn peek(&mut self, queue: &QueueName) {
        let Some(admin) = self.connection.admin.clone() else {
            return;
        };
        self.manage(queue, ManageCall::Peek(None), async |this| {
            let seen = this.answer(admin.peek(queue, 10)).await?;
            Some(ManageCall::Peek(Some(live(seen))))
        })
        .await;
    }

    /// Lists all live messages, a few on each page.
    pub(super) async fn messages(&mut self, queue: &QueueName) {
        let Some(admin) = self.connection.admin.clone() else {
            return;
        };
        self.manage(queue, ManageCall::Messages(None), async |this| {
            let mut page = PageOptions::new(2);
            let mut seen = Vec::new();
            loop {
                let listed = this.answer(admin.messages(queue, &page)).await?;
                seen.extend(live(listed.messages));
                let Some(token) = listed.next else {
                    let number = seen.len() as u64;
                    this.record.lock().tally.add("messages listed", number);
                    return Some(ManageCall::Messages(Some(seen)));
                };
                page = page.with_token(token);
            }
        })
        .await;
    }

    /// Lists all dead letters, a few on each page.
    pub(super) async fn dead_letters(&mut self, queue: &QueueName) {
        let Some(admin) = self.connection.admin.clone() else {
            return;
        };
        self.manage(queue, ManageCall::DeadLetters(None), async |this| {
            let mut page = PageOptions::new(2);
            let mut seen = Vec::new();
            loop {
                let listed = this.answer(admin.dead_letters(queue, &page)).await?;
                for letter in listed.letters {
                    let id = String::from_utf8_lossy(&letter.payload).into_owned();
                    this.record
                        .lock()
                        .tally
                        .saw_dead(id.clone(), &letter.reason);
                    let exhausted = letter.reason == queue_api::DeadReason::AttemptsExhausted;
                    seen.push(RecordedMessage {
                        id,
                        attempts: letter.attempts,
                        exhausted,
                    });
                }
                let Some(token) = listed.next else {
                    return Some(ManageCall::DeadLetters(Some(seen)));
                };
                page = page.with_token(token);
            }
        })
        .await;
    }

    pub(super) async fn list(&mut self, queue: &QueueName) {
        let Some(admin) = self.connection.admin.clone() else {
            return;
        };
        self.manage(queue, ManageCall::List(None), async |this| {
            let queues = this.answer(admin.list_queues()).await?;
            Some(ManageCall::List(Some(queues.contains(queue))))
        })
        .await;
    }

    /// Redrives the dead letters with these ids, or all.
    pub(super) async fn redrive(&mut self, queue: &QueueName, ids: Option<Vec<MessageId>>) {
        let Some(admin) = self.connection.admin.clone() else {
            return;
        };
        let call = |answer| {
            let ids = ids
                .as_ref()
                .map(|ids| ids.iter().map(MessageId::to_string).collect());
            ManageCall::Redrive { ids, answer }
        };
        let which = ids.clone().map_or(Redrive::All, Redrive::Ids);
        self.manage(queue, call(None), async |this| {
            let count = this.answer(admin.redrive(queue, &which)).await?;
            this.record.lock().tally.add("dead letters redriven", count);
            Some(call(Some(count)))
        })
        .await;
    }

    pub(super) async fn purge(&mut self, queue: &QueueName, what: Purge) {
        let Some(admin) = self.connection.admin.clone() else {
            return;
        };
        let call = |answer| match what {
            Purge::Live => ManageCall::PurgeLive(answer),
            Purge::Dead => ManageCall::PurgeDead(answer),
        };
        self.manage(queue, call(None), async |this| {
            let count = this.answer(admin.purge(queue, what)).await?;
            this.record.lock().tally.add("messages purged", count);
            Some(call(Some(count)))
        })
        .await;
    }

    pub(super) async fn delete(&mut self, queue: &QueueName) {
        let Some(admin) = self.connection.admin.clone() else {
            return;
        };
        let call = |answered| ManageCall::Delete { answered };
        self.manage(queue, call(false), async |this| {
            this.answer(admin.delete_queue(queue)).await?;
            this.record.lock().tally.add("queues deleted", 1);
            Some(call(true))
        })
        .await;
    }
}
