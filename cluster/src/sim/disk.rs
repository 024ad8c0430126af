//! A disk that can crash, fill up and be slow, but lies about nothing it was told to keep.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::Rng as _;
use rand::rngs::StdRng;

use crate::planted::{Bug, is_planted};
use crate::storage::{Batch, Disk, Image, StorageError};

/// What a crash is called in the error of the write it interrupts.
pub(super) const CRASH: &str = "a crash";

/// A disk of a simulated node. Clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct SimDisk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// What survives a crash for sure.
    durable: Image,
    /// What the running process reads.
    live: Image,
    /// Writes since the last one that had to be durable.
    volatile: Vec<Batch>,
    is_full: bool,
    crash_at: Option<CrashAt>,
    dies_soon: bool,
    writes: u64,
}

/// Where in the next durable write the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CrashAt {
    /// Before the write is on disk, or in the midst of it: it may be there or not.
    Before,
    /// When it is, but before anyone is told.
    After,
    /// A moment later, when others have been told.
    Soon,
}

impl SimDisk {
    pub(super) fn new(name: u64) -> Self {
        let image = Image { disk: name, ..Image::default() };
        let inner = Inner { durable: image.clone(), live: image, ..Inner::default() };
        Self(Arc::new(Mutex::new(inner)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inner().live.identity.is_none()
    }

    pub(super) fn name(&self) -> u64 {
        self.inner().live.disk
    }

    pub(super) fn set_full(&self, is_full: bool) {
        self.inner().is_full = is_full;
    }

    /// Makes the process die within its next durable write, or no more.
    pub(super) fn crash_at(&self, at: Option<CrashAt>) {
        self.inner().crash_at = at;
    }

    /// Whether the process is to die a moment after what it has just written. Asked once.
    pub(super) fn dies_soon(&self) -> bool {
        std::mem::take(&mut self.inner().dies_soon)
    }

    /// Durable writes so far.
    pub(super) fn writes(&self) -> u64 {
        self.inner().writes
    }

    /// The process is gone: of what was not durable, some first part survives.
    pub(super) fn crash(&self, rng: &mut StdRng) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        inner.crash_at = None;
        let survives = rng.random_range(0..=inner.volatile.len());
        for batch in inner.volatile.drain(..).take(survives) {
            inner.durable.apply(batch);
        }
        inner.volatile.clear();
        inner.live = inner.durable.clone();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SimDisk {
    fn load(&mut self) -> Result<Image, StorageError> {
        Ok(self.inner().live.clone())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        if inner.is_full {
            return Err(StorageError::Stopped("a full disk"));
        }
        inner.live.apply(batch.clone());
        inner.volatile.push(batch.clone());
        let crash_at = if batch.sync { inner.crash_at.take() } else { None };
        if crash_at == Some(CrashAt::Before) {
            return Err(StorageError::Stopped(CRASH));
        }
        if batch.sync && !is_planted(Bug::SkipFsync) {
            inner.writes += 1;
            for batch in inner.volatile.drain(..) {
                inner.durable.apply(batch);
            }
        }
        match crash_at {
            Some(CrashAt::Before | CrashAt::After) => Err(StorageError::Stopped(CRASH)),
            Some(CrashAt::Soon) => {
                inner.dies_soon = true;
                Ok(())
            }
            None => Ok(()),
        }
    }
}
