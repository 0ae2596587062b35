//! How much memory the planner may use: drivers do not report running out of it.

/// Share of the memory that is used by default, in percent: the rest is the driver's and the other programs'.
const SHARE: u64 = 70;
/// Where neither the device nor the machine tells.
const FALLBACK: u64 = 2 << 30;

/// Bytes for buffers on `adapter`: a share of its largest device-local heap, or of the machine's available memory for
/// software adapters and where the heap is not known.
pub fn budget(adapter: &wgpu::Adapter, software: bool) -> u64 {
    let known = if software { available_memory() } else { device_heap(adapter).or_else(available_memory) };
    known.unwrap_or(FALLBACK) / 100 * SHARE
}

/// What the machine has free, or the container that the process runs in.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
    let free = line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10;
    let text = |folder: &str, file: &str| std::fs::read_to_string(format!("{folder}/{file}")).ok();
    let room = |folder: &str, most: &str, used: &str, cached: &str| {
        room(&text(folder, most)?, &text(folder, used)?, &text(folder, "memory.stat")?, cached)
    };
    // Control groups, version 2 and 1.
    let rooms = [
        room("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        room("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ];
    rooms.into_iter().flatten().chain([free]).min()
}

/// What is left of a control group's memory, from the texts of its files; `None` without a bound (`max`). Pages of files
/// that nobody has used lately are given back when they are needed: the key `cached` of `stat` counts them.
fn room(most: &str, used: &str, stat: &str, cached: &str) -> Option<u64> {
    let (most, used) = (most.trim().parse::<u64>().ok()?, used.trim().parse::<u64>().ok()?);
    let value = |line: &str| line.strip_prefix(cached)?.trim().parse::<u64>().ok();
    let cached = stat.lines().find_map(value).unwrap_or(0);
    Some(most.saturating_sub(used.saturating_sub(cached)))
}

#[cfg(not(target_vendor = "apple"))]
fn device_heap(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the handles are only used for a read-only query while the adapter is alive, and nothing is destroyed.
    let properties = unsafe {
        let hal = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let instance = hal.shared_instance().raw_instance();
        instance.get_physical_device_memory_properties(hal.raw_physical_device())
    };
    let heaps = &properties.memory_heaps[..properties.memory_heap_count as usize];
    // Bit 0 of the heap flags is VK_MEMORY_HEAP_DEVICE_LOCAL_BIT.
    heaps.iter().filter(|h| h.flags.as_raw() & 1 == 1).map(|h| h.size).max()
}

#[cfg(target_vendor = "apple")]
fn device_heap(_: &wgpu::Adapter) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::room;

    #[test]
    fn cached_files_do_not_count_as_used() {
        let stat = "file 700\ninactive_file 300\nactive_file 400\n";
        assert_eq!(room("1000\n", "900\n", stat, "inactive_file"), Some(400));
        assert_eq!(room("1000\n", "900\n", "", "inactive_file"), Some(100));
        assert_eq!(room("1000\n", "1200\n", stat, "inactive_file"), Some(100));
        assert_eq!(room("max\n", "900\n", stat, "inactive_file"), None);
    }
}
