//! Running the folded network, one picture at a time, pictures spread over threads.
//!
//! Codes lie as `(H + 2, W + 2, C)` i16 with a border of zeros, so that the window of a kernel row is one contiguous
//! run of codes and padding costs nothing.

use std::num::NonZeroUsize;

use super::{Block, IntegerConv, IntegerLayer, IntegerLinear, IntegerNet, IntegerShortcut, LANES, Requantize};
use crate::net::Shape;
use crate::{Error, Result};

/// Output pixels of a row that are accumulated together: with [`LANES`] channels each, what fits in vector registers.
const PIXELS: usize = 4;

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
    /// Logits, `(N, classes)`.
    pub logits: Vec<f32>,
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

impl IntegerNet {
    /// Logits `(N, classes)` of raw pictures `(N, 3, size, size)`, on all processors.
    ///
    /// # Errors
    /// Bytes that are not a whole number of pictures.
    pub fn run(&self, images: &[u8]) -> Result<Vec<f32>> {
        self.run_on(images, std::thread::available_parallelism().map_or(1, NonZeroUsize::get))
    }

    /// [`IntegerNet::run`] on `threads` threads; the result does not depend on them.
    ///
    /// # Errors
    /// As [`IntegerNet::run`].
    pub fn run_on(&self, images: &[u8], threads: usize) -> Result<Vec<f32>> {
        let (bytes, classes) = (self.picture_bytes(), self.classifier.classes);
        let pictures = self.pictures(images)?;
        let mut logits = vec![0.0; pictures * classes];
        let share = pictures.div_ceil(threads.max(1)).max(1);
        std::thread::scope(|scope| {
            for (images, logits) in images.chunks(share * bytes).zip(logits.chunks_mut(share * classes)) {
                scope.spawn(move || {
                    let mut memory = Memory::new(self);
                    for (image, row) in images.chunks_exact(bytes).zip(logits.chunks_exact_mut(classes)) {
                        self.picture(image, &mut memory);
                        row.copy_from_slice(&memory.logits);
                    }
                });
            }
        });
        Ok(logits)
    }

    /// Every intermediate integer of raw pictures `(N, 3, size, size)`.
    ///
    /// # Errors
    /// As [`IntegerNet::run`].
    pub fn run_layers(&self, images: &[u8]) -> Result<Trace> {
        self.pictures(images)?;
        let mut trace = Trace { layers: vec![LayerTrace::default(); self.layers.len()], ..Trace::default() };
        let mut memory = Memory::new(self);
        for image in images.chunks_exact(self.picture_bytes()) {
            memory.values[0].load(image, &self.input.codes);
            trace.input.extend(memory.values[0].pixels().flat_map(|p| p[..3].iter().map(|q| *q as i8)));
            for (k, (layer, t)) in self.layers.iter().zip(&mut trace.layers).enumerate() {
                layer.run(&mut memory, k + 1);
                t.accumulators.extend_from_slice(&memory.main[..layer.shape.len()]);
                if matches!(layer.shortcut, IntegerShortcut::Projection(_)) {
                    t.projection.extend_from_slice(&memory.shortcut[..layer.shape.len()]);
                }
                t.codes.extend(memory.values[k + 1].pixels().flatten().map(|q| *q as u8));
            }
            self.classifier.run(&mut memory);
            trace.pooled.extend_from_slice(&memory.pooled);
            trace.classifier.extend_from_slice(&memory.classifier);
            trace.logits.extend_from_slice(&memory.logits);
        }
        Ok(trace)
    }

    fn pictures(&self, images: &[u8]) -> Result<usize> {
        let bytes = self.picture_bytes();
        if !images.len().is_multiple_of(bytes) {
            return Err(Error::data(format!("{} bytes of pictures, expected a multiple of {bytes}", images.len()))
                .hint(format!("a picture is (3, {0}, {0}) bytes", self.size)));
        }
        Ok(images.len() / bytes)
    }

    fn picture(&self, image: &[u8], memory: &mut Memory) {
        memory.values[0].load(image, &self.input.codes);
        for (k, layer) in self.layers.iter().enumerate() {
            layer.run(memory, k + 1);
        }
        self.classifier.run(memory);
    }
}

