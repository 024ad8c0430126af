//! Every rule is broken once on purpose, so that none is there for show.

use super::super::tests::{FIVE, Home};
use super::super::{Form, media};
use super::*;

/// A stream of 16 whole segments and an open one with two parts.
fn text() -> String {
    let mut home = Home::new(2, 210);
    for _ in 0..16 {
        home.segment(&FIVE);
    }
    home.open();
    home.part(18_000, true);
    home.part(18_000, false);
    media(&home.manifest, Form::Full).unwrap()
}

fn rules_broken(texts: &[&str]) -> Vec<&'static str> {
    let mut checker = Checker::new();
    let mut rules = Vec::new();
    for text in texts {
        if let Err(found) = checker.observe(text) {
            rules.extend(found.iter().map(|v| v.rule));
        }
    }
    rules.dedup();
    rules
}

#[track_caller]
fn breaks(rule: &str, from: &str, to: &str) {
    let good = text();
    assert!(good.contains(from), "{from:?} is not in\n{good}");
    let bad = good.replacen(from, to, 1);
    let found = rules_broken(&[&bad]);
    assert!(found.contains(&rule), "{rule} was broken, {found:?} found");
}

#[track_caller]
fn update_breaks(rule: &str, from: &str, to: &str) {
    let good = text();
    assert!(good.contains(from), "{from:?} is not in\n{good}");
    let bad = good.replacen(from, to, 1);
    let found = rules_broken(&[&good, &bad]);
    assert!(found.contains(&rule), "{rule} was broken, {found:?} found");
}

#[test]
fn a_good_playlist_breaks_nothing() {
    assert_eq!(rules_broken(&[&text(), &text()]), Vec::<&str>::new());
}

#[test]
fn grammar() {
    for (from, to) in [
        ("#EXTM3U\n", ""),
        ("#EXT-X-VERSION:9\n", ""),
        ("#EXT-X-VERSION:9\n", "#EXT-X-VERSION:9\n#EXT-X-VERSION:9\n"),
        ("#EXT-X-VERSION:9\n", "#EXT-X-VERSION:9\n#EXT-X-NEW:1\n"),
        ("#EXT-X-MEDIA-SEQUENCE:102", "#EXT-X-MEDIA-SEQUENCE:-2"),
        ("#EXTINF:1.00000,", "#EXTINF:1.000000,"),
        ("#EXTINF:1.00000,", "#EXTINF:1.0"),
        ("main/s105-7.m4s\n", ""),
        ("#EXTINF:1.00000,\n", ""),
        ("T00:00:03.000Z", "T00:00:03Z"),
        ("INDEPENDENT=YES", "INDEPENDENT=NO"),
        (",URI=\"main/p7-1071.m4s\"", ""),
        ("TYPE=PART,URI=", "TYPE=PART,URI=,URI="),
        ("main/s115-7.m4s\n", "main/s115-7.m4s\n#EXT-X-ENDLIST\n"),
        ("main/s103-7.m4s\n", "main/s103-7.m4s\n\n"),
    ] {
        breaks("grammar", from, to);
    }
    let discontinuity = "#EXT-X-PART:DURATION=0.20000,URI=\"main/p7-1081.m4s\"\n";
    breaks("grammar", discontinuity, &format!("{discontinuity}#EXT-X-DISCONTINUITY\n"));
    let alone = text().replace("#EXT-X-PRELOAD", "#EXT-X-DISCONTINUITY\n#EXT-X-PRELOAD");
    assert_eq!(rules_broken(&[&alone]), ["grammar"]);
}

