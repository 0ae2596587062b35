// An activation's shortcut: an earlier activation of four neighbouring u8 codes a word, times its scale.
const SHORTCUT = 1u;
alias Shortcut = u32;
fn decode_shortcut(v: Shortcut) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(v));
}
