//! A room's interaction at its home: orders what is said, and keeps what must not be lost.
//!
//! ```text
//!  edges ─▶ service ─▶ core ─▶ service ─▶ edges
//!           streams    order, rules, counts   │
//!                        └──▶ ledger ◀────────┘ gifts, events
//! ```
//!
//! [`core`] is pure: what may be said, in which order, and who is told. [`service`] takes the streams of
//! edges and runs one task per room. [`filter`] knows the words that may not be said. [`ledger`] is what
//! this needs of the place where gifts and events are kept.

pub(crate) mod core;
pub mod filter;
pub mod ledger;
