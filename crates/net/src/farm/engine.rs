//! The engine that uses nf_tables: its tables, and what stands around them.
//!
//! Chains and sets are made once; each table that is applied replaces all rules and elements in one
//! transaction. Which plan a set of tables was made for is kept in the kernel, as the name of a
//! chain, so that whoever comes later can tell whether to adopt them.

use super::{ADDRESSES_MAX, BUCKETS, Delivery, Engine, Installed, MEMBERS_MAX, Owner, Plan, Stray};
use super::{Table, features, group, ingress, neighbours, whole};
use crate::error::{Error, kernel};
use crate::link::Netlink;
use crate::nft::encode::{self, Batch, Family};
use crate::nft::{chain_exists, commit};
use crate::vip;

/// To be raised whenever chains or sets change, so that those of an older program are not adopted.
const SHAPE: u32 = 1;

const FAMILIES: [Family; 4] = [Family::NetDev, Family::Arp, Family::Ip, Family::Ip6];

/// Farms by nf_tables.
#[derive(Debug, Default)]
pub struct Nft {
    plan: Option<Plan>,
    /// What was applied last; none while a table of an earlier program is in force.
    applied: Option<Table>,
    /// Numbers of the devices that the rules name.
    devices: Vec<u32>,
}

impl Nft {
    /// An engine without a plan.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn planned(&self) -> Result<&Plan, Error> {
        self.plan.as_ref().ok_or(Error::Farm { mistake: "no plan has been installed" })
    }
}

impl Engine for Nft {
    fn install(&mut self, plan: &Plan) -> Result<Installed, Error> {
        check_plan(plan)?;
        let name = table_name(&plan.module);
        let object = || format!("packet filter \"{name}\"");
        let stands = stands(&name, plan).map_err(kernel("look for", object()))?;
        if !stands {
            put_up(&name, plan)?;
        }
        *self = Self { plan: Some(plan.clone()), applied: None, devices: numbers(plan)? };
        self.renew()?;
        Ok(if stands { Installed::Adopted } else { Installed::Fresh })
    }

    fn apply(&mut self, table: &Table) -> Result<(), Error> {
        let plan = self.planned()?;
        check_table(plan, table)?;
        let name = table_name(&plan.module);
        let mut batch = Batch::new();
        let devices = numbers(plan)?;
        fill(&mut batch, &name, plan, table)?;
        let object = format!("packet filter \"{name}\"");
        commit(batch).map_err(|source| refused(plan, "change", object, source))?;
        (self.applied, self.devices) = (Some(table.clone()), devices);
        Ok(())
    }

    fn renew(&mut self) -> Result<(), Error> {
        let plan = self.planned()?.clone();
        let name = table_name(&plan.module);
        let object = format!("packet filter \"{name}\"");
        // A device that went away took its chain and its number with it.
        let stands = stands(&name, &plan).map_err(kernel("look for", object))?;
        if !stands {
            put_up(&name, &plan)?;
        }
        if (!stands || self.devices != numbers(&plan)?)
            && let Some(table) = self.applied.clone()
        {
            self.apply(&table)?;
        }
        let mut netlink = Netlink::open()?;
        for address in &plan.addresses {
            if plan.delivery == Delivery::Multicast {
                group::join(&address.device, group::mac(address.ip))?;
            }
            let prefix = if address.ip.is_ipv4() { 32 } else { 128 };
            netlink.add_address(&address.device, address.ip, prefix, Some(vip::LIFETIME))?;
        }
        Ok(())
    }

    fn remove(&mut self) -> Result<(), Error> {
        let Some(plan) = &self.plan else {
            return Ok(());
        };
        let mut netlink = Netlink::open()?;
        for address in &plan.addresses {
            let prefix = if address.ip.is_ipv4() { 32 } else { 128 };
            netlink.delete_address(&address.device, address.ip, prefix)?;
            if plan.delivery == Delivery::Multicast {
                group::leave(&address.device, group::mac(address.ip))?;
            }
        }
        remove(&plan.module)?;
        *self = Self::new();
        Ok(())
    }
}

/// Removes the filter of a module, for example one left by a daemon that died. That there is none
/// is success. Virtual addresses end by themselves, or by [`vip::remove`].
///
/// # Errors
/// When the kernel refuses.
pub fn remove(module: &str) -> Result<(), Error> {
    let name = table_name(module);
    let mut batch = Batch::new();
    for family in FAMILIES {
        batch.remove_table(encode::Table { family, name: &name });
    }
    match commit(batch) {
        // A kernel without packet filters has none of ours.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        result => result.map_err(kernel("remove", format!("packet filter \"{name}\""))),
    }
}

