// Parameters of wgrad_lane and wgrad_tiled. Twin: WgradParams in src/kernels/conv.rs.
struct Params {
    batch: u32,
    in_h: u32,
    in_w: u32,
    in_c: u32,
    out_h: u32,
    out_w: u32,
    out_c: u32,
    kernel: u32,
    pad: u32,
    stride: u32,
    splits: u32,
    chunk: u32,
    x_format: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}
