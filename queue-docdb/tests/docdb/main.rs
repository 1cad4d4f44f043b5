//! Tests of what the conformance suite does not check.

mod apart;
mod codes;
mod connecting;
mod damage;
mod documents;
mod engines;
mod fail_points;
mod faults;
mod fixture;
mod foreign;
mod lanes;
mod locked;
mod lost_replies;
mod members_away;
mod operators_indexes;
mod outcomes;
mod pause;
mod plans;
mod pools;
mod proxy;
mod reserved_names;
mod rights;
mod rolled_back;
mod round_trips;
mod schema;
mod sessions;
mod settings;
mod sharing;
mod sizes;
mod stream_backoff;
#[cfg(target_os = "linux")]
mod suspended;
mod transactions;
mod unique_index;
mod unreadable;
mod waking;
