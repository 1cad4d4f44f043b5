//! The bugs, under the checks that exist to see them.

bugs! {
    // E1 kept
    what_is_stored_is_delivered:
        BatchTailDropped = "of a batch 16 messages are stored, and all are said to be",
        AtMostTen = "a lease call gives at most 10";
    an_unacked_message_comes_back_every_time:
        MaxAttemptsAlwaysDefault = "every message has 25 attempts, whatever it says";

    // E2 idempotent
    a_stored_id_is_a_duplicate_in_every_state:
        DuplicateStoredWhileLeased = "ids are compared with those of unleased messages only",
        DuplicateStoredWhileDelayed = "ids are compared with those of undelayed messages only",
        DuplicateStoredWhenDead = "ids are compared with those of live messages only",
        DuplicateIsAnError = "a duplicate is an error";
    a_duplicate_changes_nothing:
        DuplicateOverwritesPayload = "an upsert replaces the payload",
        DuplicateOverwritesTimeout = "an upsert replaces the visibility timeout",
        DuplicateOverwritesMaxAttempts = "an upsert replaces the maximum of attempts",
        DuplicateResetsDelay = "an upsert begins a new delay",
        DuplicateResetsAttempts = "an upsert counts the attempts from 0 again",
        DuplicateResetsEnqueuedAt = "an upsert replaces the enqueue time",
        DuplicateEndsLease = "an upsert ends the lease";
    equal_ids_in_one_batch_are_stored_once:
        DuplicateStopsBatch = "an ordered insert stops at the first duplicate",
        LaterOfTwoInBatchWins = "of two equal ids in one batch the later is stored",
        EnqueueOutcomesUnordered = "enqueue outcomes come with the new messages first";
    a_full_batch_of_duplicates:
        DuplicatesSeenUpTo100 = "of more than 100 write errors only 100 are read";
    an_acked_id_may_be_used_again:
        AckedIdRefused = "the id of an acked message is a duplicate for ever";
    ids_that_look_alike_are_distinct:
        IdsIgnoreCase = "ids are compared without regard to case",
        IdsIgnoreTrailingSpace = "ids are compared padded, as SQL does it with CHAR";

    // E3 faithful
    payloads_come_back_as_sent:
        EmptyPayloadRefused = "an empty payload is an error",
        EmptyPayloadIsNull = "an empty payload comes back as null",
        PayloadCutAt64K = "a payload is cut at 64 KiB",
        PayloadCutAtNul = "a payload is cut at its first zero byte",
        PayloadLossyUtf8 = "a payload goes through text";
    a_batch_of_large_payloads_comes_back:
        BatchTooLarge = "what is sent in one call is limited to 1 MiB",
        AnswerTooLarge = "what is given in one call is limited to 1 MiB";
    a_redelivery_is_the_same_message:
        PayloadGivenOnce = "a payload is let go of at its first delivery";
    a_payload_at_the_limit_comes_back:
        PayloadLimitTooHigh = "the last KiB below the payload limit is refused",
        LongHeaderCut = "a header is cut at 4 KiB";
    headers_come_back_as_sent:
        HeadersLost = "headers are not stored",
        HeaderNamesLowerCased = "header names are lower-cased",
        HeadersCutAtNul = "header names and values end at a zero byte",
        HeaderDotsReplaced = "dots in header names become underscores",
        EmptyHeaderDropped = "a header without a value is dropped";
    ids_of_any_text_work:
        IdsTrimmed = "ids are trimmed",
        IdsCutAt64Bytes = "ids are cut at 64 bytes",
        IdsPercentDecoded = "ids are percent-decoded";
    times_come_back_as_sent:
        EnqueuedAtIsDeliveryTime = "the enqueue time is that of the delivery",
        EnqueuedAtIsReadyTime = "the enqueue time is the first ready time";

    // E4 delayed
    a_delay_is_exact_to_the_millisecond:
        DelayIgnored = "delays are ignored",
        DelayTickShort = "a delay ends a tick early",
        DelayTickLong = "a delay ends a tick late",
        GivenClockIgnored = "the machine's clock is asked in place of the given one";
    delays_in_one_batch_are_independent:
        DelayIgnoredInBatch = "delays are ignored in batches",
        DelayOfFirstForBatch = "the first message's delay is that of its whole batch",
        DelayInWholeSeconds = "delays are cut to whole seconds";
    a_finer_duration_is_rounded_up:
        DurationsRoundedDown = "durations are cut to whole milliseconds";
    a_delay_passes_in_real_time:
        DefaultClockStandsStill = "the default clock is read once";
    a_lease_expires_in_real_time:
        DefaultClockTenTimesSlow = "the default clock runs in the wrong unit";

    the_longest_times_are_exact:
        DelayInU32 = "delays are milliseconds of 32 bits";

    // L1 exclusive, L2 visible again
    a_leased_message_is_not_leased_again:
        EmptyLeaseIsAnError = "a lease call that finds nothing is an error",
        LeaseHidesNothing = "a leased message stays ready";
    an_extended_lease_stays_exclusive:
        ExtendOnlyOnce = "the second extension of a lease has no effect",
        ExtendWithoutEffect = "an extension is accepted and not made",
        ExtendSettles = "a receipt is lost after its extension";
    a_lease_expires_to_the_millisecond:
        ExpiryNever = "a lease never runs out",
        ExpiryTickEarly = "a lease runs out a tick early",
        ExpiryTickLate = "a lease runs out a tick late";
    each_message_has_its_own_timeout:
        TimeoutOfFirstForBatch = "the first message's timeout is that of the whole lease call";
    the_lease_call_overrides_the_timeout:
        OverrideIgnored = "the lease call's timeout is ignored",
        OverrideNotTold = "a delivery tells the message's own timeout in place of its lease's",
        OverrideOnlyReported = "the lease call's timeout is reported and not kept",
        OverrideCannotLengthen = "the shorter of message's and lease call's timeout counts";
    the_override_ends_with_its_lease:
        OverrideRemembered = "the lease call's timeout is that of later leases too";

    // L3 counted
    clients_with_wrong_clocks_do_no_harm:
        ClientTime = "a process goes by its own clock";
    receipts_are_fresh:
        ReceiptReused = "a redelivery has the receipt of the first delivery",
        OneReceiptPerCall = "all messages of one lease call have one receipt",
        ReceiptIsBinary = "receipts have control characters";
    a_receipt_is_not_repeated:
        ReceiptIsTheAttempt = "receipts are made of message and attempt, so a return repeats one";
    attempts_count_from_one:
        AttemptsNotCounted = "every delivery is the first attempt",
        AttemptsFromZero = "attempts are counted from 0",
        OnlyNackCounts = "an attempt whose lease ran out is not counted";
    every_redelivery_counts_except_after_a_release:
        NackDoesNotCount = "a nack takes the attempt back",
        NackResetsAttempts = "a nack counts the attempts from 0 again",
        ExtendCounts = "an extension counts as an attempt",
        ReturnResetsAttempts = "a return counts the attempts from 0 again";
    a_released_message_is_ready_at_once_and_not_counted:
        ReturnCounts = "a return does not take the attempt back",
        ReturnWaitsForTimeout = "a returned message stays hidden until its timeout";

    // L4 bounded
    never_more_than_asked:
        OneMoreThanAsked = "a lease call gives one more than asked";
    everything_ready_up_to_what_was_asked:
        OneLessThanReady = "a lease call leaves one of several behind";
    in_order_of_ready_time:
        NewestFirst = "what became ready last comes first",
        OrderOfEnqueue = "messages come in order of enqueue time",
        OrderOfId = "messages come in order of id",
        AnswerSortedById = "the right messages come, sorted by id";
    a_lease_of_zero_returns_nothing:
        NothingIsOne = "a lease call for 0 gives 1",
        NothingIsAll = "a limit of 0 is no limit, as in MongoDB";
    a_batch_of_the_largest_size:
        OldestDroppedWhenFull = "a queue of 150 messages drops its oldest for the next",
        SettlesAtMost100 = "of a batch 100 receipts are settled, and all are said to be",
        FirstPageOnly = "a lease call gives at most the 101 documents of a cursor's first page";

    // A1 gone, A2 fenced
    an_acked_message_is_gone:
        AckOnlyHides = "an ack hides the message for another timeout",
        AckBuries = "an acked message becomes a dead letter";
    a_batch_of_acks_ends_exactly_its_messages:
        AckEndsItsLeaseCall = "an ack ends everything that was leased by the same call",
        OnlyFirstSettled = "of a batch the first receipt is settled, and all are said to be";
    a_superseded_receipt_acks_nothing:
        AckById = "an ack looks at the receipt's message and not at its delivery";
    a_superseded_receipt_changes_nothing:
        ChangeById = "a change looks at the receipt's message and not at its delivery",
        ExtendById = "an extension looks at the receipt's message and not at its delivery";
    a_made_up_receipt_is_lost:
        MadeUpReceiptPanics = "a receipt of another form is a panic",
        MadeUpReceiptIsAnError = "a receipt of another form is an error",
        ReceiptsCompareByPrefix = "a receipt with something behind it is still good";

    // A3 late is fine
    a_late_ack_works:
        LateAckRefused = "an ack after the timeout is refused";
    a_late_change_works:
        LateChangeRefused = "nack, return and dead-lettering after the timeout are refused";
    a_late_extend_hides_the_message_again:
        LateExtendRefused = "an extension after the timeout is refused",
        LateExtendWithoutEffect = "an extension after the timeout is accepted and not made";

    // A4 once
    a_settled_receipt_is_lost:
        LostNeverAnswers = "a call with a lost receipt never ends",
        LostIsAnError = "a lost receipt is an error",
        SecondAckApplied = "an ack of what is gone is said to be applied",
        ChangeAfterAckApplied = "a change of what is gone is said to be applied",
        NackKeepsReceipt = "a receipt works after its nack",
        ReleaseKeepsReceipt = "a receipt works after its return",
        DeadLetterKeepsReceipt = "a receipt works after its dead-lettering";
    a_receipt_twice_in_one_batch_works_once:
        TwiceInBatchIsTwiceApplied = "receipts of a batch are looked up before any is used";
    settled_and_live_receipts_in_one_batch:
        AllOrNothing = "one lost receipt keeps a batch from being carried out",
        AllAppliedIfAny = "a batch is said to be applied if one of it is";
    changes_of_one_receipt_follow_each_other:
        LastChangeOnly = "of a batch's changes to one receipt only the last is made",
        FirstChangeOnly = "of a batch's changes to one receipt only the first is made";
    outcomes_are_in_order:
        OutcomesSortedById = "outcomes come in order of id",
        LostOutcomesLast = "outcomes come with the lost ones last",
        LostOutcomesMissing = "there are outcomes for what was applied only";
    an_empty_batch_has_no_outcomes:
        EmptyBatchIsAnError = "a batch of none is an error",
        EmptyAckIsForAll = "an ack of no receipt is taken for one of every lease";

    // A5 changed
    extend_counts_from_now:
        ExtendAddsToExpiry = "an extension counts from the old expiry";
    extend_may_shorten:
        ExtendCannotShorten = "an extension moves the expiry to later only",
        ExtendByOwnTimeout = "an extension is as long as the message's own timeout";
    a_nack_delay_is_exact_to_the_millisecond:
        NackIgnoresDelay = "a nack's delay is ignored",
        NackTickEarly = "a nack's delay ends a tick early",
        NackDelayFromLease = "a nack's delay counts from the begin of the lease";
    nack_without_delay_is_ready_at_once:
        NackWaitsForTimeout = "a nacked message stays hidden until its timeout";
    changes_in_one_batch_are_independent:
        FirstActionForBatch = "the first action is carried out on the whole batch";

    // D1 dead letter
    after_max_attempts_a_message_becomes_a_dead_letter:
        NeverExhausted = "a message is delivered without end",
        MaxAttemptsNotTold = "a delivery tells a maximum of attempts that is not the message's",
        OneAttemptTooMany = "a message is delivered once too often",
        OneAttemptTooFew = "a message is buried one delivery early",
        ExhaustedIsPassedOver = "an exhausted message is passed over and never buried",
        ExhaustedIsDeleted = "an exhausted message is deleted",
        ExhaustedCountsAsDead = "an exhausted message counts as dead before it is buried";
    a_nack_of_the_last_attempt_makes_no_dead_letter:
        NackBuriesLastAttempt = "a nack of the last attempt buries the message";
    the_largest_max_attempts_works:
        MaxAttemptsAsI32 = "the maximum of attempts is stored in 32 bits with a sign";
    exhausted_messages_do_not_hide_ready_ones:
        ExhaustedHidesTheRest = "exhausted messages in front make a lease call come back short";
    a_lease_leaves_exhausted_messages_behind_the_last_one:
        BuryingGoesOn = "a lease call buries what it does not meet";
    the_last_attempt_can_still_be_acked:
        LastAttemptAckRefused = "a late ack of the last attempt is refused before it is buried",
        BuriedReceiptAcks = "the last receipt acks the dead letter";
    a_rejected_message_stays_dead:
        RejectedComesBack = "a dead-lettered message is still leased when its time comes";
    dead_letters_keep_the_whole_message:
        DeadLosesPayload = "a dead letter loses its payload",
        DeadLosesHeaders = "a dead letter loses its headers",
        DeadLosesAttempts = "a dead letter says 0 attempts",
        DeadEnqueuedWhenBuried = "a dead letter's enqueue time is that of its burial",
        DeadSinceExpiry = "a dead letter died when its lease ran out";
    dead_letters_keep_their_reason:
        RejectedSinceExpiry = "a dead-lettered message died when its lease would have run out",
        ReasonLost = "the reason of a dead-lettering is lost",
        ReasonCutAt256 = "the reason of a dead-lettering is cut at 256 bytes",
        RejectedAsExhausted = "a dead-lettered message counts as exhausted";
    many_dead_letters_are_listed_and_redriven:
        DeadPageFirstOnly = "at most 101 dead letters are listed",
        PeekFirstOnly = "a peek shows at most 101 messages",
        RedriveAtMost100 = "a redrive takes at most 100";
    redrive_counts_attempts_from_zero:
        ReceiptRestartsWithRedrive = "receipts are made of message and attempt, so a redrive repeats",
        RedriveKeepsAttempts = "a redrive keeps the attempts",
        RedriveLosesHeaders = "a redrive loses the headers",
        RedriveKeepsReadyTime = "a redriven message is as old as its last lease",
        RedriveCopies = "a redrive leaves the dead letter where it was";
    redrive_takes_only_the_named_ids:
        RedriveNoneIsAll = "a redrive of none takes all",
        RedriveTakesAll = "a redrive of some takes all",
        RedriveCountsNamed = "a redrive counts what was named",
        RedriveTakesLive = "a redrive makes a named live message ready";
    dead_letters_are_listed_in_pages:
        DeadPageFromStart = "every page of dead letters is the first",
        DeadPageRepeatsLast = "a page of dead letters begins with the last of the one before",
        DeadPageInOrderOfDeath = "dead letters are listed in order of death",
        DeadPageNoneIsAll = "a page of 0 dead letters shows everything",
        DeadPageTooLong = "a page of dead letters is one too long";

    // Q1 isolated, S1 counted right
    queues_are_separate:
        QueuesShareIds = "an id is a duplicate if any queue holds it";
    queues_with_similar_names_are_separate:
        QueueNamesIgnoreCase = "queue names are compared without regard to case",
        QueueNamesLoseDots = "dots in queue names become dashes",
        QueueNamesCutAt32 = "queue names are cut at 32 bytes",
        StatsByPrefix = "stats count every queue whose name begins so";
    a_receipt_is_lost_in_another_queue:
        ReceiptsOfAnyQueue = "a receipt works in any queue";
    an_unused_queue_is_empty:
        UnusedQueueIsAnError = "a queue that nobody has used is an error",
        WaitOnUnusedQueueFails = "a wait on a queue that nobody has used is an error";
    stats_are_exact_after_every_step:
        ExpiredCountsAsLeased = "a message whose lease ran out counts as leased",
        DelayedCountsAsReady = "a delayed message counts as ready",
        HeldBackCountsAsLeased = "a message held back by a nack counts as leased",
        DeadNotCounted = "dead letters are not counted";
    stats_report_the_age_of_the_oldest:
        OldestSinceEnqueue = "the oldest ready message's age counts from its enqueue",
        OldestIsTheNewest = "the age is that of the message that became ready last",
        OldestInWholeSeconds = "the oldest ready message's age is in whole seconds",
        ReturnKeepsReadyTime = "a returned message is as old as before its lease";

    // W1 woken
    wait_returns_at_once_when_something_is_ready:
        WaitDoesNotLookFirst = "a wait does not see what was ready when it began";
    wait_wakes_on_an_enqueue:
        WaitMissesEnqueue = "a wait is not told of an enqueue",
        WaitWakesOne = "an enqueue wakes one wait and not the others";
    wait_wakes_on_an_enqueue_elsewhere:
        WaitHearsItselfOnly = "a wait is told of its own connection's calls only";
    wait_wakes_when_a_delay_ends:
        WaitSleepsOnDelays = "a wait sleeps on when a delay ends";
    wait_wakes_when_a_lease_ends:
        WaitSleepsOnLeases = "a wait sleeps on when a lease runs out";
    wait_wakes_on_a_nack:
        WaitMissesNack = "a wait is not told of a nack";
    wait_wakes_when_a_shortened_lease_ends:
        WaitMissesExtend = "a wait is not told of an extension that shortens";
    wait_wakes_on_a_redrive:
        WaitMissesRedrive = "a wait is not told of a redrive";
    wait_ends_after_the_time_given:
        WaitIgnoresLimit = "a wait ignores the time it was given",
        WaitLimitIsAnError = "a wait that was given too little time is an error";
    wait_wakes_when_due_in_real_time:
        TimersTooSlow = "the timer of the default clock fires ten times too late";

    // M1 managed
    peek_changes_nothing:
        PeekLeases = "a peek leases what it shows",
        PeekCounts = "a peek counts an attempt",
        PeekInOrderOfEnqueue = "a peek shows messages in order of enqueue time",
        PeekShowsDead = "a peek shows dead letters too",
        PeekShowsReadyOnly = "a peek shows what is ready only",
        PeekIgnoresMax = "a peek shows everything",
        PeekNoneIsAll = "a peek at 0 shows everything";
    peek_shows_the_state_at_this_time:
        PeekKeepsLeased = "a peek shows an expired lease as one that runs";
    purge_live_leaves_dead_letters:
        PurgeSparesLeased = "a purge leaves what is leased",
        PurgeSparesDelayed = "a purge leaves what is delayed",
        PurgeLiveTakesDead = "a purge of the live takes the dead too",
        PurgeTakesEveryQueue = "a purge empties every queue",
        PurgeCountsNothing = "a purge says 0";
    purge_dead_leaves_live_messages:
        PurgeDeadTakesLive = "a purge of the dead takes the live too";
    deleting_removes_one_queue:
        DeleteSparesDead = "deleting a queue leaves its dead letters",
        DeleteTakesEveryQueue = "deleting a queue deletes every queue",
        DeletedForGood = "what is enqueued to a deleted queue vanishes";
    queues_are_listed:
        ListMissesDeadOnly = "queues that hold dead letters only are not listed",
        ListShowsDeadStores = "where dead letters are kept is listed as a queue",
        ListKeepsDeleted = "deleted queues are listed",
        ListUnordered = "queues are listed in reverse";
    a_receipt_of_a_purged_message_is_lost:
        PurgedReceiptWorks = "a purged message's receipt works on the next message of its id";
    admin_calls_on_an_unused_queue_do_nothing:
        AdminOfUnusedQueueFails = "looking after a queue that nobody has used is an error";

    // C1 cancel-safe, X1 repeatable: an operation in two halves, with an await between them
    a_dropped_enqueue_loses_nothing:
        EnqueueLeavesQueueLocked = "a dropped enqueue leaves its lock behind";
    a_dropped_enqueue_may_be_repeated:
        EnqueueNotesIdsFirst = "an enqueue notes the ids and then stores the messages";
    a_dropped_lease_loses_nothing:
        LeaseTakesOut = "a lease takes messages out and then puts them back as leased";
    a_dropped_ack_is_done_or_not:
        AckTakesQueueOut = "an ack takes the queue out and then puts back what it leaves",
        AckHidesFirst = "an ack hides the messages for good and then removes them";
    a_dropped_ack_may_be_repeated:
        AckForgetsLeaseFirst = "an ack removes the leases and then the messages";
    a_dropped_change_is_done_or_not:
        ChangeTakesOut = "a change takes messages out and then puts them back changed";
    a_dropped_dead_lettering_is_done_or_not:
        DeadLetterTakesOut = "a dead-lettering takes messages out and then puts them elsewhere";
    a_dropped_lease_of_exhausted_messages_loses_nothing:
        BurialTakesOut = "a burial takes messages out and then puts them elsewhere";
    a_dropped_redrive_loses_nothing:
        RedriveTakesOut = "a redrive takes dead letters out and then puts them back";
    a_dropped_wait_wakes_others:
        DroppedWaitSilencesOthers = "a dropped wait signs off the others too";

    // C2 concurrent: an operation that decides on what it read earlier
    a_message_has_one_lease_at_a_time:
        LeaseUnconditional = "a lease takes what it found, whether it is still ready or not";
    many_tasks_ack_each_message_once:
        LeaseWritesBack = "a lease reads the queue and later writes it back";
    many_consumers_make_progress:
        LeaseGivesUp = "a lease call that meets another gives nothing";
    concurrent_enqueues_store_an_id_once:
        EnqueueWritesBack = "an enqueue reads the queue and later writes it back";
    concurrent_calls_settle_a_receipt_once:
        ChangeWritesBack = "a change reads the queue and later writes it back";
    producers_and_consumers_lose_nothing:
        AckWritesBack = "an ack reads the queue and later writes it back";
    a_late_change_and_a_lease_do_not_both_succeed:
        ChangeChecksForAnyLease = "a change is made to what it found leased, whoever has it by then",
        LeaseGuardsAttemptsOnly = "a lease takes what was not delivered meanwhile, ready or not";
    a_reused_id_is_a_new_message:
        LeaseGuardsIdsOnly = "a lease gives what it saw for whatever has that id by then";
    a_late_ack_and_a_lease_do_not_both_succeed:
        AckChecksForAnyLease = "an ack removes what it found leased, whoever has the lease by then";

    // R1 durable
    a_new_connection_sees_everything:
        StateLostOnReconnect = "every connection has queues of its own",
        EnqueueBuffered = "a connection keeps what was enqueued until its next call",
        AttemptsOfConnection = "a connection counts the attempts that it made";
    killed_processes_lose_nothing:
        LeaseInTwoWrites = "a lease deletes messages and then stores them anew";
    a_receipt_outlives_its_connection:
        ReceiptsOfConnection = "a receipt works on the connection that took the lease";
    two_connections_share_leases:
        LeasesOfConnection = "a lease hides the message from its own connection only",
        ReceiptsCountedByConnection = "every connection counts its receipts from 1";
}
