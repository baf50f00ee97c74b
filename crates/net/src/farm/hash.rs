//! Which bucket a client falls into: the kernel's hash, done here too.
//!
//! Nothing depends on it but what people and tests are told; packets are hashed by the kernel.

use std::net::{IpAddr, SocketAddr};

use super::{Affinity, BUCKETS};

/// Equal on all nodes, or else they would not agree on a client's bucket.
pub(super) const SEED: u32 = 0x456b_6c31;

/// Where the kernel's hash begins.
const BEGIN: u32 = 0xdead_beef;

/// The bucket of a client, for traffic with that affinity.
#[must_use]
pub fn bucket(affinity: Affinity, client: SocketAddr) -> u8 {
    let mut key = match client.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    match affinity {
        Affinity::ClientIp => {}
        Affinity::ClientIpPort => {
            key.extend(client.port().to_be_bytes());
            // A register has four bytes; the kernel fills up.
            key.extend([0; 2]);
        }
    }
    // Scaled, not the remainder of a division.
    let scaled = (u64::from(jenkins(&key, SEED)) * BUCKETS as u64) >> 32;
    u8::try_from(scaled).unwrap_or(u8::MAX)
}

/// Bob Jenkins' hash as the kernel's `jhash` computes it, for keys of whole words.
fn jenkins(key: &[u8], seed: u32) -> u32 {
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let begin = BEGIN.wrapping_add(length).wrapping_add(seed);
    let mut state = [begin; 3];
    let mut words = key
        .chunks_exact(4)
        .map(|word| word.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes)));
    let mut left = key.len();
    while left > 12 {
        for part in &mut state {
            *part = part.wrapping_add(words.next().unwrap_or(0));
        }
        mix(&mut state);
        left -= 12;
    }
    if left > 0 {
        for (part, word) in state.iter_mut().zip(words) {
            *part = part.wrapping_add(word);
        }
        finish(&mut state);
    }
    state[2]
}

fn mix([a, b, c]: &mut [u32; 3]) {
    for (turn, by) in [4, 6, 8, 16, 19, 4].into_iter().enumerate() {
        let (x, y, z) = match turn % 3 {
            0 => (&mut *a, &mut *b, &mut *c),
            1 => (&mut *b, &mut *c, &mut *a),
            _ => (&mut *c, &mut *a, &mut *b),
        };
        *x = x.wrapping_sub(*z) ^ z.rotate_left(by);
        *z = z.wrapping_add(*y);
    }
}

fn finish([a, b, c]: &mut [u32; 3]) {
    for (turn, by) in [14, 11, 25, 16, 4, 14, 24].into_iter().enumerate() {
        let (x, y) = match turn % 3 {
            0 => (&mut *c, &*b),
            1 => (&mut *a, &*c),
            _ => (&mut *b, &*a),
        };
        *x = (*x ^ y).wrapping_sub(y.rotate_left(by));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_spread_over_all_buckets() {
        for affinity in [Affinity::ClientIp, Affinity::ClientIpPort] {
            let mut seen = [0_u32; BUCKETS];
            for number in 0..65_536_u32 {
                let [_, _, high, low] = number.to_be_bytes();
                let client = SocketAddr::from(([10, 0, high, low], 40_000));
                seen[usize::from(bucket(affinity, client))] += 1;
            }
            // 256 are expected; five standard deviations around that.
            assert!(seen.iter().all(|count| (176..336).contains(count)), "{seen:?}");
        }
    }

    #[test]
    fn the_port_counts_only_where_it_should() {
        let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let ports = || 1024..2048_u16;
        let by_address = ports().map(|port| bucket(Affinity::ClientIp, at(port)));
        assert!(by_address.clone().all(|bucket| Some(bucket) == by_address.clone().next()));
        let first = bucket(Affinity::ClientIpPort, at(1024));
        assert!(ports().any(|port| bucket(Affinity::ClientIpPort, at(port)) != first));
    }
}
