//! The allocator, and how long it keeps what is freed.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, which the bindings give no name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Milliseconds.
const KEPT: std::ffi::c_long = 60_000;

/// Keeps freed memory for a minute, unless `MIMALLOC_PURGE_DELAY` says otherwise: a proof's next phase needs it again, and a page that the system gives
/// anew it has to clear first (docs/performance.md).
pub fn keep_freed_memory() {
    // SAFETY: it sets a number, before there is another thread.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEPT) };
}
