// out[n, oy, ox, co] (+)= sum over taps, ci of x[n, iy, ix, ci] * w[tap, ci, co]: forward convolution or data gradient
// (see gather). Implicit GEMM for real GPUs: M = pixels of one parity class (Q_H x Q_W a picture), N = c_out, K = taps x c_in.
// x: NHWC in the variant's operand format; w: (taps, c_in, c_out) in its weight format. Sums in its Sum4.
// The next tile (see conv_tile) is loaded into registers while this one is multiplied.
// Grid: (M / TILE_M, N / TILE_N, parity classes).
//use quant
//use act_params
//use conv_params
//use conv_tile
//use gather
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read> w: array<Weight>;
@group(0) @binding(3) var<storage, read> maxima: array<u32>; // of conv_coop
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;
const TILE_K = 8u;
const W_LOADS = TILE_K * N4 / THREADS;
var<workgroup> tile_x: array<Sum4, TILE_K * X_STRIDE>;
var<workgroup> tile_w: array<Sum4, TILE_K * N4>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let rows = p.batch * Q_H * Q_W;
    let ci4 = p.in_c / 4u;
    let co4 = p.out_c / 4u;
    let m0 = wg.x * TILE_M;
    let n4 = wg.y * N4;
    let py = wg.z / p.parities;
    let px = wg.z % p.parities;
    let ay = axis(p.backward, py, p.kernel, p.pad, p.stride);
    let ax = axis(p.backward, px, p.kernel, p.pad, p.stride);
    let load_c = lid % K4;
    var y0: array<i32, X_LOADS>;
    var x0: array<i32, X_LOADS>;
    var image: array<u32, X_LOADS>;
    for (var r = 0u; r < X_LOADS; r++) { // unrolled
        let item = lid + r / 4u * THREADS;
        let m = m0 + item / K4 * 4u + r % 4u;
        // A pixel too many reads zeros.
        y0[r] = select(-1000000i, i32(m / Q_W % Q_H * p.q_stride) + ay.offset, item < X_ITEMS && m < rows);
        x0[r] = i32(m % Q_W * p.q_stride) + ax.offset;
        image[r] = m / (Q_H * Q_W) * p.in_h;
    }
    let tn = lid % (N4 / 2u);
    let tm = lid / (N4 / 2u);
    var acc: array<Sum4, 16>;
    let chunks = (ci4 + K4 - 1u) / K4;
    let steps = ay.count * ax.count * chunks;
    for (var step = 0u; step <= steps; step++) {
        var next_x: array<Sum4, X_LOADS>;
        var next_w: array<Sum4, W_LOADS>;
        if (step < steps) {
            let t = step / chunks;
            let ty = t / ax.count;
            let tx = t % ax.count;
            let tap = (ay.first + ty * ay.step) * p.kernel + ax.first + tx * ax.step;
            let c4 = step % chunks * K4;
            for (var r = 0u; r < X_LOADS; r++) { // unrolled
                let iy = y0[r] + ay.dir * i32(ty);
                let ix = x0[r] + ax.dir * i32(tx);
                let c = c4 + load_c;
                next_x[r] = Sum4();
                if (c < ci4 && u32(iy) < p.in_h && u32(ix) < p.in_w) {
                    next_x[r] = Sum4(decode(operand(((image[r] + u32(iy)) * p.in_w + u32(ix)) * ci4 + c)));
                }
            }
            for (var r = 0u; r < W_LOADS; r++) { // unrolled
                let i = lid + r * THREADS;
                let c = c4 * 4u + i / N4;
                let n = n4 + i % N4;
                next_w[r] = Sum4();
                if (c < p.in_c && n < co4) {
                    next_w[r] = Sum4(weights(p.w_base + (tap * p.in_c + c) * co4 + n));
                }
            }
        }
        if (step > 0u) {
            for (var k = 0u; k < TILE_K; k++) {
                let a0 = tile_x[k * X_STRIDE + tm];
                let a1 = tile_x[k * X_STRIDE + M4 / 2u + tm];
                let b0 = tile_w[k * N4 + tn];
                let b1 = tile_w[k * N4 + N4 / 2u + tn];
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
            for (var t = 0u; t < X_TURNS; t++) { // unrolled
                let item = lid + t * THREADS;
                if (item < X_ITEMS) {
                    for (var i = 0u; i < 4u; i++) { // unrolled
                        let v = Sum4(next_x[4u * t][i], next_x[4u * t + 1u][i], next_x[4u * t + 2u][i], next_x[4u * t + 3u][i]);
                        tile_x[(load_c * 4u + i) * X_STRIDE + item / K4] = v;
                    }
                }
            }
            for (var r = 0u; r < W_LOADS; r++) { // unrolled
                tile_w[lid + r * THREADS] = next_w[r];
            }
        }
        workgroupBarrier();
    }
    for (var h = 0u; h < 2u; h++) { // unrolled
        for (var i = 0u; i < 4u; i++) { // unrolled
            let m = m0 + h * (TILE_M / 2u) + tm * 4u + i;
            let oy = m / Q_W % Q_H * p.parities + py;
            let ox = m % Q_W * p.parities + px;
            if (m < rows && oy < p.out_h && ox < p.out_w) {
                let o = ((m / (Q_H * Q_W) * p.out_h + oy) * p.out_w + ox) * co4;
                for (var j = 0u; j < 2u; j++) { // unrolled
                    let n = n4 + j * (N4 / 2u) + tn;
                    if (n < co4) {
                        var v = total(acc[8u * h + 4u * j + i]);
                        if (p.accumulate == 1u) {
                            v += out[o + n];
                        }
                        out[o + n] = v;
                    }
                }
            }
        }
    }
    finish(m0, n4, wg.z, lid);
}
