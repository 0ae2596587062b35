// Parameters of conv_lane, conv_tiled, conv_dot4 and conv_coop; a kernel that uses this uses quant and act_params. Twin: ConvParams in src/kernels/conv.rs.
struct Params {
    batch: u32,
    in_h: u32,
    in_w: u32,
    in_c: u32,
    out_h: u32,
    out_w: u32,
    out_c: u32,
    q_h: u32,
    q_w: u32,
    parities: u32,
    q_stride: u32,
    kernel: u32,
    pad: u32,
    stride: u32,
    backward: u32,
    accumulate: u32,
    x_format: u32,
    w_base: u32,
    integer: u32,
    w_codes: u32,
    terms: u32,
    x_max: u32,
    w_max: u32,
    narrow: u32,
    part4: u32, // conv_norm: first vec4 of its statistics
    w_format: u32, // fixed in the variant
    pad_end0: u32,
    pad_end1: u32,
    act: ActParams, // conv_act: what its data gradient goes back through
}
