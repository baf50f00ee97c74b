//! Each kind of request and who answers it.
//!
//! Nothing is left to a default: what is not supported is refused by name, with the error that
//! makes the kernel fall back where it can. The table in the crate's documentation says how.

use fuse::{Errno, Operation, reply};

use super::Server;
use super::attributes::attr_of;
use super::call::Call;
use super::sync::Synced;

impl Server {
    pub(super) fn dispatch(&self, request: &Call<'_>, scratch: &mut Vec<u8>) {
        match &request.operation {
            Operation::Lookup { name } => self.lookup(request, name),
            Operation::Forget { count } => {
                self.tree.forget_all(request.unique, &[(request.node, *count)]);
            }
            Operation::BatchForget(forgets) => {
                let pairs: Vec<(u64, u64)> = forgets.iter().collect();
                self.tree.forget_all(request.unique, &pairs);
            }
            Operation::SetAttr(_) => self.set_attr(request),
            Operation::Symlink { .. } | Operation::MkNod { .. } | Operation::MkDir { .. } => {
                self.make(request);
            }
            Operation::Unlink { name } => self.remove(request, name, false),
            Operation::RmDir { name } => self.remove(request, name, true),
            Operation::Rename { .. } => self.rename(request),
            Operation::Link { target, name } => self.link(request, *target, name),
            Operation::Create { .. } => self.create(request),
            Operation::TmpFile { .. } => self.make_unnamed(request),
            Operation::Open { flags, kill_privileges } => {
                self.open(request, *flags, *kill_privileges);
            }
            Operation::Read { .. } => self.read(request, scratch),
            Operation::Write { .. } => self.write(request),
            Operation::Fallocate { .. } => self.allocate(request),
            Operation::Fsync { handle, data_only } => match self.files.file(*handle) {
                Ok(open) => {
                    self.sync(request, *handle, open.node, Synced::File(open), *data_only);
                }
                Err(errno) => self.refuse(request, errno),
            },
            Operation::FsyncDir { handle, data_only } => {
                self.sync_directory(request, *handle, *data_only);
            }
            Operation::SetXattr { .. } | Operation::RemoveXattr { .. } => {
                self.change_xattr(request);
            }
            _ => self.dispatch_question(request),
        }
    }

    /// Requests that change nothing, and those that are not supported.
    fn dispatch_question(&self, request: &Call<'_>) {
        match &request.operation {
            Operation::GetAttr { handle } => {
                let stat = self.get_attr(request, *handle);
                self.answer(request, stat.map(|stat| reply::attr(&attr_of(&stat))));
            }
            Operation::StatX { handle, .. } => {
                let stat = self.get_attr(request, *handle);
                self.answer(request, stat.map(|stat| reply::statx(&attr_of(&stat))));
            }
            Operation::ReadLink => self.answer(request, self.read_link(request.node)),
            Operation::StatFs => self.answer(request, self.figures()),
            Operation::OpenDir { .. } => self.answer(request, self.open_directory(request.node)),
            Operation::ReadDir { .. } => self.answer(request, self.list(request)),
            Operation::GetXattr { name, size } => {
                self.answer(request, self.get_xattr(request, name, *size));
            }
            Operation::ListXattr { size } => {
                self.answer(request, self.list_xattr(request, *size));
            }
            Operation::Lseek { handle, offset, whence } => {
                self.answer(request, self.seek(*handle, *offset, *whence));
            }
            Operation::Release { handle } => {
                self.files.close_file(*handle);
                self.answer(request, Ok(Vec::new()));
            }
            Operation::ReleaseDir { handle } => {
                self.files.close_directory(*handle);
                self.answer(request, Ok(Vec::new()));
            }
            Operation::Destroy => self.answer(request, Ok(Vec::new())),
            // A change cannot be taken back; its caller waits for the answer.
            Operation::Interrupt { .. } => {}
            // An answer itself: nobody waits for one.
            Operation::NotifyReply => {}
            Operation::Ioctl { .. } => self.answer(request, Err(Errno::NOTTY)),
            // Among them access, flush, poll and copy_file_range, which the kernel then does alone.
            _ => self.answer(request, Err(Errno::NOSYS)),
        }
    }

    fn read_link(&self, node: u64) -> Result<Vec<u8>, Errno> {
        let link = self.tree.descriptor(node)?;
        rustix::fs::readlinkat(&*link, "", Vec::new()).map(|target| target.into_bytes())
    }

    fn figures(&self) -> Result<Vec<u8>, Errno> {
        let found = rustix::fs::fstatvfs(&**self.tree.root())?;
        Ok(reply::statfs(&reply::StatFs {
            blocks: found.f_blocks,
            bfree: found.f_bfree,
            bavail: found.f_bavail,
            files: found.f_files,
            ffree: found.f_ffree,
            bsize: found.f_bsize as u32,
            namelen: found.f_namemax as u32,
            frsize: found.f_frsize as u32,
        }))
    }
}
