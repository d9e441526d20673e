//! Frames across real processes: this test binary is its own consumer, producer and attacker, run once more.

#[path = "../common/mod.rs"]
mod common;

mod allocations;
mod c_client;
mod change;
mod child;
mod death;
mod fake;
mod flow;
mod hostile;
mod hostile_producer;
mod late;
mod other_user;
mod page;
mod returns;
mod source;
mod trust;
mod wrong_sockets;
