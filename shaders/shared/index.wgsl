// Flat invocation index of a grid that was folded to stay under 65,535 workgroups per dimension.
const WG = 64u;
fn flat_index(wg: vec3<u32>, groups: vec3<u32>, lid: u32) -> u32 {
    return (wg.y * groups.x + wg.x) * WG + lid;
}
