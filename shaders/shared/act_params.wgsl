// What the way back needs of an activation. ActParams in src/kernels/activation.rs.
struct ActParams {
    range_row: u32,      // this activation's row of ranges
    shortcut_row: i32,   // the shortcut's row of ranges, -1: scale 1
    shortcut: u32,       // both fixed in the variant
    shortcut_format: u32,
    quant: Quant,
}
