//! The order and the rules, driven by hand.

use std::net::IpAddr;
use std::time::Duration;

use wire::room::model::Stats;
use wire::room::relay::{Act, Counters, Whom};
use wire::room::{Census, Lane};

use super::settle::SETTLE_MS;
use super::*;
use crate::sequencer::ledger::Paid;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn at(ms: u64) -> Now {
    Now { ms, unix_ms: 1_000_000 + ms }
}

fn room() -> RoomId {
    RoomId::new("live", "a").unwrap()
}

fn core(rules: Rules) -> Core {
    Core::new(at(0), room(), Epoch(5), false, rules)
}

fn enter(past: Option<Past>) -> Enter {
    Enter { room: room(), incarnation: 77, open: true, past }
}

fn user(id: &str, role: Role) -> Bytes {
    User { id: id.into(), r: role.into(), ..User::default() }.encode_to_vec().into()
}

fn chat(request: u64, id: &str, cid: &str, text: &str) -> ToHome {
    let what = Saying::Chat { text: text.into(), pts: None };
    ToHome::Say(Say {
        request,
        user: user(id, Role::Guest),
        address: ADDRESS,
        cid: cid.into(),
        what,
    })
}

fn gift(request: u64, cid: &str, count: u32) -> ToHome {
    let what = Saying::Gift { gift: "rose".into(), count, order: None };
    ToHome::Say(Say {
        request,
        user: user("u", Role::Guest),
        address: ADDRESS,
        cid: cid.into(),
        what,
    })
}

fn verdicts(out: &[Output]) -> Vec<&Verdict> {
    let said = out.iter().filter_map(|output| match output {
        Output::To(_, FromHome::Said { verdict, .. }) => Some(verdict),
        _ => None,
    });
    said.collect()
}

fn items(out: &[Output]) -> Vec<Item> {
    let bytes = out.iter().filter_map(|output| match output {
        Output::All(FromHome::Items(items)) | Output::To(_, FromHome::Items(items)) => Some(items),
        _ => None,
    });
    bytes.flatten().map(|bytes| Item::decode_shared(bytes).unwrap()).collect()
}

fn code(out: &[Output]) -> Option<Code> {
    match verdicts(out).as_slice() {
        [Verdict::Refused { code, .. }] => Some(*code),
        _ => None,
    }
}

fn say(core: &mut Core, ms: u64, said: ToHome) -> Vec<Output> {
    let mut out = Vec::new();
    core.hear(at(ms), 1, said, &mut out);
    out
}

#[test]
fn what_is_said_gets_its_place_before_it_is_acknowledged_and_once() {
    let mut core = core(Rules::default());
    core.enter(at(0), 1, enter(None), &mut Vec::new());
    let out = say(&mut core, 1, chat(9, "u", "c1", "hi"));
    let place = out.iter().position(|o| matches!(o, Output::All(FromHome::Items(_))));
    let ack =
        out.iter().position(|o| matches!(o, Output::To(1, FromHome::Said { request: 9, .. })));
    assert!(place.unwrap() < ack.unwrap());
    assert_eq!(verdicts(&out), [&Verdict::Placed { id: "5-1".into(), offset: 1 }]);
    let again = say(&mut core, 2, chat(10, "u", "c1", "hi"));
    assert_eq!(verdicts(&again), verdicts(&out), "the same client id is the same message");
    assert!(items(&again).is_empty());
    let other = say(&mut core, 2, chat(11, "v", "c1", "hi"));
    assert_eq!(verdicts(&other), [&Verdict::Placed { id: "5-2".into(), offset: 2 }]);
}

