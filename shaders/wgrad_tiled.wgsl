// part[split, tap, ci, co] = sum over the split's output pixels of x[n, oy * S + ky - pad, ox * S + kx - pad, ci] * dy[n, oy, ox, co].
// For real GPUs: M = c_in, N = c_out, K = pixels (Q_H x Q_W a picture). x in the variant's operand format, dy f32.
// Tile TILE_M x TILE_N x TILE_K in workgroup memory, threads and loads as in conv_tiled.
// Grid: (c_in tiles x c_out tiles, taps, splits).
//use wgrad_params
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> maxima: array<u32>; // of wgrad_coop
@group(0) @binding(4) var<storage, read_write> part: array<vec4<f32>>;
const TILE_K = 8u;
const M4 = TILE_M / 4u;
const N4 = TILE_N / 4u;
const THREADS = TILE_M * TILE_N / 64u;
const X_LOADS = TILE_K * M4 / THREADS;
const DY_LOADS = TILE_K * N4 / THREADS;
var<workgroup> tile_x: array<vec4<f32>, TILE_K * M4>;
var<workgroup> tile_dy: array<vec4<f32>, TILE_K * N4>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let ci4 = p.in_c / 4u;
    let co4 = p.out_c / 4u;
    let tiles_n = (co4 + N4 - 1u) / N4;
    let m4 = wg.x / tiles_n * M4;
    let n4 = wg.x % tiles_n * N4;
    let ky = i32(wg.y / p.kernel) - i32(p.pad);
    let kx = i32(wg.y % p.kernel) - i32(p.pad);
    let first = wg.z * p.chunk;
    let last = min(first + p.chunk, p.batch * Q_H * Q_W);
    let steps = (last - first + TILE_K - 1u) / TILE_K;
    let tn = lid % (N4 / 2u);
    let tm = lid / (N4 / 2u);
    var acc: array<vec4<f32>, 16>;
    for (var step = 0u; step <= steps; step++) {
        var next_x: array<vec4<f32>, X_LOADS>;
        var next_dy: array<vec4<f32>, DY_LOADS>;
        if (step < steps) {
            for (var r = 0u; r < X_LOADS; r++) { // unrolled
                let i = lid + r * THREADS;
                let k = first + step * TILE_K + i / M4;
                let c = m4 + i % M4;
                let iy = i32(k / Q_W % Q_H * p.stride) + ky;
                let ix = i32(k % Q_W * p.stride) + kx;
                next_x[r] = vec4<f32>(0.0);
                if (k < last && c < ci4 && u32(iy) < p.in_h && u32(ix) < p.in_w) {
                    next_x[r] = decode(operand(((k / (Q_H * Q_W) * p.in_h + u32(iy)) * p.in_w + u32(ix)) * ci4 + c));
                }
            }
            for (var r = 0u; r < DY_LOADS; r++) { // unrolled
                let i = lid + r * THREADS;
                let k = first + step * TILE_K + i / N4;
                let n = n4 + i % N4;
                next_dy[r] = vec4<f32>(0.0);
                if (k < last && n < co4) {
                    next_dy[r] = dy[k * co4 + n];
                }
            }
        }
        if (step > 0u) {
            for (var k = 0u; k < TILE_K; k++) {
                let a0 = tile_x[k * M4 + tm];
                let a1 = tile_x[k * M4 + M4 / 2u + tm];
                let b0 = tile_dy[k * N4 + tn];
                let b1 = tile_dy[k * N4 + N4 / 2u + tn];
                for (var i = 0u; i < 4u; i++) { // unrolled
                    acc[i] += a0[i] * b0;
                    acc[4u + i] += a0[i] * b1;
                    acc[8u + i] += a1[i] * b0;
                    acc[12u + i] += a1[i] * b1;
                }
            }
        }
        workgroupBarrier();
        if (step < steps) {
            for (var r = 0u; r < X_LOADS; r++) { // unrolled
                tile_x[lid + r * THREADS] = next_x[r];
            }
            for (var r = 0u; r < DY_LOADS; r++) { // unrolled
                tile_dy[lid + r * THREADS] = next_dy[r];
            }
        }
        workgroupBarrier();
    }
    for (var h = 0u; h < 2u; h++) { // unrolled
        for (var i = 0u; i < 4u; i++) { // unrolled
            let ci = (m4 + h * (M4 / 2u) + tm) * 4u + i;
            for (var j = 0u; j < 2u; j++) { // unrolled
                let n = n4 + j * (N4 / 2u) + tn;
                if (ci < p.in_c && n < co4) {
                    part[p.part4 + ((wg.z * p.kernel * p.kernel + wg.y) * p.in_c + ci) * co4 + n] = acc[8u * h + 4u * j + i];
                }
            }
        }
    }
}
