//! Playlists of a home that tells its manifest entry by entry, held against the checker and another
//! parser at every step.

use proptest::prelude::*;
use quick_m3u8::config::ParsingOptionsBuilder;
use quick_m3u8::{HlsLine, Reader};

use super::check::{self, Checker};
use super::*;
use crate::clip;
use crate::manifest::{
    Entry, Header, PartEnd, RENDER_VERSION, SegmentClose, SegmentOpen, TrackTimes, WindowStart,
};

/// 2026-11-22T00:00:00.000Z.
const ANCHOR_MS: u64 = 1_795_305_600_000;
const SECOND: u32 = 90_000;

/// Tells the manifest of a stream whose segments and parts the test chooses.
pub(super) struct Home {
    pub(super) manifest: Manifest,
    pub(super) next: SegmentOpen,
    target_duration_s: u32,
    window_ticks: u64,
    in_segment: u32,
}

impl Home {
    pub(super) fn new(target_duration_s: u32, part_target_ms: u32) -> Self {
        let header = Header {
            epoch: Epoch(7),
            generation: 1,
            render_version: RENDER_VERSION,
            constants: Some(Constants { target_duration_s, part_target_ms }),
            bandwidth_bps: 2_400_000,
            average_bandwidth_bps: 2_000_000,
            frame_rate_milli: Some(30_000),
        };
        let mut home = Self {
            manifest: Manifest::new(header.clone()),
            next: SegmentOpen {
                msn: Msn(100),
                epoch: Epoch(7),
                config: 1,
                discontinuity: false,
                pdt_ms: ANCHOR_MS,
                start: TrackTimes { video: Some(0), audio: Some(0) },
                first_part: PartNumber(1000),
            },
            target_duration_s,
            window_ticks: u64::from(target_duration_s) * 6 * 90_000 + 2 * u64::from(SECOND),
            in_segment: 0,
        };
        home.say(Entry::Header(header));
        home.say(Entry::Config(clip::clip().0));
        let first = WindowStart { first: Msn(100), discontinuity_sequence: 3 };
        home.say(Entry::Window(first));
        home
    }

    pub(super) fn say(&mut self, entry: Entry) {
        self.manifest.apply(&entry).unwrap();
    }

    pub(super) fn open(&mut self) {
        self.in_segment = 0;
        let open = self.next;
        self.say(Entry::Open(open));
    }

    pub(super) fn part(&mut self, duration: u32, independent: bool) {
        self.in_segment += duration;
        let end = self.next.start.video.unwrap() + u64::from(self.in_segment);
        let (msn, part) = (self.next.msn, self.next.first_part);
        let frames_end = self.manifest.last().unwrap().frames() + 6;
        let end = TrackTimes { video: Some(end), audio: None };
        let entry = PartEnd { msn, part, frames_end, duration, independent, end };
        self.say(Entry::Part(entry));
        self.next.first_part = part.next();
    }

    pub(super) fn close(&mut self) {
        let duration = self.in_segment;
        let end = self.next.start.video.unwrap() + u64::from(duration);
        self.say(Entry::Close(SegmentClose { msn: self.next.msn, duration }));
        self.next.msn = self.next.msn.next();
        self.next.start.video = Some(end);
        self.next.discontinuity = false;
        self.next.pdt_ms = ANCHOR_MS + end / 90;
        self.move_window();
    }

    /// A whole segment of equal parts, the first of which is independent.
    pub(super) fn segment(&mut self, parts: &[u32]) {
        self.open();
        for (index, part) in parts.iter().enumerate() {
            self.part(*part, index == 0);
        }
        self.close();
    }

    fn move_window(&mut self) {
        let listed = |m: &Manifest| -> u64 {
            m.segments().iter().filter_map(|s| s.duration).map(u64::from).sum()
        };
        while listed(&self.manifest) > self.window_ticks {
            let first = self.manifest.segments().front().unwrap();
            let window = self.manifest.window();
            let leaving = u64::from(first.open.discontinuity);
            let window = WindowStart {
                first: window.first.next(),
                discontinuity_sequence: window.discontinuity_sequence + leaving,
            };
            self.say(Entry::Window(window));
        }
        assert!(self.target_duration_s > 0);
    }
}

/// Five parts of six frames at 30 fps.
pub(super) const FIVE: [u32; 5] = [18_000; 5];

fn full(manifest: &Manifest) -> String {
    media(manifest, Form::Full).unwrap()
}

fn delta(manifest: &Manifest) -> String {
    media(manifest, Form::Delta).unwrap()
}

