// out[n, oy, ox, co] (+)= sum over taps, ci of x[n, iy, ix, ci] * w[tap, ci, co] on matrix units (see matrices): forward convolution
// or data gradient (see gather). Implicit GEMM: M = pixels of one parity class (Q_H x Q_W a picture), N = c_out, K = taps x c_in.
// x: NHWC in the variant's operand format; w: (taps, c_in, c_out) in its weight format. Codes are exact in f16 and are added in f32: of codes and codes
// this gives the same numbers as any other variant, where no sum passes 2^24. Real operands are lifted and split (see halves).
// Grid: (M / (8 SIDE), N / (4 SIDE), parity classes).
//use quant
//use act_params
//use conv_params
//use gather
//use halves
//use matrices
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read> w: array<Weight>;
@group(0) @binding(3) var<storage, read> maxima: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;
// Rows of x: 16 bytes longer than they have to be, as those of w.
const LEFT_STRIDE = K4 + 2u;
const LEFT_LOW = TILE_M * LEFT_STRIDE;
var<workgroup> tile_left: array<vec4<f16>, LEFT_TERMS * LEFT_LOW>;
var<private> rows: Axis;
var<private> columns: Axis;
var<private> parity: vec2<u32>; // column, row
var<private> n4: u32;
// Per load of x: where the first tap reads, and the first line of the picture.
var<private> y0: array<i32, LEFT_LOADS>;
var<private> x0: array<i32, LEFT_LOADS>;
var<private> image: array<u32, LEFT_LOADS>;

fn begin(wg: vec3<u32>, lid: u32) -> Task {
    parity = vec2<u32>(wg.z % p.parities, wg.z / p.parities);
    rows = axis(p.backward, parity.y, p.kernel, p.pad, p.stride);
    columns = axis(p.backward, parity.x, p.kernel, p.pad, p.stride);
    lift_operands(p.x_max, p.w_max);
    for (var r = 0u; r < LEFT_LOADS; r++) { // unrolled
        let m = wg.x * TILE_M + (lid + r * THREADS) / K4;
        // A pixel too many reads zeros.
        y0[r] = select(-1000000i, i32(m / Q_W % Q_H * p.q_stride) + rows.offset, m < p.batch * Q_H * Q_W);
        x0[r] = i32(m % Q_W * p.q_stride) + columns.offset;
        image[r] = m / (Q_H * Q_W) * p.in_h;
    }
    n4 = wg.y * N4;
    return Task(wg.x * TILE_M, n4, rows.count * columns.count * chunks());
}

// Tiles along the input channels of a tap.
fn chunks() -> u32 {
    return (p.in_c / 4u + K4 - 1u) / K4;
}

// Four channels of a pixel of x.
fn left_at(step: u32, r: u32, lid: u32) -> LeftHeld {
    let tap = step / chunks();
    let iy = y0[r] + rows.dir * i32(tap / columns.count);
    let ix = x0[r] + columns.dir * i32(tap % columns.count);
    let c4 = step % chunks() * K4 + lid % K4;
    var v = vec4<f32>();
    if (c4 < p.in_c / 4u && u32(iy) < p.in_h && u32(ix) < p.in_w) {
        v = decode(operand(((image[r] + u32(iy)) * p.in_w + u32(ix)) * (p.in_c / 4u) + c4)) * lifts.x;
    }
    return LeftHeld(v);
}

// The weights of an input channel of a tap for four output channels.
fn right_at(step: u32, r: u32, lid: u32) -> RightHeld {
    let t = step / chunks();
    let tap = (rows.first + t / columns.count * rows.step) * p.kernel + columns.first + t % columns.count * columns.step;
    let i = lid + r * THREADS;
    let c = step % chunks() * TILE_K + i / N4;
    let n = n4 + i % N4;
    var v = vec4<f32>();
    if (c < p.in_c && n < p.out_c / 4u) {
        v = weights(p.w_base + (tap * p.in_c + c) * (p.out_c / 4u) + n) * lifts.y;
    }
    return RightHeld(v);
}

fn left_slot(i: u32) -> u32 {
    return i / K4 * LEFT_STRIDE + i % K4;
}

fn left_matrix(low: u32, m: u32, k: u32) -> Left {
    return coopLoadT<Left>(&tile_left[low + m * LEFT_STRIDE + k / 4u], LEFT_STRIDE);
}

fn store(m: u32, n4: u32, v: vec4<f32>) {
    let oy = m / Q_W % Q_H * p.parities + parity.y;
    let ox = m % Q_W * p.parities + parity.x;
    if (m < p.batch * Q_H * Q_W && oy < p.out_h && ox < p.out_w && n4 < p.out_c / 4u) {
        let o = ((m / (Q_H * Q_W) * p.out_h + oy) * p.out_w + ox) * (p.out_c / 4u) + n4;
        if (p.accumulate == 1u) {
            out[o] += v;
        } else {
            out[o] = v;
        }
    }
}
