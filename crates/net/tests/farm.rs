//! The farm's data path against the kernel: who is served where, and what stays when shares move.
//! Needs root and iproute2.
//!
//! Three servers on a bridge in network namespaces, real sockets on both sides. Who owns what is
//! said by the tests, as a farm's core would say it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the test's failure")]

mod farm_support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use farm_support::traffic::{Client, Failure, any, ask_by_datagram, serve, serve_datagrams};
use farm_support::{CLIENT, Farm, SERVERS, SPREAD, STICKY, VERSIONS, Version};
use net::farm::{Affinity, Delivery, bucket};

const DELIVERIES: [Delivery; 2] = [Delivery::Directed, Delivery::Multicast];

fn with_servers(farm: &Farm) {
    for server in 0..SERVERS {
        farm.on_server(server, || {
            for port in [SPREAD, STICKY] {
                serve(server, port);
                for version in VERSIONS {
                    serve_datagrams(server, SocketAddr::new(version.vip(), port));
                }
            }
        });
    }
}

fn vip(version: Version, port: u16) -> SocketAddr {
    SocketAddr::new(version.vip(), port)
}

fn connect(farm: &Farm, version: Version, port: u16) -> Result<Client, Failure> {
    let from = any(version.on_lan(CLIENT));
    farm.on_client(|| Client::connect(from, vip(version, port)))
}

/// Connections that are kept, of both versions, with who serves them.
fn keep(farm: &Farm, count: usize) -> Vec<(Client, usize)> {
    let one = |number: usize| {
        let mut client = connect(farm, VERSIONS[number % 2], SPREAD).unwrap();
        let server = client.ask().unwrap();
        (client, server)
    };
    (0..count).map(one).collect()
}

/// Opens connections without pause while `work` goes on, and returns how many; none may fail.
fn under_traffic(farm: &mut Farm, work: impl FnOnce(&mut Farm)) -> usize {
    let client = farm.on_client(net::namespace::NetNs::current).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let opener = scope.spawn(|| {
            use std::os::fd::AsFd;
            net::namespace::enter(client.as_fd(), || {
                let mut opened = 0;
                while !over.load(Ordering::Relaxed) || opened < 50 {
                    let version = VERSIONS[opened % 2];
                    let from = any(version.on_lan(CLIENT));
                    let client = Client::connect(from, vip(version, SPREAD));
                    let answer = client.and_then(|mut client| client.ask());
                    assert!(answer.is_ok(), "connection {opened}: {answer:?}");
                    opened += 1;
                }
                opened
            })
            .unwrap()
        });
        work(farm);
        over.store(true, Ordering::Relaxed);
        opener.join().unwrap()
    })
}

#[test]
fn clients_are_served_where_their_bucket_says() {
    for delivery in DELIVERIES {
        let farm = Farm::serving(delivery, &[0, 1, 2]);
        with_servers(&farm);
        for version in VERSIONS {
            let mut served = [0; SERVERS];
            for port in 20_000..20_060 {
                let from = SocketAddr::new(version.on_lan(CLIENT), port);
                for (service, affinity) in
                    [(SPREAD, Affinity::ClientIpPort), (STICKY, Affinity::ClientIp)]
                {
                    let expected = farm.shares.owner(bucket(affinity, from));
                    let answer = farm.on_client(|| {
                        Client::connect(from, vip(version, service)).and_then(|mut it| it.ask())
                    });
                    assert_eq!(answer, Ok(expected), "{delivery:?}, {from} to port {service}");
                    let to = vip(version, service);
                    let answer = farm.on_client(|| ask_by_datagram(from, to, 100));
                    assert_eq!(answer, Ok((expected, 100)), "{delivery:?}, datagram of {from}");
                    served[expected] += usize::from(service == SPREAD);
                }
            }
            assert!(served.iter().all(|count| *count > 0), "{served:?}");
        }
    }
}

#[test]
fn datagrams_in_fragments_meet_the_owner_of_their_port() {
    for delivery in DELIVERIES {
        let farm = Farm::serving(delivery, &[0, 1, 2]);
        with_servers(&farm);
        for version in VERSIONS {
            for port in 21_000..21_020 {
                let from = SocketAddr::new(version.on_lan(CLIENT), port);
                let expected = farm.shares.owner(bucket(Affinity::ClientIpPort, from));
                let answer = farm.on_client(|| ask_by_datagram(from, vip(version, SPREAD), 5000));
                assert_eq!(answer, Ok((expected, 5000)), "{delivery:?}, {from}");
            }
        }
    }
}

#[test]
fn a_join_breaks_no_connection_and_loses_no_new_one() {
    for delivery in DELIVERIES {
        let mut farm = Farm::serving(delivery, &[0, 1]);
        with_servers(&farm);
        let mut kept = keep(&farm, 60);
        under_traffic(&mut farm, |farm| farm.share_out(&[0, 1, 2]));
        for (client, server) in &mut kept {
            assert_eq!(client.ask(), Ok(*server), "{delivery:?}, {}", client.from);
        }
        let joined = keep(&farm, 60).iter().filter(|(_, server)| *server == 2).count();
        assert!(joined > 0, "{delivery:?}: the new node serves nobody");
    }
}

