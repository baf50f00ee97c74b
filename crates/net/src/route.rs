//! Default routes: which gateways the kernel would use.
//!
//! No other routes, and no watching for changes: whoever wants to know asks again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
    RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::Error;
use crate::link::Netlink;

/// A machine, and the interface behind which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// Number of the interface; 0 where the kernel does not say.
    pub index: u32,
}

impl Netlink {
    /// The gateways of the default routes that are preferred, those of version 4 if there are any.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn gateways(&mut self) -> Result<Vec<Gateway>, Error> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = || {
                let mut message = RouteMessage::default();
                message.header.address_family = family;
                RouteNetlinkMessage::GetRoute(message)
            };
            let answers = self.dump(request, "the routes")?;
            let routes: Vec<_> = answers.iter().filter_map(default_route).collect();
            let best = routes.iter().map(|(metric, _)| *metric).min();
            let mut found: Vec<Gateway> = Vec::new();
            for (metric, gateways) in routes {
                let new = gateways.into_iter().filter(|_| Some(metric) == best);
                found.extend(new);
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// Makes `gateway`, behind the interface called `name`, that of the default route.
    ///
    /// # Errors
    /// When there is no such interface, or the kernel refuses.
    pub fn set_gateway(&mut self, name: &str, gateway: IpAddr) -> Result<(), Error> {
        let mut message = RouteMessage::default();
        message.header.address_family =
            if gateway.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        message.attributes.push(RouteAttribute::Oif(self.index_of(name)?));
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        let object = format!("a default route by {gateway}");
        self.change(RouteNetlinkMessage::NewRoute(message), flags, "set", &object)
    }
}

/// Metric and gateways of a default route that is in use.
fn default_route(answer: &RouteNetlinkMessage) -> Option<(u32, Vec<Gateway>)> {
    let RouteNetlinkMessage::NewRoute(message) = answer else { return None };
    let header = &message.header;
    let main = header.table == RouteHeader::RT_TABLE_MAIN;
    let default = header.destination_prefix_length == 0 && header.kind == RouteType::Unicast;
    if !main || !default {
        return None;
    }
    let (mut metric, mut index, mut gateways) = (0, 0, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(number) => index = *number,
            RouteAttribute::MultiPath(hops) => gateways.extend(hops.iter().filter_map(|hop| {
                let address = hop.attributes.iter().find_map(gateway)?;
                Some(Gateway { address, index: hop.interface_index })
            })),
            other => gateways.extend(gateway(other).map(|address| Gateway { address, index: 0 })),
        }
    }
    for gateway in gateways.iter_mut().filter(|gateway| gateway.index == 0) {
        gateway.index = index;
    }
    (!gateways.is_empty()).then_some((metric, gateways))
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    let address = match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => IpAddr::V4(*address),
        RouteAttribute::Gateway(RouteAddress::Inet6(address))
        | RouteAttribute::Via(RouteVia::Inet6(address)) => IpAddr::V6(*address),
        RouteAttribute::Via(RouteVia::Inet(address)) => IpAddr::V4(*address),
        _ => return None,
    };
    let nobody = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    (!nobody.contains(&address)).then_some(address)
}
