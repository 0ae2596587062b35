//! Every shader variant parses, validates, and has exactly the bindings and parameter layout that its kernel declares.
//! Needs no GPU.

use std::collections::BTreeSet;

use cqat::config::Config;
use cqat::kernels::{Access, Caps, KernelDef, REGISTRY, Variant, source};
use cqat::net::Net;
use cqat::plan::lower::{Options, lower};
use cqat::quant::QuantSpec;

/// Every variant that some network on some device selects.
fn variants() -> BTreeSet<(String, Variant)> {
    let mut found = BTreeSet::new();
    for preset in ["cqat", "cqat-literal"] {
        let config = Config::load(preset, &[]).unwrap();
        for software in [true, false] {
            for (depth, width) in [(18, 64), (18, 16), (8, 8), (20, 24)] {
                let net = Net::resnet(depth, width, 10, 32).unwrap();
                let quant = QuantSpec::new(&config.quant, &net).unwrap();
                let options = Options::new(2, Caps::portable(software, 4096));
                let lowered = lower(&net, quant.as_ref(), &options).unwrap();
                for d in lowered.plan.programs.iter().flat_map(|p| &p.dispatches) {
                    found.insert((d.kernel.name.to_string(), d.variant.clone()));
                }
            }
        }
    }
    found
}

fn kernel(name: &str) -> &'static KernelDef {
    REGISTRY.iter().find(|k| k.name == name).unwrap()
}

#[test]
fn every_kernel_is_used_by_some_program() {
    let used: BTreeSet<String> = variants().into_iter().map(|(k, _)| k).collect();
    let all: BTreeSet<String> = REGISTRY.iter().map(|k| k.name.to_string()).collect();
    assert_eq!(used, all);
}

#[test]
fn every_variant_validates_and_matches_its_kernel() {
    for (name, variant) in variants() {
        let source = source::compose(&variant);
        let (module, _) = source.validate().unwrap_or_else(|e| panic!("{name} {variant:?}: {e}\n{}", source.text));
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
                naga::AddressSpace::Handle => match module.types[g.ty].inner {
                    naga::TypeInner::Image { class: naga::ImageClass::Storage { access, .. }, .. } => {
                        assert!(variant.textures.contains(&(b.binding as usize - 1)), "{name}");
                        let write = access.contains(naga::StorageAccess::STORE);
                        Some(if write { Access::ReadWrite } else { Access::Read })
                    }
                    ref other => panic!("{name}: {other:?}"),
                },
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
        assert!(def.bindings.len() <= 8, "{name} binds more storage buffers than WebGPU's default limit");
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
        assert!(workgroup <= 16 << 10, "{name} uses {workgroup} bytes of workgroup memory");
    }
}

#[test]
fn a_shader_that_does_not_parse_is_located_in_its_own_file() {
    let broken = Variant::only("sgd").with_const("WG", 64); // defined a second time by shared/index.wgsl
    let e = source::compose(&broken).validate().unwrap_err().to_string();
    assert!(e.contains("shaders/shared/index.wgsl:2"), "{e}");
}
