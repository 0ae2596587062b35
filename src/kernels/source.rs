//! Shader text: the embedded files, composition of a variant, validation with naga.

use std::fmt::Write as _;

use super::Variant;
use crate::{Error, Result};

macro_rules! shaders {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../shaders/", $name, ".wgsl")))),*]
    };
}

/// Every shader file by path stem.
static FILES: &[(&str, &str)] = shaders![
    "act_bwd",
    "act_fwd",
    "augment",
    "average",
    "clear",
    "conv_coop",
    "conv_dot4",
    "conv_lane",
    "conv_tiled",
    "copy",
    "distill",
    "grad_clip",
    "grad_norm",
    "histogram",
    "multiply_add",
    "norm_bwd",
    "norm_bwd_merge",
    "norm_merge",
    "norm_stats",
    "pool_sum",
    "range_learned",
    "range_update",
    "requantize",
    "sgd",
    "softmax_ce",
    "weight_prepare",
    "weight_scale",
    "weight_stats",
    "weight_step",
    "weight_step_merge",
    "wgrad_coop",
    "wgrad_lane",
    "wgrad_reduce",
    "wgrad_tiled",
    "winograd_in",
    "winograd_out",
    "winograd_weights",
    "shared/act",
    "shared/act_params",
    "shared/codes_i32",
    "shared/codes_u4",
    "shared/codes_u8",
    "shared/conv_params",
    "shared/conv_tile",
    "shared/divide",
    "shared/finish_act",
    "shared/finish_none",
    "shared/finish_norm",
    "shared/gather",
    "shared/halves",
    "shared/index",
    "shared/matrices",
    "shared/norm_branch",
    "shared/operand_f32",
    "shared/operand_i8",
    "shared/operand_u4",
    "shared/operand_u8",
    "shared/output_f32",
    "shared/output_u8",
    "shared/quant",
    "shared/range_table",
    "shared/ranges",
    "shared/residual_codes",
    "shared/residual_none",
    "shared/residual_sums",
    "shared/rng",
    "shared/shortcut_codes",
    "shared/shortcut_none",
    "shared/shortcut_projection",
    "shared/shortcut_values",
    "shared/step",
    "shared/sums_f32",
    "shared/sums_i32",
    "shared/sums_kept",
    "shared/weight_table",
    "shared/weights_f32",
    "shared/weights_i4",
    "shared/weights_i8",
    "shared/wgrad_params",
    "shared/wide",
    "shared/winograd_params",
    "shared/workgroup_sum",
];

/// The text of every shader file.
pub fn all() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(_, text)| *text)
}

fn file(stem: &str) -> &'static str {
    FILES.iter().find(|(name, _)| *name == stem).unwrap_or_else(|| panic!("no shader file {stem}")).1
}

/// A composed shader and where its lines come from.
#[derive(Debug, Clone)]
pub struct Source {
    /// WGSL text.
    pub text: String,
    /// Per line of `text`: file stem and line number there.
    pub origin: Vec<(String, usize)>,
}

/// Puts a variant together: prelude, its files, those that the shader names with `//use NAME`, the shader itself.
pub fn compose(variant: &Variant) -> Source {
    let mut source = Source { text: String::new(), origin: Vec::new() };
    for line in variant.prelude.iter().flat_map(|text| text.lines()) {
        source.push("prelude", 0, line);
    }
    let body = file(variant.shader);
    let used = body.lines().filter_map(|l| l.strip_prefix("//use "));
    let mut included = std::collections::BTreeSet::new();
    for stem in variant.files.iter().copied().chain(used).map(str::trim) {
        if included.insert(stem) {
            let stem = format!("shared/{stem}");
            source.push_file(&stem, file(&stem));
        }
    }
    source.push_file(variant.shader, body);
    source
}

/// Marks a loop of constant bounds that is to be written out: each turn a block with the counter as a constant. Drivers' compilers
/// unroll loops by rules of their own, and an array that is indexed by a counter stays in memory. A loop that cannot be written
/// out is a bug of the shader, and a panic.
const UNROLLED: &str = "// unrolled";

