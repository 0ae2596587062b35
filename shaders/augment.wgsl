// out[n, y, x, :] = table[channel, pixel]: random crop with raw-zero padding, flip, cutout, normalisation by table.
// Picture n of the batch is number picks[n] of those in images and, from `first` on, in more: u8 planes (N, 3, S, S) packed in
// u32. table: 3 x 256 words, then 1 word for cut-out pixels; the words are
// either f32 bits or signed 8-bit codes. out: 4 f32 words a pixel, or one word of four i8 codes.
// Grid: one invocation a pixel.
//use index
//use rng
//use step
struct Params {
    batch: u32,
    size: u32,
    crop_padding: u32,
    flip: u32,
    cutout: u32,
    codes: u32,
    first: u32,
    pad0: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> images: array<u32>;
@group(0) @binding(2) var<storage, read> more: array<u32>;
@group(0) @binding(3) var<storage, read> picks: array<u32>;
@group(0) @binding(4) var<storage, read> step: Step;
@group(0) @binding(5) var<storage, read> table: array<u32>;
@group(0) @binding(6) var<storage, read_write> out: array<u32>;

fn pixel(n: u32, c: u32, y: u32, x: u32, ok: bool) -> u32 {
    let in_more = n >= p.first;
    let byte = select(0u, ((select(n, n - p.first, in_more) * 3u + c) * p.size + y) * p.size + x, ok);
    var word = 0u;
    if (in_more) {
        word = more[byte >> 2u];
    } else {
        word = images[byte >> 2u];
    }
    let v = (word >> (8u * (byte & 3u))) & 255u;
    return table[c * 256u + select(0u, v, ok)];
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    let n = i / (p.size * p.size);
    if (n >= p.batch) {
        return;
    }
    let y = (i / p.size) % p.size;
    let x = i % p.size;
    let span = 2u * p.crop_padding + 1u;
    let dy = random(step.seed, n, 0u) % span;
    let dx = random(step.seed, n, 1u) % span;
    let flipped = p.flip == 1u && (random(step.seed, n, 2u) & 1u) == 1u;
    let sy = y + dy - p.crop_padding; // wraps above the border, then fails the test
    let sx = select(x, p.size - 1u - x, flipped) + dx - p.crop_padding;
    let ok = sy < p.size && sx < p.size;
    let cy = random(step.seed, n, 3u) % p.size + (p.cutout + 1u) / 2u;
    let cx = random(step.seed, n, 4u) % p.size + (p.cutout + 1u) / 2u;
    let cut = p.cutout > 0u && cy - y - 1u < p.cutout && cx - x - 1u < p.cutout;
    let pick = picks[n];
    var v = vec3<u32>(pixel(pick, 0u, sy, sx, ok), pixel(pick, 1u, sy, sx, ok), pixel(pick, 2u, sy, sx, ok));
    v = select(v, vec3<u32>(table[768u]), cut);
    if (p.codes == 1u) {
        out[i] = (v.x & 255u) | ((v.y & 255u) << 8u) | ((v.z & 255u) << 16u);
    } else {
        out[4u * i] = v.x;
        out[4u * i + 1u] = v.y;
        out[4u * i + 2u] = v.z;
        out[4u * i + 3u] = 0u;
    }
}
