// part[split, tap, ci, co] = sum over the split's output pixels of x[n, oy * S + ky - pad, ox * S + kx - pad, ci] * dy[n, oy, ox, co].
// For software adapters: no barriers; lanes run over output channels (one Column of WIDTH channels each), addresses of x
// are the same for the whole workgroup, ROWS input channels a workgroup. x, dy: NHWC f32.
// Grid: (c_out / (LANES * WIDTH) x c_in / ROWS, taps, splits).
struct Params {
    batch: u32,
    in_h: u32,
    in_w: u32,
    in_c: u32,
    out_h: u32,
    out_w: u32,
    out_c: u32,
    kernel: u32,
    pad: u32,
    stride: u32,
    splits: u32,
    chunk: u32,
    x_format: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dy: array<Column>;
@group(0) @binding(3) var<storage, read_write> part: array<Column>;
const ROWS4 = ROWS / 4u;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let cols = p.out_c / WIDTH;
    let blocks = cols / LANES;
    let col = (wg.x % blocks) * LANES + lid;
    let c0 = (wg.x / blocks) * ROWS4;
    let ci4 = p.in_c / 4u;
    let ky = i32(wg.y / p.kernel) - i32(p.pad);
    let kx = i32(wg.y % p.kernel) - i32(p.pad);
    let pixels = p.out_h * p.out_w;
    let first = wg.z * p.chunk;
    let last = min(first + p.chunk, p.batch * pixels);
    var acc: array<Column, ROWS>;
    for (var k = first; k < last; k++) {
        let iy = i32(((k % pixels) / p.out_w) * p.stride) + ky;
        let ix = i32((k % p.out_w) * p.stride) + kx;
        let inside = iy >= 0 && iy < i32(p.in_h) && ix >= 0 && ix < i32(p.in_w);
        let base = select(0u, ((k / pixels * p.in_h + u32(iy)) * p.in_w + u32(ix)) * ci4 + c0, inside);
        let g = dy[k * cols + col] * select(0.0, 1.0, inside);
        for (var r = 0u; r < ROWS4; r++) {
            let a = x[base + r];
            acc[4u * r] += a.x * g;
            acc[4u * r + 1u] += a.y * g;
            acc[4u * r + 2u] += a.z * g;
            acc[4u * r + 3u] += a.w * g;
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        part[((wg.z * p.kernel * p.kernel + wg.y) * p.in_c + c0 * 4u + r) * cols + col] = acc[r];
    }
}