/// The loop that this line opens, if it is marked: its indentation, counter, and number of turns.
fn unrolled<'l>(line: &'l str, constants: &str) -> Option<(&'l str, &'l str, u32)> {
    let head = line.trim_end().strip_suffix(UNROLLED)?;
    let code = head.trim_start();
    let indent = &head[..head.len() - code.len()];
    let (counter, rest) = code.strip_prefix("for (var ")?.split_once(" = 0u; ")?;
    let (_, bound) = rest.split_once(" < ")?;
    let (bound, _) = bound.split_once(';')?;
    Some((indent, counter, product(bound, constants)?))
}

/// The value of factors and divisors from left to right, each a number or a constant that is defined in such a way.
fn product(text: &str, constants: &str) -> Option<u32> {
    let number = |word: &str| match word.strip_suffix('u').and_then(|digits| digits.parse().ok()) {
        Some(value) => Some(value),
        None => {
            let definition =
                |line: &str| line.strip_prefix("const ")?.strip_prefix(word)?.strip_prefix(" = ").map(str::to_owned);
            product(constants.lines().find_map(definition)?.strip_suffix(';')?, constants)
        }
    };
    let mut words = text.split_whitespace();
    let mut value = number(words.next()?)?;
    while let Some(operation) = words.next() {
        let operand = number(words.next()?)?;
        match operation {
            "*" => value *= operand,
            "/" => value /= operand,
            _ => return None,
        }
    }
    Some(value)
}

impl Source {
    fn push(&mut self, stem: &str, line: usize, text: &str) {
        let _ = writeln!(self.text, "{text}");
        self.origin.push((stem.to_string(), line));
    }

    fn push_file(&mut self, stem: &str, text: &str) {
        let lines: Vec<(usize, &str)> = text.lines().enumerate().map(|(i, line)| (i + 1, line)).collect();
        let constants = format!("{}{text}", self.text);
        self.push_lines(stem, &lines, &constants);
    }

    fn push_lines(&mut self, stem: &str, lines: &[(usize, &str)], constants: &str) {
        let mut rest = lines;
        while let [(number, line), after @ ..] = rest {
            rest = after;
            if !line.trim_end().ends_with(UNROLLED) {
                self.push(stem, *number, line);
                continue;
            }
            let form = "for (var NAME = 0u; NAME < PRODUCT OF CONSTANTS; NAME++) {";
            let (indent, counter, turns) =
                unrolled(line, constants).unwrap_or_else(|| panic!("{stem}:{number} is not of the form {form}"));
            let end = format!("{indent}}}");
            let length =
                after.iter().position(|(_, l)| *l == end).unwrap_or_else(|| panic!("{stem}:{number} has no end"));
            for turn in 0..turns {
                self.push(stem, *number, &format!("{indent}{{ const {counter} = {turn}u;"));
                self.push_lines(stem, &after[..length], constants);
                self.push(stem, after[length].0, &end);
            }
            rest = &after[length + 1..];
        }
    }

    /// Parses and validates with naga.
    ///
    /// # Errors
    /// A shader that does not parse or validate, with the line in its own file.
    pub fn validate(&self) -> Result<(naga::Module, naga::valid::ModuleInfo)> {
        let module = naga::front::wgsl::parse_str(&self.text).map_err(|e| {
            let place = e.location(&self.text).map(|l| self.place(l.line_number as usize)).unwrap_or_default();
            Error::device(format!("shader does not parse at {place}: {e}"))
        })?;
        let flags = naga::valid::ValidationFlags::all();
        let info = naga::valid::Validator::new(flags, naga::valid::Capabilities::all())
            .validate(&module)
            .map_err(|e| Error::device(format!("shader does not validate: {}", e.emit_to_string(&self.text))))?;
        Ok((module, info))
    }

    fn place(&self, line: usize) -> String {
        match self.origin.get(line.saturating_sub(1)) {
            Some((stem, n)) => format!("shaders/{stem}.wgsl:{n}"),
            None => format!("line {line}"),
        }
    }
}
