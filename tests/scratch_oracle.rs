use cqat::{cpu::CpuProgram, gpu::*, kernels::*, oracle::Oracle};
#[test]
fn oracle_files() {
    let cpu = std::env::var("CPU").is_ok();
    for f in ["fp32", "cqat"] {
        let o = Oracle::read(std::path::Path::new(&format!("/work/shared/oracle/{f}_w8_b4.safetensors"))).unwrap();
        println!("{}", o.describe());
        let ov: Overrides = std::env::var("KIND").map(|k| [("conv".to_string(), k.clone()), ("wgrad".to_string(), k)].into()).unwrap_or_default();
        let gpu = Gpu::open(&OpenOptions { checked: true, ..Default::default() }).unwrap();
        let l = o.lower(&gpu.caps, &ov).unwrap();
        println!("{} dispatches {} MiB", l.plan.programs[0].dispatches.len(), l.plan.bytes() >> 20);
        let groups = if cpu { o.run(&l, &mut CpuProgram::new(&l.plan)) } else { o.run(&l, &mut GpuProgram::new(&gpu, &l.plan).unwrap()) }.unwrap();
        for g in groups { println!("{:>6} {:14} {:.2e} {}", if g.passed() { "ok" } else { "FAIL" }, g.group, g.error, g.worst); }
    }
}
