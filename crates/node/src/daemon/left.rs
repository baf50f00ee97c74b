//! What an earlier daemon of this boot left running: taken over, or cleared away.
//!
//! What a module's replicator is doing is found out by `replicators`.

use std::{fs, io};

use cluster::effect::Assignment;
use cluster::input::Running;
use model::NodeName;
use model::config::ModuleKind;

use crate::clock;
use crate::daemon::farms::Driver;
use crate::daemon::module::{Module, RunningState};
use crate::durable;
use crate::layout::Layout;

/// Takes over what goes on, beside a replicator with this task.
pub(super) fn adopt(layout: &Layout, module: &mut Module, assignment: Assignment) -> Running {
    let noted: RunningState =
        durable::read(&layout.running_file(&module.config.name)).ok().flatten().unwrap_or_default();
    let mut farm = None;
    if let Some(driver) = &mut module.farm {
        farm = driver.adopt().map(Box::new);
    } else if noted.addresses {
        // Taking again is harmless and gives this daemon what it needs to renew them.
        if let Err(error) = module.addresses.take(&module.config.vips, clock::now()) {
            eprintln!("! {} address: {error}", module.config.name);
        }
    }
    let service = runs(module, &noted);
    Running { assignment, addresses: noted.addresses, service, farm }
}

/// What an earlier daemon of this boot left running without a replicator. Only a kind of module
/// that needs none goes on like that; of others nothing may run or be held.
pub(super) fn left_running(
    layout: &Layout,
    node: &NodeName,
    module: &mut Module,
) -> io::Result<Option<Running>> {
    let noted: RunningState =
        durable::read(&layout.running_file(&module.config.name)).ok().flatten().unwrap_or_default();
    let in_this_boot = noted.boot.is_some() && noted.boot == clock::boot_id().ok();
    let runs = match module.config.kind {
        ModuleKind::Mirror => false,
        ModuleKind::Farm => in_this_boot && module.farm.as_ref().is_some_and(Driver::is_kept),
        ModuleKind::Light => in_this_boot && module.config.nodes.contains(node),
    };
    if !runs {
        if in_this_boot && noted.doubtful {
            module.application.doubt();
        }
        clear_away(layout, module)?;
        return Ok(None);
    }
    Ok(Some(adopt(layout, module, Assignment::Close)))
}

/// Whether the application runs, as an earlier daemon left it. If that was just starting or
/// stopping it, what there is of it is ended: half of an application is not the whole.
fn runs(module: &mut Module, noted: &RunningState) -> bool {
    let name = &module.config.name;
    if noted.doubtful {
        module.application.doubt();
    }
    if !noted.service {
        if let Err(error) = module.application.kill_now() {
            // A start ends it first, or fails and says so. Until then it is tried again, and where
            // there is a watchdog, it lets go or the machine is reset.
            eprintln!("! what is left of the application of {name} cannot be ended: {error}");
            module.application.kill_left();
        }
        return false;
    }
    module.application.is_running().unwrap_or_else(|error| {
        eprintln!("! {name}: {error}; the application counts as running, as it was started");
        true
    })
}

/// Nothing of the module may run or be held on this node.
fn clear_away(layout: &Layout, module: &mut Module) -> io::Result<()> {
    // Before what may fail: without this daemon nobody would.
    if let Err(error) = module.addresses.release(&module.config.vips) {
        eprintln!("! {} address: {error}", module.config.name);
    }
    module.application.kill_now()?;
    if module.config.farm.is_some()
        && let Err(error) = net::farm::remove(module.config.name.as_str())
    {
        eprintln!("! {} filter: {error}", module.config.name);
    }
    module.clean_leftovers(layout);
    match fs::remove_file(layout.running_file(&module.config.name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
