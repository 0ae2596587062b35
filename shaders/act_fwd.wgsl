// a = quantize(relu(batch_norm(y) + shortcut)) in one pass, with the statistics that range tracking needs.
// y, shortcut: (rows, C). SHORTCUT 0: none; 1: an earlier activation in the shortcut format, times its scale; 2: the
// projection's convolution output with its own batch norm. Output format: u8 codes, or f32 values.
// measure = 1 writes the statistics only. part: two vec4 an invocation: (max a, saturated, positive, 0), (sum a, sum a^2).
// Where POOL is set, a chunk of rows is a picture, and pooled (pictures, C) gets its mean, codes times their scale.
// Where KEEP_MAX is set, the largest value goes into maxima[max_row].
// Grid: one invocation a (chunk of rows, 4 channels).
//use index
//use quant
//use ranges
//use act_params
//use act
struct Params {
    rows: u32,
    cols4: u32,
    chunk: u32,
    measure: u32,
    pool: u32,     // fixed in the variant too
    keep_max: u32, // likewise
    max_row: u32,
    pad0: u32,
    act: ActParams,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> context: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> shortcut: array<Shortcut>;
@group(0) @binding(4) var<storage, read> ranges: array<RangeRow>;
@group(0) @binding(5) var<storage, read_write> out: array<Output>;
@group(0) @binding(6) var<storage, read_write> part: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> pooled: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> maxima: array<atomic<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    let col = i % p.cols4;
    let first = (i / p.cols4) * p.chunk;
    if (first >= p.rows) {
        return;
    }
    let last = min(first + p.chunk, p.rows);
    let k = act_channels(p.act, col, p.cols4);
    var top = vec4<f32>(0.0);
    var saturated = vec4<f32>(0.0);
    var positive = vec4<f32>(0.0);
    var sum = vec4<f32>(0.0);
    var squares = vec4<f32>(0.0);
    var codes = vec4<i32>(0);
    for (var r = first; r < last; r++) {
        let o = r * p.cols4 + col;
        var s = vec4<f32>(0.0);
        if (SHORTCUT != 0u) {
            s = decode_shortcut(shortcut[o]);
        }
        let a = max(pre_activation(k, y[o], s), vec4<f32>(0.0));
        top = max(top, a);
        sum += a;
        squares += a * a;
        positive += select(vec4<f32>(0.0), vec4<f32>(1.0), a > vec4<f32>(0.0));
        var code = vec4<i32>(0);
        if (QUANTIZED_OUTPUT) {
            code = quantize(k.quant, a, k.inv);
            codes += code;
            saturated += select(vec4<f32>(0.0), vec4<f32>(1.0), saturates(k.quant, a, k.inv));
        }
        if (p.measure == 0u) {
            out[o] = encode(code, a);
        }
    }
    if (POOL && p.measure == 0u) {
        let pixels = f32(p.chunk);
        if (QUANTIZED_OUTPUT) {
            pooled[i] = vec4<f32>(codes) * (ranges[p.act.range_row].scale / pixels);
        } else {
            pooled[i] = sum * (1.0 / pixels);
        }
    }
    let one = vec4<f32>(1.0);
    let most = max(max(top.x, top.y), max(top.z, top.w));
    if (KEEP_MAX) {
        atomicMax(&maxima[p.max_row], bitcast<u32>(most));
    }
    part[2u * i] = vec4<f32>(most, dot(saturated, one), dot(positive, one), 0.0);
    part[2u * i + 1u] = vec4<f32>(dot(sum, one), dot(squares, one), 0.0, 0.0);
}
