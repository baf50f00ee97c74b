//! A recorder that tells what happens, and answers at once.
//!
//! It copies nothing.

use std::sync::mpsc::Sender;

use fuse::{Answer, Errno};
use mount::Recorder;
use replica::op::{FileId, Op};

/// Tells what happens, and answers at once.
pub struct Speaking(pub Sender<String>);

impl Recorder for Speaking {
    fn admit(&mut self) -> Result<(), Errno> {
        Ok(())
    }

    fn record(&mut self, op: Op<'_>, answer: Option<Answer>) {
        self.0.send(format!("{op:?}")).unwrap();
        if let Some(answer) = answer {
            answer.send();
        }
    }

    fn sync_begins(&mut self, _file: FileId, _data_only: bool) -> u64 {
        0
    }

    fn sync_ended(&mut self, _sync: u64, _local: Result<(), Errno>, answer: Answer) {
        answer.send();
    }

    fn copy_failed(&mut self, what: &str, errno: Errno) {
        self.0.send(format!("{what}: {}", errno.raw_os_error())).unwrap();
    }
}
