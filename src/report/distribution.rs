//! Values of a tensor, counted, beside the ends of what its codes reach.

use crate::quant::{Quant, Quantizer};
use crate::session::ActivationCounts;

/// Bars of a histogram.
const BARS: usize = 64;

/// The values of one tensor, counted, with the ends of what its codes reach.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// Name of the layer.
    pub layer: String,
    /// Bits of a code; none of a tensor in float.
    pub bits: Option<u32>,
    /// Ends of the bars, one more than there are bars.
    pub edges: Vec<f64>,
    /// Share of the values in each bar, 0 to 1.
    pub shares: Vec<f64>,
    /// Share of the values that are zero or next to it and have no bar: those a ReLU made zero.
    pub zeros: f64,
    /// Lowest and highest value of the base grid, where the codes are a part of one.
    pub base: Option<[f64; 2]>,
    /// Bits of the base grid.
    pub base_bits: u32,
    /// Lowest and highest value of a code.
    pub clip: Option<[f64; 2]>,
    /// Share of all values beyond `clip`.
    pub clipped: Option<f64>,
}

/// Values at both ends of the base grid, where the codes are a part of one, and of the codes. `quant` is a quantizer with its offset,
/// `unit` the step of the grid that its window lies in, 0 where the codes are those of the base grid itself.
fn ends(quant: &Quant, inverse: f32, unit: f32) -> (Option<[f64; 2]>, [f64; 2]) {
    let of = |codes: [i32; 2]| codes.map(|code| f64::from(quant.place_of(code, inverse)));
    let (grid, codes) = ([quant.base_lo, quant.base_hi], [quant.lo << quant.shift, quant.hi << quant.shift]);
    let base = match unit > 0.0 {
        true => Some(grid.map(|code| f64::from(code as f32 * unit))),
        false => (grid[1] > codes[1]).then(|| of(grid)),
    };
    (base, of(codes))
}

/// Bits of the grid that a quantizer's codes are a part of.
fn base_bits(quant: &Quant) -> u32 {
    ((quant.base_hi - quant.base_lo + 1) as u32).next_power_of_two().ilog2()
}

/// A layer's quantizer of weights, the factors from values to base codes, one an output channel, whose weights are neighbours, and the
/// largest step of the grids that windows lie in.
pub(super) struct Scales<'a> {
    pub(super) q: &'a Quantizer,
    pub(super) inverses: &'a [f32],
    pub(super) unit: f32,
}

/// Counts the weights of a layer.
pub(super) fn of_weights(layer: &str, values: &[f32], scales: Option<&Scales>) -> Distribution {
    let largest = values.iter().fold(0f64, |m, v| m.max(f64::from(v.abs()))).max(1e-12);
    // With a scale a channel, the lines are those of the largest.
    let widest = |s: &Scales| s.inverses.iter().copied().fold(f32::INFINITY, f32::min);
    let (base, clip) = scales.map(|s| ends(&s.q.quant, widest(s), s.unit)).unzip();
    let base = base.flatten();
    // The clip lines are in the picture, but a window far wider than the weights does not hide them.
    let reach = clip.map_or(largest, |c: [f64; 2]| largest.max(c[0].abs().max(c[1]).min(2.0 * largest))) * 1.05;
    let edges: Vec<f64> = (0..=BARS).map(|i| reach * (2.0 * i as f64 / BARS as f64 - 1.0)).collect();
    let mut shares = vec![0.0; BARS];
    let one = 1.0 / values.len().max(1) as f64;
    for v in values {
        let at = (f64::from(*v) / reach + 1.0) / 2.0 * BARS as f64;
        shares[(at as usize).min(BARS - 1)] += one;
    }
    let clips = |s: &Scales| {
        let own = |i: usize| s.inverses[i * s.inverses.len() / values.len()];
        values.iter().enumerate().filter(|(i, v)| s.q.quant.clips(**v, own(*i))).count() as f64 * one
    };
    Distribution {
        layer: layer.into(),
        bits: scales.map(|s| s.q.bits),
        edges,
        shares,
        zeros: 0.0,
        base,
        base_bits: scales.map_or(0, |s| base_bits(&s.q.quant)),
        clip,
        clipped: scales.map(clips),
    }
}