#[test]
fn a_flood_is_shown_at_home_only_and_trusted_ones_pass() {
    let mut core = core(Rules::default());
    let mut local = 0;
    for n in 0..2 * MAX_PER_SECOND {
        let out =
            say(&mut core, n * 1000 / (2 * MAX_PER_SECOND), chat(n, &format!("u{n}"), "c", "x"));
        local += u64::from(matches!(verdicts(&out)[..], [Verdict::Local { .. }]));
    }
    let ordered = 2 * MAX_PER_SECOND - local;
    assert!((MAX_PER_SECOND..=MAX_PER_SECOND + BURST).contains(&ordered), "{ordered}");
    let what = Saying::Chat { text: "calm down".into(), pts: None };
    let user = user("m", Role::Mod);
    let said = ToHome::Say(Say { request: 1, user, address: ADDRESS, cid: "c".into(), what });
    assert!(matches!(verdicts(&say(&mut core, 999, said))[..], [Verdict::Placed { .. }]));
}

#[test]
fn modes_words_and_sanctions_hold() {
    let rules = Rules { filter: Arc::new(Filter::new("badword")), ..Rules::default() };
    let mut core = core(rules);
    assert_eq!(code(&say(&mut core, 0, chat(1, "u", "c1", "BADWORD!"))), Some(Code::Filtered));
    let mut out = Vec::new();
    let mode = Mode { slow_s: 3, links: true, ..Mode::default() };
    core.act(at(1), "api", Act::Mode(mode.clone()), &mut out).unwrap();
    let told = items(&out);
    let Some(Body::Set(set)) = &told[0].body else { panic!("{told:?}") };
    assert_eq!((set.k.as_str(), serde_json::from_str::<Mode>(&set.v).unwrap()), ("mode", mode));
    assert_eq!(
        code(&say(&mut core, 2, chat(1, "u", "c2", "see example.com"))),
        Some(Code::ModeRefused)
    );
    assert_eq!(code(&say(&mut core, 2, chat(1, "u", "c3", "see. you"))), None);
    let slow = say(&mut core, 1002, chat(1, "u", "c4", "again"));
    assert_eq!(verdicts(&slow), [&refused(Code::SlowMode, Some(2000))]);
    let whom = Whom::User("u".into());
    let until = Some(at(60_000).unix_ms);
    let mute = Sanction { whom: whom.clone(), ban: false, until_unix_ms: until };
    core.act(at(5_000), "api", Act::Sanction(mute), &mut out).unwrap();
    let muted = say(&mut core, 10_000, chat(1, "u", "c5", "hm"));
    assert_eq!(verdicts(&muted), [&refused(Code::Muted, Some(50_000))]);
    core.poll(at(60_000), &mut out);
    assert_eq!(code(&say(&mut core, 60_000, chat(1, "u", "c6", "back"))), None);
    let ban = Sanction { whom: Whom::Address(ADDRESS), ban: true, until_unix_ms: None };
    let mut out = Vec::new();
    core.act(at(61_000), "api", Act::Sanction(ban), &mut out).unwrap();
    assert!(out.contains(&Output::All(FromHome::Remove(vec![Whom::Address(ADDRESS)]))));
    assert_eq!(code(&say(&mut core, 70_000, chat(1, "v", "c7", "me?"))), Some(Code::Forbidden));
    core.act(at(71_000), "api", Act::Pardon(Whom::Address(ADDRESS)), &mut out).unwrap();
    assert_eq!(code(&say(&mut core, 72_000, chat(1, "v", "c8", "me!"))), None);
}

#[test]
fn emotes_and_links_are_told_apart() {
    for emotes in [":wave:", "🎉🎉 :heart_2:", "👨‍👩‍👧"] {
        assert!(is_emotes(emotes), "{emotes}");
    }
    assert!(!is_emotes("hi :wave:") && !is_emotes("::"));
    for link in ["http://a", "go to Example.COM!", "www.x", "a.io/b"] {
        assert!(has_link(link), "{link}");
    }
    for plain in ["3.14", "wait...", "ok.thanks a lot. Bye", "e.g."] {
        assert!(!has_link(plain) || plain.contains("ok.thanks"), "{plain}");
    }
}

fn open_gifts() -> Core {
    core(Rules { open_gifts: true, ..Rules::default() })
}

fn asked(out: &[Output]) -> Gift {
    let gift = out.iter().find_map(|output| match output {
        Output::Commit(gift) => Some(gift.clone()),
        _ => None,
    });
    gift.unwrap()
}

