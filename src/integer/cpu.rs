//! The folded network on the CPU, one picture at a time, pictures spread over threads.

mod conv;

use std::num::NonZeroUsize;

use conv::{Codes, Conv};

use super::{Accumulator, AccumulatorRange, IntegerLayer, IntegerLinear, IntegerNet, IntegerShortcut, Requantize};
use crate::data::Split;
use crate::net::Shape;
use crate::score::Evaluation;
use crate::{Error, Result, interrupt};

/// Every intermediate integer of some pictures: golden vectors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace {
    /// Input codes, `(N, H, W, 3)`.
    pub input: Vec<i8>,
    /// Per layer.
    pub layers: Vec<LayerTrace>,
    /// Sums over the pixels, `(N, features)`.
    pub pooled: Vec<i32>,
    /// Accumulators of the classifier, `(N, classes)`.
    pub classifier: Vec<i32>,
    /// Logits, `(N, classes)`, as integers ([`IntegerLinear::logit`]).
    pub logits: Vec<i32>,
}

/// Integers of one layer, all `(N, H, W, C)`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayerTrace {
    /// Accumulators of the main branch.
    pub accumulators: Vec<i32>,
    /// Accumulators of a projection; empty without one.
    pub projection: Vec<i32>,
    /// Codes.
    pub codes: Vec<u8>,
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

impl IntegerNet {
    /// Loss without smoothing, top-1 and top-5 over a split, on all processors. Of equal logits the first class leads.
    ///
    /// # Errors
    /// Pictures of another size, a label that is no class of the network.
    pub fn evaluate(&self, split: &Split) -> Result<Evaluation> {
        self.fits(split)?;
        let logits = self.numbers(&self.run(&split.images)?);
        Ok(Evaluation::of_logits(&logits, self.classifier.classes, &split.labels))
    }

    /// Refuses a split that the network cannot be scored on.
    ///
    /// # Errors
    /// Pictures of another size, a label that is no class of the network.
    pub fn fits(&self, split: &Split) -> Result<()> {
        let classes = self.classifier.classes;
        if split.side != self.size {
            return Err(Error::data(format!("the pictures have side {}, expected {}", split.side, self.size))
                .hint("evaluate on a data set with pictures of the network's size"));
        }
        match split.labels.iter().find(|l| usize::from(**l) >= classes) {
            Some(label) => Err(Error::data(format!("a picture has label {label}, expected less than {classes}"))
                .hint("evaluate on the data set that the run was trained on")),
            None => Ok(()),
        }
    }

    /// Logits as numbers.
    pub fn numbers(&self, logits: &[i32]) -> Vec<f32> {
        logits.iter().map(|integer| self.classifier.logit(*integer)).collect()
    }

    /// Logits `(N, classes)` of raw pictures `(N, 3, size, size)`, as integers, on all processors.
    ///
    /// # Errors
    /// Bytes that are not a whole number of pictures.
    pub fn run(&self, images: &[u8]) -> Result<Vec<i32>> {
        self.run_on(images, processors())
    }

    /// [`IntegerNet::run`] on `threads` threads; the result does not depend on them.
    ///
    /// # Errors
    /// As [`IntegerNet::run`].
    pub fn run_on(&self, images: &[u8], threads: usize) -> Result<Vec<i32>> {
        self.spread(images, threads, false).map(|(logits, _)| logits)
    }

    /// Logits as of [`IntegerNet::run`], and the least and the largest sum of each convolution and of the classifier, in the order of
    /// [`IntegerNet::weights`], before an accumulator holds them.
    ///
    /// # Errors
    /// As [`IntegerNet::run`].
    pub fn observe(&self, images: &[u8]) -> Result<(Vec<i32>, Vec<AccumulatorRange>)> {
        self.spread(images, processors(), true)
    }

