//! Lease: find what is ready, claim it in one command, and see what was won.

use std::{collections::HashSet, time::Duration};

use mongodb::bson::{Uuid, doc};
use queue_api::{Delivery, LeaseOptions, MessageId, millis};

use crate::{
    aim::Aim,
    candidate::Met,
    collection::{Query, QueueCollection},
    document::{self, Stored},
    error::{Effect, StoreError},
    statements::Claim,
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

/// How long a claim may take. A longer one has met a silent connection, or a message that an open
/// transaction holds: the server lets the claim wait until the transaction ends.
const LONGEST_CLAIM: Duration = Duration::from_millis(1250);

/// The same while messages are passed over: the transaction that holds them may hold more.
const LONGEST_CLAIM_BESIDE_HELD: Duration = Duration::from_millis(300);

/// The most documents that a round looks at because earlier rounds only met dead letters.
const MAX_LOOK_AHEAD: usize = 256;

impl QueueCollection {
    /// Leases up to as many messages as asked for.
    pub(crate) async fn lease(&self, options: &LeaseOptions) -> Result<Vec<Delivery>, StoreError> {
        let mut deliveries = Vec::new();
        let (mut buried, mut lost_rounds, mut held_up_times) = (0, 0, 0);
        let mut may_keep_to_lane = true;
        // Whether a claim of this call may have taken messages that it does not return.
        let mut is_unknown = false;
        let mut held_up: Option<StoreError> = None;
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
            let unsettled = self.state.unsettled.pop();
            let is_claim = unsettled.is_none();
            let round = match unsettled {
                Some(unsettled) => {
                    // The first time it may have been the connection, unless other messages are
                    // held.
                    let is_held = held_up_times > 1 || self.state.apart.passes_over();
                    let passed_over = usize::from(held_up_times > 0 && is_held);
                    self.recover(unsettled, options, wanted, passed_over).await
                }
                None => {
                    let is_unknown = &mut is_unknown;
                    self.claim_round(options, &deliveries, limit, aim, is_unknown)
                        .await
                }
            };
            let round = match round {
                Ok(round) => round,
                // An error would hide what is leased already until its timeout, and another try
                // would use that up.
                Err(error) if !deliveries.is_empty() => {
                    tracing::warn!(queue = self.messages.name(), %error, "a lease was cut short");
                    break;
                }
                // The claim took too long. The next round finds out what it took.
                Err(error @ StoreError::TimedOut(_)) if self.deadline.left() > Duration::ZERO => {
                    held_up = Some(error);
                    held_up_times += u32::from(is_claim);
                    continue;
                }
                Err(error) => {
                    retries.after(error).await?;
                    continue;
                }
            };
            if !is_claim {
                // It had superseded leases of this call that have ended.
                let again = &round.deliveries;
                deliveries.retain(|before| again.iter().all(|again| again.id != before.id));
            }
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
        if deliveries.is_empty() && is_unknown {
            return Err(held_up.unwrap_or_else(|| retries.into_last()));
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
        delivered: &[Delivery],
        limit: usize,
        aim: Aim,
        is_unknown: &mut bool,
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
        // A call meets each message once (L4), also if its lease has ended meanwhile.
        let is_ready = |delivery: &&Delivery| delivery.lease_expires_at <= now.to_system_time();
        let met_before = delivered.iter().filter(is_ready);
        let met_before = met_before.map(|delivery| (None, delivery.id.clone()));
        let met_before = self.state.apart.keep(met_before);
        let found = self.look(aim, now, limit).await?;
        drop((met_before, turn));
        // Until the outcome is known, other claims of this instance look elsewhere.
        let _kept = found.kept;
        let wanted = options.max_messages() - delivered.len();
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
            held_up: Vec::new(),
        });
        let matched = match self.in_time().update_once(statements).await {
            Ok(matched) => usize::try_from(matched).unwrap_or(sent),
            Err(error) if error.effect() == Effect::None => {
                under_way.settle();
                return Err(error);
            }
            Err(error) => {
                *is_unknown = true;
                if matches!(error, StoreError::TimedOut(_)) {
                    let order = claim.order(under_way.messages(), &met.dying);
                    under_way.held_up(order);
                }
                return Err(error);
            }
        };
        for dying in &met.dying {
            dying.log(self.messages.name());
        }
        let won = self.won(&claim, under_way, matched == sent).await?;
        Ok(Round {
            deliveries: claim.deliveries(won),
            buried: met.dying.len(),
            lost: found.missed + sent.saturating_sub(matched),
            saw_all: found.is_all,
        })
    }

    /// The same collection for a claim. Giving it up is safe: the next round finds out what it took.
    fn in_time(&self) -> Self {
        let longest = match self.state.apart.passes_over() {
            true => LONGEST_CLAIM_BESIDE_HELD,
            false => LONGEST_CLAIM,
        };
        self.within(self.deadline.of_first_try().at_most(longest))
    }

    /// Looks for what a claim took whose answer never came, and leases it once more under the
    /// same nonce, so that the leases are whole and a majority has them.
    async fn recover(
        &self,
        unsettled: Unsettled,
        options: &LeaseOptions,
        wanted: usize,
        passed_over: usize,
    ) -> Result<Round, StoreError> {
        let now = self.now().await;
        let claim = Claim {
            now,
            leased_at: now,
            nonce: unsettled.nonce,
            visibility_millis: options.visibility_timeout().map(millis::ceil),
        };
        let held_up = unsettled.held_up.clone();
        let under_way = self.state.unsettled.sending(unsettled);
        let sent = under_way.messages().len() as u64;
        let matched = match sent {
            0 => 0,
            _ => {
                let renewals = claim.renewals(under_way.messages());
                self.in_time().update(renewals).await?
            }
        };
        let mut won = if matched == 0 {
            under_way.settle();
            Vec::new()
        } else {
            self.won(&claim, under_way, matched == sent).await?
        };
        // The first claim arrived late and took more. A majority may not have those leases.
        if won.len() as u64 != matched {
            self.state.unsettled.push(Unsettled {
                nonce: claim.nonce,
                messages: won,
                held_up,
            });
            return Err(StoreError::Uncertain);
        }
        // The claim took the messages before the one that delayed it.
        let is_left = |id: &MessageId| won.iter().all(|stored| stored.id != *id);
        let left = held_up.into_iter().filter(is_left);
        self.state.apart.pass_over(left.take(passed_over));
        let too_many = won.split_off(won.len().min(wanted));
        self.state.unsettled.push(Unsettled {
            nonce: claim.nonce,
            messages: too_many,
            held_up: Vec::new(),
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
