//! Cables and cuts. The switch is a host of its own that holds one bridge per network; every other
//! host has one interface per network, named like it. The machine's own network is never touched.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use net::link::Netlink;

use crate::error::{During, Error, Result, cannot};
use crate::plan;
use crate::proc::ProcessId;
use crate::state::LabState;

/// The network namespace of the host whose pid 1 is `init`.
pub(crate) fn namespace(init: ProcessId) -> Result<OwnedFd> {
    let path = init.path("ns/net");
    Ok(File::open(&path).during(|| cannot("open", &path))?.into())
}

/// Makes the bridges of a switch that was just booted.
pub(crate) fn build_switch(state: &LabState) -> Result<()> {
    let switch = namespace(state.init(plan::SWITCH)?)?;
    within(&switch, "cannot make the bridges", |netlink| {
        for network in &state.networks {
            netlink.create_bridge(network)?;
            netlink.set_up(network)?;
        }
        Ok(())
    })
}

/// Joins a host that was just booted to its networks.
pub(crate) fn connect(state: &LabState, host: &str) -> Result<()> {
    let position = state.position(host)?;
    let switch = namespace(state.init(plan::SWITCH)?)?;
    let inside = namespace(state.init(host)?)?;
    for network in state.networks_of(state.spec(host)?) {
        let number = state.network_position(&network)?;
        let port = plan::port(host, &network);
        let pulled = state.pulled.contains(&(host.to_owned(), network.clone()));
        let what = format!("cannot join {host} to {network}");
        within(&switch, &what, |netlink| {
            // That of a host that ended by itself lasts until the kernel has cleaned up after it.
            if netlink.links()?.iter().any(|link| link.name == port) {
                // It may vanish by itself at this very moment.
                let _ = netlink.delete(&port);
            }
            netlink.create_veth(&port, &network, inside.as_fd())?;
            netlink.set_master(&port, &network)?;
            if pulled { Ok(()) } else { netlink.set_up(&port) }
        })?;
        within(&inside, &what, |netlink| {
            netlink.set_mac(&network, plan::hardware_address(number, position))?;
            netlink.add_address(&network, plan::address(number, position), plan::PREFIX, None)?;
            netlink.set_up(&network)
        })?;
    }
    Ok(())
}

/// Takes the cables of a host away, at both ends.
pub(crate) fn disconnect(state: &LabState, host: &str) -> Result<()> {
    let switch = namespace(state.init(plan::SWITCH)?)?;
    let networks = state.networks_of(state.spec(host)?);
    within(&switch, &format!("cannot take the cables of {host} away"), |netlink| {
        let links = netlink.links()?;
        let ports = networks.iter().map(|network| plan::port(host, network));
        // Not all are there if the host was killed as it came up.
        let mut ports = ports.filter(|port| links.iter().any(|link| link.name == *port));
        ports.try_for_each(|port| netlink.delete(&port))
    })
}

/// Makes exactly the cuts that the state names, in all networks.
pub(crate) fn apply_cuts(state: &LabState) -> Result<()> {
    let ports = |(from, to): &(String, String)| {
        let (from, to) = (from.clone(), to.clone());
        state.networks.iter().map(move |net| (plan::port(&from, net), plan::port(&to, net)))
    };
    let pairs: Vec<_> = state.cuts.iter().flat_map(ports).collect();
    let datagrams: Vec<_> = state.datagram_cuts.iter().flat_map(ports).collect();
    let switch = namespace(state.init(plan::SWITCH)?)?;
    let result =
        net::namespace::enter(switch.as_fd(), || net::nft::bridge_cuts(&pairs, &datagrams));
    flatten(result, "cannot cut links")
}

/// Pulls or plugs the cable between a host and a network.
pub(crate) fn set_plugged(
    state: &LabState,
    host: &str,
    network: &str,
    plugged: bool,
) -> Result<()> {
    let switch = namespace(state.init(plan::SWITCH)?)?;
    let port = plan::port(host, network);
    within(&switch, &format!("cannot switch the port {port}"), |netlink| {
        if plugged { netlink.set_up(&port) } else { netlink.set_down(&port) }
    })
}

/// All addresses of a host, those that were added later included.
pub(crate) fn addresses(init: ProcessId) -> Result<Vec<IpAddr>> {
    let inside = namespace(init)?;
    within(&inside, "cannot list addresses", |netlink| {
        Ok(netlink.addresses()?.iter().map(|address| address.ip).collect())
    })
}

fn within<T: Send>(
    namespace: &OwnedFd,
    what: &str,
    work: impl FnOnce(&mut Netlink) -> std::result::Result<T, net::Error> + Send,
) -> Result<T> {
    flatten(net::namespace::enter(namespace.as_fd(), || work(&mut Netlink::open()?)), what)
}

fn flatten<T>(
    result: std::result::Result<std::result::Result<T, net::Error>, net::Error>,
    what: &str,
) -> Result<T> {
    let failed =
        |error: net::Error| Error::Network { what: what.to_owned(), message: error.to_string() };
    result.and_then(|inner| inner).map_err(failed)
}
