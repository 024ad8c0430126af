//! Both forms say the same, and the examples of the protocol are read.

use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = String> {
    "[a-z0-9\"\\\\<>\u{0}\u{7f}é中🎁]{0,12}"
}

fn number() -> impl Strategy<Value = u64> {
    0..(1_u64 << 53)
}

fn user() -> impl Strategy<Value = User> {
    (text(), text(), 0..4_i32, prop::option::of(any::<u32>())).prop_map(|(id, n, r, lv)| User {
        id,
        n,
        r,
        lv,
    })
}

fn body() -> impl Strategy<Value = Body> {
    let user = || prop::option::of(user());
    prop_oneof![
        (user(), text(), prop::option::of(number()), prop::option::of(any::<u32>()))
            .prop_map(|(u, x, pts, n)| Body::Chat(Chat { u, x, pts, n })),
        (user(), text(), any::<u32>(), prop::option::of(text()), prop::option::of(any::<u32>()))
            .prop_map(|(u, g, n, combo, end)| Body::Gift(Gift { u, g, n, combo, end })),
        (user(), prop::option::of(any::<u32>())).prop_map(|(u, n)| Body::Join(Join { u, n })),
        prop::collection::vec(text(), 0..3).prop_map(|ids| Body::Del(Del { ids })),
        text().prop_map(|uid| Body::Clear(Clear { uid })),
        (text(), text(), number()).prop_map(|(k, v, ver)| Body::Set(Set { k, v, ver })),
        text().prop_map(|s| Body::Stream(Stream { s })),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    (body(), text(), prop::option::of(number()), number()).prop_map(|(body, id, o, ts)| Item {
        body: Some(body),
        id,
        o,
        ts,
    })
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    prop::collection::vec(item(), 0..4)
}

fn counts() -> impl Strategy<Value = BTreeMap<u32, u32>> {
    prop::collection::btree_map(0..5_u32, any::<u32>(), 0..3)
}

fn stats() -> impl Strategy<Value = Option<Stats>> {
    let stats = (number(), number(), number(), number());
    prop::option::of(stats.prop_map(|(on, like, lps, v)| Stats { on, like, lps, v }))
}

fn state() -> impl Strategy<Value = State> {
    let mode = (any::<u32>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(slow_s, followers, members, emotes, links)| Mode {
            slow_s,
            followers,
            members,
            emotes,
            links,
        },
    );
    let value = (text(), number()).prop_map(|(v, ver)| Value { v, ver });
    let kv = prop::collection::btree_map(text(), value, 0..3);
    (any::<bool>(), mode, prop::option::of(text()), kv, items(), items()).prop_map(
        |(live, mode, pin, kv, chat, paid)| State { live, mode: Some(mode), pin, kv, chat, paid },
    )
}

fn server() -> impl Strategy<Value = Server> {
    let position = (text(), number()).prop_map(|(e, o)| Position { e, o });
    let limits = Limits { chat_ms: 1000, len: 200, rate: 5 };
    prop_oneof![
        (text(), position, any::<bool>(), prop::option::of(state()), items(), counts(), stats())
            .prop_map(move |(sid, pos, recovered, state, m, d, s)| {
                let (uid, hb, now) = (sid.clone(), 25_000, 7);
                let (lim, edges) = (Some(limits.clone()), vec![sid.clone()]);
                let pos = Some(pos);
                Server::Welcome(Box::new(Welcome {
                    sid,
                    uid,
                    hb,
                    now,
                    pos,
                    recovered,
                    lim,
                    state,
                    m,
                    d,
                    edges,
                    s,
                    may: vec!["chat".into()],
                    until: Some(9),
                }))
            }),
        (text(), text(), prop::option::of(number()), text())
            .prop_map(|(c, id, o, f)| Server::Ok(Accepted { c, id, o, f })),
        (text(), prop::collection::vec(user(), 0..3), number())
            .prop_map(|(c, u, on)| Server::Who(People { c, u, on })),
        text().prop_map(|c| Server::Held(Held { c })),
        (prop::option::of(text()), text(), prop::option::of(any::<u32>()))
            .prop_map(|(c, code, retry_ms)| Server::Err(Refused { c, code, retry_ms })),
        (number(), items(), stats(), counts()).prop_map(|(o, m, s, d)| {
            let e = m.first().map(|item| item.id.clone());
            Server::B(Batch { o, m, s, d, e })
        }),
        Just(Server::Ping(Empty {})),
        (any::<u32>(), prop::option::of(any::<u32>()), prop::collection::vec(text(), 0..3))
            .prop_map(|(code, after_ms, edges)| Server::Bye(Bye { code, after_ms, edges })),
    ]
}

fn moderate() -> impl Strategy<Value = Client> {
    let mode = Mode { slow_s: 3, ..Mode::default() };
    (
        (text(), text(), prop::collection::vec(text(), 0..3)),
        prop::option::of((text(), any::<u32>(), any::<bool>())),
        prop::option::of((text(), text())),
    )
        .prop_map(move |((c, a, ids), whom, key)| {
            let mode = key.is_some().then(|| mode.clone());
            let (k, v) = key.unzip();
            let (uid, s, net) = match whom {
                Some((uid, s, net)) => (Some(uid), Some(s), Some(net)),
                None => (None, None, None),
            };
            Client::Mod(Moderate { c, a, ids, uid, s, net, mode, k, v })
        })
}

fn client() -> impl Strategy<Value = Client> {
    let position = (text(), number()).prop_map(|(e, o)| Position { e, o });
    prop_oneof![
        (any::<u32>(), text(), prop::option::of(text()), prop::option::of(position)).prop_map(
            |(v, room, token, pos)| {
                let (guest, n, sid) = (token.clone(), Some(room.clone()), token.clone());
                let cap = vec!["pts".into()];
                Client::Hello(Hello { v, room, token, cap, pos, guest, n, sid })
            }
        ),
        moderate(),
        (text(), text()).prop_map(|(c, token)| Client::Token(Renew { c, token })),
        text().prop_map(|c| Client::Who(Who { c })),
        (text(), text(), prop::option::of(number())).prop_map(|(c, x, pts)| Client::Chat(Say {
            c,
            x,
            pts
        })),
        any::<u32>().prop_map(|n| Client::Like(Like { n })),
        (text(), text(), any::<u32>(), prop::option::of(text()))
            .prop_map(|(c, g, n, auth)| Client::Gift(Give { c, g, n, auth })),
        Just(Client::Pong(Empty {})),
    ]
}

proptest! {
    #[test]
    fn both_forms_of_a_server_frame_say_the_same(frame in server()) {
        for form in [Form::Json, Form::Protobuf] {
            let read = Server::read(&frame.write(form), form).unwrap().unwrap();
            prop_assert_eq!(&read, &frame);
        }
    }

    #[test]
    fn both_forms_of_a_client_frame_say_the_same(frame in client()) {
        for form in [Form::Json, Form::Protobuf] {
            let read = Client::read(&frame.write(form), form).unwrap().unwrap();
            prop_assert_eq!(&read, &frame);
        }
    }

    #[test]
    fn any_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (Client::read(&bytes, Form::Json), Client::read(&bytes, Form::Protobuf));
        let _ = Item::decode_shared(&bytes);
    }
}

