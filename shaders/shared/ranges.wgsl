// A row of the tensor `ranges`: the state of an activation quantizer. RangeRow in src/kernels/range.rs says what each is.
struct RangeRow {
    range: f32,
    scale: f32,
    inv_scale: f32,
    observed: f32,
    saturated: f32,
    blocked: f32,
    steps: f32,
    calibrated: f32,
    zero: f32,
    unit: f32,
    pad0: f32,
    pad1: f32,
}
