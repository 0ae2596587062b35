// A row of the table of activation quantizers. TableRow in src/kernels/range.rs says what each is.
struct TableRow {
    row: u32,
    values: u32,
    parts: u32,
    part: u32,
    blocked_parts: u32,
    blocked_part: u32,
    rule: ScaleRule,
}
