// A row of the table of activation quantizers. TableRow in src/kernels/range.rs says what each is.
struct TableRow {
    row: u32,
    values: u32,
    parts: u32,
    part: u32,
    blocked_parts: u32,
    blocked_part: u32,
    rule: ScaleRule,
    learn: u32,
    step_at: u32,
    gradient_scale: f32,
    decay: f32,
    lowest_zero: i32,
    highest_zero: i32,
}
