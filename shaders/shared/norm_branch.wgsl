// A batch norm of one of the branches that end in an activation: where its tensors begin, in vec4s. NormBranch in src/kernels/norm.rs.
struct NormBranch {
    affine4: u32,     // gamma (C), beta (C) in the parameters; their gradients in the gradients
    running4: u32,    // mean (C), unbiased variance (C)
    scales4: u32,     // s_w (C)
    x_row: i32,       // row of ranges whose scale the convolution's input codes have, -1: scale 1
    w_scale: u32,     // 1: the convolution's weights are codes with scales
    health_slot: u32,
    max_row: u32,     // of the maxima: the gradient of the convolution's output
    pad0: u32,
}
