//! The private listener: health, metrics, the API.
//!
//! In: requests on `admin.listen`, and on `api.listen` for the API alone. Out: what this node and,
//! through the control plane, its cluster know. Changes nothing by itself: writes go to the control
//! plane. Who may call is [`guard`]'s business; `/healthz` and `/readyz` are for everybody, because
//! orchestrators ask them without a token.

pub mod guard;
mod listener;
pub mod problem;
pub mod view;
