// out[n, oy, ox, co] = sum over taps, ci of x[n, iy, ix, ci] * w[tap, ci, co]: forward convolution of codes on matrix units.
// Codes and weight codes are exact in f16 and are added in f32: the same numbers as any other variant gives, where
// no sum passes 2^24. Implicit GEMM: M = pixels (Q_H x Q_W a picture), N = c_out, K = taps x c_in. x: NHWC in the variant's
// operand format; w: (taps, c_in, c_out) f32.
// Four subgroups of LANES; each multiplies 4 x 2 matrices of SIDE x SIDE. Tile 8 SIDE x 4 SIDE x 2 SIDE in workgroup memory, the
// next one in registers meanwhile. Names are written out because matrices cannot be in arrays.
// Grid: (M / (8 SIDE), N / (4 SIDE)).
//use conv_params
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
const TILE_M = 8u * SIDE;
const TILE_N = 4u * SIDE;
const TILE_K = 2u * SIDE;
const K4 = TILE_K / 4u;
const N4 = TILE_N / 4u;
const THREADS = 4u * LANES;
const X_LOADS = TILE_M * K4 / THREADS;
const W_LOADS = TILE_K * N4 / THREADS;
// Rows are 16 bytes longer than they have to be: neighbours lie in different banks.
const X_STRIDE = K4 + 2u;
const W_STRIDE = N4 + 2u;
const C_STRIDE = SIDE + 4u;
var<workgroup> tile_x: array<vec4<f16>, TILE_M * X_STRIDE>;
var<workgroup> tile_w: array<vec4<f16>, TILE_K * W_STRIDE>;
var<workgroup> result: array<f32, 4u * SIDE * C_STRIDE>;

// Four channels of a pixel of x: those at c4, of the picture whose first line is `image`, where the forward kernel's corner is (y, x).
fn x_at(y: i32, x0: i32, image: u32, tap: u32, c4: u32) -> vec4<f16> {
    let iy = y + i32(tap / p.kernel);
    let ix = x0 + i32(tap % p.kernel);
    var v = vec4<f32>();
    if (c4 < p.in_c / 4u && u32(iy) < p.in_h && u32(ix) < p.in_w) {
        v = decode(x[((image + u32(iy)) * p.in_w + u32(ix)) * (p.in_c / 4u) + c4]);
    }
    return vec4<f16>(v);
}

// The weights of input channel c of a tap for four output channels.
fn w_at(tap: u32, c: u32, n4: u32) -> vec4<f16> {
    var v = vec4<f32>();
    if (c < p.in_c && n4 < p.out_c / 4u) {
        v = w[p.w_base + (tap * p.in_c + c) * (p.out_c / 4u) + n4];
    }
    return vec4<f16>(v);
}

