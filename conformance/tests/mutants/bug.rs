//! The bugs of the wrong backends.

/// One bug of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A part of a message is not stored.
    HeadersLost,
    /// The end of the last line is cut from a payload.
    PayloadIsALine,
    /// A message has at most ten headers, as in SQS.
    HeadersAtMostTen,
    /// The spaces around a header are cut, as in HTTP.
    HeaderValuesTrimmed,
    /// A header that is named as what the store keeps of a message is taken for that.
    HeaderIsMetadata,
    /// An enqueue with a stored id is an upsert.
    DuplicateOverwritesPayload,
    /// Ids are remembered for a day, whatever the queue has.
    DuplicatesForADay,
    /// A stored id is looked for with `LIKE`.
    IdIsAPattern,
    /// A lease does not guard its message.
    LeaseLastsOneMillisecond,
    /// A time is off by one.
    ExpiryOneMillisecondLate,
    /// A finer delay is rounded to the nearest millisecond.
    DelayRoundedToNearest,
    /// A delivery says what the lease call asked for, not how long the lease lasts.
    DeliveryEchoesTimeout,
    /// A call that looks in rounds meets a message again whose lease has ended.
    RoundsRepeatMessages,
    /// Every delivery is the first attempt.
    AttemptsNotCounted,
    /// The number of an attempt is kept in a byte.
    AttemptsAreBytes,
    /// The right messages come in the wrong order.
    AnswerSortedById,
    /// An ack looks at the message of the receipt, not at the delivery.
    AckIgnoresReceipt,
    /// The backend panics on unexpected input.
    LostPanics,
    /// The outcomes of a batch are not in the order of the batch.
    OutcomesReversed,
    /// A release does not take the attempt back.
    ReleaseCounts,
    /// A message is delivered without end.
    MaxAttemptsIgnored,
    /// A larger setting becomes the largest that the store has.
    MaxAttemptsAtMost1000,
    /// The second page leaves out a dead letter.
    DeadPageSkips,
    /// The second page leaves out a message.
    MessagePageSkips,
    /// A peek takes any messages and sorts them, instead of the first ones.
    PeekSortsAfterLimit,
    /// A message that is leased or nacked between two pages moves in the list.
    MessagesByReadyTime,
    /// The list leaves out what a consumer has.
    MessagesWithoutLeased,
    /// What an export needs is not what was sent.
    ListedSettingsAreDefaults,
    /// A token that the backend did not return is a fault of the store.
    BadTokenIsInternal,
    /// A token that the backend did not return leads to other queues.
    TokenIsAPlaceInTheStore,
    /// A receipt works in every queue.
    ReceiptsOfAnyQueue,
    /// A receipt works only for a day.
    ReceiptForgottenAfterADay,
    /// A state is counted as another.
    DelayedCountsAsReady,
    /// A wait does not return.
    WaitMissesEnqueue,
    /// A wait returns at once, so that its caller spins.
    WaitNeverWaits,
    /// The same while there are dead letters and nothing else.
    WaitSpinsOnDead,
    /// A wait begins with a pause.
    WaitPausesFirst,
    /// `at_most` is measured by tokio's clock only.
    WaitIgnoresClock,
    /// A release wakes no wait.
    ReleaseDoesNotWake,
    /// A name that the store reserves: writes fail, and reads say that the queue is empty.
    ReservedNameIsEmpty,
    /// The list leaves out names like those that the store keeps for itself.
    ListHidesTheStoresOwn,
    /// A call to one queue changes the others.
    PurgeEmptiesEveryQueue,
    /// Two writes with await points between them: a dropped call makes only the first. Every second call
    /// meets no await point.
    AckHidesFirst,
    /// A deletion hides messages before it removes them.
    DeletionHidesFirst,
    /// An administrator's call is two calls, and another one may come between them.
    RedriveCountsFirst,
    /// A call ends after a batch, with more to do.
    RedriveStopsAfterBatch,
    /// A call takes only some of the ids.
    RedriveIdsStopsAtTen,
    /// A deletion leaves the dead letters if there are more than a batch.
    DeletionStopsAfterBatch,
    /// A redrive of all takes the last dead letters first.
    RedriveFromTheEnd,
    /// A lease of more than 100 messages is not in order of ready time.
    LargeLeaseIgnoresOrder,
    /// The payload of a dead letter is decoded as UTF-8.
    DeadLetterPayloadIsUtf8,
    /// A dead letter of no reason is known by a text, which a reason may be, too.
    ReasonIsText,
    /// A redrive leaves the reason, and a later death sets none.
    FirstReasonStays,
    /// A time has too few bits.
    ExtensionIsF32,
    /// A wait depends on something that an administrator may remove.
    WaitForgetsDeletedQueue,
    /// A lease reads a message and takes whatever has its id later.
    LeaseGuardsIdsOnly,
    /// Looks whether an id is there, and stores it later: two callers store it.
    EnqueueLooksFirst,
    /// A queue with nothing but dead letters is not listed.
    ListMissesDeadLetters,
    /// Every connection has its own queues.
    StateLostOnReconnect,
    /// The backend's own clock does not move.
    DefaultClockStandsStill,
    /// The backend takes all that its own clock shows, not whole milliseconds.
    DefaultClockIsFiner,
}
