//! The farm's data path under other plans than the usual: one version of IP, no knowledge of
//! connections, two farms on one device, TCP in fragments. Needs root and iproute2.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the test's failure")]

mod farm_support;

use std::net::SocketAddr;

use farm_support::traffic::{Client, Failure, any, serve};
use farm_support::{CLIENT, Farm, SERVERS, SPREAD, VERSIONS, Version, plan};
use net::farm::{Affinity, Bucket, Delivery, Engine, Nft, Owner, Table, bucket};

const DELIVERIES: [Delivery; 2] = [Delivery::Directed, Delivery::Multicast];

fn serve_all(farm: &Farm) {
    for server in 0..SERVERS {
        farm.on_server(server, || serve(server, SPREAD));
    }
}

fn connect(farm: &Farm, version: Version) -> Result<Client, Failure> {
    let (from, to) = (any(version.on_lan(CLIENT)), SocketAddr::new(version.vip(), SPREAD));
    farm.on_client(|| Client::connect(from, to))
}

/// Who serves it, and who should.
fn served(farm: &Farm, client: &mut Client) -> (Result<usize, Failure>, usize) {
    let owner = farm.shares.owner(bucket(Affinity::ClientIpPort, client.from));
    (client.ask(), owner)
}

#[test]
fn a_farm_may_have_one_version_of_ip_alone() {
    for delivery in DELIVERIES {
        for version in VERSIONS {
            let is_kept = |ip: std::net::IpAddr| ip.is_ipv4() == version.vip().is_ipv4();
            let farm = Farm::build_with(|server| {
                let mut plan = plan(server, delivery);
                plan.addresses.retain(|address| is_kept(address.ip));
                plan
            });
            let farm = farm.with_shares(&[0, 1, 2]);
            serve_all(&farm);
            for _ in 0..20 {
                let mut client = connect(&farm, version).unwrap();
                let (answer, owner) = served(&farm, &mut client);
                assert_eq!(answer, Ok(owner), "{delivery:?}, {}", client.from);
            }
        }
    }
}

#[test]
fn without_knowledge_of_connections_those_that_move_are_reset() {
    for delivery in DELIVERIES {
        let farm = Farm::build_with(|server| {
            let mut plan = plan(server, delivery);
            plan.connections = false;
            plan
        });
        let mut farm = farm.with_shares(&[0, 1]);
        serve_all(&farm);
        let mut kept = Vec::new();
        for number in 0..40 {
            let mut client = connect(&farm, VERSIONS[number % 2]).unwrap();
            let (answer, owner) = served(&farm, &mut client);
            assert_eq!(answer, Ok(owner), "{delivery:?}, {}", client.from);
            kept.push((client, owner));
        }
        farm.share_out(&[0, 1, 2]);
        let mut moved = 0;
        for (client, before) in &mut kept {
            let (answer, owner) = served(&farm, client);
            let expected = if owner == *before { Ok(owner) } else { Err(Failure::Reset) };
            assert_eq!(answer, expected, "{delivery:?}, {}", client.from);
            moved += usize::from(owner != *before);
        }
        assert!(moved > 0, "nothing moved");
    }
}

#[test]
fn two_farms_share_a_device_and_know_nothing_of_each_other() {
    let farm = Farm::serving(Delivery::Directed, &[0, 1, 2]);
    serve_all(&farm);
    let other = Version::V4.on_lan(101);
    let mut second = plan(2, Delivery::Directed);
    second.module = "other".into();
    second.addresses.retain(|address| address.ip.is_ipv4());
    second.addresses[0].ip = other;
    let mine = Bucket { owner: Owner::Me, ..Bucket::EMPTY };
    let table = Table { leader: true, buckets: vec![mine; 256], members: Vec::new() };
    let mut engine = Nft::new();
    farm.on_server(2, || {
        engine.install(&second).unwrap();
        engine.apply(&table).unwrap();
    });
    let ask_other = || {
        let (from, to) = (any(Version::V4.on_lan(CLIENT)), SocketAddr::new(other, SPREAD));
        farm.on_client(|| Client::connect(from, to).and_then(|mut client| client.ask()))
    };
    let ask_first = || {
        for _ in 0..20 {
            let mut client = connect(&farm, Version::V4).unwrap();
            let (answer, owner) = served(&farm, &mut client);
            assert_eq!(answer, Ok(owner), "{}", client.from);
        }
    };
    for _ in 0..20 {
        assert_eq!(ask_other(), Ok(2));
    }
    ask_first();
    farm.on_server(2, || engine.remove()).unwrap();
    ask_first();
    assert!(ask_other().is_err());
}

#[test]
fn segments_in_fragments_find_their_connection_wherever_it_lives() {
    for delivery in DELIVERIES {
        let mut farm = Farm::serving(delivery, &[0, 1, 2]);
        serve_all(&farm);
        farm.cut_into_fragments();
        let to = SocketAddr::new(Version::V4.vip(), SPREAD);
        let mut kept = Vec::new();
        for _ in 0..12 {
            let open = || Client::connect(any(Version::V4.far(2)), to);
            let mut client = farm.far_away(open).unwrap();
            let (answer, owner) = served(&farm, &mut client);
            assert_eq!(answer, Ok(owner), "{delivery:?}, {}", client.from);
            kept.push((client, owner));
        }
        let mut send_all = || {
            for (client, server) in &mut kept {
                assert_eq!(client.send(100_000), Ok(*server), "{delivery:?}, {}", client.from);
            }
        };
        send_all();
        assert!(farm.fragments() > 100, "only {} fragments", farm.fragments());
        // Now some live on a node that owns nothing any more.
        farm.share_out(&[0, 1]);
        send_all();
    }
}
