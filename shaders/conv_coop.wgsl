// out[n, oy, ox, co] (+)= sum over taps, ci of x[n, iy, ix, ci] * w[tap, ci, co] on matrix units: forward convolution or data
// gradient (see gather). Implicit GEMM: M = pixels of one parity class (Q_H x Q_W a picture), N = c_out, K = taps x c_in.
// x: NHWC in the variant's operand format; w: (taps, c_in, c_out) f32. Codes are exact in f16 and are added in f32: of codes and codes
// this gives the same numbers as any other variant, where no sum passes 2^24. Real operands are lifted and split (see halves).
// The next tile is in registers while this one is multiplied. Names are written out because matrices cannot be in arrays.
// Grid: (M / (8 SIDE), N / (4 SIDE), parity classes).
//use conv_params
//use gather
//use halves
//use matrices
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> maxima: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;
const X_LOADS = TILE_M * K4 / THREADS;
const W_LOADS = TILE_K * N4 / THREADS;
// Rows are 16 bytes longer than they have to be: neighbours lie in different banks.
const X_STRIDE = K4 + 2u;
const W_STRIDE = N4 + 2u;
const LEFT_LOW = TILE_M * X_STRIDE;
const RIGHT_LOW = TILE_K * W_STRIDE;
var<workgroup> tile_x: array<vec4<f16>, LEFT_TERMS * LEFT_LOW>;
var<workgroup> tile_w: array<vec4<f16>, RIGHT_TERMS * RIGHT_LOW>;

// Four channels of a pixel of x: those at c4, of the picture whose first line is `image`.
fn x_at(iy: i32, ix: i32, image: u32, c4: u32, lifted: f32) -> LeftHeld {
    var v = vec4<f32>();
    if (c4 < p.in_c / 4u && u32(iy) < p.in_h && u32(ix) < p.in_w) {
        v = decode(x[((image + u32(iy)) * p.in_w + u32(ix)) * (p.in_c / 4u) + c4]) * lifted;
    }
    return LeftHeld(v);
}

// The weights of input channel c of a tap for four output channels.
fn w_at(tap: u32, c: u32, n4: u32, lifted: f32) -> RightHeld {
    var v = vec4<f32>();
    if (c < p.in_c && n4 < p.out_c / 4u) {
        v = w[p.w_base + (tap * p.in_c + c) * (p.out_c / 4u) + n4] * lifted;
    }
    return RightHeld(v);
}

