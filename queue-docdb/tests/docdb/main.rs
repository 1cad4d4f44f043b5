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
mod lanes;
mod locked;
mod lost_replies;
mod outcomes;
mod pause;
mod plans;
mod proxy;
mod rolled_back;
mod round_trips;
mod schema;
mod sessions;
mod settings;
mod sharing;
mod sizes;
#[cfg(target_os = "linux")]
mod suspended;
mod transactions;
mod unique_index;
mod waking;