/// Another parser must know every line.
fn known_to_another_parser(text: &str) {
    let options = ParsingOptionsBuilder::new().with_parsing_for_all_tags().build();
    let mut reader = Reader::from_str(text, options);
    while let Some(line) = reader.read_line().unwrap() {
        match line {
            HlsLine::KnownTag(_) | HlsLine::Uri(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Two clients: one always asks for everything, one for delta updates.
#[derive(Default)]
struct Clients {
    full: Checker,
    delta: Checker,
}

impl Clients {
    fn look(&mut self, manifest: &Manifest) {
        if !manifest.is_playable() {
            assert!(media(manifest, Form::Full).is_err());
            return;
        }
        let (whole, update) = (full(manifest), delta(manifest));
        self.full.observe(&whole).unwrap_or_else(|v| panic!("{v:#?}\n{whole}"));
        if self.delta.observed() == 0 {
            self.delta.observe(&whole).unwrap();
        }
        self.delta.observe(&update).unwrap_or_else(|v| panic!("{v:#?}\n{update}"));
        let without_parts = |c: &Checker| {
            let mut list = c.last().unwrap().clone();
            list.segments.iter_mut().for_each(|s| s.parts.clear());
            list
        };
        assert_eq!(without_parts(&self.full), without_parts(&self.delta));
        known_to_another_parser(&whole);
        known_to_another_parser(&update);
    }
}

#[test]
fn a_stream_keeps_the_rules_at_every_step() {
    let mut home = Home::new(2, 210);
    let mut clients = Clients::default();
    for _ in 0..40 {
        home.open();
        clients.look(&home.manifest);
        for part in 0..5 {
            home.part(18_000, part == 0);
            clients.look(&home.manifest);
        }
        home.close();
        clients.look(&home.manifest);
    }
    assert_eq!(clients.full.short_parts(), 0);
    let last = clients.full.last().unwrap();
    assert!(last.media_sequence > 120, "the window moved");
    assert!(delta(&home.manifest).contains("#EXT-X-SKIP:SKIPPED-SEGMENTS=2\n"));
    assert!(delta(&home.manifest).len() < full(&home.manifest).len());
}

#[test]
fn text_of_a_short_stream() {
    let mut home = Home::new(2, 210);
    home.segment(&FIVE);
    home.open();
    home.part(18_000, true);
    home.part(18_000, false);
    let init = fmp4::init_name(&fmp4::init(home.manifest.config().unwrap()).unwrap());
    let expected = format!(
        "#EXTM3U\n\
         #EXT-X-VERSION:9\n\
         #EXT-X-TARGETDURATION:2\n\
         #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.000,PART-HOLD-BACK=0.630\n\
         #EXT-X-PART-INF:PART-TARGET=0.210\n\
         #EXT-X-MEDIA-SEQUENCE:100\n\
         #EXT-X-DISCONTINUITY-SEQUENCE:3\n\
         #EXT-X-INDEPENDENT-SEGMENTS\n\
         #EXT-X-MAP:URI=\"main/{init}\"\n\
         #EXT-X-PROGRAM-DATE-TIME:2026-11-22T00:00:00.000Z\n\
         #EXT-X-PART:DURATION=0.20000,URI=\"main/p7-1000.m4s\",INDEPENDENT=YES\n\
         #EXT-X-PART:DURATION=0.20000,URI=\"main/p7-1001.m4s\"\n\
         #EXT-X-PART:DURATION=0.20000,URI=\"main/p7-1002.m4s\"\n\
         #EXT-X-PART:DURATION=0.20000,URI=\"main/p7-1003.m4s\"\n\
         #EXT-X-PART:DURATION=0.20000,URI=\"main/p7-1004.m4s\"\n\
         #EXTINF:1.00000,\n\
         main/s100-7.m4s\n\
         #EXT-X-PROGRAM-DATE-TIME:2026-11-22T00:00:01.000Z\n\
         #EXT-X-PART:DURATION=0.20000,URI=\"main/p7-1005.m4s\",INDEPENDENT=YES\n\
         #EXT-X-PART:DURATION=0.20000,URI=\"main/p7-1006.m4s\"\n\
         #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"main/p7-1007.m4s\"\n"
    );
    assert_eq!(full(&home.manifest), expected);
    assert_eq!(delta(&home.manifest), expected, "nothing to skip: the full form");
    assert_eq!(segment_name(Msn(100), Epoch(7)), "s100-7.m4s");
    assert_eq!(part_name(Epoch(7), PartNumber(1007)), "p7-1007.m4s");
}

#[test]
fn parts_are_listed_for_the_last_two_complete_segments_and_the_open_one() {
    let mut home = Home::new(2, 210);
    for _ in 0..5 {
        home.segment(&FIVE);
    }
    let counts = |m: &Manifest| {
        let mut checker = Checker::new();
        let list = checker.observe(&full(m)).unwrap();
        list.segments.iter().map(|s| s.parts.len()).collect::<Vec<_>>()
    };
    assert_eq!(counts(&home.manifest), [0, 0, 0, 5, 5]);
    home.open();
    assert_eq!(counts(&home.manifest), [0, 0, 0, 5, 5], "an open segment shows with a part");
    home.part(18_000, true);
    assert_eq!(counts(&home.manifest), [0, 0, 0, 5, 5, 1]);
}

/// A configuration with another picture.
fn other_config() -> Config {
    let mut config = clip::only(TrackId::Video).0;
    config.id = 2;
    config.tracks[0].params = Params::Video { width: 80, height: 44 };
    config
}

#[test]
fn a_discontinuity_comes_with_its_first_part_and_scrolls_off() {
    let mut home = Home::new(2, 210);
    let mut clients = Clients::default();
    home.segment(&FIVE);
    home.segment(&FIVE);
    clients.look(&home.manifest);
    home.say(Entry::Config(other_config()));
    let hinted = full(&home.manifest);
    let hints: Vec<_> = hinted.lines().filter(|l| l.contains("PRELOAD-HINT")).collect();
    assert!(hints[0].contains("TYPE=MAP") && hints[1].contains("TYPE=PART"), "{hints:?}");
    clients.look(&home.manifest);
    home.next.discontinuity = true;
    home.next.config = 2;
    home.next.pdt_ms += 4_321;
    home.open();
    clients.look(&home.manifest);
    assert!(!full(&home.manifest).contains("#EXT-X-DISCONTINUITY\n"));
    home.part(18_000, true);
    clients.look(&home.manifest);
    let text = full(&home.manifest);
    let at = text.find("#EXT-X-DISCONTINUITY\n").unwrap();
    let tags: Vec<_> = text[at..].lines().map(|l| l.split(':').next().unwrap()).collect();
    assert_eq!(
        tags,
        [
            "#EXT-X-DISCONTINUITY",
            "#EXT-X-MAP",
            "#EXT-X-PROGRAM-DATE-TIME",
            "#EXT-X-PART",
            "#EXT-X-PRELOAD-HINT"
        ]
    );
    assert_eq!(text.matches("#EXT-X-MAP:").count(), 2);
    home.part(18_000, false);
    home.close();
    let mut pdt = home.next;
    for _ in 0..20 {
        // The anchor moved with the discontinuity.
        pdt.pdt_ms = home.manifest.last().unwrap().open.pdt_ms
            + u64::from(home.manifest.last().unwrap().duration.unwrap()) / 90;
        home.next.pdt_ms = pdt.pdt_ms;
        home.segment(&FIVE);
        clients.look(&home.manifest);
    }
    let last = clients.full.last().unwrap();
    assert_eq!(last.discontinuity_sequence, 4);
    assert!(last.segments.iter().all(|s| !s.discontinuity));
}

#[test]
fn a_skipped_discontinuity_is_not_lost() {
    let mut home = Home::new(2, 210);
    let mut clients = Clients::default();
    home.segment(&FIVE);
    home.next.discontinuity = true;
    for _ in 0..14 {
        home.segment(&FIVE);
        clients.look(&home.manifest);
    }
    assert!(delta(&home.manifest).contains("#EXT-X-SKIP:"));
    assert!(!delta(&home.manifest).contains("#EXT-X-DISCONTINUITY\n"));
    assert!(clients.delta.last().unwrap().segments[0].discontinuity);
}

#[test]
fn independence_is_claimed_only_while_it_is_true() {
    let mut home = Home::new(2, 210);
    let mut clients = Clients::default();
    home.segment(&FIVE);
    assert!(full(&home.manifest).contains("#EXT-X-INDEPENDENT-SEGMENTS\n"));
    home.open();
    home.part(18_000, false);
    assert!(!full(&home.manifest).contains("#EXT-X-INDEPENDENT-SEGMENTS\n"));
    assert!(!multivariant(&home.manifest, "c", None).unwrap().contains("INDEPENDENT"));
    home.close();
    for _ in 0..20 {
        home.segment(&FIVE);
        clients.look(&home.manifest);
    }
    assert!(full(&home.manifest).contains("#EXT-X-INDEPENDENT-SEGMENTS\n"));
}

#[test]
fn an_ended_stream_says_so_and_hints_nothing() {
    let mut home = Home::new(2, 210);
    let mut clients = Clients::default();
    for _ in 0..16 {
        home.segment(&FIVE);
        clients.look(&home.manifest);
    }
    home.say(Entry::Grace);
    clients.look(&home.manifest);
    assert!(full(&home.manifest).contains("PRELOAD-HINT"), "the publisher may return");
    home.say(Entry::End);
    clients.look(&home.manifest);
    let text = full(&home.manifest);
    assert!(text.ends_with("#EXT-X-ENDLIST\n") && !text.contains("PRELOAD-HINT"));
    assert_eq!(delta(&home.manifest), text, "an ended playlist is sent whole");
}

#[test]
fn another_home_goes_on_under_its_own_epoch() {
    let mut home = Home::new(2, 210);
    let mut clients = Clients::default();
    home.segment(&FIVE);
    clients.look(&home.manifest);
    let header = Header { epoch: Epoch(9), ..home.manifest.header().clone() };
    home.say(Entry::Header(header));
    let text = full(&home.manifest);
    assert!(text.contains("TYPE=PART,URI=\"main/p9-1005.m4s\""), "{text}");
    home.next.epoch = Epoch(9);
    home.segment(&FIVE);
    let text = full(&home.manifest);
    assert!(text.contains("main/s100-7.m4s\n") && text.contains("main/s101-9.m4s\n"));
    assert_eq!(text.matches("#EXT-X-MAP:").count(), 1, "the same tracks, the same init segment");
}

#[test]
fn the_multivariant_playlist_describes_the_stream() {
    let mut home = Home::new(2, 210);
    home.segment(&FIVE);
    let text = multivariant(&home.manifest, "c", None).unwrap();
    assert_eq!(
        text,
        "#EXTM3U\n\
         #EXT-X-VERSION:9\n\
         #EXT-X-INDEPENDENT-SEGMENTS\n\
         #EXT-X-STREAM-INF:BANDWIDTH=2400000,AVERAGE-BANDWIDTH=2000000,\
         CODECS=\"avc1.4d400b,mp4a.40.2\",RESOLUTION=160x90,FRAME-RATE=30.000\nc/main.m3u8\n"
    );
    check::multivariant(&text).unwrap();
    known_to_another_parser(&text);
    let header = Header {
        frame_rate_milli: Some(29_970),
        bandwidth_bps: 0,
        average_bandwidth_bps: 0,
        ..home.manifest.header().clone()
    };
    let mut manifest = Manifest::new(header.clone());
    assert!(multivariant(&manifest, "c", None).is_err(), "nothing is known yet");
    manifest.apply(&Entry::Config(clip::clip().0)).unwrap();
    let text = multivariant(&manifest, "c", None).unwrap();
    assert!(text.contains("BANDWIDTH=1,CODECS") && text.contains("FRAME-RATE=29.970"), "{text}");
    let mut manifest = Manifest::new(header);
    manifest.apply(&Entry::Config(clip::only(TrackId::Audio).0)).unwrap();
    let text = multivariant(&manifest, "c", None).unwrap();
    assert!(text.contains("CODECS=\"mp4a.40.2\"\nc/main"), "{text}");
    check::multivariant(&text).unwrap();
}

#[test]
fn a_token_is_carried_over_and_nothing_else() {
    let mut home = Home::new(2, 210);
    home.segment(&FIVE);
    let uri = |query| {
        let text = multivariant(&home.manifest, "c", Some(query)).unwrap();
        text.lines().last().unwrap().to_owned()
    };
    assert_eq!(uri("token=a.b-c_d"), "c/main.m3u8?token=a.b-c_d");
    assert_eq!(uri("_HLS_msn=5&token=x&_HLS_skip=YES&u=1"), "c/main.m3u8?token=x&u=1");
    assert_eq!(uri(""), "c/main.m3u8");
    assert_eq!(uri("token=a\n#EXT-X-ENDLIST&b=\"&c=%20"), "c/main.m3u8?c=%20");
}

/// A segment: its parts, whether it starts independent, whether a discontinuity stands before it.
fn any_segment() -> impl Strategy<Value = (Vec<u32>, bool, bool)> {
    let parts = proptest::collection::vec(9_000u32..=18_900, 1..8);
    (parts, proptest::bool::weighted(0.9), proptest::bool::weighted(0.1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_stream_keeps_the_rules(
        segments in proptest::collection::vec(any_segment(), 1..40),
        ends: bool,
    ) {
        let mut home = Home::new(2, 210);
        let mut clients = Clients::default();
        for (index, (parts, independent, discontinuity)) in segments.iter().enumerate() {
            home.next.discontinuity = *discontinuity && index > 0;
            home.open();
            for (part, duration) in parts.iter().enumerate() {
                home.part(*duration, *independent && part == 0);
                clients.look(&home.manifest);
            }
            home.close();
            clients.look(&home.manifest);
        }
        if ends {
            home.say(Entry::End);
            clients.look(&home.manifest);
        }
    }
}