// Copies a subgroup's matrix, whose first pixel is m and first vec4 of channels n, from workgroup memory; `parity` is that of the class.
fn put(subgroup: u32, lane: u32, m: u32, n: u32, parity: vec2<u32>, factor: vec2<f32>) {
    workgroupBarrier();
    for (var i = lane; i < SIDE * SIDE / 4u; i += LANES) {
        let row = i / (SIDE / 4u);
        let q = i % (SIDE / 4u);
        let pixel = m + row;
        let oy = pixel / Q_W % Q_H * p.parities + parity.y;
        let ox = pixel % Q_W * p.parities + parity.x;
        if (pixel < p.batch * Q_H * Q_W && oy < p.out_h && ox < p.out_w && n + q < p.out_c / 4u) {
            let r = (subgroup * SIDE + row) * C_STRIDE + 4u * q;
            let o = ((pixel / (Q_H * Q_W) * p.out_h + oy) * p.out_w + ox) * (p.out_c / 4u) + n + q;
            var v = vec4<f32>(result[r], result[r + 1u], result[r + 2u], result[r + 3u]);
            v = v * factor.x * factor.y;
            if (p.accumulate == 1u) {
                v += out[o];
            }
            out[o] = v;
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
    let parity = vec2<u32>(wg.z % p.parities, wg.z / p.parities);
    let ay = axis(p.backward, parity.y, p.kernel, p.pad, p.stride);
    let ax = axis(p.backward, parity.x, p.kernel, p.pad, p.stride);
    var lifted = vec2<f32>(1.0);
    var factor = vec2<f32>(1.0);
    if (LEFT_LIFTED) {
        lifted.x = lift(maxima[p.x_max]);
        factor.x = unlift(maxima[p.x_max]);
    }
    if (RIGHT_LIFTED) {
        lifted.y = lift(maxima[p.w_max]);
        factor.y = unlift(maxima[p.w_max]);
    }
    let load_c = lid % K4;
    var y0: array<i32, X_LOADS>;
    var x0: array<i32, X_LOADS>;
    var image: array<u32, X_LOADS>;
    for (var r = 0u; r < X_LOADS; r++) { // unrolled
        let m = m0 + (lid + r * THREADS) / K4;
        // A pixel too many reads zeros.
        y0[r] = select(-1000000i, i32(m / Q_W % Q_H * p.q_stride) + ay.offset, m < rows);
        x0[r] = i32(m % Q_W * p.q_stride) + ax.offset;
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
    let steps = ay.count * ax.count * chunks;
    var next_x: array<LeftHeld, X_LOADS>;
    var next_w: array<RightHeld, W_LOADS>;
    for (var step = 0u; step < steps; step++) {
        // The first tile is loaded here, the others while the one before is multiplied.
        if (step == 0u) {
            let tap = ay.first * p.kernel + ax.first;
            for (var r = 0u; r < X_LOADS; r++) { // unrolled
                next_x[r] = x_at(y0[r], x0[r], image[r], load_c, lifted.x);
            }
            for (var r = 0u; r < W_LOADS; r++) { // unrolled
                let i = lid + r * THREADS;
                next_w[r] = w_at(tap, i / N4, n4 + i % N4, lifted.y);
            }
        }
        workgroupBarrier();
        for (var r = 0u; r < X_LOADS; r++) { // unrolled
            let o = (lid + r * THREADS) / K4 * X_STRIDE + load_c;
            if (LEFT_TERMS == 1u) {
                tile_x[o] = vec4<f16>(next_x[r]);
            } else {
                let v = vec4<f32>(next_x[r]);
                tile_x[o] = vec4<f16>(high(v));
                tile_x[LEFT_LOW + o] = vec4<f16>(v - high(v));
            }
        }
        for (var r = 0u; r < W_LOADS; r++) { // unrolled
            let i = lid + r * THREADS;
            let o = i / N4 * W_STRIDE + i % N4;
            if (RIGHT_TERMS == 1u) {
                tile_w[o] = vec4<f16>(next_w[r]);
            } else {
                let v = vec4<f32>(next_w[r]);
                tile_w[o] = vec4<f16>(high(v));
                tile_w[RIGHT_LOW + o] = vec4<f16>(v - high(v));
            }
        }
        workgroupBarrier();
        if (step + 1u < steps) {
            let t = (step + 1u) / chunks;
            let ty = t / ax.count;
            let tx = t % ax.count;
            let tap = (ay.first + ty * ay.step) * p.kernel + ax.first + tx * ax.step;
            let c4 = (step + 1u) % chunks * K4;
            for (var r = 0u; r < X_LOADS; r++) { // unrolled
                next_x[r] = x_at(y0[r] + ay.dir * i32(ty), x0[r] + ax.dir * i32(tx), image[r], c4 + load_c, lifted.x);
            }
            for (var r = 0u; r < W_LOADS; r++) { // unrolled
                let i = lid + r * THREADS;
                next_w[r] = w_at(tap, c4 * 4u + i / N4, n4 + i % N4, lifted.y);
            }
        }
        for (var turn = 0u; turn < TURNS; turn++) { // unrolled
            let left = select(0u, LEFT_LOW, LEFT_TERMS == 2u && turn == LOW_LEFT_TURN);
            let right = select(0u, RIGHT_LOW, RIGHT_TERMS == 2u && turn == LOW_RIGHT_TURN);
            for (var k = 0u; k < K_STEPS; k++) { // unrolled
                let b0 = coopLoadT<Right>(&tile_w[right + k * SIDE * W_STRIDE + (wn + 0u * SIDE) / 4u], W_STRIDE);
                let b1 = coopLoadT<Right>(&tile_w[right + k * SIDE * W_STRIDE + (wn + 1u * SIDE) / 4u], W_STRIDE);
                let a0 = coopLoadT<Left>(&tile_x[left + (wm + 0u * SIDE) * X_STRIDE + k * SIDE / 4u], X_STRIDE);
                let a1 = coopLoadT<Left>(&tile_x[left + (wm + 1u * SIDE) * X_STRIDE + k * SIDE / 4u], X_STRIDE);
                let a2 = coopLoadT<Left>(&tile_x[left + (wm + 2u * SIDE) * X_STRIDE + k * SIDE / 4u], X_STRIDE);
                let a3 = coopLoadT<Left>(&tile_x[left + (wm + 3u * SIDE) * X_STRIDE + k * SIDE / 4u], X_STRIDE);
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
    }
    let at = subgroup * SIDE * C_STRIDE;
    let m = m0 + wm;
    let n = n4 + wn / 4u;
    coopStoreT(c00, &result[at], C_STRIDE);
    put(subgroup, lane, m, n, parity, factor);
    coopStoreT(c01, &result[at], C_STRIDE);
    put(subgroup, lane, m, n + SIDE / 4u, parity, factor);
    coopStoreT(c10, &result[at], C_STRIDE);
    put(subgroup, lane, m + SIDE, n, parity, factor);
    coopStoreT(c11, &result[at], C_STRIDE);
    put(subgroup, lane, m + SIDE, n + SIDE / 4u, parity, factor);
    coopStoreT(c20, &result[at], C_STRIDE);
    put(subgroup, lane, m + 2u * SIDE, n, parity, factor);
    coopStoreT(c21, &result[at], C_STRIDE);
    put(subgroup, lane, m + 2u * SIDE, n + SIDE / 4u, parity, factor);
    coopStoreT(c30, &result[at], C_STRIDE);
    put(subgroup, lane, m + 3u * SIDE, n, parity, factor);
    coopStoreT(c31, &result[at], C_STRIDE);
    put(subgroup, lane, m + 3u * SIDE, n + SIDE / 4u, parity, factor);
}
