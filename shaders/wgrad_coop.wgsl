// part[split, tap, ci, co] = sum over the split's output pixels of x[n, oy * S + ky - pad, ox * S + kx - pad, ci] * dy[n, oy, ox, co], on
// matrix units: M = taps x c_in, N = c_out, K = pixels (Q_H x Q_W a picture). x in the variant's operand format, dy f32. Codes are exact in
// f16, real operands are lifted and split (see halves). Tiles and loads as in conv_coop.
// Grid: (M tiles x N tiles, 1, splits).
//use wgrad_params
//use halves
//use matrices
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> maxima: array<u32>;
@group(0) @binding(4) var<storage, read_write> part: array<vec4<f32>>;
const X_LOADS = TILE_K * M4 / THREADS;
const DY_LOADS = TILE_K * N4 / THREADS;
// Rows are 16 bytes longer than they have to be: neighbours lie in different banks.
const X_STRIDE = M4 + 2u;
const DY_STRIDE = N4 + 2u;
const LEFT_LOW = TILE_K * X_STRIDE;
const RIGHT_LOW = TILE_K * DY_STRIDE;
var<workgroup> tile_x: array<vec4<f16>, LEFT_TERMS * LEFT_LOW>;
var<workgroup> tile_dy: array<vec4<f16>, RIGHT_TERMS * RIGHT_LOW>;

// What output pixel k multiplies for row m4 (four of them) of the result.
fn x_at(k: u32, last: u32, m4: u32, lifted: f32) -> LeftHeld {
    let ci4 = p.in_c / 4u;
    let tap = m4 / ci4;
    let iy = i32(k / Q_W % Q_H * p.stride + tap / p.kernel) - i32(p.pad);
    let ix = i32(k % Q_W * p.stride + tap % p.kernel) - i32(p.pad);
    var v = vec4<f32>();
    if (k < last && tap < p.kernel * p.kernel && u32(iy) < p.in_h && u32(ix) < p.in_w) {
        v = decode(x[((k / (Q_H * Q_W) * p.in_h + u32(iy)) * p.in_w + u32(ix)) * ci4 + m4 % ci4]) * lifted;
    }
    return LeftHeld(v);
}

fn dy_at(k: u32, last: u32, n4: u32, lifted: f32) -> RightHeld {
    var v = vec4<f32>();
    if (k < last && n4 < p.out_c / 4u) {
        v = dy[k * (p.out_c / 4u) + n4] * lifted;
    }
    return RightHeld(v);
}

