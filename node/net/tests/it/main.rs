//! Real swarms on loopback sockets.

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod discovery;
#[cfg(test)]
mod gossip;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod load;
#[cfg(test)]
mod streams;