// Copies a subgroup's matrix, whose first pixel is m and first vec4 of channels n, from workgroup memory.
fn put(subgroup: u32, lane: u32, m: u32, n: u32) {
    workgroupBarrier();
    for (var i = lane; i < SIDE * SIDE / 4u; i += LANES) {
        let row = i / (SIDE / 4u);
        let q = i % (SIDE / 4u);
        if (m + row < p.batch * Q_H * Q_W && n + q < p.out_c / 4u) {
            let o = (subgroup * SIDE + row) * C_STRIDE + 4u * q;
            out[(m + row) * (p.out_c / 4u) + n + q] = vec4<f32>(result[o], result[o + 1u], result[o + 2u], result[o + 3u]);
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let rows = p.batch * Q_H * Q_W;
    let ci4 = p.in_c / 4u;
    let m0 = wg.x * TILE_M;
    let n4 = wg.y * N4;
    let load_c = lid % K4;
    var y0: array<i32, X_LOADS>;
    var x0: array<i32, X_LOADS>;
    var image: array<u32, X_LOADS>;
    for (var r = 0u; r < X_LOADS; r++) { // unrolled
        let m = m0 + (lid + r * THREADS) / K4;
        // A pixel too many reads zeros.
        y0[r] = select(-1000000i, i32(m / Q_W % Q_H * p.q_stride) - i32(p.pad), m < rows);
        x0[r] = i32(m % Q_W * p.q_stride) - i32(p.pad);
        image[r] = m / (Q_H * Q_W) * p.in_h;
    }
    let wm = subgroup % 2u * 4u * SIDE;
    let wn = subgroup / 2u * 2u * SIDE;
    var c00 = Result();
    var c01 = Result();
    var c10 = Result();
    var c11 = Result();
    var c20 = Result();
    var c21 = Result();
    var c30 = Result();
    var c31 = Result();
    let chunks = (ci4 + K4 - 1u) / K4;
    let steps = p.kernel * p.kernel * chunks;
    var next_x: array<vec4<f16>, X_LOADS>;
    var next_w: array<vec4<f16>, W_LOADS>;
    for (var step = 0u; step < steps; step++) {
        // The first tile is loaded here, the others while the one before is multiplied.
        if (step == 0u) {
            for (var r = 0u; r < X_LOADS; r++) { // unrolled
                next_x[r] = x_at(y0[r], x0[r], image[r], 0u, load_c);
            }
            for (var r = 0u; r < W_LOADS; r++) { // unrolled
                next_w[r] = w_at(0u, (lid + r * THREADS) / N4, n4 + (lid + r * THREADS) % N4);
            }
        }
        workgroupBarrier();
        for (var r = 0u; r < X_LOADS; r++) { // unrolled
            tile_x[(lid + r * THREADS) / K4 * X_STRIDE + load_c] = next_x[r];
        }
        for (var r = 0u; r < W_LOADS; r++) { // unrolled
            let i = lid + r * THREADS;
            tile_w[i / N4 * W_STRIDE + i % N4] = next_w[r];
        }
        workgroupBarrier();
        if (step + 1u < steps) {
            let tap = (step + 1u) / chunks;
            let c4 = (step + 1u) % chunks * K4;
            for (var r = 0u; r < X_LOADS; r++) { // unrolled
                next_x[r] = x_at(y0[r], x0[r], image[r], tap, c4 + load_c);
            }
            for (var r = 0u; r < W_LOADS; r++) { // unrolled
                let i = lid + r * THREADS;
                next_w[r] = w_at(tap, c4 * 4u + i / N4, n4 + i % N4);
            }
        }
        for (var k = 0u; k < 2u; k++) { // unrolled
            let b0 = coopLoadT<Right>(&tile_w[k * SIDE * W_STRIDE + wn / 4u], W_STRIDE);
            let b1 = coopLoadT<Right>(&tile_w[k * SIDE * W_STRIDE + (wn + SIDE) / 4u], W_STRIDE);
            let a0 = coopLoadT<Left>(&tile_x[wm * X_STRIDE + k * SIDE / 4u], X_STRIDE);
            let a1 = coopLoadT<Left>(&tile_x[(wm + SIDE) * X_STRIDE + k * SIDE / 4u], X_STRIDE);
            let a2 = coopLoadT<Left>(&tile_x[(wm + 2u * SIDE) * X_STRIDE + k * SIDE / 4u], X_STRIDE);
            let a3 = coopLoadT<Left>(&tile_x[(wm + 3u * SIDE) * X_STRIDE + k * SIDE / 4u], X_STRIDE);
            c00 = coopMultiplyAdd(a0, b0, c00);
            c01 = coopMultiplyAdd(a0, b1, c01);
            c10 = coopMultiplyAdd(a1, b0, c10);
            c11 = coopMultiplyAdd(a1, b1, c11);
            c20 = coopMultiplyAdd(a2, b0, c20);
            c21 = coopMultiplyAdd(a2, b1, c21);
            c30 = coopMultiplyAdd(a3, b0, c30);
            c31 = coopMultiplyAdd(a3, b1, c31);
        }
    }
    let at = subgroup * SIDE * C_STRIDE;
    let m = m0 + wm;
    let n = n4 + wn / 4u;
    coopStoreT(c00, &result[at], C_STRIDE);
    put(subgroup, lane, m, n);
    coopStoreT(c01, &result[at], C_STRIDE);
    put(subgroup, lane, m, n + SIDE / 4u);
    coopStoreT(c10, &result[at], C_STRIDE);
    put(subgroup, lane, m + SIDE, n);
    coopStoreT(c11, &result[at], C_STRIDE);
    put(subgroup, lane, m + SIDE, n + SIDE / 4u);
    coopStoreT(c20, &result[at], C_STRIDE);
    put(subgroup, lane, m + 2u * SIDE, n);
    coopStoreT(c21, &result[at], C_STRIDE);
    put(subgroup, lane, m + 2u * SIDE, n + SIDE / 4u);
    coopStoreT(c30, &result[at], C_STRIDE);
    put(subgroup, lane, m + 3u * SIDE, n);
    coopStoreT(c31, &result[at], C_STRIDE);
    put(subgroup, lane, m + 3u * SIDE, n + SIDE / 4u);
}
