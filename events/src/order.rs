//! What a shop has signed: that somebody paid for a gift.
//!
//! In: the `auth` of a gift as it came from a client, the room's key, the time. Out: the order, or why
//! it is none. Pure. An order is `base64url(payload).base64url(tag)`: the payload is JSON, the tag its
//! HMAC-SHA256 (RFC 2104) under the key the shop shares with the cluster; both without padding. It
//! is bound to room, user, gift and count, and the ledger takes each order id once.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};
use wire::RoomId;
use wire::events::Id;

/// The longest order, in bytes of text.
pub const MAX_ORDER_BYTES: usize = 2048;
/// The shortest key, in bytes: that of the digest (RFC 2104 section 3).
pub const MIN_KEY_BYTES: usize = 32;

/// What a shop says of a gift that was paid for. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The shop's number of it; good for one gift.
    pub id: String,
    /// The room, `app/name`.
    pub room: String,
    /// Who gives.
    pub user: String,
    /// What.
    pub gift: String,
    /// How many.
    pub count: u32,
    /// What was paid, in the smallest unit of the shop's currency.
    #[serde(default)]
    pub value: u64,
    /// Until when it may be used, in seconds since the Unix epoch.
    pub exp: u64,
}

/// The gift that an order must be for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The room.
    pub room: &'a RoomId,
    /// Who gives.
    pub user: &'a str,
    /// What.
    pub gift: &'a str,
    /// How many.
    pub count: u32,
}

/// Why an order is refused: `bad_order` to the client, the text for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// It is not of the form.
    #[error("malformed order: {0}")]
    Malformed(&'static str),
    /// The tag is not the key's.
    #[error("the order is not signed by the shop")]
    BadSignature,
    /// It is for something else.
    #[error("the order is for another {0}")]
    Other(&'static str),
    /// Its time is over.
    #[error("the order has expired")]
    Expired,
}

/// The key that a shop shares with the cluster.
#[derive(Clone)]
pub struct ShopKey(hmac::Key);

impl ShopKey {
    /// A key of at least [`MIN_KEY_BYTES`].
    #[must_use]
    pub fn new(secret: &[u8]) -> Option<Self> {
        (secret.len() >= MIN_KEY_BYTES).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// Signs an order, as a shop does.
    #[must_use]
    pub fn sign(&self, order: &Order) -> String {
        let payload = serde_json::to_vec(order).expect("strings and numbers always serialise");
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, payload.as_bytes()));
        format!("{payload}.{tag}")
    }

    /// Reads the order and checks that it is for this gift, now.
    ///
    /// # Errors
    /// [`OrderError`].
    pub fn check(&self, text: &str, wanted: Wanted<'_>, now_s: u64) -> Result<Order, OrderError> {
        if text.len() > MAX_ORDER_BYTES {
            return Err(OrderError::Malformed("too long"));
        }
        let (payload, tag) = text.split_once('.').ok_or(OrderError::Malformed("no signature"))?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part);
        let tag =
            decode(tag).map_err(|_| OrderError::Malformed("the signature is not base64url"))?;
        hmac::verify(&self.0, payload.as_bytes(), &tag).map_err(|_| OrderError::BadSignature)?;
        let json =
            decode(payload).map_err(|_| OrderError::Malformed("the payload is not base64url"))?;
        let order: Order = serde_json::from_slice(&json)
            .map_err(|_| OrderError::Malformed("the payload is not an order"))?;
        let same = [
            ("room", order.room == wanted.room.as_str()),
            ("user", order.user == wanted.user),
            ("gift", order.gift == wanted.gift),
            ("count", order.count == wanted.count),
        ];
        if let Some((what, _)) = same.into_iter().find(|(_, same)| !same) {
            return Err(OrderError::Other(what));
        }
        if order.exp <= now_s {
            return Err(OrderError::Expired);
        }
        if order.id.is_empty() || Id::new(order.id.as_str()).is_err() {
            return Err(OrderError::Malformed("the id is empty or too long"));
        }
        Ok(order)
    }
}

impl std::fmt::Debug for ShopKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShopKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn order() -> Order {
        Order {
            id: "A-1".into(),
            room: "live/r9".into(),
            user: "u7".into(),
            gift: "rose".into(),
            count: 2,
            value: 520,
            exp: 1000,
        }
    }

    fn check(text: &str, count: u32, now_s: u64) -> Result<Order, OrderError> {
        let room = RoomId::parse("live/r9").unwrap();
        let wanted = Wanted { room: &room, user: "u7", gift: "rose", count };
        ShopKey::new(SECRET).unwrap().check(text, wanted, now_s)
    }

    #[test]
    fn an_order_is_good_for_its_gift_until_it_expires() {
        let signed = ShopKey::new(SECRET).unwrap().sign(&order());
        // As `printf %s PAYLOAD | openssl dgst -sha256 -hmac KEY` has it.
        assert_eq!(signed, GOLDEN);
        assert_eq!(check(&signed, 2, 999), Ok(order()));
        assert_eq!(check(&signed, 2, 1000), Err(OrderError::Expired));
        assert_eq!(check(&signed, 3, 999), Err(OrderError::Other("count")));
        let other = ShopKey::new(b"another key of at least 32 bytes ..").unwrap().sign(&order());
        assert_eq!(check(&other, 2, 999), Err(OrderError::BadSignature));
        let nameless = ShopKey::new(SECRET).unwrap().sign(&Order { id: String::new(), ..order() });
        assert!(matches!(check(&nameless, 2, 999), Err(OrderError::Malformed(_))));
        assert!(ShopKey::new(b"short").is_none());
    }

    const GOLDEN: &str = "eyJpZCI6IkEtMSIsInJvb20iOiJsaXZlL3I5IiwidXNlciI6InU3IiwiZ2lmdCI6InJvc2UiLCJjb3VudCI6MiwidmFsdWUiOjUyMCwiZXhwIjoxMDAwfQ.x6VLp28izN03x5MeeqdJKl_5bg0uzpr6O6nwpFAlwl0";

    proptest! {
        #[test]
        fn nothing_else_is_an_order(text in "\\PC*", at in 0_usize..200, with in any::<char>()) {
            prop_assert!(check(&text, 2, 0).is_err());
            let mut signed: Vec<char> =
                ShopKey::new(SECRET).unwrap().sign(&order()).chars().collect();
            let at = at % signed.len();
            if signed[at] != with {
                signed[at] = with;
                prop_assert!(check(&signed.into_iter().collect::<String>(), 2, 0).is_err());
            }
        }
    }
}
