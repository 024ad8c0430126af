//! What a response carries: nothing, one buffer, a list of shared buffers, or an endless stream.
//!
//! A segment is the list of its parts' buffers: nothing is joined or copied. Lengths are exact, so
//! that hyper sets Content-Length. Bytes are counted when hyper takes them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::BoxStream;
use http_body::{Frame, SizeHint};
use prometheus::IntCounter;

use super::progress::InFlight;
use crate::room::shelf::Shelved;

/// The body of every response.
pub(crate) struct Body {
    kind: Kind,
    sent: Option<IntCounter>,
    /// The same bytes where the kernel can send them from.
    shelved: Option<Arc<Shelved>>,
    /// Keeps the request counted as in progress until the last byte is taken.
    in_flight: Option<InFlight>,
}

enum Kind {
    Empty,
    /// Buffers still to send and their length.
    List(VecDeque<Bytes>, u64),
    Endless(BoxStream<'static, Bytes>),
}

/// A body with a length, for who sends it without hyper.
pub(super) enum Content {
    /// These buffers.
    List(VecDeque<Bytes>),
    /// This document.
    Shelved(Arc<Shelved>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::List(..) => "list",
            Kind::Endless(_) => "endless",
        };
        f.debug_struct("Body").field("kind", &kind).finish_non_exhaustive()
    }
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::new(Kind::Empty)
    }

    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::list([bytes.into()])
    }

    /// The buffers one after another.
    pub(crate) fn list(buffers: impl IntoIterator<Item = Bytes>) -> Self {
        let buffers: VecDeque<_> = buffers.into_iter().filter(|b| !b.is_empty()).collect();
        let len: u64 = buffers.iter().map(|b| b.len() as u64).sum();
        Self::new(if len == 0 { Kind::Empty } else { Kind::List(buffers, len) })
    }

    /// Buffers for as long as the stream lives.
    pub(crate) fn endless(stream: BoxStream<'static, Bytes>) -> Self {
        Self::new(Kind::Endless(stream))
    }

    /// Adds the bytes sent to `counter`.
    pub(crate) fn counted(mut self, counter: &IntCounter) -> Self {
        self.sent = Some(counter.clone());
        self
    }

    /// Says where the same bytes are on a shelf.
    pub(crate) fn shelved(mut self, shelved: Option<Arc<Shelved>>) -> Self {
        self.shelved = shelved;
        self
    }

    /// What there is to send and its length, which counts as sent; none if it is endless.
    pub(super) fn into_content(self) -> Option<(Content, usize)> {
        let (list, len) = match self.kind {
            Kind::Empty => (VecDeque::new(), 0),
            Kind::List(list, len) => (list, len),
            Kind::Endless(_) => return None,
        };
        if let Some(sent) = &self.sent {
            sent.inc_by(len);
        }
        // Lengths of buffers in memory.
        Some((self.shelved.map_or(Content::List(list), Content::Shelved), len as usize))
    }

    /// Keeps `in_flight` until the body is sent or given up.
    pub(super) fn holding(mut self, mut in_flight: InFlight) -> Self {
        if matches!(self.kind, Kind::List(..)) {
            in_flight.sends_a_body();
        }
        self.in_flight = Some(in_flight);
        self
    }

    /// The length, unless it is endless.
    pub(crate) fn len(&self) -> Option<u64> {
        match &self.kind {
            Kind::Empty => Some(0),
            Kind::List(_, len) => Some(*len),
            Kind::Endless(_) => None,
        }
    }

    /// Only the bytes from `start` to `end` inclusive of a body with a length.
    pub(crate) fn slice(mut self, start: u64, end: u64) -> Self {
        self.shelved = None;
        if let Kind::List(buffers, _) = &mut self.kind {
            let (mut skip, mut left) = (start, (end + 1).saturating_sub(start));
            let mut out = VecDeque::new();
            for buffer in buffers.drain(..) {
                let len = buffer.len() as u64;
                let from = skip.min(len);
                let to = (from + left).min(len);
                skip -= from;
                left -= to - from;
                if from < to {
                    // Both are at most the buffer's length, which is a usize.
                    out.push_back(buffer.slice(from as usize..to as usize));
                }
            }
            let len = out.iter().map(|b| b.len() as u64).sum();
            self.kind = if len == 0 { Kind::Empty } else { Kind::List(out, len) };
        }
        self
    }

    fn new(kind: Kind) -> Self {
        Self { kind, sent: None, shelved: None, in_flight: None }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut self.kind {
            Kind::Empty => None,
            Kind::List(buffers, left) => buffers.pop_front().inspect(|b| *left -= b.len() as u64),
            Kind::Endless(stream) => match Pin::new(stream).poll_next(cx) {
                Poll::Ready(next) => next,
                Poll::Pending => return Poll::Pending,
            },
        };
        let Some(bytes) = next else {
            self.kind = Kind::Empty;
            self.in_flight = None;
            return Poll::Ready(None);
        };
        if let Some(sent) = &self.sent {
            sent.inc_by(bytes.len() as u64);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.len() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.len().map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt as _;

    use super::*;

    fn abc() -> Body {
        Body::list(["ab", "", "cde", "f"].map(Bytes::from))
    }

    async fn text(body: Body) -> String {
        let hint = body.size_hint().exact();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(hint, Some(bytes.len() as u64));
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_list_is_the_concatenation_and_every_slice_of_it() {
        assert_eq!(text(abc()).await, "abcdef");
        assert_eq!(text(Body::empty()).await, "");
        for start in 0..6_u64 {
            for end in start..6 {
                let expected = &"abcdef"[start as usize..=end as usize];
                assert_eq!(text(abc().slice(start, end)).await, expected);
            }
        }
    }

    #[tokio::test]
    async fn bytes_count_when_they_are_taken() {
        let counter = IntCounter::new("n", "n").unwrap();
        let mut body = abc().counted(&counter);
        assert_eq!(counter.get(), 0);
        body.frame().await.unwrap().unwrap();
        assert_eq!(counter.get(), 2);
        assert!(!body.is_end_stream());
    }
}
