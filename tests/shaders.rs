//! Every shader variant parses, validates, and has exactly the bindings and parameter layout that its kernel declares.
//! Needs no GPU.

use std::collections::BTreeSet;

use cqat::config::{Config, DistillConfig, OptimizerConfig, Precision};
use cqat::integer::{IntegerNet, Multiplier};
use cqat::kernels::range::RangeRow;
use cqat::kernels::{Access, Caps, KernelDef, REGISTRY, Variant, source};
use cqat::net::Net;
use cqat::normalisation::Normalisation;
use cqat::plan::integer::lower_integers;
use cqat::plan::lower::{Options, lower};
use cqat::quant::QuantSpec;
use cqat::safetensors_io::NamedTensor;
use cqat::tensors::{initialise, insert_range};

/// Every variant that some network on some device selects.
fn variants() -> BTreeSet<(String, Variant)> {
    let software = [4, 8, 16].map(|subgroup| Caps { subgroup, ..Caps::portable(true, 4096) });
    let real = [0, 8, 16].map(|matrix| Caps { matrix, ..Caps::portable(false, 4096) });
    let roomy = real.clone().map(|caps| Caps { max_storage_buffers: 9, ..caps });
    let devices: Vec<Caps> = software.into_iter().chain(real).chain(roomy).collect();
    let wide: Vec<String> = ["quant.weight_bits=8".into(), "quant.activation_bits=8".into()].into();
    let mut found = BTreeSet::new();
    for (preset, sets) in [("cqat", &[][..]), ("cqat", &wide), ("cqat-literal", &[]), ("lsqplus", &[])] {
        let config = Config::load(preset, sets).unwrap();
        for (depth, width) in [(18, 64), (18, 16), (8, 8), (20, 24)] {
            let net = Net::resnet(depth, width, 10, 32).unwrap();
            let quant = QuantSpec::new(&config.quant, &net).unwrap();
            for caps in &devices {
                let optimizer =
                    OptimizerConfig { clip_norm: Some(1.0), ema_decay: Some(0.9), ..OptimizerConfig::default() };
                for precision in [Precision::F32, Precision::F16x3, Precision::F16] {
                    if caps.matrix == 0 && precision != Precision::F32 {
                        continue;
                    }
                    let optimizer = optimizer.clone();
                    let batch = if depth == 8 { 64 } else { 2 }; // enough for Winograd's algorithm
                    let distill = DistillConfig { weight: 0.5, ..DistillConfig::default() };
                    let options = Options {
                        optimizer,
                        distill,
                        precision,
                        winograd_channels: 32,
                        ..Options::new(batch, caps.clone())
                    };
                    let lowered = lower(&net, quant.as_ref(), &options).unwrap();
                    for d in lowered.plan.programs.iter().flat_map(|p| &p.dispatches) {
                        found.insert((d.kernel.name.to_string(), d.variant.clone()));
                    }
                }
            }
        }
    }
    for (net, caps) in integer_nets().iter().flat_map(|net| devices.iter().map(move |caps| (net, caps))) {
        let options = Options { winograd_channels: 8, ..Options::new(64, caps.clone()) };
        let lowered = lower_integers(net, &options);
        for d in lowered.plan.programs.iter().flat_map(|p| &p.dispatches) {
            found.insert((d.kernel.name.to_string(), d.variant.clone()));
        }
    }
    found
}

/// Integer networks of untrained weights, of 5 and 4, 8 and 8, and 4 and 3 bits.
fn integer_nets() -> Vec<IntegerNet> {
    let fold = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        let config = Config::load("cqat", &sets).unwrap();
        let net = Net::resnet(8, 8, 10, 16).unwrap();
        let spec = QuantSpec::new(&config.quant, &net).unwrap().unwrap();
        let lowered = lower(&net, Some(&spec), &Options::new(2, Caps::portable(true, 4096))).unwrap();
        let mut tensors = initialise(&lowered.layout, 1);
        for w in &lowered.layout.weights {
            for part in ["scale", "inv_scale"] {
                let ones = NamedTensor { shape: vec![w.real_out], data: vec![1.0; w.real_out] };
                tensors.insert(format!("quant.{}.weight.{part}", w.name), ones);
            }
        }
        for (_, a) in net.activations() {
            insert_range(&mut tensors, &a.name, &RangeRow { range: 1.0, ..RangeRow::UNIT });
        }
        let normalisation = Normalisation { mean: [0.5; 3], std: [0.25; 3] };
        IntegerNet::fold(&net, &spec, &tensors, &normalisation, Multiplier::Bits32).unwrap()
    };
    vec![
        fold(&[]),
        fold(&["quant.weight_bits=8", "quant.activation_bits=8"]),
        fold(&["quant.weight_bits=4", "quant.activation_bits=3"]),
    ]
}

