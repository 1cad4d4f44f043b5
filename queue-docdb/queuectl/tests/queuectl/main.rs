//! Tests of the program: they run it against a real MongoDB, and read what it prints.

mod bench;
mod connecting;
mod dead_letters;
mod doctor;
mod enqueueing;
mod exporting;
mod fixture;
mod interrupted;
mod looking;
mod moving;
mod readme;
mod removing;
mod terminal;
mod top;
mod usage;
