//! Features that can be done without, for kernels that lack them.
//!
//! Only which there are and what they are called; what is done instead is the server's business.

use crate::abi;

/// Which features are wanted, or in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// POSIX ACLs, which the kernel enforces.
    pub acl: bool,
    /// Shared mappings of files that are also open for direct I/O, coherent with it.
    pub direct_mmap: bool,
    /// Set-id bits are cleared by the server when the request says so.
    pub kill_privileges: bool,
    /// Several direct writes of one file at once.
    pub parallel_writes: bool,
    /// Files without a name.
    pub tmpfile: bool,
}

/// Names by which features can be left out.
const NAMES: [&str; 5] = ["acl", "direct-mmap", "kill-privileges", "parallel-writes", "tmpfile"];

impl Default for Features {
    /// All of them.
    fn default() -> Features {
        Features {
            acl: true,
            direct_mmap: true,
            kill_privileges: true,
            parallel_writes: true,
            tmpfile: true,
        }
    }
}

impl Features {
    /// These but the one of this name.
    ///
    /// # Errors
    /// The names that there are.
    pub fn without(mut self, name: &str) -> Result<Features, String> {
        match name {
            "acl" => self.acl = false,
            "direct-mmap" => self.direct_mmap = false,
            "kill-privileges" => self.kill_privileges = false,
            "parallel-writes" => self.parallel_writes = false,
            "tmpfile" => self.tmpfile = false,
            _ => return Err(format!("no feature `{name}`; there are {}", NAMES.join(", "))),
        }
        Ok(self)
    }

    /// For storage: a bit for each.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        let all =
            [self.acl, self.direct_mmap, self.kill_privileges, self.parallel_writes, self.tmpfile];
        all.iter().enumerate().map(|(index, wanted)| u64::from(*wanted) << index).sum()
    }

    /// The inverse of `to_bits`.
    #[must_use]
    pub fn from_bits(bits: u64) -> Features {
        let has = |index: u32| bits >> index & 1 != 0;
        Features {
            acl: has(0),
            direct_mmap: has(1),
            kill_privileges: has(2),
            parallel_writes: has(3),
            tmpfile: has(4),
        }
    }

    /// Flags of `init` that must not be asked for.
    pub(crate) fn unwanted(self) -> u64 {
        let unless = |wanted: bool, flags: u64| if wanted { 0 } else { flags };
        // Without its clearing of set-id bits a truncating open would have to guess whose they
        // are; the kernel then truncates by a change of size that says so.
        unless(self.acl, abi::POSIX_ACL)
            | unless(self.direct_mmap, abi::DIRECT_IO_ALLOW_MMAP)
            | unless(self.kill_privileges, abi::HANDLE_KILLPRIV_V2 | abi::ATOMIC_O_TRUNC)
    }

    /// These as far as the kernel agreed to them.
    pub(crate) fn agreed(self, flags: u64) -> Features {
        Features {
            acl: flags & abi::POSIX_ACL != 0,
            direct_mmap: flags & abi::DIRECT_IO_ALLOW_MMAP != 0,
            kill_privileges: flags & abi::HANDLE_KILLPRIV_V2 != 0,
            // Kernels that do not know these do not ask for them.
            parallel_writes: self.parallel_writes,
            tmpfile: self.tmpfile,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leaves_out_one_feature() {
        let all = Features::default();
        let without: Vec<Features> = NAMES.iter().map(|name| all.without(name).unwrap()).collect();
        for (index, one) in without.iter().enumerate() {
            assert_ne!(*one, all);
            assert!(!without[index + 1..].contains(one));
            assert_eq!(Features::from_bits(one.to_bits()), *one);
        }
        assert!(all.without("nothing").unwrap_err().contains("direct-mmap"));
        assert_eq!(all.unwanted(), 0);
        assert_eq!(all.agreed(u64::MAX), all);
    }
}