/// The source of every kernel module.
const SOURCES: [&str; 13] = [
    include_str!("../src/kernels.rs"),
    include_str!("../src/kernels/activation.rs"),
    include_str!("../src/kernels/conv.rs"),
    include_str!("../src/kernels/head.rs"),
    include_str!("../src/kernels/input.rs"),
    include_str!("../src/kernels/maxima.rs"),
    include_str!("../src/kernels/norm.rs"),
    include_str!("../src/kernels/optimizer.rs"),
    include_str!("../src/kernels/range.rs"),
    include_str!("../src/kernels/requantize.rs"),
    concat!(include_str!("../src/kernels/weights.rs"), include_str!("../src/kernels/weights/steps.rs")),
    include_str!("../src/kernels/wgrad.rs"),
    include_str!("../src/kernels/winograd.rs"),
];

/// Name, type and offset of each field that is no padding.
type Fields = Vec<(String, String, u32)>;

/// The fields of a Rust struct of words and structs of words, from the first text that has it.
fn rust_fields(name: &str, texts: &[&str]) -> Fields {
    let found = texts.iter().find_map(|text| text.split_once(&format!("pub struct {name} {{")));
    let (_, body) = found.unwrap_or_else(|| panic!("no struct {name}"));
    let body = &body[..body.find("\n}").unwrap()];
    let mut offset = 0;
    let field = |line: &str| {
        let (field, ty) = line.trim().strip_prefix("pub ")?.strip_suffix(',')?.split_once(": ")?;
        let at = offset;
        offset += match ty {
            "u32" | "i32" | "f32" => 4,
            "Quant" => size_of::<cqat::quant::Quant>() as u32,
            "ActParams" => size_of::<cqat::kernels::activation::ActParams>() as u32,
            "NormBranch" => size_of::<cqat::kernels::norm::NormBranch>() as u32,
            "ScaleRule" => size_of::<cqat::quant::ScaleRule>() as u32,
            array => 4 * array.strip_prefix("[u32; ")?.strip_suffix(']')?.parse::<u32>().ok()?,
        };
        Some((field.to_string(), ty.to_string(), at))
    };
    let fields: Fields = body.lines().filter_map(field).collect();
    fields.into_iter().filter(|(f, ..)| !f.starts_with("pad")).collect()
}

/// The members of a WGSL struct, types in Rust's words.
fn wgsl_fields(module: &naga::Module, ty: naga::Handle<naga::Type>) -> Fields {
    let naga::TypeInner::Struct { members, .. } = &module.types[ty].inner else { panic!("no struct") };
    let name = |ty: naga::Handle<naga::Type>| match &module.types[ty].inner {
        naga::TypeInner::Scalar(s) => format!("{}{}", ["i", "u", "f"][s.kind as usize], 8 * s.width),
        _ => module.types[ty].name.clone().unwrap_or_default(),
    };
    let named = members.iter().map(|m| (m.name.clone().unwrap(), name(m.ty), m.offset));
    named.filter(|(n, ..)| !n.starts_with("pad")).collect()
}

/// The fields of the struct behind `params_bytes` of a kernel's definition, from the same module.
fn params_fields(kernel: &str) -> Fields {
    let found = SOURCES.iter().find_map(|text| Some((text, text.split_once(&format!("name: \"{kernel}\""))?.1)));
    let (module, definition) = found.unwrap_or_else(|| panic!("no kernel {kernel}"));
    let after = definition.split_once("params_bytes: size_of::<").unwrap().1;
    rust_fields(&after[..after.find('>').unwrap()], &[module])
}