    fn spread(&self, images: &[u8], threads: usize, observe: bool) -> Result<(Vec<i32>, Vec<AccumulatorRange>)> {
        let (bytes, classes) = (self.picture_bytes(), self.classifier.classes);
        let pictures = self.pictures(images)?;
        let layers = self.packed();
        let mut logits = vec![0; pictures * classes];
        let share = pictures.div_ceil(threads.max(1)).max(1);
        let mut observed = vec![AccumulatorRange::NONE; self.weights().len()];
        let parts = images.chunks(share * bytes).zip(logits.chunks_mut(share * classes));
        let work = |(images, logits): (&[u8], &mut [i32])| {
            let mut memory = Memory::new(self);
            memory.observes = observe;
            for (image, row) in images.chunks_exact(bytes).zip(logits.chunks_exact_mut(classes)) {
                if interrupt::check().is_err() {
                    break; // told below
                }
                self.picture(&layers, image, &mut memory);
                row.copy_from_slice(&memory.logits);
            }
            memory.observed
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = parts.map(|part| scope.spawn(|| work(part))).collect();
            for thread in running {
                let found = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                observed.iter_mut().zip(found).for_each(|(all, found)| all.join(found));
            }
        });
        interrupt::check()?;
        Ok((logits, observed))
    }

    /// Every intermediate integer of raw pictures `(N, 3, size, size)`.
    ///
    /// # Errors
    /// As [`IntegerNet::run`].
    pub fn run_layers(&self, images: &[u8]) -> Result<Trace> {
        self.pictures(images)?;
        let mut trace = Trace { layers: vec![LayerTrace::default(); self.layers.len()], ..Trace::default() };
        let mut memory = Memory::new(self);
        let layers = self.packed();
        for image in images.chunks_exact(self.picture_bytes()) {
            interrupt::check()?;
            memory.values[0].load(image, &self.input.codes);
            trace.input.extend(memory.values[0].pixels().flat_map(|p| p[..3].iter().map(|q| *q as i8)));
            for (k, (layer, t)) in layers.iter().zip(&mut trace.layers).enumerate() {
                layer.run(&mut memory, k + 1);
                let size = layer.layer.shape.len();
                t.accumulators.extend_from_slice(&memory.main[..size]);
                if layer.projection.is_some() {
                    t.projection.extend_from_slice(&memory.shortcut[..size]);
                }
                t.codes.extend(memory.values[k + 1].pixels().flatten().map(|q| *q as u8));
            }
            self.classifier.run(&mut memory, self.accumulator);
            trace.pooled.extend_from_slice(&memory.pooled);
            trace.classifier.extend_from_slice(&memory.classifier);
            trace.logits.extend_from_slice(&memory.logits);
        }
        Ok(trace)
    }

    /// How many raw pictures `(N, 3, size, size)` these are.
    pub(super) fn pictures(&self, images: &[u8]) -> Result<usize> {
        let bytes = self.picture_bytes();
        if !images.len().is_multiple_of(bytes) {
            return Err(Error::data(format!("{} bytes of pictures, expected a multiple of {bytes}", images.len()))
                .hint(format!("a picture is (3, {0}, {0}) bytes", self.size)));
        }
        Ok(images.len() / bytes)
    }

    fn packed(&self) -> Vec<Layer<'_>> {
        let before = self.layers.iter().scan(0, |number, layer| {
            let own = *number;
            *number += 1 + usize::from(layer.projection().is_some());
            Some(own)
        });
        self.layers.iter().zip(before).map(|(layer, number)| Layer::new(layer, self.accumulator, number)).collect()
    }

    fn picture(&self, layers: &[Layer], image: &[u8], memory: &mut Memory) {
        memory.values[0].load(image, &self.input.codes);
        for (k, layer) in layers.iter().enumerate() {
            layer.run(memory, k + 1);
        }
        self.classifier.run(memory, self.accumulator);
    }
}

/// What one picture needs; made once per thread.
struct Memory {
    values: Vec<Codes>,
    main: Vec<i32>,
    shortcut: Vec<i32>,
    pooled: Vec<i32>,
    classifier: Vec<i32>,
    logits: Vec<i32>,
    /// Whether sums are watched.
    observes: bool,
    /// In the order of [`IntegerNet::weights`].
    observed: Vec<AccumulatorRange>,
}

impl Memory {
    fn new(net: &IntegerNet) -> Memory {
        let picture = Shape { h: net.size, w: net.size, c: 4 };
        let shapes = std::iter::once(picture).chain(net.layers.iter().map(|l| l.shape));
        let widest = net.layers.iter().map(|l| l.shape.len()).max().unwrap_or(0);
        let classes = net.classifier.classes;
        Memory {
            values: shapes.map(Codes::new).collect(),
            main: vec![0; widest],
            shortcut: vec![0; widest],
            pooled: vec![0; net.classifier.features],
            classifier: vec![0; classes],
            logits: vec![0; classes],
            observes: false,
            observed: vec![AccumulatorRange::NONE; net.weights().len()],
        }
    }
}

/// A layer ready to run.
struct Layer<'a> {
    layer: &'a IntegerLayer,
    main: Conv<'a>,
    projection: Option<Conv<'a>>,
    factors: Factors,
    accumulator: Accumulator,
    /// Of its main convolution in [`IntegerNet::weights`]; a projection's follows.
    number: usize,
}

