//! A network of a manifest and its tensors, and the checks that make it one.

use std::collections::BTreeSet;

use safetensors::tensor::Dtype;

use super::Tensors;
use super::codes::{row_bytes, unpack};
use super::manifest::{ConvEntry, LayerEntry, Manifest, ShortcutEntry, shape, sides, wrong};
use crate::Result;
use crate::integer::{
    IntegerConv, IntegerInput, IntegerLayer, IntegerLinear, IntegerNet, IntegerShortcut, IntegerWeights, MAX_SHIFT,
    Multiplier, Requantize,
};
use crate::net::Shape;

/// Names that exports give to something else.
const RESERVED: [&str; 10] =
    ["input", "image", "picture", "pictures", "pool", "pooled", "classifier", "logits", "values", "manifest"];
/// Names of a layer's parts in model files and exports.
const PARTS: [&str; 10] =
    ["codes", "scale", "mul", "shift", "bias", "shortcut", "weight", "acc", "accumulators", "projection"];

/// Most codes of all layers for a picture, more than a configuration allows.
const MOST_CODES: usize = (1 << 31) - 1;
/// What sums of codes over a picture stay below: devices have them as f32.
const POOLED: i64 = 1 << 24;

/// Whether a scale is one: a quotient of two of them is a number.
fn is_scale(name: &str, scale: f32) -> Result<()> {
    match (2f32.powi(-60)..=2f32.powi(60)).contains(&scale) {
        true => Ok(()),
        false => Err(wrong(format!("the scale of {name} is {scale:e}, expected a number from 2^-60 to 2^60"))),
    }
}

/// What is known of a value when a layer reads it.
#[derive(Debug, Clone, Copy)]
struct Value {
    /// Its real channels.
    shape: Shape,
    largest: i64,
    signed: bool,
}

pub(super) struct Reader<'a> {
    pub(super) tensors: &'a Tensors,
    pub(super) manifest: &'a Manifest,
}

