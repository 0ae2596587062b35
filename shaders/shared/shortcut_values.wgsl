// An activation's shortcut: an earlier activation of f32.
const SHORTCUT = 1u;
alias Shortcut = vec4<f32>;
fn decode_shortcut(v: Shortcut) -> vec4<f32> {
    return v;
}
