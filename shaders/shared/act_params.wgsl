// An activation, as the kernels of both ways and conv_act see it. ActParams in src/kernels/activation.rs.
struct ActParams {
    range_row: u32,      // this activation's row of ranges
    shortcut_row: i32,   // the shortcut's row of ranges, -1: scale 1
    shortcut: u32,       // both fixed in the variant
    shortcut_format: u32,
    quant: Quant,
}