impl Reader<'_> {
    fn tensor(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&[u8]> {
        let t = self.tensors.get(name).ok_or_else(|| wrong(format!("has no tensor {name}")))?;
        if t.dtype != dtype || t.shape != shape {
            return Err(wrong(format!(
                "its tensor {name} is {:?} {:?}, expected {dtype:?} {shape:?}",
                t.dtype, t.shape
            )));
        }
        Ok(&t.bytes)
    }

    fn words(&self, name: &str, count: usize) -> Result<Vec<i32>> {
        let bytes = self.tensor(name, Dtype::I32, &[count])?;
        Ok(bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect())
    }

    pub(super) fn net(&self) -> Result<IntegerNet> {
        let m = self.manifest;
        if !(4..=1024).contains(&m.size) {
            return Err(wrong(format!("its pictures have side {}, expected 4 to 1024", m.size)));
        }
        if !(2..=32).contains(&m.accumulator.bits) {
            return Err(wrong(format!("its accumulators have {} bits, expected 2 to 32", m.accumulator.bits)));
        }
        let sizes = m.layers.iter().map(|l| l.conv.to.iter().fold(1, |all: usize, side| all.saturating_mul(*side)));
        let count = sizes.fold(0, usize::saturating_add);
        if count > MOST_CODES {
            return Err(wrong(format!("its layers have {count} codes for a picture, expected at most {MOST_CODES}")));
        }
        self.check_names()?;
        let table = self.tensor("input.codes", Dtype::I8, &[3, 256])?;
        let codes = [0, 1, 2].map(|c| std::array::from_fn(|raw| table[256 * c + raw] as i8));
        is_scale("the picture", m.input.scale)?;
        let input = IntegerInput::new(codes, m.input.scale);
        let picture = Shape { h: m.size, w: m.size, c: 3 };
        let mut values = vec![Value { shape: picture, largest: i64::from(input.largest), signed: true }];
        let mut layers = Vec::new();
        for entry in &m.layers {
            let layer = self.layer(entry, &values)?;
            values.push(Value { shape: layer.shape, largest: i64::from(layer.window.hi), signed: false });
            layers.push(layer);
        }
        let classifier = self.classifier(&values)?;
        Ok(IntegerNet { size: m.size, multiplier: m.multiplier, accumulator: m.accumulator, input, layers, classifier })
    }

    /// Names become those of files and of tables in exports.
    fn check_names(&self) -> Result<()> {
        let plain = |name: &str| {
            let is_ours = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            (1..=64).contains(&name.len())
                && name.bytes().all(is_ours)
                && !name.contains("..")
                && !name.starts_with('.')
        };
        let mut seen = BTreeSet::new();
        let projection = |shortcut: &'_ ShortcutEntry| match shortcut {
            ShortcutEntry::Projection(p) => Some(p.name.clone()),
            ShortcutEntry::None | ShortcutEntry::Identity(_) => None,
        };
        let layers = self.manifest.layers.iter();
        let all = layers.flat_map(|l| [Some(l.name.clone()), Some(l.conv.name.clone()), projection(&l.shortcut)]);
        for name in all.flatten().chain([self.manifest.classifier.name.clone()]) {
            if !plain(&name) {
                return Err(wrong(format!(
                    "has a layer of name \"{}\", expected at most 64 of a-z, A-Z, 0-9, _, - and single dots",
                    name.escape_debug()
                )));
            }
            if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
                return Err(wrong(format!("has a layer of name {name}, which is that of something else in exports")));
            }
            // Some systems tell no capitals from small letters.
            if !seen.insert(name.to_ascii_lowercase()) {
                return Err(wrong(format!("has two layers of name {name}")));
            }
        }
        // The parts of a layer have its name and a dot before theirs.
        let part =
            |name: &&String| seen.iter().any(|other| PARTS.iter().any(|part| **name == format!("{other}.{part}")));
        if let Some(name) = seen.iter().find(part) {
            return Err(wrong(format!("has a layer of name {name}, which is a part of another one")));
        }
        Ok(())
    }

    /// The value that layer `name` reads.
    fn value(&self, name: &str, number: usize, values: &[Value]) -> Result<Value> {
        values.get(number).copied().ok_or_else(|| {
            wrong(format!("{name} reads value {number}, expected one of the {} that are there by then", values.len()))
        })
    }

    fn weights(&self, name: &str, rows: usize, count: usize, bits: u32, odd: bool, x: Value) -> Result<IntegerWeights> {
        if !(2..=8).contains(&bits) {
            return Err(wrong(format!("{name} has weights of {bits} bits, expected 2 to 8")));
        }
        let packed = self.tensor(&format!("{name}.codes"), Dtype::U8, &[rows, row_bytes(count, bits)])?;
        let codes =
            unpack(packed, count, bits, odd).into_iter().map(i8::try_from).collect::<std::result::Result<_, _>>();
        let codes = codes.map_err(|_| wrong(format!("{name} has odd codes of 8 bits, expected at most 7")))?;
        let scales = self.tensor(&format!("{name}.scale"), Dtype::F32, &[rows])?;
        let scales: Vec<f32> = scales.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        scales.iter().try_for_each(|s| is_scale(name, *s))?;
        IntegerWeights::new(codes, bits, odd, scales, x.largest, x.signed)
            .map_err(|sum| wrong(format!("an accumulator of {name} can reach {sum}, expected at most 2^31 - 1")))
    }

    fn conv(&self, c: &ConvEntry, values: &[Value]) -> Result<IntegerConv> {
        let x = self.value(&c.name, c.input, values)?;
        let (from, to) = (shape(c.from), shape(c.to));
        let stride = |n: usize| n.div_ceil(c.stride.max(1));
        let fits = [1, 3].contains(&c.kernel)
            && [1, 2].contains(&c.stride)
            && from == x.shape
            && (to.h, to.w) == (stride(from.h), stride(from.w))
            && to.c.is_multiple_of(8)
            && (8..=8192).contains(&to.c);
        if !fits {
            return Err(wrong(format!("{} does not fit what it reads, {:?}", c.name, sides(x.shape))));
        }
        let count = from.c * c.kernel * c.kernel;
        let weights = self.weights(&c.name, to.c, count, c.bits, c.odd, x)?;
        let (real_in, from) = (from.c, Shape { c: from.c.next_multiple_of(4), ..from });
        Ok(IntegerConv {
            name: c.name.clone(),
            input: c.input,
            kernel: c.kernel,
            stride: c.stride,
            from,
            to,
            real_in,
            weights,
        })
    }

    /// `NAME.mul`, `.shift`, `.bias`, and the factors of what is added.
    fn factors(&self, name: &str, count: usize, shortcut: Option<String>) -> Result<Vec<Requantize>> {
        let multipliers = self.words(&format!("{name}.mul"), count)?;
        let shifts = self.words(&format!("{name}.shift"), count)?;
        let bias = self.tensor(&format!("{name}.bias"), Dtype::I64, &[count])?;
        let bias: Vec<i64> = bias.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
        let added = shortcut.map_or(Ok(vec![0; count]), |name| self.words(&name, count))?;
        (0..count)
            .map(|c| {
                let shift = u32::try_from(shifts[c]).ok().filter(|n| (1..=MAX_SHIFT).contains(n));
                let shift = shift.ok_or_else(|| {
                    wrong(format!("{name} shifts channel {c} by {}, expected 1 to {MAX_SHIFT}", shifts[c]))
                })?;
                for factor in [multipliers[c], added[c]] {
                    if !self.manifest.multiplier.has(factor) {
                        let kind = match self.manifest.multiplier {
                            Multiplier::Bits32 => "32",
                            Multiplier::Bits16 => "16",
                            Multiplier::Shift => "shift",
                        };
                        return Err(wrong(format!(
                            "{name} has the factor {factor} in channel {c}, expected one of --multiplier {kind}"
                        )));
                    }
                }
                Ok(Requantize { multiplier: multipliers[c], shortcut: added[c], offset: bias[c], shift })
            })
            .collect()
    }

    fn layer(&self, entry: &LayerEntry, values: &[Value]) -> Result<IntegerLayer> {
        let name = &entry.name;
        let conv = self.conv(&entry.conv, values)?;
        let (shortcut, key, largest) = match &entry.shortcut {
            ShortcutEntry::None => (IntegerShortcut::None, None, vec![0; conv.to.c]),
            ShortcutEntry::Identity(number) => {
                let value = self.value(name, *number, values)?;
                if value.shape != conv.to {
                    let (found, expected) = (sides(value.shape), sides(conv.to));
                    return Err(wrong(format!("{name} adds a value of shape {found:?}, expected {expected:?}")));
                }
                let key = format!("{}.shortcut", conv.name);
                (IntegerShortcut::Identity(*number), Some(key), vec![value.largest; conv.to.c])
            }
            ShortcutEntry::Projection(p) => {
                let p = self.conv(p, values)?;
                if p.to != conv.to {
                    return Err(wrong(format!("{} does not fit {}", p.name, conv.name)));
                }
                let (key, largest) = (format!("{}.mul", p.name), p.weights.largest.clone());
                (IntegerShortcut::Projection(p), Some(key), largest)
            }
        };
        let channels = self.factors(&conv.name, conv.to.c, key)?;
        let sound = |(k, (main, other)): (&Requantize, (&i64, &i64))| k.is_sound(*main, *other);
        if !channels.iter().zip(conv.weights.largest.iter().zip(&largest)).all(sound) {
            return Err(wrong(format!("a sum of {name} can pass 64 bits")));
        }
        let w = entry.window;
        let ordered = 0 <= w.base_lo && w.base_lo <= w.base_hi && w.base_hi <= 255 && 0 <= w.lo && w.lo <= w.hi;
        let narrow = ordered && w.hi <= 255 && (2..=8).contains(&entry.bits) && w.hi - w.lo < 1 << entry.bits;
        if !narrow || w.shift > 7 {
            return Err(wrong(format!(
                "{name} has codes of {} bits from {} to {}, of {} to {} without the low {} bits; expected 2 to 8 bits, codes that they \
                 hold, of 0 to 255 without at most 7",
                entry.bits, w.lo, w.hi, w.base_lo, w.base_hi, w.shift
            )));
        }
        is_scale(name, entry.scale)?;
        let shape = conv.to;
        let (name, window, bits, scale) = (name.clone(), entry.window, entry.bits, entry.scale);
        Ok(IntegerLayer { name, conv, shortcut, channels, window, bits, scale, shape })
    }

    fn classifier(&self, values: &[Value]) -> Result<IntegerLinear> {
        let c = &self.manifest.classifier;
        let x = self.value(&c.name, c.input, values)?;
        let is_whole = c.features == x.shape.c && c.pixels == x.shape.pixels() && c.input > 0;
        if !is_whole || !(2..=1 << 20).contains(&c.classes) || c.classes != self.manifest.classes.len() {
            return Err(wrong(format!("{} does not fit what it reads, {:?}, or its classes", c.name, sides(x.shape))));
        }
        if c.fraction_bits > 30 {
            return Err(wrong(format!("its logits have {} fraction bits, expected at most 30", c.fraction_bits)));
        }
        let pooled = Value { largest: x.largest * c.pixels as i64, ..x };
        if pooled.largest >= POOLED {
            let sum = pooled.largest;
            return Err(wrong(format!("a sum of codes before {} can reach {sum}, expected less than 2^24", c.name)));
        }
        let weights = self.weights(&c.name, c.classes, c.features, c.bits, c.odd, pooled)?;
        let channels = self.factors(&c.name, c.classes, None)?;
        if !channels.iter().zip(&weights.largest).all(|(k, largest)| k.is_sound(*largest, 0)) {
            return Err(wrong(format!("a sum of {} can pass 64 bits", c.name)));
        }
        Ok(IntegerLinear {
            name: c.name.clone(),
            input: c.input,
            features: c.features,
            classes: c.classes,
            pixels: c.pixels,
            weights,
            channels,
            fraction_bits: c.fraction_bits,
        })
    }
}
