//! Which entry of a full table of strangers makes room: one from the network that most of them came from.

use std::net::IpAddr;

/// How many leading bits make one network, of IPv4 and of IPv6, widest first: what a registry gives to
/// providers, what those give to customers (RFC 6177), and a single host.
const NETWORKS: [(u32, u32); 4] = [(8, 32), (16, 48), (24, 56), (32, 64)];

/// The index of the first source in the most crowded network. The widest networks are compared first, then
/// those inside the most crowded one, so a sender who owns a whole provider's network competes only with
/// the others in it.
pub fn most_crowded(sources: &[IpAddr]) -> Option<usize> {
    let mut rest: Vec<(usize, IpAddr)> = sources.iter().copied().enumerate().collect();
    for bits in NETWORKS {
        let neighbours = |of: &(usize, IpAddr)| {
            let of = network(of.1, bits);
            rest.iter().filter(|it| network(it.1, bits) == of).count()
        };
        let most = rest.iter().map(neighbours).max()?;
        rest = rest
            .iter()
            .filter(|it| neighbours(it) == most)
            .copied()
            .collect();
    }
    rest.first().map(|(place, _)| *place)
}

/// What counts as one host: an IPv4 address, or a /64 of IPv6.
pub fn host(address: IpAddr) -> (bool, u128) {
    network(address, (32, 64))
}

fn network(address: IpAddr, (v4_bits, v6_bits): (u32, u32)) -> (bool, u128) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (true, (v4.to_bits() >> (32 - v4_bits)).into()),
        IpAddr::V6(v6) => (false, v6.to_bits() >> (128 - v6_bits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowded(sources: &[&str]) -> Option<usize> {
        let sources: Vec<IpAddr> = sources.iter().map(|it| it.parse().unwrap()).collect();
        most_crowded(&sources)
    }

    #[test]
    fn the_first_of_the_most_crowded_network_goes() {
        assert_eq!(crowded(&[]), None);
        assert_eq!(crowded(&["192.0.2.1"]), Some(0));
        // One network each: the first.
        assert_eq!(
            crowded(&["192.0.2.1", "198.51.100.1", "2001:db8::1"]),
            Some(0)
        );
        let same_customer = ["2001:db8:1::1", "2a00:5:5:1::1", "2a00:5:5:2::1"];
        assert_eq!(crowded(&same_customer), Some(1));
        // An honest host in the same provider's network has nothing to fear from a busy customer.
        let same_provider = [
            "2a00:5:9::1",
            "2a00:5:5:100::1",
            "2a00:5:5:200::1",
            "2a00:5:5:201::1",
        ];
        assert_eq!(crowded(&same_provider), Some(2));
        assert_eq!(
            crowded(&["9.9.9.9", "192.0.2.1", "192.0.3.1", "192.0.3.2"]),
            Some(2)
        );
        assert_eq!(
            host("::ffff:192.0.2.1".parse().unwrap()),
            host([192, 0, 2, 1].into())
        );
    }
}
