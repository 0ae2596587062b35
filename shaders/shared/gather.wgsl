// Which taps of one axis reach an output coordinate, and where they read. Forward: in = q * stride + t - pad.
// Tiles (see winograd_in): in = 4 q + parity, and the parities' tap is 4 py + px.
// Data gradient of stride S: outputs of one parity see only the taps of that parity, in = q + (parity + pad - k) / S.
struct Axis {
    first: u32,  // kernel index of tap 0
    step: u32,   // kernel index distance between taps
    count: u32,  // taps
    offset: i32, // input offset of tap 0
    dir: i32,    // input offset distance between taps
}
fn axis(backward: u32, parity: u32, kernel: u32, pad: u32, stride: u32) -> Axis {
    if (backward == 0u) {
        return Axis(0u, 1u, kernel, -i32(pad), 1i);
    }
    if (backward == 2u) {
        return Axis(parity, 1u, 1u, i32(parity), 0i);
    }
    let first = (parity + pad) % stride;
    let count = select(0u, (kernel - first + stride - 1u) / stride, first < kernel);
    return Axis(first, stride, count, i32((parity + pad) / stride), -1i);
}
