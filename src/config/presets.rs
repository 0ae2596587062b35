//! The configurations that ship inside the program.

/// Name, description in one line, and YAML text of a preset.
pub type Preset = (&'static str, &'static str, &'static str);

/// The presets, from the one to try first to the literal readings.
pub fn presets() -> &'static [Preset] {
    &[
        (
            "demo",
            "small network on the embedded pictures: float, then 5-bit weights and 4-bit activations, in minutes",
            include_str!("../../configs/demo.yaml"),
        ),
        (
            "cqat",
            "tuned clipped quantization: range factors 4 and 8, ranges tracked, then frozen for the last epoch",
            include_str!("../../configs/cqat.yaml"),
        ),
        (
            "paper",
            "the paper's setting: ResNet-18 of width 64, CIFAR-100, W5A4, 200 float and 60 quantized epochs",
            include_str!("../../configs/paper.yaml"),
        ),
        (
            "float",
            "ResNet-18 of width 64 in floating point, 200 epochs: the baseline",
            include_str!("../../configs/float.yaml"),
        ),
        (
            "cqat-calibrated",
            "the 8-bit range taken literally, calibrated once on the float network and frozen",
            include_str!("../../configs/cqat-calibrated.yaml"),
        ),
        (
            "cqat-pow2",
            "fixed-point reading: weight scale 2^-7, activation scales rounded to powers of two",
            include_str!("../../configs/cqat-pow2.yaml"),
        ),
        (
            "cqat-shift",
            "all scales and batch norm's factors are powers of two: hardware shifts where it would multiply",
            include_str!("../../configs/cqat-shift.yaml"),
        ),
        (
            "cqat-auto",
            "cqat with the window of each tensor found by calibration, then learned",
            include_str!("../../configs/cqat-auto.yaml"),
        ),
        (
            "minmax",
            "the neighbour: uniform quantization between the extremes, in the recipe of cqat",
            include_str!("../../configs/minmax.yaml"),
        ),
        (
            "dorefa",
            "the neighbour: DoReFa-Net, weights squashed by tanh, activations clipped to [0, 1]",
            include_str!("../../configs/dorefa.yaml"),
        ),
        (
            "pact",
            "the neighbour: PACT, activations clipped at a learned alpha",
            include_str!("../../configs/pact.yaml"),
        ),
        (
            "lsq",
            "the neighbour: learned step size quantization (LSQ), in the recipe of cqat",
            include_str!("../../configs/lsq.yaml"),
        ),
        (
            "lsqplus",
            "the neighbour: LSQ+, learned scales from better starts and an offset of activations",
            include_str!("../../configs/lsqplus.yaml"),
        ),
        (
            "ewgs",
            "the neighbour: EWGS, learned scales and element-wise gradient scaling",
            include_str!("../../configs/ewgs.yaml"),
        ),
        (
            "cqat-literal",
            "the abstract taken literally: tracked 8-bit ranges, no range factor, float picture (expected to collapse)",
            include_str!("../../configs/cqat-literal.yaml"),
        ),
    ]
}
