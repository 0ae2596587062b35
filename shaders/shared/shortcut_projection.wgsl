// An activation's shortcut: what a projection has written, with a batch norm of its own.
const SHORTCUT = 2u;
alias Shortcut = vec4<f32>;
fn decode_shortcut(v: Shortcut) -> vec4<f32> {
    return v;
}
