//! Documents that many ask for, kept where the kernel can send them from without a copy.
//!
//! In: a part's or a segment's name and buffers, each time it is asked for. Out: from the
//! [`HOT`]th time on a [`Shelved`] document: a file in memory that `sendfile` takes. Names are immutable, so
//! what is shelved never changes; it leaves when newer documents come, and its memory is given back when the
//! last viewer who is being sent it has it.
//!
//! A shelf is a cache: without it everything is served just the same, from the buffers.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use media::manifest::{Epoch, Msn, PartNumber};
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, memfd_create, sendfile};

/// A document asked for so often is shelved: writing it costs about as much as sending it twice.
const HOT: u32 = 4;
/// Documents a room's shelf counts or holds; the oldest leaves.
const MAX_DOCUMENTS: usize = 64;
/// Bytes a room's shelf holds; the oldest leaves.
const MAX_BYTES: usize = 32 << 20;
/// Documents shelved on all shelves of this process: each is an open file. Over it nothing is added.
const MAX_FILES: usize = 1024;

/// Files open now.
static FILES: AtomicUsize = AtomicUsize::new(0);

/// The name of a document in its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Part(Epoch, PartNumber),
    Segment(Epoch, Msn),
}

/// The shelf of one room.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Mutex<VecDeque<Entry>>);

#[derive(Debug)]
struct Entry {
    name: Name,
    asked: u32,
    shelved: Option<Arc<Shelved>>,
}

impl Shelf {
    /// Notes that `name` is asked for; returns it if it is shelved.
    pub(crate) fn ask(&self, name: Name, buffers: &[Bytes]) -> Option<Arc<Shelved>> {
        let mut entries = self.0.lock();
        let Some(entry) = entries.iter_mut().rev().find(|entry| entry.name == name) else {
            if entries.len() >= MAX_DOCUMENTS {
                entries.pop_front();
            }
            entries.push_back(Entry { name, asked: 1, shelved: None });
            return None;
        };
        entry.asked = entry.asked.saturating_add(1);
        if entry.shelved.is_some() || entry.asked != HOT {
            return entry.shelved.clone();
        }
        let shelved = Shelved::new(buffers).ok().flatten().map(Arc::new);
        entry.shelved.clone_from(&shelved);
        let mut bytes: usize =
            entries.iter().filter_map(|e| e.shelved.as_ref()).map(|s| s.len).sum();
        while bytes > MAX_BYTES
            && let Some(oldest) = entries.pop_front()
        {
            bytes -= oldest.shelved.map_or(0, |s| s.len);
        }
        shelved
    }
}

/// A document as a file in memory.
#[derive(Debug)]
pub(crate) struct Shelved {
    file: File,
    len: usize,
    _counted: Counted,
}

impl Shelved {
    /// None when there are too many.
    fn new(buffers: &[Bytes]) -> io::Result<Option<Self>> {
        let Some(counted) = Counted::new() else { return Ok(None) };
        let mut file = File::from(memfd_create("tidewater", MemfdFlags::CLOEXEC)?);
        for bytes in buffers {
            file.write_all(bytes)?;
        }
        let len = buffers.iter().map(Bytes::len).sum();
        Ok(Some(Self { file, len, _counted: counted }))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Gives `socket` what follows the first `done` bytes, as much as it takes.
    pub(crate) fn send(&self, socket: impl AsFd, done: usize) -> io::Result<usize> {
        let mut offset = done as u64;
        Ok(sendfile(socket, &self.file, Some(&mut offset), self.len - done)?)
    }
}

/// One of [`MAX_FILES`].
#[derive(Debug)]
struct Counted;

impl Counted {
    fn new() -> Option<Self> {
        let more = |files| (files < MAX_FILES).then_some(files + 1);
        FILES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        FILES.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn part(number: u64) -> Name {
        Name::Part(Epoch(1), PartNumber(number))
    }

    fn hot(shelf: &Shelf, name: Name, buffers: &[Bytes]) -> Option<Arc<Shelved>> {
        (1..HOT).for_each(|_| assert!(shelf.ask(name, buffers).is_none()));
        shelf.ask(name, buffers)
    }

    #[test]
    fn what_is_hot_is_sent_byte_for_byte_also_after_it_has_left() {
        let shelf = Shelf::default();
        let buffers = [Bytes::from(vec![1; 5000]), Bytes::from(vec![2; 70_000])];
        let shelved = hot(&shelf, part(1), &buffers).unwrap();
        for number in 2..=MAX_DOCUMENTS as u64 + 1 {
            shelf.ask(part(number), &buffers);
        }
        assert!(shelf.ask(part(1), &buffers).is_none(), "it left for newer ones");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut viewer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let sender = std::thread::spawn(move || {
            let mut done = 0;
            while done < shelved.len() {
                done += shelved.send(&socket, done).unwrap();
            }
        });
        let mut got = Vec::new();
        viewer.read_to_end(&mut got).unwrap();
        sender.join().unwrap();
        assert_eq!(got, buffers.concat());
    }

    #[test]
    fn a_shelf_holds_so_many_bytes() {
        let shelf = Shelf::default();
        let large = [Bytes::from(vec![0; MAX_BYTES / 2])];
        for number in 0..4 {
            assert!(hot(&shelf, part(number), &large).is_some());
        }
        let held: usize =
            shelf.0.lock().iter().filter_map(|e| e.shelved.as_ref()).map(|s| s.len).sum();
        assert_eq!(held, MAX_BYTES);
        assert!(shelf.ask(part(3), &large).is_some(), "the newest stay");
    }
}
