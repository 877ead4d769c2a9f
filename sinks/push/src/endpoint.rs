//! Where a device's push service may be: `https`, port 443, at a public address.
//!
//! An endpoint is chosen by whoever registers a device. Without these checks he could have us call addresses that only we
//! reach. The address is checked where it is connected to ([`PublicOnly`] is the client's resolver), so that a name which
//! resolves to something else the second time gains nothing; redirects are not followed, no proxy is used, and what the
//! server says is thrown away.

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// The longest endpoint: that of a URL which every browser and server takes.
const ENDPOINT_MAX: usize = 2_048;

/// Whether a machine's own addresses may be called: for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses by `https` on port 443.
    Public,
    /// Loopback addresses too, also by `http` and on any port.
    Loopback,
}

/// Why an endpoint is not called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is no URL that may be called, whatever its host resolves to.
    #[error("the endpoint {0}")]
    Forbidden(&'static str),
    /// Its host has an address that is not public.
    #[error("the endpoint's address {0} is not public")]
    NotPublic(IpAddr),
}

/// Reads an endpoint.
///
/// # Errors
/// When it may not be called. A name is resolved, and its addresses checked, only when it is connected to.
pub fn parse(endpoint: &str, reach: Reach) -> Result<Url, EndpointError> {
    use EndpointError::{Forbidden, NotPublic};
    if endpoint.len() > ENDPOINT_MAX {
        return Err(Forbidden("is longer than 2,048 bytes"));
    }
    let url = Url::parse(endpoint).map_err(|_| Forbidden("is no URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Forbidden("has a user name or a password"));
    }
    let host = url.host_str().ok_or(Forbidden("has no host"))?;
    // An address is connected to without being resolved. The URL standard reads all its spellings: 127.1, 0x7f.0.0.1.
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    if reach == Reach::Loopback && address.is_some_and(|address| address.is_loopback()) {
        return Ok(url);
    }
    if let Some(address) = address.filter(|address| !is_public(*address)) {
        return Err(NotPublic(address));
    }
    if url.scheme() != "https" {
        return Err(Forbidden("is not https"));
    }
    if url.port_or_known_default() != Some(443) {
        return Err(Forbidden("is not on port 443"));
    }
    Ok(url)
}

/// Whether an address is reached over the public internet: none of those that the IANA registries of special-purpose
/// addresses set aside.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let within =
        |network: [u8; 4], prefix: u32| (u32::from(address) ^ u32::from(Ipv4Addr::from(network))) >> (32 - prefix) == 0;
    let special: [([u8; 4], u32); 16] = [
        ([0, 0, 0, 0], 8),       // this network
        ([10, 0, 0, 0], 8),      // private
        ([100, 64, 0, 0], 10),   // shared by carriers
        ([127, 0, 0, 0], 8),     // loopback
        ([169, 254, 0, 0], 16),  // link-local, with clouds' metadata
        ([172, 16, 0, 0], 12),   // private
        ([192, 0, 0, 0], 24),    // protocol assignments
        ([192, 0, 2, 0], 24),    // documentation
        ([192, 31, 196, 0], 24), // AS112
        ([192, 52, 193, 0], 24), // AMT
        ([192, 88, 99, 0], 24),  // 6to4 relays
        ([192, 168, 0, 0], 16),  // private
        ([198, 18, 0, 0], 15),   // benchmarks
        ([198, 51, 100, 0], 24), // documentation
        ([203, 0, 113, 0], 24),  // documentation
        ([224, 0, 0, 0], 3),     // multicast, reserved, broadcast
    ];
    !special.iter().any(|(network, prefix)| within(*network, *prefix))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    // Global unicast is 2000::/3; everything that embeds an IPv4 address outside of it (::ffff:0:0/96, 64:ff9b::/96) is
    // refused with the rest.
    let global = first & 0xe000 == 0x2000;
    let protocol_assignments = first == 0x2001 && second < 0x200; // with Teredo
    let documentation = (first == 0x2001 && second == 0xdb8) || (first == 0x3fff && second < 0x1000);
    let six_to_four = first == 0x2002;
    global && !protocol_assignments && !documentation && !six_to_four
}

/// Finds the addresses of a name.
pub type Lookup =
    Arc<dyn Fn(String) -> futures::future::BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The system's resolver.
#[must_use]
pub fn system_lookup() -> Lookup {
    Arc::new(|host| Box::pin(async move { Ok(tokio::net::lookup_host((host.as_str(), 443)).await?.collect()) }))
}

/// A resolver that knows public addresses only: it answers with an error where one of a name's addresses is not.
pub struct PublicOnly {
    lookup: Lookup,
    reach: Reach,
}

impl PublicOnly {
    /// On top of another resolver.
    #[must_use]
    pub fn new(lookup: Lookup, reach: Reach) -> Self {
        Self { lookup, reach }
    }
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let (found, reach) = ((self.lookup)(name.as_str().to_owned()), self.reach);
        Box::pin(async move {
            let addresses = found.await?;
            let allowed = |ip: IpAddr| is_public(ip) || (reach == Reach::Loopback && ip.is_loopback());
            // One that is not public beside one that is has no honest reason.
            match addresses.iter().find(|address| !allowed(address.ip())) {
                Some(address) => Err(EndpointError::NotPublic(address.ip()).into()),
                // Port 0: the URL's counts.
                None => {
                    let addresses = addresses.into_iter().map(|address| SocketAddr::new(address.ip(), 0));
                    let addresses: Addrs = Box::new(addresses);
                    Ok(addresses)
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for (address, public) in [
            ("8.8.8.8", true),
            ("1.1.1.1", true),
            ("100.63.255.255", true),
            ("100.128.0.1", true),
            ("2607:f8b0:4005:80a::200e", true),
            ("2a00:1450:4001:82b::200e", true),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("100.64.0.1", false),
            ("100.127.255.255", false),
            ("127.0.0.1", false),
            ("127.255.255.254", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("192.0.0.192", false),
            ("192.168.1.1", false),
            ("198.19.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:8.8.8.8", false),
            ("::127.0.0.1", false),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b:1::1", false),
            ("fe80::1", false),
            ("fc00::1", false),
            ("fd00:ec2::254", false),
            ("ff02::1", false),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("2002:7f00:1::", false),
            ("3fff::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    #[test]
    fn endpoints_are_https_on_443_at_no_address_of_ours() {
        for good in ["https://fcm.googleapis.com/wp/x", "https://push.example:443/a?b=c", "https://8.8.8.8/x"] {
            assert!(parse(good, Reach::Public).is_ok(), "{good}");
        }
        for bad in [
            "",
            "push.example",
            "http://push.example/x",
            "https://push.example:8443/x",
            "https://user@push.example/x",
            "https://:secret@push.example/x",
            "file:///etc/passwd",
            "https://127.0.0.1/x",
            "https://127.1/x",
            "https://0x7f.0.0.1/x",
            "https://2130706433/x",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/x",
            "https://[::ffff:127.0.0.1]/x",
            "https://[64:ff9b::7f00:1]/x",
            "https://100.64.0.1/x",
            "http://127.0.0.1/x",
        ] {
            assert!(parse(bad, Reach::Public).is_err(), "{bad}");
        }
        assert!(parse(&format!("https://push.example/{}", "x".repeat(2_048)), Reach::Public).is_err());
        assert!(parse("http://127.0.0.1:9/x", Reach::Loopback).is_ok());
        assert!(parse("http://10.0.0.1:9/x", Reach::Loopback).is_err());
    }
}