impl<'a> Layer<'a> {
    fn new(layer: &'a IntegerLayer, accumulator: Accumulator, number: usize) -> Layer<'a> {
        let projection = layer.projection().map(Conv::new);
        let factors = Factors::new(&layer.channels);
        Layer { layer, main: Conv::new(&layer.conv), projection, factors, accumulator, number }
    }
}

/// Requantization of each channel, as vector instructions load it.
struct Factors {
    multiplier: Vec<i32>,
    shortcut: Vec<i32>,
    offset: Vec<i64>,
    shift: Vec<u32>,
}

impl Factors {
    fn new(channels: &[Requantize]) -> Factors {
        Factors {
            multiplier: channels.iter().map(|k| k.multiplier).collect(),
            shortcut: channels.iter().map(|k| k.shortcut).collect(),
            offset: channels.iter().map(|k| k.offset).collect(),
            shift: channels.iter().map(|k| k.shift).collect(),
        }
    }
}

impl Layer<'_> {
    /// Computes value `number`.
    fn run(&self, memory: &mut Memory, number: usize) {
        let (before, after) = memory.values.split_at_mut(number);
        let out = &mut after[0];
        let Shape { h, w, c } = self.layer.shape;
        let size = h * w * c;
        self.main.accumulate(&before[self.layer.conv.input], &mut memory.main[..size]);
        if let Some(p) = &self.projection {
            p.accumulate(&before[p.conv.input], &mut memory.shortcut[..size]);
        }
        if memory.observes {
            memory.observed[self.number].see(&memory.main[..size]);
            if self.projection.is_some() {
                memory.observed[self.number + 1].see(&memory.shortcut[..size]);
            }
        }
        if self.accumulator != Accumulator::WHOLE {
            let hold = |sum: &mut i32| *sum = self.accumulator.hold(*sum);
            memory.main[..size].iter_mut().for_each(hold);
            if self.projection.is_some() {
                memory.shortcut[..size].iter_mut().for_each(hold);
            }
        }
        let row = w * c;
        for y in 0..h {
            let main = &memory.main[y * row..][..row];
            let codes = out.row_mut(y);
            match &self.layer.shortcut {
                IntegerShortcut::None => self.requantize(main, None::<&[i16]>, codes),
                IntegerShortcut::Identity(value) => self.requantize(main, Some(before[*value].row(y)), codes),
                IntegerShortcut::Projection(_) => {
                    self.requantize(main, Some(&memory.shortcut[y * row..][..row]), codes);
                }
            }
        }
    }

    /// Codes of one row `(W, C)`.
    fn requantize<R: Copy + Into<i32>>(&self, main: &[i32], added: Option<&[R]>, codes: &mut [i16]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has it.
            return unsafe { self.requantize_avx2(main, added, codes) };
        }
        self.requantize_any(main, added, codes);
    }

    /// The same, compiled for longer vectors.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn requantize_avx2<R: Copy + Into<i32>>(&self, main: &[i32], added: Option<&[R]>, codes: &mut [i16]) {
        self.requantize_any(main, added, codes);
    }

    #[inline(always)]
    fn requantize_any<R: Copy + Into<i32>>(&self, main: &[i32], added: Option<&[R]>, codes: &mut [i16]) {
        let c = self.layer.channels.len();
        let window = self.layer.window;
        let Factors { multiplier, shortcut, offset, shift } = &self.factors;
        let (multiplier, shortcut, offset, shift) = (&multiplier[..c], &shortcut[..c], &offset[..c], &shift[..c]);
        let factors = |k: usize| Requantize {
            multiplier: multiplier[k],
            shortcut: shortcut[k],
            offset: offset[k],
            shift: shift[k],
        };
        for (pixel, (codes, main)) in codes.chunks_exact_mut(c).zip(main.chunks_exact(c)).enumerate() {
            match added.map(|added| &added[pixel * c..][..c]) {
                Some(added) => {
                    for k in 0..c {
                        codes[k] = window.code(factors(k).apply(main[k], added[k].into())) as i16;
                    }
                }
                None => {
                    for k in 0..c {
                        codes[k] = window.code(factors(k).apply(main[k], 0)) as i16;
                    }
                }
            }
        }
    }
}

impl IntegerLinear {
    /// Pool, accumulators and logits.
    fn run(&self, memory: &mut Memory, accumulator: Accumulator) {
        memory.pooled.fill(0);
        for pixel in memory.values[self.input].pixels() {
            for (sum, q) in memory.pooled.iter_mut().zip(pixel) {
                *sum += i32::from(*q);
            }
        }
        let rows = self.weights.codes.chunks_exact(self.features).zip(&mut memory.classifier);
        for (weights, acc) in rows {
            *acc = weights.iter().zip(&memory.pooled).map(|(w, x)| i32::from(*w) * x).sum();
        }
        if let Some(classifier) = memory.observed.last_mut().filter(|_| memory.observes) {
            classifier.see(&memory.classifier);
        }
        memory.classifier.iter_mut().for_each(|acc| *acc = accumulator.hold(*acc));
        for ((logit, acc), k) in memory.logits.iter_mut().zip(&memory.classifier).zip(&self.channels) {
            *logit = k.apply(*acc, 0).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
        }
    }
}
