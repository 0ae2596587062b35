// Parameters of wgrad_lane, wgrad_tiled and wgrad_coop. Twin: WgradParams in src/kernels/conv.rs.
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
    terms: u32,
    x_max: u32,
    dy_max: u32,
}