/// Puts up the filter with an empty share, instead of whatever stands.
fn put_up(name: &str, plan: &Plan) -> Result<(), Error> {
    let mut batch = Batch::new();
    for family in FAMILIES {
        batch.remove_table(encode::Table { family, name });
    }
    ingress::shape(&mut batch, name, plan);
    if plan.connections {
        whole::shape(&mut batch, name, plan);
    }
    neighbours::shape(&mut batch, name, plan);
    batch.add_chain(ingress::table(name), &mark(plan), None);
    fill(&mut batch, name, plan, &Table::empty())?;
    let object = format!("packet filter \"{name}\"");
    commit(batch).map_err(|source| refused(plan, "install", object, source))
}

/// The numbers of the devices.
fn numbers(plan: &Plan) -> Result<Vec<u32>, Error> {
    let mut netlink = Netlink::open()?;
    plan.addresses.iter().map(|address| netlink.index_of(&address.device)).collect()
}

fn fill(batch: &mut Batch, name: &str, plan: &Plan, table: &Table) -> Result<(), Error> {
    let empty = *table == Table::empty();
    // With multicast delivery all answer alike, as soon as they take part.
    let quiet = !table.leader && (plan.delivery == Delivery::Directed || empty);
    ingress::fill(batch, name, plan, table, quiet)?;
    if plan.connections {
        whole::fill(batch, name, plan, table)?;
    }
    neighbours::fill(batch, name, plan, quiet);
    Ok(())
}

fn table_name(module: &str) -> String {
    format!("evenkeel-{module}")
}

/// Whether the tables of an equal plan stand. The kernel takes the chain of a device away together
/// with the device.
fn stands(name: &str, plan: &Plan) -> std::io::Result<bool> {
    let table = ingress::table(name);
    let devices = ingress::devices(plan).into_iter().map(ingress::device_chain);
    for chain in devices.chain([mark(plan)]) {
        if !chain_exists(table, &chain)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A name that tells plans apart.
fn mark(plan: &Plan) -> String {
    let text = format!("{SHAPE} {plan:?}");
    // FNV: short, and equal for every build of this program.
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("plan-{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
}

fn refused(plan: &Plan, operation: &'static str, object: String, source: std::io::Error) -> Error {
    let features = features::missing(plan);
    if features.is_empty() {
        return kernel(operation, object)(source);
    }
    Error::Missing { operation, object, features }
}

fn check_plan(plan: &Plan) -> Result<(), Error> {
    let mistake = |mistake| Err(Error::Farm { mistake });
    if plan.addresses.is_empty() {
        return mistake("the plan has no virtual address");
    }
    if plan.addresses.len() > ADDRESSES_MAX {
        return mistake("the plan has more than 16 virtual addresses");
    }
    if plan.addresses.iter().any(|it| it.ip.is_ipv4() != it.own.address.is_ipv4()) {
        return mistake("a virtual address and this node's own are of different versions of IP");
    }
    Ok(())
}

fn check_table(plan: &Plan, table: &Table) -> Result<(), Error> {
    let mistake = |mistake| Err(Error::Farm { mistake });
    if table.buckets.len() != BUCKETS {
        return mistake("a table must have 256 buckets");
    }
    if table.members.len() > MEMBERS_MAX {
        return mistake("a table must not have more than 128 members");
    }
    let complete = |places: &Vec<super::Place>| {
        places.len() == plan.addresses.len()
            && places
                .iter()
                .zip(&plan.addresses)
                .all(|(place, address)| place.address.is_ipv4() == address.ip.is_ipv4())
    };
    if !table.members.iter().all(complete) {
        return mistake("a member must have one place for each virtual address, of its version");
    }
    let known = |member: u8| usize::from(member) < table.members.len();
    let names_members = |bucket: &super::Bucket| {
        let owner = match bucket.owner {
            Owner::Member(member) => known(member),
            Owner::Nobody | Owner::Me => true,
        };
        owner
            && match bucket.stray {
                Stray::Pass(member) => known(member),
                Stray::Reset | Stray::Silent => true,
            }
    };
    if !table.buckets.iter().all(names_members) {
        return mistake("a bucket names a member that the table does not have");
    }
    Ok(())
}
