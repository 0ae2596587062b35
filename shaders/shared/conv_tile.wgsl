// The tile of conv_tiled and conv_dot4: TILE_M x TILE_N x TILE_K in workgroup memory, 8 x 8 outputs a thread in four 4 x 4 blocks,
// half a tile apart so that neighbours read neighbouring words. An invocation loads four channels of four pixels of x, X_TURNS times, or
// not at all where there are enough others: vectors of pixels are written as a whole. A row of x is one vec4 longer than it has to be:
// writes of neighbouring channels go to different banks.
const K4 = TILE_K / 4u;
const M4 = TILE_M / 4u;
const N4 = TILE_N / 4u;
const THREADS = TILE_M * TILE_N / 64u;
const X_ITEMS = M4 * K4;
const X_LOADS = 4u * X_TURNS;
const X_STRIDE = M4 + 1u;
