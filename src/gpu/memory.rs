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
    let number = |file: &str| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let room = |most: &str, used: &str| Some(number(most)?.saturating_sub(number(used)?));
    // Control groups, version 2 and 1; a file that says `max` sets no bound.
    let rooms = [
        room("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        room("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ];
    rooms.into_iter().flatten().chain([free]).min()
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
