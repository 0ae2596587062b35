//! The integer network on a device, batch by batch.

use super::IntegerNet;
use crate::Result;
use crate::data::Split;
use crate::exec::Executor;
use crate::interrupt;
use crate::plan::integer::IntegerPlan;
use crate::score::Evaluation;

/// An integer network on a device.
pub struct IntegerSession<'a> {
    net: &'a IntegerNet,
    lowered: &'a IntegerPlan,
    exec: Box<dyn Executor + 'a>,
}

impl<'a> IntegerSession<'a> {
    /// Writes the network's integers to the memory of its plan.
    ///
    /// # Errors
    /// A device error.
    pub fn new(
        net: &'a IntegerNet,
        lowered: &'a IntegerPlan,
        mut exec: Box<dyn Executor + 'a>,
    ) -> Result<IntegerSession<'a>> {
        for (tensor, words) in &lowered.constants {
            exec.write(*tensor, words);
        }
        exec.run(lowered.prepare)?;
        Ok(IntegerSession { net, lowered, exec })
    }

    /// The network.
    pub fn net(&self) -> &'a IntegerNet {
        self.net
    }

    /// Logits `(N, classes)` of raw pictures `(N, 3, size, size)`, as integers.
    ///
    /// # Errors
    /// Bytes that are not a whole number of pictures, a device error, an interruption.
    pub fn run(&mut self, images: &[u8]) -> Result<Vec<i32>> {
        let (bytes, classes) = (self.net.picture_bytes(), self.net.classifier.classes);
        let pictures = self.net.pictures(images)?;
        let mut logits = Vec::with_capacity(pictures * classes);
        for batch in images.chunks(bytes * self.lowered.batch) {
            interrupt::check()?;
            self.feed(batch);
            self.exec.run(self.lowered.run)?;
            let words = self.exec.read(self.lowered.logits)?;
            for row in words.chunks(self.lowered.padded).take(batch.len() / bytes) {
                logits.extend(row[..classes].iter().map(|word| *word as i32));
            }
        }
        Ok(logits)
    }

    fn feed(&mut self, batch: &[u8]) {
        let mut padded = batch.to_vec();
        padded.resize(batch.len().next_multiple_of(4), 0);
        let words: Vec<u32> = padded.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        self.exec.write(self.lowered.images, &words);
    }

    /// As [`IntegerNet::evaluate`].
    ///
    /// # Errors
    /// As [`IntegerNet::evaluate`]; a device error, an interruption.
    pub fn evaluate(&mut self, split: &Split) -> Result<Evaluation> {
        self.net.fits(split)?;
        let logits = self.net.numbers(&self.run(&split.images)?);
        Ok(Evaluation::of_logits(&logits, self.net.classifier.classes, &split.labels))
    }

    /// The codes of value `number` of the last batch, `(batch, H, W, C)`, where the plan keeps all of them.
    ///
    /// # Errors
    /// A device error.
    pub fn codes(&mut self, number: usize) -> Result<Vec<i32>> {
        let (tensor, format) = self.lowered.values[number];
        let words = self.exec.read(tensor)?;
        let (shape, batch) = (self.net.value_shape(number), self.lowered.batch);
        Ok((0..batch * shape.len()).map(|i| format.load(&words, i) as i32).collect())
    }
}
