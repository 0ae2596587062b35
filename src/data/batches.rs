//! The order of pictures in an epoch, and its cut into batches.
//!
//! ```
//! use cqat::data::{Batches, epoch_permutation};
//!
//! let data = cqat::data::load("embedded", 0, 1)?;
//! let order = epoch_permutation(data.train.len(), 1, 0);
//! let (mut images, mut labels) = (Vec::new(), Vec::new());
//! for indices in Batches::training(&order, 128)?.starting_at(7) {
//!     data.train.gather(indices, &mut images, &mut labels);
//!     assert_eq!((images.len(), labels.len()), (128 * 3072 / 4, 128));
//! }
//! # Ok::<(), cqat::error::Error>(())
//! ```

use std::iter::FusedIterator;

use crate::error::{Error, Result};
use crate::rng;
pub use crate::rng::{in_order, spread};

/// The numbers 0..len in the random order of one epoch (0, 1, ...): a Fisher-Yates shuffle driven by SplitMix64.
///
/// The order depends on the three arguments alone and stays the same in every release, so a resumed run and a run on
/// another machine see the same batches. Panics where `len` is above 2^32.
pub fn epoch_permutation(len: usize, seed: u64, epoch: u32) -> Vec<u32> {
    rng::permutation(len, seed, u64::from(epoch))
}

/// Iterator over the batches of one epoch: slices of the epoch's order, each the picture indices of a step.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    order: &'a [u32],
    batch: usize,
    steps: usize,
    next: usize,
}

impl<'a> Batches<'a> {
    /// Batches of exactly `batch` pictures; the rest of the epoch (fewer than `batch`) is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) where `batch` is 0 or more than there are pictures.
    pub fn training(order: &'a [u32], batch: usize) -> Result<Self> {
        if batch > order.len() {
            return Err(Error::config(format!(
                "a batch of {batch} pictures cannot be filled: there are {} training pictures",
                order.len()
            ))
            .hint(format!("set the batch size to at most {}, or hold out fewer validation pictures", order.len())));
        }
        Self::new(order, batch, |pictures, batch| pictures / batch)
    }

    /// All pictures in batches of `batch`; the last batch may be smaller.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) where `batch` is 0.
    pub fn evaluation(order: &'a [u32], batch: usize) -> Result<Self> {
        Self::new(order, batch, usize::div_ceil)
    }

    fn new(order: &'a [u32], batch: usize, steps: fn(usize, usize) -> usize) -> Result<Self> {
        if batch == 0 {
            return Err(Error::config("the batch size is 0, expected at least 1").hint("set the batch size to 128"));
        }
        Ok(Batches { order, batch, steps: steps(order.len(), batch), next: 0 })
    }

    /// Number of batches in the whole epoch, wherever the iterator stands.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Continues at batch `step` of the epoch (0 is the first): what a resumed run needs.
    ///
    /// Nothing is left to iterate where `step` is not below [`steps`](Self::steps).
    pub fn starting_at(mut self, step: usize) -> Self {
        self.next = step.min(self.steps);
        self
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = &'a [u32];

    fn next(&mut self) -> Option<&'a [u32]> {
        if self.next == self.steps {
            return None;
        }
        let start = self.next * self.batch;
        self.next += 1;
        Some(&self.order[start..self.order.len().min(start + self.batch)])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.steps - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Batches<'_> {}
impl FusedIterator for Batches<'_> {}