/// Merges the bins to bars, which reach to twice the last code: what lies further is in the last one. The first bin, of zeros, has none.
pub(super) fn of_activation(layer: &str, counted: &ActivationCounts, q: &Quantizer) -> Distribution {
    let quant = counted.row.offset(&q.quant);
    let (counts, range, inverse) = (&counted.counts, counted.range, counted.row.inv_scale);
    let total = counts.iter().map(|c| f64::from(*c)).sum::<f64>().max(1.0);
    let (range, bins) = (f64::from(range), counts.len());
    let (base, clip) = ends(&quant, inverse, counted.row.unit);
    let reach = (2.0 * clip[1] / range).min(1.0);
    let per_bar = ((reach * bins as f64) as usize).div_ceil(BARS).max(1);
    let edges = (0..=BARS).map(|i| range * (i * per_bar) as f64 / bins as f64).collect();
    let mut shares = vec![0.0; BARS];
    for (bin, count) in counts.iter().enumerate() {
        shares[(bin / per_bar).min(BARS - 1)] += f64::from(*count) / total;
    }
    let zeros = f64::from(counts[0]) / total;
    shares[0] -= zeros;
    let beyond = |(bin, count): (usize, &u32)| {
        let centre = (bin as f64 + 0.5) * range / bins as f64;
        if quant.clips(centre as f32, inverse) { f64::from(*count) } else { 0.0 }
    };
    let clipped = counts.iter().enumerate().map(beyond).sum::<f64>() / total;
    Distribution {
        layer: layer.into(),
        bits: Some(q.bits),
        edges,
        shares,
        zeros,
        base,
        base_bits: base_bits(&q.quant),
        clip: Some(clip),
        clipped: Some(clipped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::kernels::range::RangeRow;
    use crate::net::Net;
    use crate::quant::QuantSpec;

    /// The quantizer of a layer with some overrides.
    fn quantizer(layer: &str, sets: &[&str]) -> Quantizer {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        let net = Net::resnet(8, 8, 10, 32).unwrap();
        let spec = QuantSpec::new(&Config::load("cqat", &sets).unwrap().quant, &net).unwrap().unwrap();
        *spec.layer(net.layers.iter().position(|l| l.name() == layer).unwrap()).unwrap()
    }

    /// Bars that hold something: number and share.
    fn filled(d: &Distribution) -> Vec<(usize, f64)> {
        d.shares.iter().copied().enumerate().filter(|(_, share)| *share > 1e-12).collect()
    }

    #[test]
    fn weights_are_counted_between_the_lines() {
        // 5 bits of an 8-bit grid of step 1/4: codes -16 to 15 reach from -4 to 3.75, the grid from -32 to 31.75.
        let q = quantizer("layer1.0.conv1", &[]);
        let values = [-3.9, 0.01, 2.0, 7.6];
        let d = of_weights("a", &values, Some(&Scales { q: &q, inverses: &[4.0], unit: 0.0 }));
        assert_eq!((d.clip, d.base, d.base_bits, d.bits), (Some([-4.0, 3.75]), Some([-32.0, 31.75]), 8, Some(5)));
        assert_eq!((d.clipped, d.zeros, d.edges.len()), (Some(0.25), 0.0, BARS + 1));
        let reach = d.edges[BARS];
        assert!((reach - 7.6 * 1.05).abs() < 1e-5 && (d.edges[0] + reach).abs() < 1e-12);
        for (bar, share) in filled(&d) {
            let inside = values.iter().filter(|v| (d.edges[bar]..d.edges[bar + 1]).contains(&f64::from(**v))).count();
            assert_eq!(share, 0.25 * inside as f64, "bar {bar}");
        }
        assert_eq!(filled(&d).len(), 4);
        // A channel's weights go by its own scale; the lines are those of the widest.
        let d = of_weights("a", &[3.0, 3.0, 3.0, 3.0], Some(&Scales { q: &q, inverses: &[4.0, 16.0], unit: 0.0 }));
        assert_eq!((d.clipped, d.clip), (Some(0.5), Some([-4.0, 3.75])));
        // The window of cqat-auto lies inside the grid of the largest value.
        let auto = quantizer("layer1.0.conv1", &["quant.method=cqat-auto"]);
        let d = of_weights("a", &[1.0], Some(&Scales { q: &auto, inverses: &[32.0], unit: 1.0 / 128.0 }));
        assert_eq!((d.base, d.clip), (Some([-1.0, 127.0 / 128.0]), Some([-0.5, 15.0 / 32.0])));
        assert_eq!(of_weights("a", &[1.0], None).clip, None);
        let narrow = quantizer("layer1.0.conv1", &["quant.method=minmax"]);
        assert_eq!(of_weights("a", &[1.0], Some(&Scales { q: &narrow, inverses: &[4.0], unit: 0.0 })).base, None);
    }

    #[test]
    fn activations_are_counted_between_the_lines() {
        let q = quantizer("layer1.0.relu1", &[]);
        let row = RangeRow { scale: 0.25, inv_scale: 4.0, ..RangeRow::UNIT };
        let mut counts = vec![0; 256]; // of 1/8 each, to 32
        (counts[0], counts[1], counts[28], counts[40], counts[255]) = (50, 20, 10, 15, 5);
        let counted = |row| ActivationCounts { counts: counts.clone(), range: 32.0, row };
        let d = of_activation("a", &counted(row), &q);
        assert_eq!((d.clip, d.base, d.zeros), (Some([0.0, 3.75]), Some([0.0, 63.75]), 0.5));
        // The bars reach to about twice the last code, 7.5, which is 60 bins; what lies further is in the last bar.
        assert_eq!((d.edges[0], d.edges[BARS]), (0.0, 8.0));
        assert_eq!(
            d.shares.iter().map(|s| (s * 100.0).round()).filter(|s| *s > 0.0).collect::<Vec<_>>(),
            [20.0, 10.0, 15.0, 5.0]
        );
        assert!((d.shares[28] - 0.1).abs() < 1e-12 && (d.shares[BARS - 1] - 0.05).abs() < 1e-12);
        assert_eq!(d.clipped, Some(0.2)); // 5.06 and what is beyond
        // With an offset of 2 codes from 2 to 17 reach from 1/2 to 4 1/4: zeros and 0.19 are below.
        let plus = quantizer("layer1.0.relu1", &["quant.method=lsqplus"]);
        let d = of_activation("a", &counted(RangeRow { zero: 2.0, ..row }), &plus);
        assert_eq!((d.clip, d.clipped.map(|share| (100.0 * share).round())), (Some([0.5, 4.25]), Some(90.0)));
    }
}