#[test]
fn a_drain_breaks_no_connection_and_loses_no_new_one() {
    for delivery in DELIVERIES {
        let mut farm = Farm::serving(delivery, &[0, 1, 2]);
        with_servers(&farm);
        let mut kept = keep(&farm, 60);
        assert!(kept.iter().any(|(_, server)| *server == 1));
        under_traffic(&mut farm, |farm| farm.share_out(&[0, 2]));
        for (client, server) in &mut kept {
            assert_eq!(client.ask(), Ok(*server), "{delivery:?}, {}", client.from);
        }
        assert!(keep(&farm, 60).iter().all(|(_, server)| *server != 1));
        // And back again: a node finds connections of its own in buckets that it gets back.
        under_traffic(&mut farm, |farm| farm.share_out(&[0, 1, 2]));
        for (client, server) in &mut kept {
            assert_eq!(client.ask(), Ok(*server), "{delivery:?}, {}", client.from);
        }
    }
}

#[test]
fn a_kill_resets_exactly_the_connections_of_the_dead() {
    for delivery in DELIVERIES {
        for dead in [0, 2] {
            let mut farm = Farm::serving(delivery, &[0, 1, 2]);
            with_servers(&farm);
            let mut kept = keep(&farm, 60);
            let survivors: Vec<_> = (0..SERVERS).filter(|server| *server != dead).collect();
            farm.kill(dead, &survivors);
            for (client, server) in &mut kept {
                let expected = if *server == dead { Err(Failure::Reset) } else { Ok(*server) };
                assert_eq!(client.ask(), expected, "{delivery:?}, {} of {server}", client.from);
            }
            assert!(keep(&farm, 60).iter().all(|(_, server)| *server != dead));
        }
    }
}

#[test]
fn a_change_of_leader_loses_nothing() {
    let mut farm = Farm::serving(Delivery::Directed, &[0, 1, 2]);
    with_servers(&farm);
    let mut kept = keep(&farm, 60);
    under_traffic(&mut farm, |farm| {
        farm.lead(1);
        farm.lead(2);
    });
    for (client, server) in &mut kept {
        assert_eq!(client.ask(), Ok(*server), "{}", client.from);
    }
}

#[test]
fn clients_behind_a_router_are_served_alike() {
    for delivery in DELIVERIES {
        let mut farm = Farm::serving(delivery, &[0, 1]);
        with_servers(&farm);
        for version in VERSIONS {
            let mut kept: Vec<_> = (0..30)
                .map(|_| {
                    let (from, to) = (any(version.far(2)), vip(version, SPREAD));
                    let mut client = farm.far_away(|| Client::connect(from, to)).unwrap();
                    let server = client.ask().unwrap();
                    let expected = farm.shares.owner(bucket(Affinity::ClientIpPort, client.from));
                    assert_eq!(server, expected);
                    (client, server)
                })
                .collect();
            let others: &[usize] = if version == Version::V4 { &[0, 1, 2] } else { &[1, 2] };
            farm.share_out(others);
            for (client, server) in &mut kept {
                assert_eq!(client.ask(), Ok(*server), "{delivery:?}, {}", client.from);
            }
        }
    }
}

#[test]
fn large_requests_arrive_whole() {
    for delivery in DELIVERIES {
        let farm = Farm::serving(delivery, &[0, 1, 2]);
        with_servers(&farm);
        for version in VERSIONS {
            for number in 0..6 {
                // From beside the servers, and from behind the router.
                let (near, to) = (number % 2 == 0, vip(version, SPREAD));
                let from = any(if near { version.on_lan(CLIENT) } else { version.far(2) });
                let open = || Client::connect(from, to);
                let client = if near { farm.on_client(open) } else { farm.far_away(open) };
                let mut client = client.unwrap();
                let expected = farm.shares.owner(bucket(Affinity::ClientIpPort, client.from));
                assert_eq!(client.send(3_000_000), Ok(expected), "{delivery:?}, {}", client.from);
            }
        }
    }
}

#[test]
fn what_a_router_reports_reaches_whoever_it_concerns() {
    for delivery in DELIVERIES {
        let mut farm = Farm::serving(delivery, &[0, 1, 2]);
        with_servers(&farm);
        for version in VERSIONS {
            let mut clients: Vec<_> = (0..12)
                .map(|_| {
                    let (from, to) = (any(version.far(2)), vip(version, SPREAD));
                    farm.far_away(|| Client::connect(from, to)).unwrap()
                })
                .collect();
            // From now on what the servers send is too large for the last cable, which only the
            // router can tell them. Some of the connections live on a node that owns nothing.
            farm.narrow(1300);
            farm.share_out(&[0, 1]);
            for client in &mut clients {
                let expected = client.ask().unwrap();
                assert_eq!(client.fetch(100_000), Ok(expected), "{delivery:?}, {}", client.from);
            }
            farm.narrow(1500);
            farm.share_out(&[0, 1, 2]);
        }
    }
}