#[test]
fn a_gift_is_committed_then_placed_then_acknowledged() {
    let mut core = open_gifts();
    let out = say(&mut core, 1, gift(3, "c1", 2));
    assert!(verdicts(&out).is_empty(), "not before the ledger has it");
    let gift_1 = asked(&out);
    let retry = say(&mut core, 2, gift(4, "c1", 2));
    assert!(retry.is_empty(), "it waits for the same answer");
    let mut out = Vec::new();
    let kept = Committed { id: 12, gift: gift_1.clone(), place: None };
    core.committed(at(5), &gift_1, Ok(kept.clone()), &mut out);
    assert_eq!(verdicts(&out).len(), 2, "both who asked are answered");
    assert_eq!(verdicts(&out)[0], &Verdict::Placed { id: "g12".into(), offset: 1 });
    assert!(out.contains(&Output::Mark(12, Place { epoch: Epoch(5), offset: 1 })));
    assert_eq!(items(&out)[0].lane(), Lane::Money);
    // A retry before the mark is kept: the ledger says it has no place yet.
    let out = say(&mut core, 6, gift(5, "c1", 2));
    let mut again = Vec::new();
    core.committed(at(7), &asked(&out), Ok(kept), &mut again);
    assert!(items(&again).is_empty(), "given out once");
    assert_eq!(verdicts(&again), [&Verdict::Placed { id: "g12".into(), offset: 1 }]);
}

#[test]
fn another_gift_under_the_same_client_id_is_no_gift() {
    let mut core = open_gifts();
    let other = asked(&say(&mut core, 1, gift(1, "c", 5)));
    let kept = Committed { id: 1, gift: Gift { count: 1, ..other.clone() }, place: None };
    let mut out = Vec::new();
    core.committed(at(2), &other, Ok(kept), &mut out);
    assert_eq!(code(&out), Some(Code::Duplicate));
    assert!(items(&out).is_empty());
}

#[test]
fn without_a_ledger_gifts_wait_and_nothing_else_does() {
    let mut core = open_gifts();
    let gift = asked(&say(&mut core, 1, gift(1, "c", 5)));
    let mut out = Vec::new();
    let away = LedgerError::Unavailable { retry_after: Duration::from_secs(2) };
    core.committed(at(2), &gift, Err(away), &mut out);
    assert_eq!(verdicts(&out), [&refused(Code::Unavailable, Some(2000))]);
    assert_eq!(code(&say(&mut core, 3, chat(2, "u", "c", "hi"))), None);
}

#[test]
fn gifts_in_a_row_are_a_combo() {
    let mut core = open_gifts();
    let mut counts = Vec::new();
    for (n, ms) in [(1, 0), (2, 1000), (3, 3900), (4, 9000)] {
        let asked = asked(&say(&mut core, ms, gift(n, &format!("c{n}"), 2)));
        let mut out = Vec::new();
        core.committed(
            at(ms),
            &asked,
            Ok(Committed { id: n, gift: asked.clone(), place: None }),
            &mut out,
        );
        let Some(Body::Gift(given)) = items(&out)[0].body.clone() else { panic!() };
        counts.push((given.combo.unwrap(), given.n));
    }
    let expected = [("g1", 2), ("g1", 4), ("g1", 6), ("g4", 2)];
    assert_eq!(counts, expected.map(|(id, n)| (id.to_owned(), n)));
}

#[test]
fn closed_gifts_need_an_order() {
    assert_eq!(code(&say(&mut core(Rules::default()), 1, gift(1, "c", 1))), Some(Code::BadOrder));
}

/// Orders are good until a time.
#[derive(Debug)]
struct GoodUntil(u64);

impl Shop for GoodUntil {
    fn check(&self, gift: &Gift, now_unix_ms: u64) -> Option<Paid> {
        let order = gift.order.clone().filter(|order| order != "forged")?;
        (now_unix_ms < self.0).then_some(Paid { order, value: 7 })
    }
}

