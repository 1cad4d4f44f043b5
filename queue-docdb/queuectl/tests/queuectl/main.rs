//! Tests of the program: they run it against a real MongoDB, and read what it prints.

mod bench;
mod connecting;
mod doctor;
mod fixture;
mod looking;
mod removing;
mod usage;
