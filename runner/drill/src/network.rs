//! Where production is, and who beside the agent may come to a restored database: networks, as drill files and the daemon's
//! configuration write them.
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

use crate::config::Production;
use crate::spec::{Isolation, Kubernetes};

/// How many targets one list may have: each is tried from three places at one time.
pub const MOST_TARGETS: usize = 32;

/// Addresses and a port that no sandbox may reach, such as `10.20.0.5:5432`, `10.20.0.0/16:5432` or `[2001:db8::]/64:5432`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// A single address is a network of its own.
    pub network: IpNet,
    pub port: u16,
}

impl Target {
    /// The addresses of it that are tried: all of one or two, else the first host and the last. Whoever knows of others lists
    /// them by themselves.
    pub fn tries(&self) -> Vec<SocketAddr> {
        let mut hosts = self.network.hosts();
        let (first, last) = (hosts.next(), hosts.next_back());
        first.into_iter().chain(last).map(|address| SocketAddr::new(address, self.port)).collect()
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = || format!("`{text}` is not an address or a network, and a port");
        let (place, port) = text.rsplit_once(':').ok_or_else(shape)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(shape)?;
        let network = if let Some((address, length)) = place.split_once('/') {
            network(&format!("{}/{length}", unbracketed(address).ok_or_else(shape)?))?
        } else {
            let address: IpAddr = unbracketed(place).and_then(|text| text.parse().ok()).ok_or_else(shape)?;
            outside(address, text)?;
            address.into()
        };
        Ok(Self { network, port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, port) = (self.network.addr(), self.port);
        let alone = self.network.prefix_len() == self.network.max_prefix_len();
        match (address, alone) {
            (_, true) => write!(f, "{}", SocketAddr::new(address, port)),
            (IpAddr::V4(_), false) => write!(f, "{}:{port}", self.network),
            (IpAddr::V6(address), false) => write!(f, "[{address}]/{}:{port}", self.network.prefix_len()),
        }
    }
}

/// Only IPv6 has brackets, and always before a port.
fn unbracketed(text: &str) -> Option<&str> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|inner| inner.contains(':')),
        None => Some(text).filter(|text| !text.contains(':')),
    }
}

/// Reads a network such as `10.30.0.0/24`, or says what is wrong with it.
pub fn network(text: &str) -> Result<IpNet, String> {
    let network: IpNet = text.parse().map_err(|_| {
        format!("`{text}` is not a network in CIDR notation: an address, a slash, and how many of its bits are the network's")
    })?;
    if network.prefix_len() == 0 {
        return Err(format!("`{text}` is every address there is"));
    }
    if network.addr() != network.network() {
        return Err(format!("`{text}` names an address within a network: the network itself is {}", network.trunc()));
    }
    outside(network.addr(), text)?;
    Ok(network)
}

/// What each sandbox has for itself is nobody's production.
fn outside(address: IpAddr, text: &str) -> Result<(), String> {
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return Err(format!("`{text}` is no address of a host that somebody else could reach"));
    }
    Ok(())
}

pub fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

impl Kubernetes {
    /// The production that the network of `orchestratorCidr` shares an address with.
    pub fn orchestrated_production(&self) -> Option<&Target> {
        let orchestrator = self.orchestrator?;
        self.production.iter().find(|target| overlap(orchestrator, target.network))
    }
}

impl Isolation {
    /// With what the daemon's configuration says of production beside the drill's own words.
    #[must_use]
    pub fn beside(mut self, production: &Production) -> Self {
        if let Self::Kubernetes(asked) = &mut self {
            for target in &production.networks {
                if !asked.production.contains(target) {
                    asked.production.push(*target);
                }
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries(text: &str) -> Vec<String> {
        text.parse::<Target>().expect(text).tries().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_ends_of_a_network_are_tried_and_all_of_a_small_one() {
        assert_eq!(tries("10.20.0.5:5432"), ["10.20.0.5:5432"]);
        assert_eq!(tries("10.20.0.0/16:5432"), ["10.20.0.1:5432", "10.20.255.254:5432"]);
        assert_eq!(tries("10.20.0.4/31:5432"), ["10.20.0.4:5432", "10.20.0.5:5432"]);
        assert_eq!(tries("10.20.0.5/32:5432"), ["10.20.0.5:5432"]);
        assert_eq!(tries("[2001:db8::]/64:5432"), ["[2001:db8::]:5432", "[2001:db8::ffff:ffff:ffff:ffff]:5432"]);
        assert_eq!(tries("[2001:db8::5]:5432"), ["[2001:db8::5]:5432"]);
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for text in ["10.20.0.5:5432", "10.20.0.0/16:5432", "[2001:db8::]/64:5432", "[2001:db8::5]:1"] {
            assert_eq!(text.parse::<Target>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_target_says_why() {
        let wrong = |text: &str| text.parse::<Target>().expect_err(text);
        for text in ["10.20.0.5", "10.20.0.5:0", "10.20.0.5:65536", "db.example:5432", "2001:db8::5:5432", ":5432", ""]
        {
            assert!(wrong(text).contains("is not an address or a network, and a port"), "{text}: {}", wrong(text));
        }
        assert!(wrong("10.20.0.0/33:5432").contains("CIDR notation"));
        assert!(wrong("10.20.0.5/16:5432").contains("the network itself is 10.20.0.0/16"));
        assert!(wrong("0.0.0.0/0:5432").contains("every address"));
        assert!(wrong("[::]/0:5432").contains("every address"));
        assert!(wrong("127.0.0.1:5432").contains("no address of a host"));
        assert!(wrong("[::1]:5432").contains("no address of a host"));
        assert!(wrong("224.0.0.0/4:5432").contains("no address of a host"));
    }

    #[test]
    fn networks_overlap_whichever_holds_the_other() {
        let net = |text: &str| text.parse::<IpNet>().expect(text);
        assert!(overlap(net("10.0.0.0/8"), net("10.20.0.0/16")) && overlap(net("10.20.0.0/16"), net("10.0.0.0/8")));
        assert!(!overlap(net("10.20.0.0/16"), net("10.21.0.0/16")) && !overlap(net("10.0.0.0/8"), net("fd00::/8")));
    }
}
