// out[n, oy, ox, co] = sum over taps, ci of x[n, iy, ix, ci] * w[tap, ci, co]: forward convolution of codes, four products at
// a time (dot4I8Packed), for GPUs without matrix units and for sums that f32 does not hold. Sums are exact in i32. Codes of w lie in
// -128 .. 127, as those of x do or, with SIGN_BITS 0x80808080, in 0 .. 255: these are taken as x - 128, padding too, and 128 sum(w) is put
// back. SIGN_BITS is 0 otherwise.
// x: NHWC, codes in the variant's operand format; w: (taps, c_in, c_out) in its weight format, packed as they are loaded.
// The next tile (see conv_tile) is loaded into registers while this one is multiplied.
// Grid: (M / TILE_M, N / TILE_N, 1), M = pixels (Q_H x Q_W a picture), N = c_out.
//use quant
//use act_params
//use conv_params
//use conv_tile
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read> w: array<Weight>;
@group(0) @binding(3) var<storage, read> maxima: array<u32>; // of conv_coop
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;
const TILE_K = 16u;
// Four by four channels each: as many as threads where TILE_M is 64, half as many where it is 128.
const W_LOADS = K4 * N4;
var<workgroup> tile_x: array<vec4<u32>, K4 * X_STRIDE>; // four pixels, four codes each
var<workgroup> tile_w: array<vec4<u32>, W_LOADS>;       // four output channels, four codes each

fn dots(a: u32, b: vec4<u32>) -> vec4<i32> {
    return vec4<i32>(dot4I8Packed(a, b.x), dot4I8Packed(a, b.y), dot4I8Packed(a, b.z), dot4I8Packed(a, b.w));
}

fn pack(v: vec4<f32>) -> u32 {
    return pack4xI8(vec4<i32>(v));
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let rows = p.batch * Q_H * Q_W;
    let ci4 = p.in_c / 4u;
    let co4 = p.out_c / 4u;
    let m0 = wg.x * TILE_M;
    let n4 = wg.y * N4;
    let load_c = lid % K4;
    var y0: array<i32, X_LOADS>;
    var x0: array<i32, X_LOADS>;
    var image: array<u32, X_LOADS>;
    for (var r = 0u; r < X_LOADS; r++) { // unrolled
        let item = lid + r / 4u * THREADS;
        let m = m0 + item / K4 * 4u + r % 4u;
        // A pixel too many reads code 0.
        y0[r] = select(-1000000i, i32(m / Q_W % Q_H * p.q_stride) - i32(p.pad), item < X_ITEMS && m < rows);
        x0[r] = i32(m % Q_W * p.q_stride) - i32(p.pad);
        image[r] = m / (Q_H * Q_W) * p.in_h;
    }
    let tn = lid % (N4 / 2u);
    let tm = lid / (N4 / 2u);
    var acc: array<vec4<i32>, 16>;
    var sum_w: array<vec4<i32>, 2>; // of the columns of both halves, where it is needed
    let chunks = (ci4 + K4 - 1u) / K4;
    let steps = p.kernel * p.kernel * chunks;
    for (var step = 0u; step <= steps; step++) {
        var next_x: array<u32, X_LOADS>;
        var next_w = vec4<u32>(0u);
        if (step < steps) {
            let tap = step / chunks;
            let c4 = step % chunks * K4;
            for (var r = 0u; r < X_LOADS; r++) { // unrolled
                let iy = y0[r] + i32(tap / p.kernel);
                let ix = x0[r] + i32(tap % p.kernel);
                let c = c4 + load_c;
                next_x[r] = SIGN_BITS;
                if (c < ci4 && u32(iy) < p.in_h && u32(ix) < p.in_w) {
                    next_x[r] = bytes(operand(((image[r] + u32(iy)) * p.in_w + u32(ix)) * ci4 + c)) ^ SIGN_BITS;
                }
            }
            let c = c4 + lid / N4;
            let n = n4 + lid % N4;
            if (lid < W_LOADS && c < ci4 && n < co4) {
                let o = p.w_base + (tap * p.in_c + 4u * c) * co4 + n;
                let v = transpose(mat4x4<f32>(weights(o), weights(o + co4), weights(o + 2u * co4), weights(o + 3u * co4)));
                next_w = vec4<u32>(pack(v[0]), pack(v[1]), pack(v[2]), pack(v[3]));
            }
        }
        if (step > 0u) {
            for (var k = 0u; k < K4; k++) {
                let a0 = tile_x[k * X_STRIDE + tm];
                let a1 = tile_x[k * X_STRIDE + M4 / 2u + tm];
                let b0 = tile_w[k * N4 + tn];
                let b1 = tile_w[k * N4 + N4 / 2u + tn];
                if (SIGN_BITS != 0u) {
                    sum_w[0] += dots(0x01010101u, b0);
                    sum_w[1] += dots(0x01010101u, b1);
                }
                for (var i = 0u; i < 4u; i++) { // unrolled
                    acc[i] += dots(a0[i], b0);
                    acc[4u + i] += dots(a0[i], b1);
                    acc[8u + i] += dots(a1[i], b0);
                    acc[12u + i] += dots(a1[i], b1);
                }
            }
        }
        workgroupBarrier();
        if (step < steps) {
            for (var t = 0u; t < X_TURNS; t++) { // unrolled
                let item = lid + t * THREADS;
                if (item < X_ITEMS) {
                    let v = vec4<u32>(next_x[4u * t], next_x[4u * t + 1u], next_x[4u * t + 2u], next_x[4u * t + 3u]);
                    tile_x[load_c * X_STRIDE + item / K4] = v;
                }
            }
            if (lid < W_LOADS) {
                tile_w[lid] = next_w;
            }
        }
        workgroupBarrier();
    }
    for (var h = 0u; h < 2u; h++) { // unrolled
        for (var i = 0u; i < 4u; i++) { // unrolled
            let m = m0 + h * (TILE_M / 2u) + tm * 4u + i;
            if (m < rows) {
                for (var j = 0u; j < 2u; j++) { // unrolled
                    let n = n4 + j * (N4 / 2u) + tn;
                    if (n < co4) {
                        out[m * co4 + n] = total(acc[8u * h + 4u * j + i] + 128 * sum_w[j]);
                    }
                }
            }
        }
    }
    finish(m0, n4, wg.z, lid);
}
