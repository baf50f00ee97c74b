//! The binary that the lab's own tests boot their hosts with: init and enter, and a file system
//! that never answers, for what must work while somebody waits for FUSE.

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|word| word.to_str()) {
        Some("lab-init") => lab::init::run(),
        Some("lab-enter") => lab::enter::run(args.collect()),
        Some("stuck-mount") => match args.next().map(|path| stuck_mount(Path::new(&path))) {
            Some(Ok(())) => ExitCode::SUCCESS,
            Some(Err(error)) => {
                eprintln!("stuck-mount: {error}");
                ExitCode::FAILURE
            }
            None => ExitCode::from(2),
        },
        _ => ExitCode::from(2),
    }
}

/// Mounts FUSE at `path`, says so and reads no request.
fn stuck_mount(path: &Path) -> std::io::Result<()> {
    let fuse = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", fuse.as_raw_fd());
    let data = CString::new(data)?;
    rustix::mount::mount("stuck", path, "fuse", MountFlags::empty(), data.as_c_str())?;
    println!("mounted");
    loop {
        std::thread::park();
    }
}
