//! Where a server is: `tcp://host:port` or `ssl://host:port`.

use std::fmt;
use std::str::FromStr;

/// The address of an Electrum server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    pub(crate) tls: bool,
    /// A name or an IP address, without the brackets that an IPv6 address has in a URL.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (tls, rest) = match text.split_once("://") {
            Some(("tcp", rest)) => (false, rest),
            Some(("ssl", rest)) => (true, rest),
            Some((scheme, _)) => return Err(UrlError::Scheme { found: scheme.to_owned() }),
            None => return Err(UrlError::NoScheme),
        };
        // First of all, so that no password stands in what is said of the rest.
        if rest.contains('@') {
            return Err(UrlError::Login);
        }
        let (host, port) = rest.rsplit_once(':').ok_or(UrlError::NoPort)?;
        let port =
            port.parse().ok().filter(|&port| port != 0).ok_or_else(|| UrlError::Port { found: port.to_owned() })?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = match bracketed {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().map(|_| v6).map_err(|_| UrlError::Host)?,
            None if is_name(host) => host,
            None => return Err(UrlError::Host),
        };
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

fn is_name(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "ssl" } else { "tcp" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

/// What is wrong with a server's URL.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("a server is given as ssl://host:port or tcp://host:port, for example ssl://electrum.example.org:60002")]
    NoScheme,
    #[error("`{found}://` is not spoken by Electrum servers: use ssl://host:port or tcp://host:port")]
    Scheme { found: String },
    #[error("the port is missing: Electrum servers have no default one, try :60002 (ssl) or :60001 (tcp) on signet")]
    NoPort,
    #[error("`{found}` is not a port: expected a number from 1 to 65535 and nothing after it")]
    Port { found: String },
    #[error("servers take no name and no password: leave out what stands before the @")]
    Login,
    #[error("the host is neither a name nor an address (an IPv6 address goes into brackets: tcp://[::1]:60001)")]
    Host,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls_come_back_as_written() {
        for url in
            ["tcp://127.0.0.1:50001", "ssl://electrum.example.org:60002", "tcp://[::1]:1", "ssl://localhost:65535"]
        {
            assert_eq!(url.parse::<ServerUrl>().unwrap().to_string(), url);
        }
    }

    #[test]
    fn each_mistake_has_its_name() {
        let error = |url: &str| url.parse::<ServerUrl>().unwrap_err();
        assert_eq!(error("localhost:50001"), UrlError::NoScheme);
        assert_eq!(error("https://localhost:1"), UrlError::Scheme { found: "https".into() });
        assert_eq!(error("tcp://localhost"), UrlError::NoPort);
        for port in ["", "0", "65536", "1/path"] {
            assert_eq!(error(&format!("tcp://a:{port}")), UrlError::Port { found: port.into() });
        }
        for login in ["user@host:1", "user:password@host:1", "user:password@host", "@"] {
            let error = error(&format!("ssl://{login}"));
            assert_eq!(error, UrlError::Login);
            assert!(!error.to_string().contains("password@"));
        }
        for host in ["", "::1", "[::1", "a b", "[example.org]", "a/b"] {
            assert_eq!(error(&format!("tcp://{host}:1")), UrlError::Host, "{host}");
        }
    }
}
