//! Allocator settings: the number of heaps, and the return of free memory. No other file has unsafe code. Here both
//! settings are calls to glibc. Other allocators return memory by themselves, or not at all.

/// Limits the allocator to `heaps` heaps. Must be called before other threads start.
///
/// glibc creates a heap for nearly every thread that allocates, up to eight for each processor, and free memory in one
/// heap is of no use to another. All heaps but the first also grow page by page, with one system call each.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "it is a foreign function")]
pub fn limit_heaps(heaps: usize) {
    let heaps = libc::c_int::try_from(heaps.max(1)).unwrap_or(libc::c_int::MAX);
    // SAFETY: `mallopt` takes two numbers, and changes a setting of the allocator under the allocator's own lock.
    unsafe {
        // If the number is rejected, the limit does not change.
        libc::mallopt(libc::M_ARENA_MAX, heaps);
    }
}

/// Limits the allocator to `heaps` heaps, if it has more than one.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn limit_heaps(_heaps: usize) {}

/// Returns freed memory that the allocator still holds to the operating system. Takes milliseconds on a large heap.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "it is a foreign function")]
pub fn give_back() {
    // SAFETY: `malloc_trim` takes a number of bytes to keep and touches only memory that the allocator has free; it
    // locks the allocator's own structures and may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Returns freed memory to the operating system, if the allocator does not do so by itself.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}
