//! Gradients of learned scales, on the CPU twins, against differences of the loss. No device.
//!
//! The gradient of LSQ is no derivative: it knows where in its code a value lies, the loss does not. But where values and scale grow
//! together no code changes, and along that line the two agree; and where every value lies beyond the last code, the quantized values
//! are proportional to the scale.

#[path = "common/twins.rs"]
mod twins;

use cqat::quant::learn;
use twins::{TOLERANCE, Twins, normalise};

/// Direction in which the parameters of `names` grow in proportion.
fn growing(twins: &Twins, names: &[&str]) -> Vec<f32> {
    let mut direction = vec![0f32; twins.params.len()];
    for name in names {
        twins.range_of(name).for_each(|i| direction[i] = twins.params[i]);
    }
    direction
}

/// The gradient as the loss has it: without the factors on those of learned scales.
fn unscaled(twins: &mut Twins) -> Vec<f32> {
    let mut gradient = twins.gradient();
    let layout = &twins.lowered.layout;
    let undo = |at: u32, words: usize, factor: f32, g: &mut [f32]| {
        g[at as usize..][..words].iter_mut().for_each(|g| *g /= factor);
    };
    for row in layout.rows.iter().filter(|r| r.quant.learn != learn::NOTHING) {
        let words = if row.per_channel == 1 { 4 * row.cols4 as usize } else { 1 };
        undo(row.step_at, words, row.gradient_scale, &mut gradient);
    }
    for entry in layout.range_entries.iter().filter(|e| e.learn != learn::NOTHING) {
        let words = if entry.learn == learn::STEP_AND_OFFSET { 2 } else { 1 };
        undo(entry.step_at, words, entry.gradient_scale, &mut gradient);
    }
    gradient
}

fn learned(method: &str, sets: &[&str]) -> Twins {
    let method = format!("quant.method={method}");
    let mut twins = Twins::new(Some(&[&[method.as_str()], sets].concat()));
    twins.frozen = 0; // frozen scales have no gradient
    twins
}

/// Values and scale of the classifier's weights, which no batch norm follows.
#[test]
fn weights_and_their_step_grow_together() {
    for (method, granularity) in
        [("lsq", "per_tensor"), ("lsq", "per_channel"), ("cqat-auto", "per_channel"), ("ewgs", "per_tensor")]
    {
        // EWGS changes the weights' part of the gradient, which is the factor's whole purpose.
        let sets = [
            format!("quant.weights.granularity={granularity}"),
            "quant.first_last=same".into(),
            "quant.ewgs_delta=0".into(),
        ];
        let mut twins = learned(method, &sets.each_ref().map(String::as_str));
        let mut direction = growing(&twins, &["fc.weight", "fc.weight.step"]);
        normalise(&mut direction);
        let gradient = unscaled(&mut twins);
        let (along, error) = twins.error(&gradient, &direction);
        assert!(error < TOLERANCE, "{method} {granularity}: slope {along:e}, differences are off by {error:e}");
        let mut alone = gradient.clone();
        twins.range_of("fc.weight.step").for_each(|i| alone[i] = 0.0);
        assert!(twins.error(&alone, &direction).1 > 2.0 * TOLERANCE, "{method}: the step's gradient plays no part");
    }
}

/// The last activation, its step and its offset: both of its branches have a batch norm.
#[test]
fn activations_and_their_step_grow_together() {
    let norms = ["wide.a.norm.gamma", "wide.a.norm.beta", "wide.side.norm.gamma", "wide.side.norm.beta"];
    for method in ["lsq", "cqat-auto", "ewgs", "lsqplus"] {
        let sets =
            ["quant.layers.wide.a.relu.activation_bits=3", "quant.activations.estimator=mse", "quant.ewgs_delta=0"];
        let mut twins = learned(method, &sets.map(|s| s));
        let mut direction = growing(&twins, &[&norms[..], &["wide.a.relu.step"]].concat());
        normalise(&mut direction);
        let gradient = unscaled(&mut twins);
        let (along, error) = twins.error(&gradient, &direction);
        assert!(error < TOLERANCE, "{method}: slope {along:e}, differences are off by {error:e}");
        let mut alone = gradient.clone();
        twins.range_of("wide.a.relu.step").for_each(|i| alone[i] = 0.0);
        assert!(twins.error(&alone, &direction).1 > 2.0 * TOLERANCE, "{method}: the step's gradient plays no part");
    }
}

/// Every positive value lies beyond the last code of a tiny scale.
#[test]
fn beyond_the_last_code_the_scale_is_the_value() {
    for method in ["lsq", "pact"] {
        let mut twins = learned(method, &["quant.pact_decay=0"]);
        let step = twins.range_of("wide.a.relu.step");
        twins.params[step.start] = 1e-4;
        let mut direction = vec![0f32; twins.params.len()];
        direction[step.start] = 1.0;
        let gradient = unscaled(&mut twins);
        let along = f64::from(gradient[step.start]);
        let found = twins.differences(&direction, 3e-6)[0];
        assert!((found - along).abs() < 0.02 * along.abs(), "{method}: gradient {along:e}, differences {found:e}");
    }
}

/// There an offset that grows by one step takes every code along.
#[test]
fn an_offset_moves_the_last_code() {
    let mut twins = learned("lsqplus", &["quant.layers.wide.a.relu.activation_bits=4"]);
    let at = twins.range_of("wide.a.relu.step");
    let step = 2e-3;
    twins.params[at.start] = step;
    twins.params[at.start + 1] = -2.0 * step; // below 0, so that zeros stay what they are
    let mut direction = vec![0f32; twins.params.len()];
    direction[at.start + 1] = 1.0;
    let gradient = unscaled(&mut twins);
    let along = f64::from(gradient[at.start + 1]);
    let found = twins.differences(&direction, step)[0];
    assert!((found - along).abs() < 0.05 * along.abs(), "gradient {along:e}, by whole codes {found:e}");
}

#[test]
fn frozen_scales_have_no_gradient_and_stay() {
    for method in ["lsq", "lsqplus", "pact"] {
        let mut twins = learned(method, &[]);
        let steps = twins.lowered.layout.steps.clone().unwrap();
        let of = |g: &[f32]| g[steps.offset..][..steps.entries.iter().map(|e| e.words).sum()].to_vec();
        assert!(of(&twins.gradient()).iter().filter(|g| **g != 0.0).count() >= steps.entries.len(), "{method}");
        let before = twins.activation_scale("wide.a.relu");
        twins.frozen = 1;
        let at = twins.range_of("wide.a.relu.step").start;
        twins.params[at] *= 3.0;
        assert!(of(&twins.gradient()).iter().all(|g| *g == 0.0), "{method}");
        assert_eq!(twins.activation_scale("wide.a.relu"), before, "{method}");
        twins.frozen = 0;
        twins.gradient();
        assert!((twins.activation_scale("wide.a.relu") / before - 3.0).abs() < 1e-3, "{method}");
    }
}
