//! What a quantization method decides where the configuration does not say.

use super::{Estimator, Mask, Method, QuantConfig};

impl QuantConfig {
    /// How the range of weights, or the start of their learned scales, is found.
    pub fn weight_estimator(&self) -> Estimator {
        self.weights.estimator.unwrap_or(match self.method {
            Method::Lsq => Estimator::MeanAbs,
            Method::LsqPlus | Method::Ewgs => Estimator::KSigma,
            Method::CqatAuto => Estimator::Mse,
            Method::None | Method::Cqat | Method::Minmax | Method::Dorefa | Method::Pact => Estimator::Max,
        })
    }

    /// How the range of activations, or the start of their learned scales, is found. Those of `dorefa` and `pact` have none to find.
    pub fn activation_estimator(&self) -> Estimator {
        self.activations.estimator.unwrap_or(match self.method {
            Method::Lsq => Estimator::MeanAbs,
            Method::LsqPlus | Method::Ewgs | Method::CqatAuto => Estimator::Mse,
            Method::None | Method::Cqat | Method::Minmax | Method::Dorefa | Method::Pact => Estimator::EmaMax,
        })
    }

    /// Gradient rule of weights; those that tanh squashes lie inside their range, so that all pass.
    pub fn weight_mask(&self) -> Mask {
        self.weights.mask.unwrap_or(match self.method {
            Method::Cqat | Method::Dorefa | Method::Pact => Mask::Pass,
            Method::Lsq | Method::LsqPlus | Method::Ewgs | Method::CqatAuto => Mask::Real,
            Method::None | Method::Minmax => Mask::Int,
        })
    }

    /// Gradient rule of activations.
    pub fn activation_mask(&self) -> Mask {
        let int = matches!(self.method, Method::None | Method::Cqat | Method::Minmax);
        self.activations.mask.unwrap_or(if int { Mask::Int } else { Mask::Real })
    }

    /// Whether the scales of weights are parameters.
    pub fn learns_weight_scales(&self) -> bool {
        match self.method {
            Method::Lsq | Method::LsqPlus | Method::Ewgs => true,
            Method::CqatAuto => self.learn_scales != Some(false),
            Method::None | Method::Cqat | Method::Minmax | Method::Dorefa | Method::Pact => false,
        }
    }

    /// Whether the scales of activations are parameters.
    pub fn learns_activation_scales(&self) -> bool {
        self.learns_weight_scales() || self.method == Method::Pact
    }

    /// Whether weights are squashed by tanh.
    pub fn squashes_weights(&self) -> bool {
        matches!(self.method, Method::Dorefa | Method::Pact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_comes_before_the_method() {
        let mut q = QuantConfig { method: Method::Lsq, ..QuantConfig::default() };
        assert_eq!((q.weight_estimator(), q.weight_mask()), (Estimator::MeanAbs, Mask::Real));
        (q.weights.estimator, q.weights.mask) = (Some(Estimator::Mse), Some(Mask::Pass));
        assert_eq!((q.weight_estimator(), q.weight_mask()), (Estimator::Mse, Mask::Pass));
    }

    #[test]
    fn scales_are_learned_where_the_method_says_so() {
        let learns = |method, learn_scales| {
            let q = QuantConfig { method, learn_scales, ..QuantConfig::default() };
            (q.learns_weight_scales(), q.learns_activation_scales())
        };
        assert_eq!(learns(Method::Cqat, None), (false, false));
        assert_eq!(learns(Method::Pact, None), (false, true));
        assert_eq!(learns(Method::Ewgs, None), (true, true));
        assert_eq!(learns(Method::CqatAuto, None), (true, true));
        assert_eq!(learns(Method::CqatAuto, Some(false)), (false, false));
    }
}
