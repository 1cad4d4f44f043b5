//! What is particular to this backend. The contract itself is checked by the suite.

mod apart;
mod clocks;
mod connecting;
mod damage;
mod documents;
mod engines;
mod fail_points;
mod faults;
mod fixture;
mod lanes;
mod locked;
mod outcomes;
mod pause;
mod plans;
mod proxy;
mod rolled_back;
mod round_trips;
mod schema;
mod sessions;
mod sharing;
mod sizes;
mod transactions;
mod truth;
mod unique_index;
mod waking;
