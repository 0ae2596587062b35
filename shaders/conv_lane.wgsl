// out[n, oy, ox, co] (+)= sum over taps, ci of x[n, iy, ix, ci] * w[tap, ci, co]: forward convolution or data gradient
// (see gather). For software adapters: no barriers, no workgroup memory; lanes run over output channels (one Column of
// WIDTH channels each), every address of x is the same for the whole workgroup, the border is a select, never a branch.
// x: NHWC f32; w: (taps, c_in, c_out) f32. Grid: (c_out / (LANES * WIDTH), pixels of one parity class / ROWS, classes).
//use gather
struct Params {
    batch: u32,
    in_h: u32,
    in_w: u32,
    in_c: u32,
    out_h: u32,
    out_w: u32,
    out_c: u32,
    q_h: u32,
    q_w: u32,
    parities: u32,
    q_stride: u32,
    kernel: u32,
    pad: u32,
    stride: u32,
    backward: u32,
    accumulate: u32,
    x_format: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<Column>;
@group(0) @binding(3) var<storage, read_write> out: array<Column>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let ci4 = p.in_c / 4u;
    let cols = p.out_c / WIDTH;
    let col = wg.x * LANES + lid;
    let pixels = p.q_h * p.q_w;
    let rows = p.batch * pixels;
    let py = wg.z / p.parities;
    let px = wg.z % p.parities;
    let ay = axis(p.backward, py, p.kernel, p.pad, p.stride);
    let ax = axis(p.backward, px, p.kernel, p.pad, p.stride);
    var acc: array<Column, ROWS>;
    for (var ty = 0u; ty < ay.count; ty++) {
        for (var tx = 0u; tx < ax.count; tx++) {
            var base: array<u32, ROWS>;
            var keep: array<f32, ROWS>;
            for (var r = 0u; r < ROWS; r++) {
                let m = min(wg.y * ROWS + r, rows - 1u);
                let iy = i32(((m % pixels) / p.q_w) * p.q_stride) + ay.offset + i32(ty) * ay.dir;
                let ix = i32((m % p.q_w) * p.q_stride) + ax.offset + i32(tx) * ax.dir;
                let inside = iy >= 0 && iy < i32(p.in_h) && ix >= 0 && ix < i32(p.in_w);
                base[r] = select(0u, ((m / pixels * p.in_h + u32(iy)) * p.in_w + u32(ix)) * ci4, inside);
                keep[r] = select(0.0, 1.0, inside);
            }
            let tap = (ay.first + ty * ay.step) * p.kernel + ax.first + tx * ax.step;
            let wb = tap * p.in_c * cols + col;
            for (var c = 0u; c < ci4; c++) {
                let wi = wb + 4u * c * cols;
                let w0 = w[wi];
                let w1 = w[wi + cols];
                let w2 = w[wi + 2u * cols];
                let w3 = w[wi + 3u * cols];
                for (var r = 0u; r < ROWS; r++) {
                    let a = x[base[r] + c] * keep[r];
                    acc[r] += a.x * w0;
                    acc[r] += a.y * w1;
                    acc[r] += a.z * w2;
                    acc[r] += a.w * w3;
                }
            }
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        let m = wg.y * ROWS + r;
        let oy = ((m % pixels) / p.q_w) * p.parities + py;
        let ox = (m % p.q_w) * p.parities + px;
        if (m < rows && oy < p.out_h && ox < p.out_w) {
            let o = ((m / pixels * p.out_h + oy) * p.out_w + ox) * cols + col;
            if (p.accumulate == 1u) {
                out[o] += acc[r];
            } else {
                out[o] = acc[r];
            }
        }
    }
}
