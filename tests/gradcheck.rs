//! Gradients of the CPU twins against central finite differences of the loss, with every operation in the middle of a
//! network. No device.
//!
//! The loss is computed here, in f64, from the logits: an independent statement of softmax cross-entropy with label
//! smoothing. Differences go along all elements of a tensor at once: along the gradient, which is far above the rounding of
//! the f32 twins, and to either side of it at random, which sees a gradient that is 0 where it should not be. A step that
//! moves the loss by 1e-5 is lost in that rounding to about 0.3 %; one ten times as long carries single values across the
//! corner of a ReLU, most often on one side. So the best of four steps counts, central or to one side: a wrong gradient agrees
//! with none (a test shows it).

#[path = "common/twins.rs"]
mod twins;

use cqat::exec::ExecutorExt;
use twins::{TOLERANCE, Twins, normalise, tilted, uniform};

#[test]
fn float_gradients_agree_with_finite_differences() {
    let mut twins = Twins::new(None);
    for (name, _) in twins.tensors() {
        twins.check(&name);
    }
}

#[test]
fn the_check_sees_a_gradient_that_is_wrong() {
    let mut twins = Twins::new(None);
    let range = twins.range_of("same.b.weight");
    let gradient = twins.gradient();
    let mut direction = vec![0f32; gradient.len()];
    range.clone().for_each(|i| direction[i] = gradient[i]);
    normalise(&mut direction);
    assert!(twins.error(&gradient, &direction).1 < TOLERANCE);
    // One of the 72 weights of a filter plane is off by a fifth of the gradient's norm.
    let norm = gradient[range.clone()].iter().map(|g| g * g).sum::<f32>().sqrt();
    let mut wrong = gradient.clone();
    wrong[range.start + 5] += 0.2 * norm;
    range.clone().for_each(|i| direction[i] = wrong[i]);
    normalise(&mut direction);
    let (along, error) = twins.error(&wrong, &direction);
    assert!(error > 2.0 * TOLERANCE, "slope {along:e}, differences are off by only {error:e}");
    // A tap, one of nine, is left out; a row of input channels is.
    let w = twins.lowered.layout.weights.iter().find(|w| w.name == "same.b").unwrap().clone();
    for missing in [4 * w.c_in * w.c_out..5 * w.c_in * w.c_out, 30 * w.c_out..31 * w.c_out] {
        let mut wrong = gradient.clone();
        wrong[range.start + missing.start..range.start + missing.end].fill(0.0);
        let errors = [40, 41].map(|seed| twins.error(&wrong, &tilted(&wrong, range.clone(), seed)).1);
        assert!(errors.iter().any(|e| *e > 1.5 * TOLERANCE), "{missing:?}: differences are off by only {errors:?}");
    }
}

/// Parameters after the last quantizer see a smooth loss.
#[test]
fn quantized_gradients_agree_after_the_last_quantizer() {
    let mut twins = Twins::new(Some(&["quant.first_last=float", "quant.input=none"]));
    for name in ["fc.weight", "fc.bias", "wide.a.norm.gamma", "wide.a.norm.beta", "wide.side.norm.gamma"] {
        twins.check(name);
    }
}

/// A weight that moves by one scale moves its code by one: along such steps the loss is that of the straight-through
/// estimator, which says dL/dw = dL/d(code * scale).
#[test]
fn straight_through_gradients_of_weights_agree_along_whole_codes() {
    let mut twins = Twins::new(Some(&["quant.weight_bits=8", "quant.first_last=float", "quant.input=none"]));
    for name in ["wide.a", "wide.side"] {
        let range = twins.range_of(&format!("{name}.weight"));
        let w = twins.lowered.layout.weights.iter().find(|w| w.name == name).unwrap().clone();
        let gradient = twins.gradient();
        let scale = twins.exec.read_f32(w.scales).unwrap()[0];
        for draw in 0..2 {
            let mut direction = vec![0f32; gradient.len()];
            for i in range.clone() {
                let code = twins.params[i] / scale;
                let certain = (code - code.round()).abs() < 0.4 && code.abs() < 125.0;
                if certain && uniform(50 + draw, i) > 0.8 {
                    direction[i] = scale * gradient[i].signum();
                }
            }
            let along: f64 = direction.iter().zip(&gradient).map(|(d, g)| f64::from(*d) * f64::from(*g)).sum();
            let found = twins.differences(&direction, 1.0)[0];
            assert!((found - along).abs() < 0.05 * along, "{name}: gradient {along:e}, by whole codes {found:e}");
        }
    }
}

/// The same for activations: a beta that moves by one scale moves the codes of its channel by one.
#[test]
fn straight_through_gradients_of_activations_agree_along_whole_codes() {
    let mut twins = Twins::new(Some(&[]));
    let scale = twins.activation_scale("wide.a.relu");
    let range = twins.range_of("wide.a.norm.beta");
    let gradient = twins.gradient();
    let mut direction = vec![0f32; gradient.len()];
    range.clone().for_each(|i| direction[i] = scale * gradient[i].signum());
    let along: f64 = direction.iter().zip(&gradient).map(|(d, g)| f64::from(*d) * f64::from(*g)).sum();
    let found = twins.differences(&direction, 1.0)[0];
    assert!((found - along).abs() < 0.05 * along, "gradient {along:e}, by whole codes {found:e}");
}

/// Codes, values and masks of a step use one scale; what the step has seen moves the range for the next one.
#[test]
fn a_step_uses_one_scale_from_beginning_to_end() {
    for estimator in ["ema_max", "max", "k_sigma"] {
        let sets = [
            format!("quant.activations.estimator={estimator}"),
            "quant.activations.ema_momentum=0".into(),
            "quant.activations.pow2=true".into(),
        ];
        let mut twins = Twins::new(Some(&sets.each_ref().map(String::as_str)));
        let still = twins.gradient();
        let before = twins.activation_scale("wide.a.relu");
        // Weights that give other activations than calibration saw.
        for gamma in twins.tensors().into_iter().filter(|(name, _)| name.ends_with(".gamma")) {
            twins.params[gamma.1].iter_mut().for_each(|v| *v *= 4.0);
        }
        let frozen = twins.gradient();
        assert_ne!(still, frozen);
        twins.frozen = 0;
        let moving = twins.gradient();
        assert!(twins.activation_scale("wide.a.relu") >= 2.0 * before, "{estimator}: the range has not moved");
        assert!(frozen == moving, "{estimator}: the step that moves the range already uses it");
    }
}

#[test]
fn the_int_mask_blocks_exactly_the_clipped_weights() {
    let gradients = |mask: &str| {
        let mut twins = Twins::new(Some(&[&format!("quant.weights.mask={mask}")]));
        let gradient = twins.gradient();
        (twins, gradient)
    };
    let ((mut twins, int), (_, pass)) = (gradients("int"), gradients("pass"));
    let w = twins.lowered.layout.weights.iter().find(|w| w.name == "down.b").unwrap().clone();
    let inv_scale = twins.exec.read_f32(w.scales).unwrap()[w.c_out];
    let range = twins.range_of("down.b.weight");
    let mut clipped = 0;
    for i in range {
        let code = (twins.params[i] * inv_scale).round_ties_even();
        let inside = (-16.0..=15.0).contains(&code);
        clipped += usize::from(!inside);
        assert_eq!(int[i], if inside { pass[i] } else { 0.0 }, "weight {i}, code {code}");
    }
    assert!(clipped > 10, "{clipped} weights clip: too few to test the mask");
}
