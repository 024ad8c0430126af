//! Who a member is and what it may do: by its token, or as a guest. Pure.
//!
//! In: what somebody brings who wants to come in, the time. Out: a user and its [`Pass`], or why not, in
//! words that may be shown and hold nothing of the token. The ids of guests begin with a mark that no
//! token's user may have, so that neither can be the other.

use cluster::access::{Access, Brought, Capability, Claims, Denied, Role as Named, SKEW_S, Scope};
use wire::RoomId;
use wire::room::{Role, User};

use super::text;

/// The longest secret of a guest, in bytes.
const MAX_SECRET: usize = 128;
/// The shortest secret of a guest, in bytes: guessed ones would be somebody else.
const MIN_SECRET: usize = 16;
/// The longest id of a token's user, in bytes: that of a ledger's column.
const MAX_USER: usize = 128;
/// What the ids of guests begin with.
const GUEST_MARK: char = '~';

/// What a member may do, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pass {
    /// Talk and like.
    pub(crate) chat: bool,
    /// Give.
    pub(crate) gift: bool,
    /// Keep order.
    pub(crate) moderate: bool,
    /// Open this very room without being counted, because the token names it.
    pub(crate) opens: bool,
    /// Whether it came without a token.
    pub(crate) is_guest: bool,
    /// When it is over, in seconds since 1970, the tolerance for clocks included.
    pub(crate) until_s: Option<u64>,
}

/// What somebody brings.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Papers<'a> {
    pub(crate) token: Option<&'a str>,
    /// A guest's secret.
    pub(crate) guest: Option<&'a str>,
    /// The name a guest wants.
    pub(crate) name: Option<&'a str>,
}

/// Why somebody does not come in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stranger {
    #[error("{0}")]
    Token(#[from] Denied),
    #[error("a token is needed: guests are not allowed")]
    NoGuests,
    #[error("the token's sub must have 1 to {MAX_USER} bytes and not begin with {GUEST_MARK}")]
    BadUser,
    #[error("guest: a secret has {MIN_SECRET} to {MAX_SECRET} bytes")]
    BadSecret,
}

impl Pass {
    /// What a guest may do where guests are allowed.
    const GUEST: Self = Self {
        chat: true,
        gift: true,
        moderate: false,
        opens: false,
        is_guest: true,
        until_s: None,
    };

    /// What it allows, as a welcome says it.
    pub(crate) fn may(self) -> Vec<String> {
        let all = [(self.chat, "chat"), (self.gift, "gift"), (self.moderate, "moderate")];
        all.into_iter().filter(|(may, _)| *may).map(|(_, name)| name.to_owned()).collect()
    }

    fn of(claims: &Claims, room: &RoomId, allow_guests: bool) -> Self {
        // Where anybody may talk, whoever has a token that does not say otherwise may, too.
        let open = allow_guests && claims.capabilities.is_none();
        let allows = |capability| claims.allows(capability, room).is_ok();
        Self {
            chat: open || allows(Capability::Chat),
            gift: open || allows(Capability::Gift),
            moderate: allows(Capability::Moderate),
            opens: matches!(claims.scope, Scope::Room(_)),
            is_guest: false,
            until_s: Some(claims.expires_s.saturating_add(SKEW_S)),
        }
    }
}

/// Who it is that wants into a room at `now_s` (seconds since 1970), and what they may do there.
///
/// # Errors
/// [`Stranger`].
pub(crate) fn identify(
    access: &Access,
    allow_guests: bool,
    room: &RoomId,
    papers: Papers<'_>,
    now_s: u64,
) -> Result<(User, Pass), Stranger> {
    let Some(token) = papers.token else {
        return match allow_guests {
            true => Ok((guest(papers)?, Pass::GUEST)),
            false => Err(Stranger::NoGuests),
        };
    };
    let claims = access.watch(room, Brought { token: Some(token), query: "" }, now_s)?;
    let pass = Pass::of(&claims, room, allow_guests);
    let r = role(claims.role).into();
    let name = claims.name.as_deref().and_then(text::name);
    match claims.user {
        Some(id) if is_user(&id) => {
            Ok((User { id, n: name.unwrap_or_default(), r, lv: None }, pass))
        }
        Some(_) => Err(Stranger::BadUser),
        // A token for anybody: who it is, the secret says.
        None => {
            let guest = guest(papers)?;
            Ok((User { n: name.unwrap_or(guest.n), r, ..guest }, pass))
        }
    }
}

/// A guest's id in the room is made of its secret, so that nobody else has it.
fn guest(papers: Papers<'_>) -> Result<User, Stranger> {
    let secret = match papers.guest {
        Some(secret) if (MIN_SECRET..=MAX_SECRET).contains(&secret.len()) => secret.to_owned(),
        Some(_) => return Err(Stranger::BadSecret),
        None => format!("{:032x}", rand::random::<u128>()),
    };
    let mut digest = sha1_smol::Sha1::new();
    digest.update(b"tidewater guest\n");
    digest.update(secret.as_bytes());
    let hex = digest.digest().to_string();
    let id = format!("{GUEST_MARK}{}", hex.get(..16).unwrap_or_default());
    let n = papers.name.and_then(text::name);
    let n = n.unwrap_or_else(|| format!("guest-{}", hex.get(..4).unwrap_or_default()));
    Ok(User { id, n, r: Role::Guest.into(), lv: None })
}

