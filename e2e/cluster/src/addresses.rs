//! Which addresses a cluster uses. Each cluster owns one slot, so that several stand side by side and the host can
//! reach the pods and Services of each.

use std::fmt;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::limits::SLOTS;

const SERVICES_BASE: u8 = 64;
const PODS_BASE: u8 = 128;

/// A slot of addresses: a /24 out of 198.18.0.0/15 (set aside for tests of networks) for the node, a /16 for Services, a /24 for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(u8);

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: Ipv4Addr,
    prefix: u8,
}

impl Slot {
    /// The first free slot, beginning at the one that the name hashes to.
    pub fn choose(name: &str, taken: &[Slot], in_use: &[Network]) -> Result<Self> {
        let preferred = Sha256::digest(name.as_bytes()).first().copied().unwrap_or_default() % SLOTS;
        (0..SLOTS)
            .map(|step| Slot((preferred + step) % SLOTS))
            .find(|slot| !taken.contains(slot) && !slot.collides(in_use))
            .with_context(|| format!("none of the {SLOTS} address slots is free: take a cluster down, or free routes in 10.64.0.0/10 and 198.18.0.0/18"))
    }

    fn collides(self, in_use: &[Network]) -> bool {
        let own = [self.link(), self.services(), self.pods()];
        in_use.iter().any(|used| own.iter().any(|network| network.overlaps(*used)))
    }

    /// The network between host and node.
    pub fn link(self) -> Network {
        Network { base: Ipv4Addr::new(198, 18, self.0, 0), prefix: 24 }
    }

    /// The host's end of the link.
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.0, 1)
    }

    /// The node: the API server listens here, and all load goes here.
    pub fn node(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.0, 2)
    }

    /// Addresses of Services.
    pub fn services(self) -> Network {
        Network { base: Ipv4Addr::new(10, SERVICES_BASE + self.0, 0, 0), prefix: 16 }
    }

    /// Service address of the API server.
    pub fn api_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, SERVICES_BASE + self.0, 0, 1)
    }

    /// Address of the cluster's DNS.
    pub fn dns(self) -> Ipv4Addr {
        Ipv4Addr::new(10, SERVICES_BASE + self.0, 0, 10)
    }

    /// Addresses of real pods.
    pub fn pods(self) -> Network {
        Network { base: Ipv4Addr::new(10, PODS_BASE + self.0, 0, 0), prefix: 24 }
    }

    /// Addresses that KWOK gives to pods that do not run.
    pub fn kwok_pods(self) -> Network {
        Network { base: Ipv4Addr::new(10, PODS_BASE + self.0, 128, 0), prefix: 17 }
    }
}

impl Network {
    /// Reads `a.b.c.d` or `a.b.c.d/len`.
    pub fn parse(text: &str) -> Result<Self> {
        let (base, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let base = base.parse().with_context(|| format!("{text:?} is no IPv4 network"))?;
        let prefix = prefix.parse().with_context(|| format!("{text:?} is no IPv4 network"))?;
        ensure!(prefix <= 32, "{text:?} has a prefix longer than 32");
        Ok(Self { base, prefix })
    }

    fn overlaps(self, other: Network) -> bool {
        let mask = self.mask() & other.mask();
        self.base.to_bits() & mask == other.base.to_bits() & mask
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or_default()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_slot() {
        let first = Slot::choose("quartermaster", &[], &[]).unwrap();
        assert_eq!(first, Slot::choose("quartermaster", &[], &[]).unwrap());
        assert_eq!(first.node().octets()[2], first.services().base.octets()[1] - SERVICES_BASE);
    }

    #[test]
    fn taken_slots_and_used_networks_are_avoided() {
        let first = Slot::choose("a", &[], &[]).unwrap();
        let second = Slot::choose("a", &[first], &[]).unwrap();
        assert_ne!(first, second);
        for used in [second.link(), second.pods(), second.services()] {
            let third = Slot::choose("a", &[first], &[used]).unwrap();
            assert!(third != first && third != second);
        }
    }

    #[test]
    fn the_last_slot_is_found_and_then_none() {
        let mut taken: Vec<Slot> = (1..SLOTS).map(Slot).collect();
        assert_eq!(Slot::choose("x", &taken, &[]).unwrap(), Slot(0));
        taken.push(Slot(0));
        assert!(Slot::choose("x", &taken, &[]).is_err());
    }

    #[test]
    fn no_two_slots_overlap() {
        let networks: Vec<Network> = (0..SLOTS).map(Slot).flat_map(|s| [s.link(), s.services(), s.pods()]).collect();
        for (index, one) in networks.iter().enumerate() {
            assert!(networks[index + 1..].iter().all(|other| !one.overlaps(*other)), "{one}");
        }
    }

    #[test]
    fn networks_are_read_and_written() {
        assert_eq!(Network::parse("10.1.0.0/16").unwrap().to_string(), "10.1.0.0/16");
        assert_eq!(Network::parse("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert!(Network::parse("0.0.0.0/0").unwrap().overlaps(Network::parse("9.9.9.9").unwrap()));
        for bad in ["default", "10.0.0.0/33", "fe80::/64"] {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
    }
}