// Copies a subgroup's matrix, whose first row is m and first vec4 of columns n, from workgroup memory.
fn put(subgroup: u32, lane: u32, m: u32, n: u32, split: u32, factor: vec2<f32>) {
    let rows = p.kernel * p.kernel * p.in_c;
    workgroupBarrier();
    for (var i = lane; i < SIDE * SIDE / 4u; i += LANES) {
        let row = i / (SIDE / 4u);
        let q = i % (SIDE / 4u);
        if (m + row < rows && n + q < p.out_c / 4u) {
            let r = (subgroup * SIDE + row) * C_STRIDE + 4u * q;
            let v = vec4<f32>(result[r], result[r + 1u], result[r + 2u], result[r + 3u]);
            part[(split * rows + m + row) * (p.out_c / 4u) + n + q] = v * factor.x * factor.y;
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
    let tiles_n = (p.out_c + TILE_N - 1u) / TILE_N;
    let m0 = wg.x / tiles_n * TILE_M;
    let n4 = wg.x % tiles_n * N4;
    let first = wg.z * p.chunk;
    let last = min(first + p.chunk, p.batch * Q_H * Q_W);
    let steps = (last - first + TILE_K - 1u) / TILE_K;
    var lifted = vec2<f32>(1.0);
    var factor = vec2<f32>(1.0);
    if (LEFT_LIFTED) {
        lifted.x = lift(maxima[p.x_max]);
        factor.x = unlift(maxima[p.x_max]);
    }
    if (RIGHT_LIFTED) {
        lifted.y = lift(maxima[p.dy_max]);
        factor.y = unlift(maxima[p.dy_max]);
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
    var next_x: array<LeftHeld, X_LOADS>;
    var next_dy: array<RightHeld, DY_LOADS>;
    for (var step = 0u; step < steps; step++) {
        // The first tile is loaded here, the others while the one before is multiplied.
        if (step == 0u) {
            for (var r = 0u; r < X_LOADS; r++) { // unrolled
                let i = lid + r * THREADS;
                next_x[r] = x_at(first + i / M4, last, m0 / 4u + i % M4, lifted.x);
            }
            for (var r = 0u; r < DY_LOADS; r++) { // unrolled
                let i = lid + r * THREADS;
                next_dy[r] = dy_at(first + i / N4, last, n4 + i % N4, lifted.y);
            }
        }
        workgroupBarrier();
        for (var r = 0u; r < X_LOADS; r++) { // unrolled
            let i = lid + r * THREADS;
            let o = i / M4 * X_STRIDE + i % M4;
            if (LEFT_TERMS == 1u) {
                tile_x[o] = vec4<f16>(next_x[r]);
            } else {
                let v = vec4<f32>(next_x[r]);
                tile_x[o] = vec4<f16>(high(v));
                tile_x[LEFT_LOW + o] = vec4<f16>(v - high(v));
            }
        }
        for (var r = 0u; r < DY_LOADS; r++) { // unrolled
            let i = lid + r * THREADS;
            let o = i / N4 * DY_STRIDE + i % N4;
            if (RIGHT_TERMS == 1u) {
                tile_dy[o] = vec4<f16>(next_dy[r]);
            } else {
                let v = vec4<f32>(next_dy[r]);
                tile_dy[o] = vec4<f16>(high(v));
                tile_dy[RIGHT_LOW + o] = vec4<f16>(v - high(v));
            }
        }
        workgroupBarrier();
        if (step + 1u < steps) {
            let k = first + (step + 1u) * TILE_K;
            for (var r = 0u; r < X_LOADS; r++) { // unrolled
                let i = lid + r * THREADS;
                next_x[r] = x_at(k + i / M4, last, m0 / 4u + i % M4, lifted.x);
            }
            for (var r = 0u; r < DY_LOADS; r++) { // unrolled
                let i = lid + r * THREADS;
                next_dy[r] = dy_at(k + i / N4, last, n4 + i % N4, lifted.y);
            }
        }
        for (var turn = 0u; turn < TURNS; turn++) { // unrolled
            let left = select(0u, LEFT_LOW, LEFT_TERMS == 2u && turn == LOW_LEFT_TURN);
            let right = select(0u, RIGHT_LOW, RIGHT_TERMS == 2u && turn == LOW_RIGHT_TURN);
            for (var k = 0u; k < K_STEPS; k++) { // unrolled
                let b0 = coopLoadT<Right>(&tile_dy[right + k * SIDE * DY_STRIDE + (wn + 0u * SIDE) / 4u], DY_STRIDE);
                let b1 = coopLoadT<Right>(&tile_dy[right + k * SIDE * DY_STRIDE + (wn + 1u * SIDE) / 4u], DY_STRIDE);
                let a0 = coopLoad<Left>(&tile_x[left + k * SIDE * X_STRIDE + (wm + 0u * SIDE) / 4u], X_STRIDE);
                let a1 = coopLoad<Left>(&tile_x[left + k * SIDE * X_STRIDE + (wm + 1u * SIDE) / 4u], X_STRIDE);
                let a2 = coopLoad<Left>(&tile_x[left + k * SIDE * X_STRIDE + (wm + 2u * SIDE) / 4u], X_STRIDE);
                let a3 = coopLoad<Left>(&tile_x[left + k * SIDE * X_STRIDE + (wm + 3u * SIDE) / 4u], X_STRIDE);
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
    put(subgroup, lane, m, n, wg.z, factor);
    coopStoreT(c01, &result[at], C_STRIDE);
    put(subgroup, lane, m, n + SIDE / 4u, wg.z, factor);
    coopStoreT(c10, &result[at], C_STRIDE);
    put(subgroup, lane, m + SIDE, n, wg.z, factor);
    coopStoreT(c11, &result[at], C_STRIDE);
    put(subgroup, lane, m + SIDE, n + SIDE / 4u, wg.z, factor);
    coopStoreT(c20, &result[at], C_STRIDE);
    put(subgroup, lane, m + 2u * SIDE, n, wg.z, factor);
    coopStoreT(c21, &result[at], C_STRIDE);
    put(subgroup, lane, m + 2u * SIDE, n + SIDE / 4u, wg.z, factor);
    coopStoreT(c30, &result[at], C_STRIDE);
    put(subgroup, lane, m + 3u * SIDE, n, wg.z, factor);
    coopStoreT(c31, &result[at], C_STRIDE);
    put(subgroup, lane, m + 3u * SIDE, n + SIDE / 4u, wg.z, factor);
}
