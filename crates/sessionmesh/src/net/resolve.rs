//! A seed's addresses, asked of the system: its hosts file, its name servers.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use tokio::sync::oneshot;

/// Why a seed has no addresses.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// Somebody who knows says so: nobody is there.
    #[error("there is no such name")]
    NoSuchName,
    /// Nobody who knows has answered: somebody may be there.
    #[error("no answer from the name service: {0}")]
    Unanswered(io::Error),
}

/// The addresses of `HOST:PORT`. A name server that is silent takes as long as the system's patience
/// (`options timeout` in resolv.conf, twice five seconds usually).
pub(crate) async fn resolve(seed: String) -> Result<BTreeSet<SocketAddr>, ResolveError> {
    if let Ok(address) = seed.parse() {
        return Ok(BTreeSet::from([address]));
    }
    let (tell, told) = oneshot::channel();
    // Not a blocking task of the runtime: that would wait for it when the application ends.
    let asked =
        std::thread::Builder::new().name("sessionmesh-resolve".into()).spawn(move || tell.send(ask(&seed)));
    match asked {
        Ok(_) => told.await.unwrap_or_else(|_| Err(ResolveError::Unanswered(io::ErrorKind::Other.into()))),
        Err(error) => Err(ResolveError::Unanswered(error)),
    }
}

fn ask(seed: &str) -> Result<BTreeSet<SocketAddr>, ResolveError> {
    let Some((host, port)) = seed.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)))
    else {
        // Reports what is wrong with it.
        return match seed.to_socket_addrs() {
            Ok(addresses) => Ok(addresses.collect()),
            Err(error) => Err(ResolveError::Unanswered(error)),
        };
    };
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    match getaddrinfo(Some(host), None, Some(hints)) {
        Ok(found) => {
            let address = |mut address: SocketAddr| {
                address.set_port(port);
                address
            };
            Ok(found.flatten().map(|info| address(info.sockaddr)).collect())
        }
        Err(error) => Err(match error.kind() {
            LookupErrorKind::NoName | LookupErrorKind::NoData => ResolveError::NoSuchName,
            _ => ResolveError::Unanswered(error.into()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_itself_and_a_name_asks_the_hosts_file() {
        let found = resolve("10.0.0.1:4000".into()).await.unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["10.0.0.1:4000".parse().unwrap()]);
        let found = resolve("[fd00::1]:4000".into()).await.unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["[fd00::1]:4000".parse().unwrap()]);
        let found = resolve("localhost:4000".into()).await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 4000));
        assert!(!found.is_empty());
    }

    #[tokio::test]
    async fn what_is_no_seed_is_an_error() {
        for seed in ["localhost", "localhost:port", "localhost:70000"] {
            assert!(matches!(resolve(seed.into()).await, Err(ResolveError::Unanswered(_))), "{seed}");
        }
    }
}
