//! How many connections each client has.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex},
};

/// The connections of clients, by [`network`].
#[derive(Default)]
pub(crate) struct Clients(Mutex<HashMap<IpAddr, usize>>);

impl Clients {
    /// A place among the `most` connections that one client may have; `None`: it has them all.
    pub(crate) fn enter(clients: &Arc<Self>, client: IpAddr, most: usize) -> Option<Turn> {
        let client = network(client);
        let mut counts = clients.0.lock().expect("never poisoned");
        let count = counts.entry(client).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Turn(Some((clients.clone(), client))))
    }
}

/// Who counts as one client: an IPv4 address, however it is written, or the /64 of an IPv6 address, as every host may take any
/// address of its own (RFC 7934).
pub(crate) fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

/// One of a client's connections, if they are counted.
#[derive(Default)]
pub(crate) struct Turn(Option<(Arc<Clients>, IpAddr)>);

impl Drop for Turn {
    fn drop(&mut self) {
        let Some((clients, client)) = self.0.take() else { return };
        let mut counts = clients.0.lock().expect("never poisoned");
        if let Some(count) = counts.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv4_or_a_network_of_ipv6_is_one_client() {
        let clients = Arc::new(Clients::default());
        let enter = |client: &str| Clients::enter(&clients, client.parse().unwrap(), 1);
        let (four, six) = (enter("192.0.2.1"), enter("2001:db8:0:1::1"));
        assert!(four.is_some() && six.is_some());
        assert!(enter("::ffff:192.0.2.1").is_none(), "the same in other words");
        assert!(enter("2001:db8:0:1:ffff:ffff:ffff:ffff").is_none(), "the same network");
        let others = (enter("192.0.2.2"), enter("::ffff:192.0.2.3"), enter("2001:db8:0:2::1"));
        assert!(others.0.is_some() && others.1.is_some() && others.2.is_some());
        drop((four, six));
        assert!(enter("::ffff:192.0.2.1").is_some() && enter("2001:db8:0:1::2").is_some(), "there is a place again");
        drop(others);
        assert!(clients.0.lock().unwrap().is_empty(), "nobody is remembered");
    }
}
