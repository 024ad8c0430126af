//! A room's interaction: what members, edges and homes say, and what is kept of it.
//!
//! [`model`] is what members see, one set of types for JSON and Protobuf; [`relay`] is what edges and
//! homes tell each other, in which items travel in their Protobuf form; [`ring`] keeps the recent past,
//! by the same rules at a home and at an edge; [`census`] counts distinct members. All of it is pure.

pub mod census;
pub mod model;
pub mod relay;
pub mod ring;

pub use census::Census;
pub use model::{Body, Client, Code, Item, Lane, Position, Role, Server, User};
pub use ring::Ring;