#[test]
fn constants_and_durations() {
    breaks("version", "VERSION:9", "VERSION:5");
    breaks("server-control", "CAN-BLOCK-RELOAD=YES", "CAN-BLOCK-RELOAD=NO");
    breaks("hold-back", "PART-HOLD-BACK=0.630", "PART-HOLD-BACK=0.600");
    breaks("skip-until", "CAN-SKIP-UNTIL=12.000", "CAN-SKIP-UNTIL=11.000");
    breaks("part-inf", "#EXT-X-PART-INF:PART-TARGET=0.210\n", "");
    breaks("part-target", "DURATION=0.20000", "DURATION=0.21001");
    breaks("part-target", "DURATION=0.20000", "DURATION=0.00000");
    breaks("parts-are-the-segment", "DURATION=0.20000", "DURATION=0.19000");
    breaks("target-duration", "#EXTINF:1.00000", "#EXTINF:2.60000");
    breaks("map", "#EXT-X-MAP:URI=", "#EXT-X-PRELOAD-HINT:TYPE=MAP,URI=");
    breaks("pdt", "T00:00:05.000Z", "T00:00:05.900Z");
    breaks("pdt", "#EXT-X-PROGRAM-DATE-TIME:2026-11-22T00:00:16.000Z\n", "");
    breaks("independent", ",INDEPENDENT=YES", "");
}

#[test]
fn parts_and_hints() {
    breaks("hint", "PRELOAD-HINT:TYPE=PART", "PRELOAD-HINT:TYPE=MAP");
    breaks("hint", "main/p7-1082.m4s", "main/p7-1081.m4s");
    breaks("unique-names", "main/p7-1081.m4s", "main/p7-1079.m4s");
    breaks("unique-names", "main/s103-7.m4s", "main/s104-7.m4s");
    let part = "#EXT-X-PART:DURATION=0.20000,URI=\"main/old.m4s\"\n#EXTINF:1.00000,\nmain/s105-7";
    breaks("old-parts", "#EXTINF:1.00000,\nmain/s105-7", part);
    let ended = format!("{}#EXT-X-ENDLIST\n", text());
    assert!(rules_broken(&[&ended]).contains(&"hint"));
    let empty = text().split("#EXT-X-MAP").next().unwrap().to_owned();
    assert!(rules_broken(&[&empty]).contains(&"complete"));
}

#[test]
fn updates() {
    update_breaks("constants", "TARGETDURATION:2", "TARGETDURATION:1");
    update_breaks("constants", "PART-TARGET=0.210", "PART-TARGET=0.211");
    update_breaks("media-sequence", "MEDIA-SEQUENCE:102", "MEDIA-SEQUENCE:101");
    update_breaks("discontinuity-sequence", "DISCONTINUITY-SEQUENCE:3", "DISCONTINUITY-SEQUENCE:4");
    update_breaks("immutable", "main/s110-7.m4s", "main/s110-8.m4s");
    update_breaks("immutable", "T00:00:05.000Z", "T00:00:05.001Z");
    update_breaks("immutable", "#EXTINF:1.00000,\nmain/s110", "#EXTINF:0.99999,\nmain/s110");
    update_breaks("immutable", "main/p7-1077.m4s", "main/p7-2077.m4s");
    update_breaks("hint", "main/p7-1082.m4s", "main/p7-1083.m4s");
    let good = text();
    let cut = good.find("#EXT-X-PROGRAM-DATE-TIME:2026-11-22T00:00:16").unwrap();
    let hint = good.find("#EXT-X-PRELOAD").unwrap();
    let fewer = format!("{}{}", &good[..cut], &good[hint..]);
    assert!(rules_broken(&[&good, &fewer]).contains(&"media-sequence"), "an open segment vanished");
    let ended = format!("{}#EXT-X-ENDLIST\n", &good[..hint]);
    assert!(rules_broken(&[&good, &ended]).is_empty());
    assert!(rules_broken(&[&ended, &good]).contains(&"ended"));
    // The hinted part did not come, another did.
    let line = "#EXT-X-PART:DURATION=0.20000,URI=\"main/p7-1083.m4s\"\n#EXT-X-PRELOAD";
    let other = good.replace("#EXT-X-PRELOAD", line).replace("1082", "1084");
    assert!(rules_broken(&[&good, &other]).contains(&"hint"));
}

