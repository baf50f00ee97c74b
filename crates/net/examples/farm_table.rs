//! Puts one table of a farm into force in the network namespace it runs in, for benchmarks.
//!
//! `farm_table vip=ADDRESS/PREFIX port=80 delivery=directed connections=yes leader=yes
//! members=MAC/ADDRESS,... share=me,0,1` gives the buckets to those of `share` in turn; a number is
//! a place among the members. `share=none` removes everything. Nothing decides or watches anything.

use std::collections::BTreeMap;
use std::error::Error;

use model::config::Vip;
use net::farm::{self, Affinity, BUCKETS, Bucket, Delivery, Engine, Nft, Owner, Place, Plan};
use net::farm::{Protocol, Rule, Stray, Table};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let split = words.iter().filter_map(|word| word.split_once('='));
    let given: BTreeMap<&str, &str> = split.collect();
    let get = |name: &str| given.get(name).copied().ok_or(format!("`{name}=` is missing"));
    let (address, prefix) = get("vip")?.split_once('/').ok_or("vip=ADDRESS/PREFIX")?;
    let vip = Vip { address: address.parse()?, prefix: prefix.parse()?, interface: None };
    let delivery = match get("delivery")? {
        "directed" => Delivery::Directed,
        "multicast" => Delivery::Multicast,
        other => return Err(format!("no delivery is called `{other}`").into()),
    };
    if get("share")? == "none" {
        net::vip::remove(&vip)?;
        farm::remove("bench")?;
        return Ok(());
    }
    let port = get("port")?.parse()?;
    let affinity = Affinity::ClientIpPort;
    let plan = Plan {
        module: "bench".into(),
        addresses: vec![farm::address(&vip)?],
        rules: vec![Rule { protocol: Protocol::Tcp, port, affinity }],
        delivery,
        connections: get("connections")? == "yes",
    };
    let members = get("members")?.split(',').filter(|member| !member.is_empty());
    let table = Table {
        leader: get("leader")? == "yes",
        members: members.map(|member| Ok(vec![place(member)?])).collect::<Result<_, String>>()?,
        buckets: buckets(get("share")?)?,
    };
    let mut engine = Nft::new();
    engine.install(&plan)?;
    engine.apply(&table)?;
    if table.leader {
        farm::announce(&plan)?;
    }
    Ok(())
}

fn place(text: &str) -> Result<Place, String> {
    let wrong = || format!("`{text}` is not MAC/ADDRESS");
    let (mac, address) = text.split_once('/').ok_or_else(wrong)?;
    let bytes: Result<Vec<u8>, _> =
        mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    let mac = bytes.ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
    Ok(Place { mac, address: address.parse().map_err(|_| wrong())? })
}

fn buckets(share: &str) -> Result<Vec<Bucket>, String> {
    let owner = |word: &str| match word {
        "me" => Ok(Owner::Me),
        number => number.parse().map(Owner::Member).map_err(|_| format!("who is `{number}`?")),
    };
    let owners = share.split(',').map(owner).collect::<Result<Vec<_>, _>>()?;
    let bucket = |owner: &Owner| Bucket { owner: *owner, stray: Stray::Silent, former: false };
    Ok(owners.iter().cycle().take(BUCKETS).map(bucket).collect())
}
