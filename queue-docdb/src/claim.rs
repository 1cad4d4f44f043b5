//! Lease: find what is ready, claim it in one command, and see what was won.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use mongodb::bson::{DateTime, Document, Uuid, doc};
use queue_api::{Delivery, LeaseOptions, MessageId, millis};

use crate::{
    aim::{Aim, ready},
    candidate::{Dying, Met},
    collection::{Query, QueueCollection},
    document::{self, Stored},
    error::{Effect, StoreError},
    instant,
    receipt::ParsedReceipt,
    unsettled::{Sent, Unsettled},
};

/// A contended claim chooses among this many messages for each that it wants, and among so
/// many times more each time that it wins nothing. Claims of different instances that keep to the
/// head take the same messages: measured with 32 callers, a third of their answers were empty.
const WIDENING: usize = 4;

/// The most messages that it chooses among.
const WIDEST: usize = 4096;

/// How often a claim that won nothing at all is made, before it says that nothing is ready.
/// Each time somebody else won, so there is progress without this one.
const CONTENDED_TRIES: u32 = 5;

/// The most documents that a round looks at because earlier rounds only met dead letters.
const MAX_LOOK_AHEAD: usize = 256;

impl QueueCollection {
    /// Leases up to as many messages as asked for.
    pub(crate) async fn lease(&self, options: &LeaseOptions) -> Result<Vec<Delivery>, StoreError> {
        let mut deliveries = Vec::new();
        let (mut buried, mut lost_rounds) = (0, 0);
        let mut may_keep_to_lane = true;
        let mut retries = self.deadline.retries();
        while deliveries.len() < options.max_messages() {
            let wanted = options.max_messages() - deliveries.len();
            let limit = wanted.max(buried.min(MAX_LOOK_AHEAD));
            let lane = match may_keep_to_lane {
                true => self.state.rivals.lane(self.lanes),
                false => None,
            };
            let aim = match &lane {
                Some(lane) => Aim::Lane(lane.filter()),
                None if lost_rounds == 0 => Aim::Head,
                None => Aim::Window(
                    limit
                        .saturating_mul(WIDENING.pow(lost_rounds))
                        .min(WIDEST)
                        .max(limit),
                ),
            };
            let round = match self.state.unsettled.pop() {
                Some(unsettled) => self.recover(unsettled, options, wanted).await,
                None => self.claim_round(options, wanted, limit, aim).await,
            };
            let round = match round {
                Ok(round) => round,
                // An error would hide what is leased already until its timeout, and another try
                // would use that up.
                Err(error) if !deliveries.is_empty() => {
                    tracing::warn!(queue = self.messages.name(), %error, "a lease was cut short");
                    break;
                }
                Err(error) => {
                    retries.after(error).await?;
                    continue;
                }
            };
            deliveries.extend(round.deliveries);
            buried += round.buried;
            if round.lost > 0 {
                self.state.rivals.notice();
                lost_rounds += 1;
                if !deliveries.is_empty() || lost_rounds == CONTENDED_TRIES {
                    break;
                }
            } else if lane.is_some() {
                // What the lane lacks the others may have.
                may_keep_to_lane = !round.saw_all;
            } else {
                if lost_rounds == 0 && !deliveries.is_empty() {
                    self.state.rivals.miss();
                }
                if round.saw_all {
                    break;
                }
            }
        }
        Ok(deliveries)
    }

