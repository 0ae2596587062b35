// An activation's shortcut: there is none.
const SHORTCUT = 0u;
alias Shortcut = vec4<f32>;
fn decode_shortcut(v: Shortcut) -> vec4<f32> {
    return v;
}
