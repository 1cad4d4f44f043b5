//! What is particular to this backend. The contract itself is checked by the suite.

mod clocks;
mod connecting;
mod damage;
mod documents;
mod fixture;
mod outcomes;
mod plans;
mod sharing;
mod sizes;
mod transactions;
mod waking;
