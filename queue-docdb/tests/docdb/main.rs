//! Tests of what the conformance suite does not check.

mod apart;
mod connecting;
mod damage;
mod documents;
mod engines;
mod fail_points;
mod faults;
mod fixture;
mod lanes;
mod outcomes;
mod pause;
mod plans;
mod proxy;
mod round_trips;
mod schema;
mod sharing;
mod sizes;
mod transactions;
mod waking;
