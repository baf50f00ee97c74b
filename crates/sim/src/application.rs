//! The application of each host: its checks, and how it fails.
//!
//! A check is up unless a story says otherwise. What it finds it says a moment after it was begun,
//! and whenever that changes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use cluster::Input;
use model::ModuleName;
use model::config::{CheckAction, CheckConfig, CheckKind};

use crate::world::{Happening, World, shop};

/// How long a check takes to find something out.
const LOOK: Duration = Duration::from_millis(20);

/// The application of a host as far as checks see it.
#[derive(Debug, Default, Clone)]
pub struct Application {
    serial: u64,
    running: BTreeSet<ModuleName>,
    /// Checks that fail until they are mended.
    failing: BTreeSet<ModuleName>,
    /// Checks that fail until the application is started anew.
    crashed: BTreeSet<ModuleName>,
}

/// A check with this action.
///
/// # Errors
/// The name or the action is none.
pub fn check(name: &str, action: &str) -> Result<CheckConfig, String> {
    let action = match action {
        "none" => CheckAction::None,
        "restart" => CheckAction::Restart,
        "failover" => CheckAction::Failover,
        "wait" => CheckAction::Wait,
        "stop" => CheckAction::Stop,
        other => return Err(format!("`{other}` is no action")),
    };
    Ok(CheckConfig {
        name: named(name)?,
        kind: CheckKind::Tcp(SocketAddr::from(([127, 0, 0, 1], 1))),
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        grace: Duration::ZERO,
        fail_after: 1,
        action,
    })
}

fn named(check: &str) -> Result<ModuleName, String> {
    ModuleName::new(check).map_err(|error| error.to_string())
}

impl World {
    /// What befalls the application of a host: `fail-check` until `mend-check`, or `crash` until
    /// the next start.
    ///
    /// # Errors
    /// The check's name is none.
    pub fn befall(&mut self, i: usize, what: &str, check: &str) -> Result<(), String> {
        let check = named(check)?;
        let application = &mut self.hosts[i].application;
        match what {
            "crash" => application.crashed.insert(check.clone()),
            "fail-check" => application.failing.insert(check.clone()),
            _ => application.failing.remove(&check),
        };
        self.look(i, &check);
        Ok(())
    }

    /// The shell is to carry out these checks.
    pub(crate) fn run_checks(&mut self, i: usize, serial: u64, checks: BTreeSet<ModuleName>) {
        let application = &mut self.hosts[i].application;
        application.running.clone_from(&checks);
        application.serial = serial;
        for check in &checks {
            self.look(i, check);
        }
    }

    /// Nothing fails any more.
    pub(crate) fn mend_application(&mut self, i: usize) {
        let application = &mut self.hosts[i].application;
        let crashed = std::mem::take(&mut application.crashed);
        for check in crashed.union(&std::mem::take(&mut application.failing)) {
            self.look(i, check);
        }
    }

    pub(crate) fn application_starts(&mut self, i: usize) {
        for check in std::mem::take(&mut self.hosts[i].application.crashed) {
            self.look(i, &check);
        }
    }

    /// A daemon that begins carries out no check.
    pub(crate) fn forget_checks(&mut self, i: usize) {
        self.hosts[i].application.running.clear();
    }

    fn look(&mut self, i: usize, check: &ModuleName) {
        let application = &self.hosts[i].application;
        if !application.running.contains(check) {
            return;
        }
        let up = !application.failing.contains(check) && !application.crashed.contains(check);
        let evidence = if up { Vec::new() } else { vec!["nobody answers".to_owned()] };
        let (module, serial, check) = (shop(), application.serial, check.clone());
        let result = Input::CheckResult { module, serial, check, up, evidence };
        self.after(LOOK, Happening::Give(i, result));
    }
}
