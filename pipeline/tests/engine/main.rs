//! The engine with small elements of the tests' own: domains, queues, ends, failures, and what the steady path costs.

mod allocations;
mod change;
mod elements;
mod failures;
mod flow;
mod retry;
mod ticks;
