// part[split, tap, ci, co] = sum over the split's output pixels of x[n, oy * S + ky - pad, ox * S + kx - pad, ci] * dy[n, oy, ox, co].
// For real GPUs: M = c_in, N = c_out, K = pixels; tile TILE x TILE x 16 in workgroup memory, 4 x 4 outputs a thread.
// x in the variant's operand format, dy f32. Grid: (c_in tiles x c_out tiles, taps, splits).
//use wgrad_params
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> part: array<vec4<f32>>;
const TILE_K = 16u;
const COLS = TILE / 4u;
const THREADS = COLS * COLS;
var<workgroup> tile_x: array<vec4<f32>, TILE_K * COLS>;
var<workgroup> tile_dy: array<vec4<f32>, TILE_K * COLS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let tiles_n = (p.out_c + TILE - 1u) / TILE;
    let m0 = (wg.x / tiles_n) * TILE;
    let n0 = (wg.x % tiles_n) * TILE;
    let ky = i32(wg.y / p.kernel) - i32(p.pad);
    let kx = i32(wg.y % p.kernel) - i32(p.pad);
    let pixels = p.out_h * p.out_w;
    let first = wg.z * p.chunk;
    let last = min(first + p.chunk, p.batch * pixels);
    let tn = lid % COLS;
    let tm = lid / COLS;
    var acc: array<vec4<f32>, 4>;
    for (var k0 = first; k0 < last; k0 += TILE_K) {
        workgroupBarrier();
        for (var i = lid; i < TILE_K * COLS; i += THREADS) {
            let k = k0 + i / COLS;
            let ci = m0 + (i % COLS) * 4u;
            let co = n0 + (i % COLS) * 4u;
            let iy = i32(((k % pixels) / p.out_w) * p.stride) + ky;
            let ix = i32((k % p.out_w) * p.stride) + kx;
            var a = vec4<f32>(0.0);
            if (k < last && ci < p.in_c && iy >= 0 && iy < i32(p.in_h) && ix >= 0 && ix < i32(p.in_w)) {
                a = decode(x[((k / pixels * p.in_h + u32(iy)) * p.in_w + u32(ix)) * (p.in_c / 4u) + ci / 4u]);
            }
            tile_x[i] = a;
            var b = vec4<f32>(0.0);
            if (k < last && co < p.out_c) {
                b = dy[k * (p.out_c / 4u) + co / 4u];
            }
            tile_dy[i] = b;
        }
        workgroupBarrier();
        for (var k = 0u; k < TILE_K; k++) {
            let a = tile_x[k * COLS + tm];
            let b = tile_dy[k * COLS + tn];
            acc[0] += a.x * b;
            acc[1] += a.y * b;
            acc[2] += a.z * b;
            acc[3] += a.w * b;
        }
    }
    for (var i = 0u; i < 4u; i++) {
        let ci = m0 + tm * 4u + i;
        let co = n0 + tn * 4u;
        if (ci < p.in_c && co < p.out_c) {
            part[(((wg.z * p.kernel * p.kernel + wg.y) * p.in_c + ci) * p.out_c + co) / 4u] = acc[i];
        }
    }
}
