//! What makes a machine a node of a cluster, put in place and taken away: its keys and
//! `cluster.toml`.
//!
//! ```text
//! 1. keys.new/         all files, cluster.toml among them; one from an earlier attempt is removed
//! 2. keys.new -> keys  from here on the machine belongs to the cluster
//! 3. keys/cluster.toml -> cluster.toml
//! ```
//! Each step is durable before the next. A machine that is cut off before the second belongs to
//! nothing, and one that is cut off after it has everything: the third is made up for by whoever
//! comes next. On the way out `cluster.toml` goes first. What the files hold is not known here.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::configuration::store::Store;
use crate::durable;
use crate::layout::Layout;

/// Whether a machine has nothing of a cluster; else a sentence that says what it has, and the mend.
/// What an earlier attempt had left to do is done first.
pub(crate) fn check_is_new(layout: &Layout) -> Result<(), String> {
    let (file, keys) = (layout.cluster_file(), layout.keys_directory());
    match finish(layout) {
        Ok(false) => {}
        Ok(true) => {
            return Err(format!(
                "an `evenkeel init` or `join` that was interrupted is complete now, by what it \
                 had put into {}: start the daemon",
                keys.display()
            ));
        }
        Err(error) => return Err(format!("what was interrupted cannot be completed: {error}")),
    }
    // What cannot be looked at may be there.
    if exists(&file).unwrap_or(true) {
        let file = file.display();
        let why = "this machine belongs to a cluster; `evenkeel leave` first";
        return Err(format!("{file} is there already: {why}"));
    }
    if exists(&keys).unwrap_or(true) {
        return Err(half(layout));
    }
    Ok(())
}

/// Why there is no `cluster.toml`, if something that was interrupted is the reason, and the mend.
pub(crate) fn interrupted(layout: &Layout) -> Option<String> {
    if exists(&layout.cluster_file()).unwrap_or(true) {
        return None;
    }
    if exists(&layout.keys_directory()).unwrap_or(true) {
        return Some(half(layout));
    }
    let aside = aside(layout);
    exists(&aside).unwrap_or(false).then(|| {
        format!(
            "an `evenkeel init` or `join` was interrupted ({} is left of it): do it again; a \
             cluster that says then that it has this node already had admitted it, so \
             `evenkeel leave --node` there first",
            aside.display()
        )
    })
}

fn half(layout: &Layout) -> String {
    let (keys, file) = (layout.keys_directory(), layout.cluster_file());
    let (keys, file) = (keys.display(), file.display());
    format!(
        "{keys} is there already and {file} is not: an `evenkeel leave` was interrupted, or \
         somebody removed the file. Put it back, or remove {keys} if this machine is to belong to \
         no cluster"
    )
}

/// An empty directory for the files of step 1, and proof that they can be written.
pub(crate) fn make_aside(layout: &Layout) -> io::Result<PathBuf> {
    let aside = aside(layout);
    remove_directory(&aside)?;
    let probe = aside.join("probe");
    durable::write_secret(&probe, "")?;
    durable::remove(&probe)?;
    Ok(aside)
}

/// Gives up what is aside.
pub(crate) fn remove_aside(layout: &Layout) -> io::Result<()> {
    remove_directory(&aside(layout))
}

/// Step 2: the files that are aside make this machine a node. Nothing has changed when it fails.
pub(crate) fn commit(layout: &Layout, cluster_file: &str) -> io::Result<()> {
    let aside = aside(layout);
    durable::write_text(&staged(layout, &aside), cluster_file)?;
    // What was applied in another cluster is not this one's.
    Store::of(layout).forget()?;
    durable::rename(&aside, &layout.keys_directory())
}

/// Step 3; says whether there was anything to be done.
pub(crate) fn finish(layout: &Layout) -> io::Result<bool> {
    let staged = staged(layout, &layout.keys_directory());
    if !exists(&staged)? {
        return Ok(false);
    }
    durable::rename(&staged, &layout.cluster_file())?;
    Ok(true)
}

/// Removes what makes a machine a node of a cluster; the configuration is kept aside.
pub(crate) fn forget(layout: &Layout) -> io::Result<()> {
    let file = layout.cluster_file();
    durable::rename(&file, &file.with_extension("left"))?;
    remove_directory(&layout.keys_directory())?;
    Store::of(layout).forget()?;
    File::open(layout.configuration_directory())?.sync_all()
}

fn aside(layout: &Layout) -> PathBuf {
    layout.keys_directory().with_extension("new")
}

fn staged(layout: &Layout, directory: &Path) -> PathBuf {
    directory.join(layout.cluster_file().file_name().unwrap_or_default())
}

fn exists(path: &Path) -> io::Result<bool> {
    match path.try_exists() {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        exists => exists,
    }
}

fn remove_directory(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]
mod tests {
    use super::*;

    struct Place {
        layout: Layout,
    }

    impl Place {
        fn new() -> Place {
            let unique = crate::clock::random();
            let root = std::env::temp_dir().join(format!("evenkeel-belonging-{unique:x}"));
            Place { layout: Layout::new(&root) }
        }

        fn prepare(&self) {
            let aside = make_aside(&self.layout).unwrap();
            durable::write_secret(&aside.join("node.key"), "key").unwrap();
        }

        fn refuses(&self, why: &str) {
            let refused = check_is_new(&self.layout).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(self.layout.root());
        }
    }

    #[test]
    fn a_cut_leaves_nothing_or_all_and_what_is_left_is_named() {
        let place = Place::new();
        let layout = &place.layout;
        assert_eq!(interrupted(layout), None);
        // Before the second step.
        place.prepare();
        check_is_new(layout).unwrap();
        assert!(interrupted(layout).unwrap().contains("do it again"));
        place.prepare();
        // After it.
        commit(layout, "cluster = 'demo'\n").unwrap();
        assert!(!layout.cluster_file().exists());
        place.refuses("is complete now");
        assert_eq!(fs::read_to_string(layout.cluster_file()).unwrap(), "cluster = 'demo'\n");
        assert!(layout.keys_directory().join("node.key").exists());
        assert_eq!(interrupted(layout), None);
        assert!(!finish(layout).unwrap());
        place.refuses("`evenkeel leave` first");
        // On the way out.
        fs::rename(layout.cluster_file(), layout.cluster_file().with_extension("left")).unwrap();
        place.refuses("was interrupted");
        assert!(interrupted(layout).unwrap().contains("remove"));
        durable::write_text(&layout.cluster_file(), "cluster = 'demo'\n").unwrap();
        forget(layout).unwrap();
        check_is_new(layout).unwrap();
        assert!(layout.cluster_file().with_extension("left").exists());
        assert_eq!(interrupted(layout), None);
    }

    #[test]
    fn a_machine_that_cannot_keep_it_says_so_before_anybody_is_asked() {
        let place = Place::new();
        fs::create_dir_all(place.layout.root()).unwrap();
        fs::write(place.layout.root().join("etc"), "no directory").unwrap();
        make_aside(&place.layout).unwrap_err();
    }
}
