//! Builds the farm of the demo: a lab, the nodes' files and their daemons.
//!
//! Afterwards it is an ordinary cluster; nothing here knows what will be done to it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lab::interrupt::Interrupt;
use lab::{Host, HostSpec, Lab, LabOptions, Process, SpawnSpec};
use model::ModuleName;

use crate::command::demo::cluster::{ROOT, copy_logs};
use crate::command::demo::screen::Screen;
use crate::command::demo::{Failure, Result};

/// The nodes of the farm.
pub(super) const NODES: [&str; 3] = ["node1", "node2", "node3"];
const CLIENT: &str = "client";
const NETWORK: &str = "lan0";
const PORT: u16 = 80;
const MODULE: &str = "web";
const NGINX: &str = "/usr/sbin/nginx";
const NGINX_FILE: &str = "/mnt/state/nginx.conf";

/// Applications that the demo knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum App {
    /// A small web server that is part of this binary.
    Web,
    /// A real nginx; needs the Debian package of that name.
    Nginx,
}

impl App {
    /// Its name on the command line and in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            App::Web => "web",
            App::Nginx => "nginx",
        }
    }

    /// Looks for what it needs.
    pub(super) fn find(self) -> Result<()> {
        if self == App::Nginx && !Path::new(NGINX).exists() {
            let install = "apt-get install --no-install-recommends nginx-light";
            return Err(Failure::Unfit(format!("there is no {NGINX}; run: {install}")));
        }
        Ok(())
    }

    fn command(self) -> String {
        match self {
            App::Web => {
                format!("[\"/run/lab/evenkeel\", \"web\", \"--listen\", \"0.0.0.0:{PORT}\"]")
            }
            App::Nginx => format!("[\"{NGINX}\", \"-c\", \"{NGINX_FILE}\"]"),
        }
    }
}

/// A running farm.
pub(super) struct Site {
    pub(super) lab: Lab,
    pub(super) module: ModuleName,
    app: App,
    daemons: BTreeMap<&'static str, Process>,
}

impl Site {
    /// Boots the hosts and starts the daemons. The module is not started.
    pub(super) fn build(name: &str, app: App, interrupt: &Interrupt) -> Result<Site> {
        let module = ModuleName::new(MODULE).map_err(|error| Failure::Other(error.to_string()))?;
        let nodes = NODES.into_iter().map(HostSpec::node);
        let lab = Lab::create(LabOptions {
            name: name.to_owned(),
            binary: std::env::current_exe().map_err(Failure::io("cannot find the own binary"))?,
            networks: vec![NETWORK.to_owned()],
            hosts: nodes.chain([HostSpec::client(CLIENT)]).collect(),
        })?;
        let mut site = Site { lab, module, app, daemons: BTreeMap::new() };
        for node in NODES {
            if interrupt.requested() {
                return Err(Failure::Interrupted);
            }
            site.furnish(node)?;
            site.start_daemon(node)?;
        }
        Ok(site)
    }

    /// Starts the daemon of a node that was booted.
    pub(super) fn start_daemon(&mut self, node: &'static str) -> Result<()> {
        let argv = ["/run/lab/evenkeel", "--root", ROOT, "daemon"];
        let daemon = self.host(node)?.spawn(SpawnSpec::new(argv).log("daemon.log"))?;
        self.daemons.insert(node, daemon);
        Ok(())
    }

    /// Kills a node with everything on it. Its cable goes first: who dies closes no connections.
    pub(super) fn kill(&mut self, node: &'static str) -> Result<()> {
        self.daemons.remove(node);
        self.lab.cut_network(node, NETWORK)?;
        self.lab.kill(node)?;
        // It has none while it is down.
        Ok(self.lab.restore_network(node, NETWORK)?)
    }

    /// An error when the daemon of a node that is up has ended.
    pub(super) fn check_daemons(&self) -> Result<()> {
        match self.daemons.iter().find(|(_, daemon)| !daemon.is_alive()) {
            Some((node, daemon)) => {
                let said = fs::read_to_string(&daemon.log).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default();
                Err(Failure::Other(format!("the daemon of {node} ended: {last}")))
            }
            None => Ok(()),
        }
    }

    pub(super) fn host(&self, node: &str) -> Result<Host> {
        Ok(self.lab.host(node)?)
    }

    pub(super) fn client(&self) -> Result<Host> {
        self.host(CLIENT)
    }

    /// Where the farm is served.
    pub(super) fn address() -> SocketAddr {
        SocketAddr::new(lab::virtual_address(0, 0), PORT)
    }

    /// Copies all logs to a place that outlives the lab, and says where.
    pub(super) fn save_logs(&self, screen: &mut Screen) {
        let target = format!("evenkeel-{}-logs-{}", self.lab.name(), std::process::id());
        let target = std::env::temp_dir().join(target);
        for host in self.lab.hosts().unwrap_or_default() {
            let to: PathBuf = target.join(host.name());
            copy_logs(&host.dir(), &to);
            if let Ok(state) = host.path(Path::new(ROOT).join("var/lib/evenkeel")) {
                copy_logs(&state, &to.join("state"));
            }
        }
        screen.plain(&format!("Logs of all hosts: {}", target.display()));
    }

    /// Writes the configuration, equal on all nodes, and the application's own.
    fn furnish(&self, node: &str) -> Result<()> {
        let host = self.host(node)?;
        host.write_file(format!("{ROOT}/etc/evenkeel/cluster.toml"), self.cluster()?)?;
        let file = format!("{ROOT}/etc/evenkeel/modules/{MODULE}.toml");
        host.write_file(file, module(self.app))?;
        if self.app == App::Nginx {
            host.write_file(NGINX_FILE, nginx(node))?;
        }
        Ok(())
    }

    fn cluster(&self) -> Result<String> {
        let mut text = "cluster = \"demo\"\n".to_owned();
        for node in NODES {
            let address = self.host(node)?.address(NETWORK)?;
            text += &format!(
                "\n[[node]]\nname = \"{node}\"\naddresses = {{ {NETWORK} = \"{address}\" }}\n"
            );
        }
        Ok(text)
    }
}

/// The module's configuration.
fn module(app: App) -> String {
    let (vip, prefix, run) = (Site::address().ip(), lab::PREFIX, app.command());
    format!(
        "module = \"{MODULE}\"\nkind   = \"farm\"\n\n[[vip]]\naddress = \"{vip}/{prefix}\"\n\n\
         [[balance]]\nport = {PORT}\n\n[[command]]\nname = \"{MODULE}\"\nrun  = {run}\n\n\
         [[check]]\nname = \"answers\"\nkind = \"tcp\"\nport = {PORT}\ninterval = \"100ms\"\n"
    )
}

fn nginx(node: &str) -> String {
    let place = |name: &str| format!("{name}_temp_path /tmp/nginx-{name};");
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(place).concat();
    format!(
        "daemon off; worker_processes 1; pid /tmp/nginx.pid; error_log stderr;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 1000000; keepalive_timeout 600s; {places}\n\
         server {{ listen {PORT}; location / {{ return 200 \"{node}\\n\"; }} }} }}\n"
    )
}