fn is_user(id: &str) -> bool {
    (1..=MAX_USER).contains(&id.len())
        && !id.starts_with(GUEST_MARK)
        && !id.chars().any(char::is_control)
}

fn role(named: Named) -> Role {
    match named {
        Named::Guest | Named::Publisher => Role::Guest,
        Named::Member => Role::Member,
        Named::Mod => Role::Mod,
        Named::Host => Role::Host,
    }
}

#[cfg(test)]
mod tests {
    use cluster::access::{Keyring, Requirements, sign};

    use super::*;

    const SECRET: &[u8] = b"a secret of thirty-two bytes, here";
    const NOW_S: u64 = 1_000_000;

    fn access() -> Access {
        let mut keyring = Keyring::new(Requirements::default());
        keyring.add_secret(None, SECRET).unwrap();
        Access { keyring, ..Access::default() }
    }

    fn room() -> RoomId {
        RoomId::parse("live/a").unwrap()
    }

    fn claims(role: Named, user: Option<&str>) -> Claims {
        let mut claims = Claims::of_signed_url(&room(), Capability::Watch, NOW_S + 60);
        (claims.role, claims.capabilities) = (role, None);
        claims.user = user.map(str::to_owned);
        claims
    }

    fn with(claims: &Claims, allow_guests: bool) -> Result<(User, Pass), Stranger> {
        let token = sign(claims, None, SECRET).unwrap();
        let papers =
            Papers { token: Some(&token), guest: Some("a secret of sixteen"), name: Some("Me") };
        identify(&access(), allow_guests, &room(), papers, NOW_S)
    }

    #[test]
    fn a_token_says_who_and_what() {
        for (role, may) in [
            (Named::Guest, &[][..]),
            (Named::Member, &["chat", "gift"]),
            (Named::Mod, &["chat", "gift", "moderate"]),
            (Named::Host, &["chat", "gift", "moderate"]),
        ] {
            let (user, pass) = with(&claims(role, Some("u7")), false).unwrap();
            assert_eq!((user.id.as_str(), user.n.as_str()), ("u7", ""), "{role:?}");
            assert_eq!(pass.may(), may, "{role:?}");
            assert_eq!(pass.until_s, Some(NOW_S + 60 + SKEW_S));
            assert!(pass.opens && !pass.is_guest);
        }
        let mut some = claims(Named::Member, Some("u7"));
        some.capabilities = Some(vec![Capability::Watch, Capability::Moderate]);
        some.name = Some(" Mei ".to_owned());
        let (user, pass) = with(&some, true).unwrap();
        assert_eq!((user.n.as_str(), user.r()), ("Mei", Role::Member));
        assert_eq!(
            pass.may(),
            ["moderate"],
            "what it lists is what it allows, even where all talk"
        );
        let (_, pass) = with(&claims(Named::Guest, None), true).unwrap();
        assert_eq!(pass.may(), ["chat", "gift"], "as anybody there");
    }

    #[test]
    fn a_guest_is_never_who_a_token_names() {
        let none = Papers { guest: Some("a secret of sixteen"), ..Papers::default() };
        let (guest, pass) = identify(&access(), true, &room(), none, NOW_S).unwrap();
        assert!(guest.id.starts_with('~') && pass.is_guest && !pass.opens && !pass.moderate);
        assert_eq!(with(&claims(Named::Member, Some(&guest.id)), true), Err(Stranger::BadUser));
        let (same, pass) = with(&claims(Named::Mod, None), false).unwrap();
        assert_eq!((same.id, same.n.as_str(), pass.moderate), (guest.id, "Me", true));
        for bad in ["", "a\nb", &"x".repeat(129)] {
            assert_eq!(with(&claims(Named::Member, Some(bad)), true), Err(Stranger::BadUser));
        }
    }

    #[test]
    fn what_is_wrong_is_said_and_nothing_of_the_token() {
        let refused = |papers, allow_guests| {
            identify(&access(), allow_guests, &room(), papers, NOW_S).unwrap_err()
        };
        let token = |token| Papers { token: Some(token), ..Papers::default() };
        assert_eq!(refused(Papers::default(), false), Stranger::NoGuests);
        let short = Papers { guest: Some("short"), ..Papers::default() };
        assert_eq!(refused(short, true), Stranger::BadSecret);
        let said = refused(token("x.y.z"), true).to_string();
        assert!(!said.contains("x.y.z"), "{said}");
        let other = Claims {
            scope: Scope::Room(RoomId::parse("live/b").unwrap()),
            ..claims(Named::Mod, Some("u"))
        };
        assert_eq!(with(&other, true), Err(Stranger::Token(Denied::OtherRoom)));
        let late = Claims { expires_s: NOW_S - SKEW_S - 1, ..claims(Named::Mod, Some("u")) };
        assert_eq!(with(&late, true), Err(Stranger::Token(Denied::Expired)));
        let push = claims(Named::Publisher, Some("u"));
        let watch = Stranger::Token(Denied::NotAllowed(Capability::Watch));
        assert_eq!(with(&push, true), Err(watch));
    }
}
