//! What a moderator writes, as an act upon the room. Pure.
//!
//! In: a `mod` frame. Out: an [`Act`] for the home; whether somebody may moderate is not decided here.

use wire::room::model::Moderate;
use wire::room::relay::{Act, Sanction, Whom};

use super::text;

/// Items named in one act.
const MAX_IDS: usize = 100;
/// The longest id of an item or a user, and the longest key, in bytes.
const MAX_ID: usize = 128;

/// The act; none if the frame does not say one.
pub(crate) fn act(said: Moderate, now_unix_ms: u64) -> Option<Act> {
    let Moderate { a, ids, uid, s, net, mode, k, v, .. } = said;
    let ids = || {
        let good = (1..=MAX_IDS).contains(&ids.len()) && ids.iter().all(|id| is_id(id));
        good.then(|| ids.clone())
    };
    let uid = uid.filter(|uid| is_id(uid));
    let sanction = |uid, ban| {
        let until_unix_ms = s.map(|s| now_unix_ms.saturating_add(u64::from(s) * 1000));
        let sanction = Sanction { whom: Whom::User(uid), ban, until_unix_ms };
        match net {
            Some(true) => Act::SanctionWithAddress(sanction),
            _ => Act::Sanction(sanction),
        }
    };
    match a.as_str() {
        "delete" => ids().map(Act::Delete),
        "approve" => ids().map(Act::Approve),
        "reject" => ids().map(Act::Reject),
        "clear" => uid.map(Act::Clear),
        "mute" => uid.map(|uid| sanction(uid, false)),
        "ban" => uid.map(|uid| sanction(uid, true)),
        "pardon" => uid.map(|uid| Act::Pardon(Whom::User(uid))),
        "kick" => uid.map(|uid| Act::Kick(Whom::User(uid))),
        "mode" => mode.map(Act::Mode),
        "pin" => text::pinned(&v.unwrap_or_default()).map(|text| Act::Set("pin".into(), text)),
        "set" => {
            let key = k.filter(|key| is_id(key) && key != "mode" && key != "pin")?;
            Some(Act::Set(key, v.unwrap_or_default()))
        }
        _ => None,
    }
}

fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
}

#[cfg(test)]
mod tests {
    use wire::room::model::Mode;

    use super::*;

    fn said(a: &str) -> Moderate {
        Moderate { c: "c".into(), a: a.into(), ..Moderate::default() }
    }

    #[test]
    fn every_act_has_a_word_and_needs_its_fields() {
        let of = |uid: &str, a| Moderate { uid: Some(uid.into()), ..said(a) };
        let user = || Whom::User("u".into());
        let mute = Moderate { s: Some(60), ..of("u", "mute") };
        let until = Sanction { whom: user(), ban: false, until_unix_ms: Some(61_000) };
        assert_eq!(act(mute, 1_000), Some(Act::Sanction(until)));
        let ban = Moderate { net: Some(true), ..of("u", "ban") };
        let ever = Sanction { whom: user(), ban: true, until_unix_ms: None };
        assert_eq!(act(ban, 0), Some(Act::SanctionWithAddress(ever)));
        assert_eq!(act(of("u", "pardon"), 0), Some(Act::Pardon(user())));
        assert_eq!(act(of("u", "kick"), 0), Some(Act::Kick(user())));
        assert_eq!(act(of("u", "clear"), 0), Some(Act::Clear("u".into())));
        let ids = || Moderate { ids: vec!["i".into()], ..said("delete") };
        assert_eq!(act(ids(), 0), Some(Act::Delete(vec!["i".into()])));
        let mode = Mode { slow_s: 5, ..Mode::default() };
        let set = Moderate { mode: Some(mode.clone()), ..said("mode") };
        assert_eq!(act(set, 0), Some(Act::Mode(mode)));
        let pin = Moderate { v: Some(" be kind ".into()), ..said("pin") };
        assert_eq!(act(pin, 0), Some(Act::Set("pin".into(), "be kind".into())));
        assert_eq!(act(said("pin"), 0), Some(Act::Set("pin".into(), String::new())), "unpins");
        let key = |k: &str| Moderate { k: Some(k.into()), v: Some("1".into()), ..said("set") };
        assert_eq!(act(key("goal"), 0), Some(Act::Set("goal".into(), "1".into())));
        let many = Moderate { ids: vec!["i".into(); 101], ..said("delete") };
        for bad in [said("mute"), of("", "ban"), said("delete"), many, said("mode"), key("mode")] {
            assert_eq!(act(bad.clone(), 0), None, "{bad:?}");
        }
        assert_eq!(act(of("u", "dance"), 0), None);
    }
}