    /// One claim: a find, an update, and where others won something, a look at what is ours.
    ///
    /// The time and the nonce are those of the round, not of the call: a call that buries for
    /// long would otherwise give out leases that have run out. So would one that reads a lot,
    /// which is why a round reads about one reply of documents and leases from the time after.
    async fn claim_round(
        &self,
        options: &LeaseOptions,
        wanted: usize,
        limit: usize,
        aim: Aim,
    ) -> Result<Round, StoreError> {
        let turn = match aim {
            Aim::Head => self.state.apart.turn(self.deadline.left() / 2).await,
            // Lanes keep claims apart, and who has lost looks wherever it may.
            Aim::Lane(_) | Aim::Window(_) => None,
        };
        let now = self.now().await;
        let mut claim = Claim {
            now,
            leased_at: now,
            nonce: Uuid::new(),
            visibility_millis: options.visibility_timeout().map(millis::ceil),
        };
        let found = self.look(aim, now, limit).await?;
        drop(turn);
        // Until the outcome is known, other claims of this instance look elsewhere.
        let _kept = found.kept;
        let met = Met::in_order(found.candidates, wanted);
        let sent = met.live.len() + met.dying.len();
        if sent == 0 {
            return Ok(Round {
                deliveries: Vec::new(),
                buried: 0,
                lost: found.missed,
                saw_all: true,
            });
        }
        claim.leased_at = self.now().await;
        let statements = claim.statements(&met);
        let under_way = self.state.unsettled.sending(Unsettled {
            nonce: claim.nonce,
            messages: met.live,
        });
        let matched = match self.update_once(statements).await {
            Err(error) if error.effect() == Effect::None => {
                under_way.settle();
                return Err(error);
            }
            answer => usize::try_from(answer?).unwrap_or(sent),
        };
        let won = self.won(&claim, under_way, matched == sent).await?;
        Ok(Round {
            deliveries: claim.deliveries(won),
            buried: met.dying.len(),
            lost: found.missed + sent.saturating_sub(matched),
            saw_all: found.is_all,
        })
    }

    /// Looks for what a claim took whose answer never came, and leases it once more under the
    /// same nonce, so that the leases are whole and a majority has them.
    async fn recover(
        &self,
        unsettled: Unsettled,
        options: &LeaseOptions,
        wanted: usize,
    ) -> Result<Round, StoreError> {
        let now = self.now().await;
        let claim = Claim {
            now,
            leased_at: now,
            nonce: unsettled.nonce,
            visibility_millis: options.visibility_timeout().map(millis::ceil),
        };
        let under_way = self.state.unsettled.sending(unsettled);
        let sent = under_way.messages().len() as u64;
        let matched = self.update(claim.renewals(under_way.messages())).await?;
        let mut won = if matched == 0 {
            under_way.settle();
            Vec::new()
        } else {
            self.won(&claim, under_way, matched == sent).await?
        };
        let too_many = won.split_off(won.len().min(wanted));
        self.state.unsettled.push(Unsettled {
            nonce: claim.nonce,
            messages: too_many,
        });
        Ok(Round {
            deliveries: claim.deliveries(won),
            buried: 0,
            lost: 0,
            saw_all: false,
        })
    }

    /// What a claim took of what it was sent for.
    async fn won(
        &self,
        claim: &Claim,
        under_way: Sent<'_>,
        is_all: bool,
    ) -> Result<Vec<Stored>, StoreError> {
        if is_all {
            return Ok(under_way.settle());
        }
        let ours = self.claimed_ids(claim, under_way.messages()).await?;
        let mut won = under_way.settle();
        won.retain(|stored| ours.contains(&stored.id));
        Ok(won)
    }