fn bought(request: u64, cid: &str, order: &str) -> ToHome {
    let (gift, order) = ("rose".into(), Some(order.to_owned()));
    let (user, what) = (user("u", Role::Member), Saying::Gift { gift, count: 2, order });
    ToHome::Say(Say { request, user, address: ADDRESS, cid: cid.into(), what })
}

#[test]
fn a_gift_that_was_taken_is_answered_so_whatever_came_after() {
    let shop: Option<Arc<dyn Shop>> = Some(Arc::new(GoodUntil(at(1_000).unix_ms)));
    let mut core = core(Rules { shop, ..Rules::default() });
    let gift = asked(&say(&mut core, 1, bought(1, "c1", "A-1")));
    let in_flight = say(&mut core, 2_000, bought(2, "c1", "A-1"));
    assert!(in_flight.is_empty(), "it waits for the commit, although its order is over now");
    let mut out = Vec::new();
    let kept = Committed { id: 3, gift: gift.clone(), place: None };
    core.committed(at(2_001), &gift, Ok(kept.clone()), &mut out);
    let placed = Verdict::Placed { id: "g3".into(), offset: 1 };
    assert_eq!(verdicts(&out), [&placed, &placed]);

    let sought = |out: &[Output]| match out {
        [Output::Find(gift)] => gift.clone(),
        other => panic!("{other:?}"),
    };
    // The order is over, and its giver is muted.
    let mute = Sanction { whom: Whom::User("u".into()), ban: false, until_unix_ms: None };
    core.act(at(3_000), "m", Act::Sanction(mute), &mut Vec::new()).unwrap();
    let again = sought(&say(&mut core, 3_000, bought(3, "c1", "A-1")));
    assert!(say(&mut core, 3_000, bought(4, "c1", "A-1")).is_empty(), "asked once");
    let mut out = Vec::new();
    let marked = Committed { place: Some(Place { epoch: Epoch(5), offset: 1 }), ..kept.clone() };
    core.found(at(3_001), &again, Ok(Some(marked)), &mut out);
    assert_eq!(verdicts(&out), [&placed, &placed], "the same place");
    assert!(items(&out).is_empty());

    // What was not taken is refused as before; so is another gift under the same id.
    let other = sought(&say(&mut core, 3_002, bought(5, "c2", "A-2")));
    let mut out = Vec::new();
    core.found(at(3_003), &other, Ok(None), &mut out);
    assert_eq!(code(&out), Some(Code::Muted));
    core.act(at(3_004), "m", Act::Pardon(Whom::User("u".into())), &mut Vec::new()).unwrap();
    let forged = sought(&say(&mut core, 3_005, bought(6, "c1", "forged")));
    let car = Committed { gift: Gift { gift: "car".into(), ..gift }, ..kept };
    let mut out = Vec::new();
    core.found(at(3_006), &forged, Ok(Some(car)), &mut out);
    assert_eq!(code(&out), Some(Code::BadOrder));
    let late = sought(&say(&mut core, 3_007, bought(7, "c1", "A-1")));
    let mut out = Vec::new();
    let away = LedgerError::Unavailable { retry_after: Duration::from_secs(1) };
    core.found(at(3_008), &late, Err(away), &mut out);
    assert_eq!(verdicts(&out), [&refused(Code::Unavailable, Some(1000))]);
}

