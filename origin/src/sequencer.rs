//! A room's interaction at its home: orders what is said, and keeps what must not be lost.
//!
//! [`ledger`] is what this needs of the place where gifts and events are kept.

pub mod ledger;