    /// Which of these messages carry the claim's nonce.
    async fn claimed_ids(
        &self,
        claim: &Claim,
        messages: &[Stored],
    ) -> Result<HashSet<MessageId>, StoreError> {
        let ids: Vec<&str> = messages.iter().map(|stored| stored.id.as_str()).collect();
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        let query = Query::by_ids(
            doc! { "_id": { "$in": ids }, "lease": claim.nonce },
            messages.len(),
        )
        .with_projection(doc! { "_id": 1 });
        let found = self.find(query, document::id).await?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// What a round came to.
struct Round {
    deliveries: Vec<Delivery>,
    buried: usize,
    /// How many documents others got first.
    lost: usize,
    saw_all: bool,
}

/// One attempt to take messages.
struct Claim {
    /// What is ready at this time may be taken.
    now: DateTime,
    /// When the leases begin: read after the documents, which may take long.
    leased_at: DateTime,
    nonce: Uuid,
    /// What overrides the messages' own timeouts.
    visibility_millis: Option<i64>,
}

impl Claim {
    fn ready(&self) -> Document {
        ready(self.now)
    }

    /// The statements that lease and bury, for documents that are still as they were found.
    ///
    /// - A statement can set one expiry and count one step, so there is one for each visibility
    ///   timeout and number of attempts. An update by pipeline could compute both from the
    ///   document, and DocumentDB refuses those.
    /// - `attempts` makes the number that is delivered exact, whatever happened to the message
    ///   since it was found; `birth` makes sure that it is the same message, and not a later
    ///   one of the same id with another payload.
    fn statements(&self, met: &Met) -> Vec<Document> {
        #[derive(Default)]
        struct Group<'a> {
            ids: Vec<&'a str>,
            births: Vec<Uuid>,
        }
        let mut groups: BTreeMap<(i64, u32), Group<'_>> = BTreeMap::new();
        for stored in &met.live {
            let key = (self.visibility_millis(stored), stored.attempts);
            let group = groups.entry(key).or_default();
            group.ids.push(stored.id.as_str());
            group.births.push(stored.birth);
        }
        let leases = groups
            .into_iter()
            .map(|((millis, attempts), Group { ids, births })| {
                let mut filter = self.ready();
                filter.insert("_id", doc! { "$in": ids });
                filter.insert("attempts", i64::from(attempts));
                filter.insert("birth", doc! { "$in": births });
                let visible_at = instant::after(self.leased_at, millis);
                let update = doc! {
                    "$set": { "lease": self.nonce, "visible_at": visible_at },
                    "$inc": { "attempts": 1_i64 },
                };
                doc! { "q": filter, "u": update, "multi": true }
            });
        leases
            .chain(met.dying.iter().map(|dying| self.burial(dying)))
            .collect()
    }

    /// The statements that lease again what this claim has leased.
    fn renewals(&self, messages: &[Stored]) -> Vec<Document> {
        let mut groups: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
        for stored in messages {
            let group = groups.entry(self.visibility_millis(stored)).or_default();
            group.push(stored.id.as_str());
        }
        let renewal = |(millis, ids): (i64, Vec<&str>)| {
            let filter = doc! { "_id": { "$in": ids }, "lease": self.nonce };
            let visible_at = instant::after(self.leased_at, millis);
            doc! { "q": filter, "u": { "$set": { "visible_at": visible_at } }, "multi": true }
        };
        groups.into_iter().map(renewal).collect()
    }

    fn burial(&self, dying: &Dying) -> Document {
        let mut filter = self.ready();
        filter.extend(dying.filter.clone());
        let mut dead = doc! { "id": dying.id.as_str(), "at": self.leased_at };
        if let Some(reason) = &dying.reason {
            dead.insert("reason", reason);
        }
        let update = doc! {
            "$set": { "dead": dead },
            "$unset": { "visible_at": "", "lease": "" },
        };
        doc! { "q": filter, "u": update }
    }

    fn deliveries(&self, won: Vec<Stored>) -> Vec<Delivery> {
        won.into_iter()
            .map(|stored| self.delivery(stored))
            .collect()
    }

    fn delivery(&self, stored: Stored) -> Delivery {
        let visibility_millis = self.visibility_millis(&stored);
        let expires_at = instant::after(self.leased_at, visibility_millis);
        let held = ParsedReceipt {
            nonce: self.nonce,
            id: stored.id,
        };
        Delivery {
            receipt: held.receipt(),
            id: held.id,
            payload: stored.payload,
            headers: stored.headers,
            attempt: stored.attempts + 1,
            max_attempts: stored.max_attempts,
            enqueued_at: stored.enqueued_at,
            visibility_timeout: Duration::from_millis(visibility_millis.unsigned_abs()),
            lease_expires_at: expires_at.to_system_time(),
        }
    }

    fn visibility_millis(&self, stored: &Stored) -> i64 {
        self.visibility_millis.unwrap_or(stored.visibility_millis)
    }
}