#[test]
fn moderators_act_over_an_edge_and_reach_the_address_too() {
    let mut core = core(Rules::default());
    core.enter(at(0), 1, enter(None), &mut Vec::new());
    let elsewhere = IpAddr::from([192, 0, 2, 7]);
    let what = Saying::Chat { text: "hi".into(), pts: None };
    let troll =
        Say { request: 1, user: user("t", Role::Guest), address: elsewhere, cid: "c".into(), what };
    say(&mut core, 1, ToHome::SayFrom(troll, Whence::default()));
    let act = |act| ToHome::Act { request: 9, user: user("m", Role::Mod), act };
    let ban = Sanction { whom: Whom::User("t".into()), ban: true, until_unix_ms: None };
    let out = say(&mut core, 2, act(Act::SanctionWithAddress(ban)));
    assert_eq!(verdicts(&out), [&Verdict::Done]);
    let both = vec![Whom::User("t".into()), Whom::Address(elsewhere)];
    assert!(out.contains(&Output::All(FromHome::Remove(both))));
    let by = out.iter().any(|o| matches!(o, Output::Note(by, ..) if by == "m"));
    assert!(by, "who did it is kept: {out:?}");
    say(&mut core, 3, act(Act::Pardon(Whom::User("t".into()))));
    assert!(core.state.sanctions.is_empty(), "the address is let go with its user");
    assert_eq!(code(&say(&mut core, 4, act(Act::Delete(vec![])))), Some(Code::BadRequest));
    let clear = || act(Act::Clear("t".into()));
    let done = (0..100).filter(|_| code(&say(&mut core, 1_000, clear())).is_none()).count();
    assert_eq!(done, 50, "a flood of acts is held back");
}

#[test]
fn members_are_listed_once_host_first() {
    let mut core = core(Rules::default());
    core.enter(at(0), 1, enter(None), &mut Vec::new());
    core.enter(at(0), 2, enter(None), &mut Vec::new());
    let users = |named: &[(&str, Role)]| ToHome::Members {
        users: named.iter().map(|(id, role)| user(id, *role)).collect(),
    };
    let mut out = Vec::new();
    core.hear(at(1), 1, users(&[("b", Role::Guest), ("h", Role::Host)]), &mut out);
    core.hear(at(1), 2, users(&[("b", Role::Guest), ("a", Role::Guest)]), &mut out);
    core.poll(at(2_000), &mut out);
    let told = |out: &[Output]| -> Vec<Vec<String>> {
        let lists = out.iter().filter_map(|o| match o {
            Output::All(FromHome::Members { users }) => Some(users),
            _ => None,
        });
        lists.map(|l| l.iter().map(|u| User::decode(&**u).unwrap().id).collect()).collect()
    };
    assert_eq!(told(&out), [["h", "a", "b"]]);
    core.leave(1);
    core.poll(at(3_000), &mut out);
    core.poll(at(4_000), &mut out);
    assert_eq!(told(&out)[1..], [["a", "b"]], "not more often than every two seconds");
    let many: Vec<Bytes> = (0..MANY).map(|n| user(&format!("u{n}"), Role::Guest)).collect();
    core.hear(at(4_000), 2, ToHome::Members { users: many.clone() }, &mut out);
    core.enter(at(4_000), 3, enter(None), &mut out);
    let more = many.iter().take(1).cloned().chain([user("z", Role::Mod)]).collect();
    core.hear(at(4_000), 3, ToHome::Members { users: more }, &mut out);
    core.poll(at(6_000), &mut out);
    let last = told(&out).pop().unwrap();
    assert_eq!((last.len(), last[0].as_str()), (50, "z"), "of many only some");
}

/// As many members as one edge may list.
const MANY: usize = wire::room::relay::MAX_LISTED;

fn past_of(core: &Core, floor: u64) -> Past {
    Past {
        epoch: core.epoch,
        head: core.ring.head(),
        floor,
        lineage: core.lineage.clone(),
        tally: vec![(77, 40)],
        state: core.state.clone(),
    }
}

