// One row a layer with weights (36 words). Twin: WeightRow in src/kernels/weights.rs.
struct WeightRow {
    offset4: u32,
    rows: u32,
    cols4: u32,
    taps: u32,
    stats: u32,
    scales: u32,
    estimator: u32,
    per_channel: u32,
    quant: Quant,
    rule: ScaleRule,
    sigmas: f32,
    fixed: f32,
    real_rows: u32,
    real_cols: u32,
    part4: u32,
    splits: u32,
    x_row: i32,
    step_at: u32,
    gradient_scale: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}
const ESTIMATE_MAX = 0u;
const ESTIMATE_SIGMA = 1u;
const ESTIMATE_FIXED = 2u;
const ESTIMATE_HOST = 3u;
const ESTIMATE_LEARNED = 4u;
const ESTIMATE_TANH = 5u;
