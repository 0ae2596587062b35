// part[split, tap, ci, co] = sum over the split's output pixels of x[n, oy * S + ky - pad, ox * S + kx - pad, ci] * dy[n, oy, ox, co], on
// matrix units (see matrices): M = taps x c_in, N = c_out, K = pixels (Q_H x Q_W a picture). x in the variant's operand format, dy f32.
// Codes are exact in f16, real operands are lifted and split (see halves). Grid: (M tiles x N tiles, 1, splits).
//use wgrad_params
//use halves
//use matrices
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> maxima: array<u32>;
@group(0) @binding(4) var<storage, read_write> part: array<vec4<f32>>;
// Rows of x, the pixels: 16 bytes longer than they have to be, as those of dy.
const LEFT_STRIDE = M4 + 2u;
const LEFT_LOW = TILE_K * LEFT_STRIDE;
var<workgroup> tile_left: array<vec4<f16>, LEFT_TERMS * LEFT_LOW>;
var<private> split: u32;
var<private> first: u32;
var<private> last: u32;
var<private> m4: u32;
var<private> n4: u32;

fn begin(wg: vec3<u32>, lid: u32) -> Task {
    let tiles_n = (p.out_c + TILE_N - 1u) / TILE_N;
    split = wg.z;
    first = split * p.chunk;
    last = min(first + p.chunk, p.batch * Q_H * Q_W);
    m4 = wg.x / tiles_n * M4;
    n4 = wg.x % tiles_n * N4;
    lift_operands(p.x_max, p.dy_max);
    return Task(m4 * 4u, n4, (last - first + TILE_K - 1u) / TILE_K);
}

// What a pixel multiplies for four rows of the result.
fn left_at(step: u32, r: u32, lid: u32) -> LeftHeld {
    let i = lid + r * THREADS;
    let pixel = first + step * TILE_K + i / M4;
    let ci4 = p.in_c / 4u;
    let row4 = m4 + i % M4;
    let tap = row4 / ci4;
    let iy = i32(pixel / Q_W % Q_H * p.stride + tap / p.kernel) - i32(p.pad);
    let ix = i32(pixel % Q_W * p.stride + tap % p.kernel) - i32(p.pad);
    var v = vec4<f32>();
    if (pixel < last && tap < p.kernel * p.kernel && u32(iy) < p.in_h && u32(ix) < p.in_w) {
        v = decode(operand(((pixel / (Q_H * Q_W) * p.in_h + u32(iy)) * p.in_w + u32(ix)) * ci4 + row4 % ci4)) * lifts.x;
    }
    return LeftHeld(v);
}

fn right_at(step: u32, r: u32, lid: u32) -> RightHeld {
    let i = lid + r * THREADS;
    let pixel = first + step * TILE_K + i / N4;
    let n = n4 + i % N4;
    var v = vec4<f32>();
    if (pixel < last && n < p.out_c / 4u) {
        v = dy[pixel * (p.out_c / 4u) + n] * lifts.y;
    }
    return RightHeld(v);
}

fn left_slot(i: u32) -> u32 {
    return i / M4 * LEFT_STRIDE + i % M4;
}

// The tile has the pixels as rows: it is loaded transposed.
fn left_matrix(low: u32, m: u32, k: u32) -> Left {
    return coopLoad<Left>(&tile_left[low + k * LEFT_STRIDE + m / 4u], LEFT_STRIDE);
}

fn store(m: u32, n4: u32, v: vec4<f32>) {
    let rows = p.kernel * p.kernel * p.in_c;
    if (m < rows && n4 < p.out_c / 4u) {
        part[p.part4 + (split * rows + m) * (p.out_c / 4u) + n4] = v;
    }
}