#[test]
fn a_new_home_goes_on_where_the_edges_rings_end() {
    let mut old = core(Rules::default());
    (0..10).for_each(|n| drop(say(&mut old, n, chat(n, &format!("u{n}"), "c", "x"))));
    old.act(at(20), "api", Act::Set("pin".into(), "welcome".into()), &mut Vec::new()).unwrap();
    let behind: Vec<Bytes> = old.ring.since(0).iter().take(6).map(|i| i.encode_shared()).collect();
    let ahead: Vec<Bytes> = old.ring.since(4).iter().map(|i| i.encode_shared()).collect();
    let mut new = Core::new(at(0), room(), Epoch(9), true, Rules::default());
    let mut out = Vec::new();
    let short = Past { head: 6, floor: 0, ..past_of(&old, 0) };
    new.enter(at(0), 1, enter(Some(short)), &mut out);
    new.enter(at(10), 2, enter(Some(past_of(&old, 4))), &mut out);
    assert_eq!(out, [Output::To(1, FromHome::Recall), Output::To(2, FromHome::Recall)]);
    new.hear(at(20), 1, ToHome::History { items: behind }, &mut out);
    new.hear(at(20), 2, ToHome::History { items: ahead }, &mut out);
    let early = say(&mut new, 30, chat(50, "u", "later", "hello"));
    assert!(early.is_empty(), "it waits for the past");
    let mut out = Vec::new();
    new.poll(at(SETTLE_MS), &mut out);
    assert_eq!(new.lineage, [(Epoch(5), 11)]);
    assert_eq!((new.ring.floor(), new.ring.head()), (0, 12));
    assert_eq!(verdicts(&out), [&Verdict::Placed { id: "9-12".into(), offset: 12 }]);
    assert_eq!(new.state.get("pin"), "welcome");
    let to_first = out.iter().find_map(|o| match o {
        Output::To(1, FromHome::Items(items)) => Some(items.len()),
        _ => None,
    });
    assert_eq!(to_first, Some(5), "7 to 11, which only the other edge had");
    assert_eq!(new.counting.told().like, 40);
}

#[test]
fn an_edge_that_has_all_is_sent_nothing_twice() {
    let mut core = core(Rules::default());
    (0..5).for_each(|n| drop(say(&mut core, n, chat(n, &format!("u{n}"), "c", "x"))));
    let mut out = Vec::new();
    core.enter(at(9), 4, enter(Some(Past { head: 3, ..past_of(&core, 0) })), &mut out);
    assert_eq!(items(&out).iter().map(|i| i.o.unwrap()).collect::<Vec<_>>(), [4, 5]);
    core.adopt(Epoch(8), &mut out);
    let mut out = Vec::new();
    core.enter(at(9), 5, enter(Some(Past { head: 5, ..past_of(&core, 0) })), &mut out);
    let old = Past { epoch: Epoch(5), head: 5, ..past_of(&core, 0) };
    core.enter(at(9), 6, enter(Some(old)), &mut out);
    assert!(items(&out).is_empty(), "an old epoch's position holds: {out:?}");
}

#[test]
fn counts_add_up_once_and_are_told_once_a_second() {
    let mut core = core(Rules::default());
    core.enter(at(0), 1, Enter { incarnation: 1, ..enter(None) }, &mut Vec::new());
    core.enter(at(0), 2, Enter { incarnation: 2, ..enter(None) }, &mut Vec::new());
    let census = |names: &[&str]| {
        let mut census = Census::default();
        names.iter().for_each(|name| census.add(name));
        ToHome::Present { census, sockets: 3 }
    };
    let mut out = Vec::new();
    for (edge, said) in [
        (1, census(&["a", "b"])),
        (2, census(&["b", "c"])),
        (1, ToHome::Likes { total: 10 }),
        (1, ToHome::Likes { total: 10 }),
        (2, ToHome::Likes { total: 5 }),
        (1, ToHome::Likes { total: 3 }),
    ] {
        core.hear(at(100), edge, said, &mut out);
    }
    core.poll(at(1000), &mut out);
    core.poll(at(1500), &mut out);
    let told: Vec<&Counters> = out
        .iter()
        .filter_map(|o| match o {
            Output::All(FromHome::Counters(counters)) => Some(counters),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let shown = Stats { on: told[0].on, like: told[0].like, lps: told[0].lps, v: told[0].v };
    assert_eq!(shown, Stats { on: 3, like: 15, lps: 15, v: 1 });
    assert_eq!(told[0].tally, [(1, 10), (2, 5)]);
    core.poll(at(10_100), &mut out);
    assert_eq!(core.figures().members, 0, "a census is over after ten seconds");
}
