// Parameters of winograd_in and winograd_out. Twin: TileParams in src/kernels/winograd.rs.
struct Params {
    tiles: u32,   // that are handled together
    tiles_h: u32, // of a picture
    tiles_w: u32,
    cols4: u32,
    x_format: u32, // fixed in the variant of winograd_in
    accumulate: u32,
    first: u32, // of these, counted over the batch
    pad0: u32,
}