/// What one picture needs; made once per thread.
struct Memory {
    values: Vec<Codes>,
    main: Vec<i32>,
    shortcut: Vec<i32>,
    pooled: Vec<i32>,
    classifier: Vec<i32>,
    logits: Vec<f32>,
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
            logits: vec![0.0; classes],
        }
    }
}

/// Codes of one value with their border, channels in pairs.
struct Codes {
    shape: Shape,
    pairs: Vec<[i16; 2]>,
}

impl Codes {
    fn new(shape: Shape) -> Codes {
        Codes { shape, pairs: vec![[0; 2]; (shape.h + 2) * (shape.w + 2) * shape.c / 2] }
    }

    /// The pair that holds channel 0 of a pixel; rows and columns count from the border.
    fn at(&self, row: usize, column: usize) -> usize {
        (row * (self.shape.w + 2) + column) * self.shape.c / 2
    }

    /// Row `y` of the picture without its border, `(W, C)`.
    fn row(&self, y: usize) -> &[i16] {
        let start = self.at(y + 1, 1);
        self.pairs[start..][..self.shape.w * self.shape.c / 2].as_flattened()
    }

    fn row_mut(&mut self, y: usize) -> &mut [i16] {
        let start = self.at(y + 1, 1);
        self.pairs[start..][..self.shape.w * self.shape.c / 2].as_flattened_mut()
    }

    /// The pixels in order, C codes each.
    fn pixels(&self) -> impl Iterator<Item = &[i16]> {
        (0..self.shape.h).flat_map(|y| self.row(y).chunks_exact(self.shape.c))
    }

    /// Codes of a raw picture `(3, H, W)`.
    fn load(&mut self, image: &[u8], codes: &[[i8; 256]; 3]) {
        let Shape { h, w, c } = self.shape;
        for y in 0..h {
            let row = self.row_mut(y);
            for (channel, table) in codes.iter().enumerate() {
                let raw = &image[(channel * h + y) * w..][..w];
                for (pixel, byte) in row.chunks_exact_mut(c).zip(raw) {
                    pixel[channel] = i16::from(table[usize::from(*byte)]);
                }
            }
        }
    }
}

impl IntegerConv {
    /// Accumulators `(H, W, C)` of the output.
    fn accumulate(&self, x: &Codes, out: &mut [i32]) {
        let weights = self.kernel * self.kernel * self.from.c / 2;
        for (block, weights) in self.packed.chunks_exact(weights).enumerate() {
            for y in 0..self.to.h {
                let out = &mut out[y * self.to.w * self.to.c..][..self.to.w * self.to.c];
                let whole = self.to.w / PIXELS * PIXELS;
                for column in (0..whole).step_by(PIXELS) {
                    self.tile::<PIXELS>(x, weights, y, column, block, out);
                }
                for column in whole..self.to.w {
                    self.tile::<1>(x, weights, y, column, block, out);
                }
            }
        }
    }

    /// P neighbouring pixels of one block of channels.
    #[inline(always)]
    fn tile<const P: usize>(
        &self,
        x: &Codes,
        weights: &[Block],
        y: usize,
        column: usize,
        block: usize,
        out: &mut [i32],
    ) {
        let border = 1 - self.kernel / 2;
        let run = self.kernel * self.from.c / 2;
        let mut acc = [[0; LANES]; P];
        for (ky, weights) in weights.chunks_exact(run).enumerate() {
            let start = x.at(y * self.stride + ky + border, column * self.stride + border);
            let step = self.stride * self.from.c / 2;
            let windows: [&[[i16; 2]]; P] = std::array::from_fn(|p| &x.pairs[start + p * step..][..run]);
            for (k, w) in weights.iter().enumerate() {
                for (acc, window) in acc.iter_mut().zip(windows) {
                    multiply_add(acc, window[k], w);
                }
            }
        }
        for (p, acc) in acc.iter().enumerate() {
            out[(column + p) * self.to.c + block * LANES..][..LANES].copy_from_slice(acc);
        }
    }
}