#[test]
fn the_examples_of_the_protocol_are_read() {
    let hello = br#"{"t":"hello","v":1,"room":"live/r9","cap":["combo","pts"],"pos":{"e":"k3","o":8812},"later":[1]}"#;
    let Ok(Some(Client::Hello(hello))) = Client::read(hello, Form::Json) else { panic!() };
    assert_eq!((hello.v, hello.room.as_str()), (1, "live/r9"));
    assert_eq!(hello.pos.unwrap().epoch(), Some(Epoch(20 * 36 + 3)));
    let batch = br#"{"t":"b","o":8891,"m":[{"t":"chat","id":"8k-1","o":8891,"ts":1795350000456,"u":{"id":"u7","n":"Mei","r":"member"},"x":"hi"}],"s":{"on":12,"like":3,"lps":0,"v":9}}"#;
    let read = Server::read(batch, Form::Json).unwrap().unwrap();
    let Server::B(ref b) = read else { panic!() };
    assert_eq!((b.o, b.m[0].lane(), b.m[0].author()), (8891, Lane::Chat, Some("u7")));
    let again: serde_json::Value = serde_json::from_slice(&read.write(Form::Json)).unwrap();
    assert_eq!(again, serde_json::from_slice::<serde_json::Value>(batch).unwrap());
}

#[test]
fn unknown_kinds_are_passed_over_and_wrong_types_are_named() {
    assert_eq!(Client::read(br#"{"t":"dance","x":[]}"#, Form::Json), Ok(None));
    for (bad, why) in [
        (&br#"{"t":"chat","c":1,"x":"a"}"#[..], "invalid type: integer `1`"),
        (br#"{"t":"like","n":-1}"#, "invalid value: integer `-1`"),
        (br#"{"t":"chat","x":"a"}"#, "missing field `c`"),
        (br#"{"t":7}"#, "no object with a kind"),
        (br#"["pong",{}]"#, "a JSON object"),
        (b"{", "EOF"),
    ] {
        let error = Client::read(bad, Form::Json).unwrap_err();
        assert!(error.0.contains(why), "{error}");
    }
}

#[test]
fn the_examples_of_the_page_are_frames() {
    let page = include_str!("../../../../docs/rooms.md");
    let mut found = (0, 0);
    for block in page.split("```json ").skip(1) {
        let (side, rest) = block.split_once('\n').unwrap();
        let text = rest.split("```").next().unwrap();
        let whole: serde_json::Value = serde_json::from_str(text).unwrap();
        // Written again, a frame has every field that the page shows: none is passed over as unknown.
        let again: serde_json::Value = if side == "client" {
            found.0 += 1;
            let frame = Client::read(text.as_bytes(), Form::Json).unwrap().unwrap();
            serde_json::from_slice(&frame.write(Form::Json)).unwrap()
        } else {
            found.1 += 1;
            let frame = Server::read(text.as_bytes(), Form::Json).unwrap().unwrap();
            serde_json::from_slice(&frame.write(Form::Json)).unwrap()
        };
        assert!(contains(&again, &whole), "{text}\n{again}");
    }
    assert!(found.0 >= 5 && found.1 >= 5, "{found:?}");
}

/// Whether a value has everything of another.
fn contains(value: &serde_json::Value, part: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Object};
    match (value, part) {
        (Object(value), Object(part)) => {
            part.iter().all(|(key, part)| value.get(key).is_some_and(|value| contains(value, part)))
        }
        (Array(value), Array(part)) => {
            value.len() == part.len() && value.iter().zip(part).all(|(v, p)| contains(v, p))
        }
        (value, part) => value == part,
    }
}
