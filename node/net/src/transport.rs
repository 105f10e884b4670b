//! How connections are made: TCP with TLS (or Noise) and Yamux, and QUIC.

use std::{io, net::TcpListener, time::Duration};

use libp2p::{Multiaddr, Swarm, SwarmBuilder, identity::Keypair, multiaddr::Protocol, noise, swarm, tcp};

use crate::{Limits, addresses::ip, behaviour::Behaviour, muxer::Yamux, tls::Tls};

/// Streams of a QUIC connection that a peer may have open; it waits to open more.
const MAX_QUIC_STREAMS: u32 = 128;
/// Inbound streams of a connection that negotiate their protocol at a time; the others wait.
const MAX_NEGOTIATING: usize = 64;

/// Builds the swarm; with `tls` it is preferred to Noise for its speed.
///
/// # Errors
/// The text of what TLS or Noise say of the key.
pub(crate) fn swarm(
    key: Keypair,
    tls: bool,
    limits: &Limits,
    behaviour: Behaviour,
) -> Result<Swarm<Behaviour>, String> {
    let handshake = limits.handshake;
    let idle = limits.idle;
    let builder = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), (|key: &Keypair| Tls::new(key, tls), noise::Config::new), Yamux::new)
        .map_err(|error| error.to_string())?
        .with_quic_config(|config| quic_config(config, handshake))
        .with_behaviour(|_| behaviour);
    let builder = match builder {
        Ok(builder) => builder,
        Err(never) => match never {},
    };
    let swarm =
        builder.with_swarm_config(|config| swarm_config(config, idle)).with_connection_timeout(handshake).build();
    Ok(swarm)
}

/// Fails if another program listens on the TCP port of `addr`.
///
/// WHY: libp2p listens with `SO_REUSEPORT`, so that a second node on the same port would start without an error and
/// take half of the first one's connections.
pub(crate) fn check_free(addr: &Multiaddr) -> io::Result<()> {
    match (ip(addr), addr.iter().nth(1)) {
        (Some(ip), Some(Protocol::Tcp(port))) if port != 0 => TcpListener::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
}

fn quic_config(mut config: libp2p::quic::Config, handshake: Duration) -> libp2p::quic::Config {
    config.handshake_timeout = handshake;
    config.max_concurrent_stream_limit = MAX_QUIC_STREAMS;
    config
}

fn swarm_config(config: swarm::Config, idle: Duration) -> swarm::Config {
    config.with_idle_connection_timeout(idle).with_max_negotiating_inbound_streams(MAX_NEGOTIATING)
}