/// `acc[lane] += a[0] * w[lane][0] + a[1] * w[lane][1]`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn multiply_add(acc: &mut [i32; LANES], a: [i16; 2], w: &Block) {
    use std::arch::x86_64::{__m128i, _mm_add_epi32, _mm_madd_epi16, _mm_set1_epi32};
    let [s0, s1]: [__m128i; 2] = bytemuck::cast(*acc);
    let [w0, w1]: [__m128i; 2] = bytemuck::cast(*w);
    // By hand, because the compiler does not find this instruction; convolutions ran 3 to 5 times slower without it.
    // SAFETY: SSE2 is part of every x86_64.
    *acc = bytemuck::cast(unsafe {
        let a = _mm_set1_epi32(bytemuck::cast(a));
        [_mm_add_epi32(s0, _mm_madd_epi16(a, w0)), _mm_add_epi32(s1, _mm_madd_epi16(a, w1))]
    });
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn multiply_add(acc: &mut [i32; LANES], a: [i16; 2], w: &Block) {
    let [a0, a1] = a.map(i32::from);
    for (s, [w0, w1]) in acc.iter_mut().zip(w) {
        *s += a0 * i32::from(*w0) + a1 * i32::from(*w1);
    }
}

impl IntegerLayer {
    /// Computes value `number`.
    fn run(&self, memory: &mut Memory, number: usize) {
        let (before, after) = memory.values.split_at_mut(number);
        let out = &mut after[0];
        let size = self.shape.len();
        self.conv.accumulate(&before[self.conv.input], &mut memory.main[..size]);
        if let IntegerShortcut::Projection(p) = &self.shortcut {
            p.accumulate(&before[p.input], &mut memory.shortcut[..size]);
        }
        let row = self.shape.w * self.shape.c;
        for y in 0..self.shape.h {
            let main = &memory.main[y * row..][..row];
            let codes = out.row_mut(y);
            match &self.shortcut {
                IntegerShortcut::None => self.requantize(main, &[0i16; 0], codes),
                IntegerShortcut::Identity(value) => self.requantize(main, before[*value].row(y), codes),
                IntegerShortcut::Projection(_) => self.requantize(main, &memory.shortcut[y * row..][..row], codes),
            }
        }
    }

    /// Codes of one row `(W, C)`; an empty `shortcut` is none.
    #[inline(always)]
    fn requantize<R: Copy + Into<i32>>(&self, main: &[i32], shortcut: &[R], codes: &mut [i16]) {
        let c = self.channels.len();
        let one = |k: &Requantize, acc: i32, r: i32| i16::from(self.window[self.base_code(k, acc, r)]);
        for (pixel, (codes, main)) in codes.chunks_exact_mut(c).zip(main.chunks_exact(c)).enumerate() {
            let each = codes.iter_mut().zip(main).zip(&self.channels);
            if shortcut.is_empty() {
                each.for_each(|((q, acc), k)| *q = one(k, *acc, 0));
            } else {
                let shortcut = &shortcut[pixel * c..][..c];
                each.zip(shortcut).for_each(|(((q, acc), k), r)| *q = one(k, *acc, (*r).into()));
            }
        }
    }
}

impl IntegerLinear {
    /// Pool, accumulators and logits.
    fn run(&self, memory: &mut Memory) {
        memory.pooled.fill(0);
        for pixel in memory.values[self.input].pixels() {
            for (sum, q) in memory.pooled.iter_mut().zip(pixel) {
                *sum += i32::from(*q);
            }
        }
        let rows = self.codes.chunks_exact(self.features).zip(&mut memory.classifier);
        for (weights, acc) in rows {
            *acc = weights.iter().zip(&memory.pooled).map(|(w, x)| i32::from(*w) * x).sum();
        }
        let scaled = memory.classifier.iter().zip(&self.scales).zip(&self.bias);
        for (logit, ((acc, scale), bias)) in memory.logits.iter_mut().zip(scaled) {
            *logit = (f64::from(*acc) * scale + f64::from(*bias)) as f32;
        }
    }
}