#[test]
fn structs_of_shaders_lie_as_those_of_the_host() {
    let shared_sources = [&SOURCES[..], &[include_str!("../src/quant.rs")]].concat();
    let mut shared = BTreeSet::new();
    for (name, variant) in variants() {
        let (module, _) = source::compose(&variant).validate().unwrap();
        for (_, g) in module.global_variables.iter() {
            if g.space == naga::AddressSpace::Uniform {
                assert_eq!(wgsl_fields(&module, g.ty), params_fields(&name), "{name}: Params");
            }
        }
        for (handle, ty) in module.types.iter() {
            if let Some(rust) = ty.name.as_deref().filter(|n| {
                ["ActParams", "NormBranch", "Quant", "RangeRow", "ScaleRule", "Step", "TableRow", "WeightRow"]
                    .contains(n)
            }) {
                assert_eq!(wgsl_fields(&module, handle), rust_fields(rust, &shared_sources), "{name}: {rust}");
                shared.insert(rust.to_string());
            }
        }
    }
    assert_eq!(shared.len(), 8, "{shared:?}");
}

fn kernel(name: &str) -> &'static KernelDef {
    REGISTRY.iter().find(|k| k.name == name).unwrap()
}

#[test]
fn every_kernel_is_used_by_some_program() {
    let mut used: BTreeSet<String> = variants().into_iter().map(|(k, _)| k).collect();
    used.extend(["copy", "multiply_add"].map(String::from)); // the ceilings of `cqat bench`
    let all: BTreeSet<String> = REGISTRY.iter().map(|k| k.name.to_string()).collect();
    assert_eq!(used, all);
}

#[test]
fn every_variant_validates_and_matches_its_kernel() {
    for (name, variant) in variants() {
        let source = source::compose(&variant);
        let (module, _) = source.validate().unwrap_or_else(|e| panic!("{name} {variant:?}: {e}\n{}", source.text));
        assert!(!source.text.contains("// unrolled"), "{name}: a loop is left as it was");
        assert_eq!(source.text.lines().count(), source.origin.len(), "{name}: every line comes from somewhere");
        let def = kernel(&name);
        let mut bindings: Vec<(u32, String, Option<Access>, u32)> = Vec::new();
        for (_, g) in module.global_variables.iter() {
            let Some(b) = &g.binding else { continue };
            assert_eq!(b.group, 0, "{name}");
            let access = match g.space {
                naga::AddressSpace::Uniform => None,
                naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => {
                    Some(Access::ReadWrite)
                }
                naga::AddressSpace::Storage { .. } => Some(Access::Read),
                other => panic!("{name}: {other:?}"),
            };
            let size = module.types[g.ty].inner.size(module.to_ctx());
            bindings.push((b.binding, g.name.clone().unwrap(), access, size));
        }
        bindings.sort_by_key(|b| b.0);
        let (_, params, access, size) = bindings.remove(0);
        assert_eq!((params.as_str(), access), ("p", None), "{name}");
        assert_eq!(size as usize, def.params_bytes, "{name}: size of Params");
        let declared: Vec<(u32, String, Option<Access>)> =
            def.bindings.iter().enumerate().map(|(i, (n, a))| (i as u32 + 1, n.to_string(), Some(*a))).collect();
        let reflected: Vec<_> = bindings.into_iter().map(|(i, n, a, _)| (i, n, a)).collect();
        assert_eq!(reflected, declared, "{name} {}", variant.shader);
        // Where a device binds no more than WebGPU's default limit, `conv` and `act_bwd` take this one's place.
        let most = if name == "conv_act" { 9 } else { 8 };
        assert!(def.bindings.len() <= most, "{name} binds {} storage buffers", def.bindings.len());
    }
}

#[test]
fn portable_kernels_stay_inside_the_default_limits() {
    for (name, variant) in variants() {
        let (module, _) = source::compose(&variant).validate().unwrap();
        let entry = &module.entry_points[0];
        assert!(entry.workgroup_size.iter().product::<u32>() <= 256, "{name}");
        let workgroup: u32 = module
            .global_variables
            .iter()
            .filter(|(_, g)| g.space == naga::AddressSpace::WorkGroup)
            .map(|(_, g)| module.types[g.ty].inner.size(module.to_ctx()))
            .sum();
        // Matrix units are used where a device has room for `conv_coop` (src/gpu.rs).
        let most = if variant.name.starts_with("coop") { 24 << 10 } else { 16 << 10 };
        assert!(workgroup <= most, "{name}/{} uses {workgroup} bytes of workgroup memory", variant.name);
    }
}

#[test]
fn a_shader_that_does_not_parse_is_located_in_its_own_file() {
    let broken = Variant::only("sgd").with_const("WG", 64); // defined a second time by shared/index.wgsl
    let e = source::compose(&broken).validate().unwrap_err().to_string();
    assert!(e.contains("shaders/shared/index.wgsl:2"), "{e}");
}
