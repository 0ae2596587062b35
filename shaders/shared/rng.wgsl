// Counter-based random numbers: PCG output permutation of (seed, sample, draw). Twin: src/kernels/input.rs.
fn pcg(v: u32) -> u32 {
    let s = v * 747796405u + 2891336453u;
    let w = ((s >> ((s >> 28u) + 4u)) ^ s) * 277803737u;
    return (w >> 22u) ^ w;
}
fn random(seed: u32, sample: u32, draw: u32) -> u32 {
    return pcg(pcg(pcg(seed) + sample) + draw);
}
