//! The allocator: how many heaps it may keep, and giving back what is free. The only unsafe code there is: both are
//! requests to glibc in its own tongue. Other allocators give memory back by themselves, or not at all.

/// Allows the allocator `heaps` heaps. To be called before there are threads.
///
/// glibc makes one for nearly every thread that allocates, up to eight for each processor, and what is free in one is of
/// no use to another. All but the first also grow page by page, at the price of a call to the operating system each.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "it is a foreign function")]
pub fn limit_heaps(heaps: usize) {
    let heaps = libc::c_int::try_from(heaps.max(1)).unwrap_or(libc::c_int::MAX);
    // SAFETY: `mallopt` takes two numbers, and changes a setting of the allocator under the allocator's own lock.
    unsafe {
        // A number that is not taken leaves the limit where it was.
        libc::mallopt(libc::M_ARENA_MAX, heaps);
    }
}

/// Allows the allocator `heaps` heaps, where it has more than one.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn limit_heaps(_heaps: usize) {}

/// Gives memory that was freed, but is still held by the allocator, back to the operating system. Takes milliseconds on
/// a large heap.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "it is a foreign function")]
pub fn give_back() {
    // SAFETY: `malloc_trim` takes a number of bytes to keep and touches only memory that the allocator has free; it
    // locks the allocator's own structures and may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives free memory back to the operating system, where the allocator does not do so by itself.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}
