//! Where a process listens, with the real ports: what `dev --json` prints and tests connect to.

use std::net::SocketAddr;

use serde::Serialize;

/// The listeners of `tidewater dev`. The order of the fields is that of the printed line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ports {
    /// Where publishers push.
    pub rtmp: SocketAddr,
    /// Where viewers connect, one per edge; the first is `http.listen`.
    pub http: Vec<SocketAddr>,
    /// Metrics, health and API.
    pub admin: SocketAddr,
    /// QUIC endpoint of the control node.
    pub cluster: SocketAddr,
}

impl Ports {
    /// The settings to watch and to push, for a person at a terminal.
    #[must_use]
    pub fn guide(&self, demo: bool) -> String {
        let (rtmp, admin) = (self.rtmp, self.admin);
        let http = self.http[0];
        let mut text = format!("Tidewater is running: origin o1, {} .\n\n", self.edges());
        text = text.replace(" .", ".");
        if demo {
            text.push_str(&format!(
                "The test card is on live/demo\n\
                 \x20 page     http://{http}/watch/live/demo\n\
                 \x20 HLS      http://{http}/live/demo.m3u8      (low latency where the player can)\n\
                 \x20 FLV      http://{http}/live/demo.flv\n\n"
            ));
        }
        text.push_str(&format!(
            "Push a stream of your own\n\
             \x20 ffmpeg   ffmpeg -re -i VIDEO -c:v libx264 -preset veryfast -pix_fmt yuv420p -g 30 -c:a aac -f flv rtmp://{rtmp}/live/me\n\
             \x20 OBS      Stream: Custom, server rtmp://{rtmp}/live, stream key me; Output: keyframe interval 1 s\n\
             \x20 watch    http://{http}/watch/live/me\n\n\
             All rooms  http://{http}/\n"
        ));
        for (number, edge) in self.http.iter().enumerate().skip(1) {
            text.push_str(&format!("Edge e{}    http://{edge}/\n", number + 1));
        }
        text.push_str(&format!(
            "Metrics    http://{admin}/metrics\n\
             Rooms now  tidewater room list{}\n\n\
             Ctrl-C stops it.\n",
            if admin.port() == 8081 {
                String::new()
            } else {
                format!(" --set admin.listen={admin}")
            },
        ));
        text
    }

    fn edges(&self) -> String {
        match self.http.len() {
            1 => "edge e1".to_owned(),
            several => format!("edges e1 to e{several}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Ports {
        Ports {
            rtmp: "127.0.0.1:1935".parse().unwrap(),
            http: vec!["127.0.0.1:8080".parse().unwrap()],
            admin: "127.0.0.1:8081".parse().unwrap(),
            cluster: "127.0.0.1:7400".parse().unwrap(),
        }
    }

    #[test]
    fn the_line_is_that_of_the_contract() {
        assert_eq!(
            serde_json::to_string(&ports()).unwrap(),
            r#"{"rtmp":"127.0.0.1:1935","http":["127.0.0.1:8080"],"admin":"127.0.0.1:8081","cluster":"127.0.0.1:7400"}"#
        );
    }

    #[test]
    fn the_guide_says_what_to_open_and_where_to_push() {
        let text = ports().guide(true);
        for part in
            ["/watch/live/demo", "rtmp://127.0.0.1:1935/live/me", "stream key me", "edge e1."]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!ports().guide(false).contains("live/demo"));
    }
}