#[test]
fn the_window_keeps_three_target_durations() {
    let good = text();
    let from = good.find("#EXT-X-PROGRAM-DATE-TIME").unwrap();
    let to = good.find("#EXT-X-PROGRAM-DATE-TIME:2026-11-22T00:00:13").unwrap();
    let short = format!("{}{}", &good[..from], &good[to..]).replace("SEQUENCE:102", "SEQUENCE:113");
    assert!(rules_broken(&[&good, &short]).contains(&"window"), "{short}");
}

#[test]
fn delta_updates() {
    let mut home = Home::new(2, 210);
    for _ in 0..16 {
        home.segment(&FIVE);
    }
    let full = media(&home.manifest, Form::Full).unwrap();
    let delta = media(&home.manifest, Form::Delta).unwrap();
    assert!(rules_broken(&[&full, &delta]).is_empty());
    assert!(rules_broken(&[&delta]).contains(&"skip"), "a delta before anything");
    let more = delta.replace("SKIPPED-SEGMENTS=2", "SKIPPED-SEGMENTS=3");
    assert!(!rules_broken(&[&full, &more]).is_empty());
    let nothing = delta.replace("SKIPPED-SEGMENTS=2", "SKIPPED-SEGMENTS=0");
    assert_eq!(rules_broken(&[&full, &nothing]), ["grammar"]);
    // Leaves out a segment within the skip boundary.
    let at = delta.find("#EXT-X-PROGRAM-DATE-TIME").unwrap();
    let end = at + delta[at..].find(".m4s\n").unwrap() + 5;
    let greedy = format!("{}{}", &delta[..at], &delta[end..]).replace("SEGMENTS=2", "SEGMENTS=3");
    assert!(rules_broken(&[&full, &greedy]).contains(&"skip"), "{greedy}");
}

#[test]
fn short_parts_are_counted_once_they_are_settled() {
    let mut home = Home::new(2, 210);
    let mut checker = Checker::new();
    home.segment(&[18_000, 18_000, 9_000]);
    home.open();
    for duration in [9_000, 9_000, 9_000] {
        home.part(duration, false);
        let text = media(&home.manifest, Form::Full).unwrap();
        checker.observe(&text).unwrap();
    }
    assert_eq!(checker.short_parts(), 2, "the newest may still be its segment's last");
    home.part(18_000, false);
    home.close();
    checker.observe(&media(&home.manifest, Form::Full).unwrap()).unwrap();
    assert_eq!(checker.short_parts(), 3);
}

#[test]
fn multivariant_playlists() {
    let good = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-STREAM-INF:BANDWIDTH=2,AVERAGE-BANDWIDTH=1,\
                CODECS=\"avc1.4d400b,mp4a.40.2\",RESOLUTION=160x90,FRAME-RATE=30.000\nc/main.m3u8\n";
    assert_eq!(multivariant(good), Ok(()));
    for (rule, from, to) in [
        ("grammar", "#EXTM3U\n", ""),
        ("grammar", "c/main.m3u8", "#EXT-X-ENDLIST"),
        ("grammar", "c/main.m3u8\n", "c/main.m3u8"),
        ("grammar", "BANDWIDTH=2,", ""),
        ("grammar", ",CODECS=\"avc1.4d400b,mp4a.40.2\"", ""),
        ("version", "VERSION:9", "VERSION:4"),
        ("bandwidth", "BANDWIDTH=2,", "BANDWIDTH=0,"),
        ("resolution", ",RESOLUTION=160x90", ""),
        ("frame-rate", "30.000", "30"),
        ("variant", "#EXT-X-STREAM-INF", "#EXT-X-VERSION"),
    ] {
        assert!(good.contains(from), "{from}");
        let found = multivariant(&good.replacen(from, to, 1)).unwrap_err();
        assert!(found.iter().any(|v| v.rule == rule), "{rule}: {found:?}");
    }
}
