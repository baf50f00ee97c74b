//! Calls of somebody else than root.

/// Runs `calls` on a thread that is this user with this umask, in one group and without
/// privileges.
pub fn as_person<T: Send>(uid: u32, gid: u32, umask: u32, calls: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let person = scope.spawn(|| {
            become_person(uid, gid, umask);
            calls()
        });
        person.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[allow(unsafe_code, reason = "the ids of a single thread have no safe wrappers")]
fn become_person(uid: u32, gid: u32, umask: u32) {
    // SAFETY: the calls take numbers, or no list at all, and change the calling thread alone: the
    // umask after it was made its own.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_FS), 0);
        libc::umask(umask);
        assert_eq!(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()), 0);
        assert_eq!(libc::syscall(libc::SYS_setresgid, gid, gid, gid), 0);
        assert_eq!(libc::syscall(libc::SYS_setresuid, uid, uid, uid), 0);
    }
}
