//! `pedlar wallet trust`: accepts the new certificate of an Electrum server.

use std::io;

use pedlar_wallet::{Fingerprint, ServerUrl};
use serde::{Deserialize, Serialize};

use crate::api::Out;
use crate::cli::screen::Screen;
use crate::cmd::{Done, Remote, Text, Verb};
use crate::failure::{Exit, Failure};
use crate::node::Node;

/// Trust the certificate with this fingerprint, and no other one, for an Electrum server; `status` shows it when it
/// changed. Ask the server's operator whether it is theirs.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = "Example:\n  pedlar wallet trust ssl://electrum.example.org:50002 4f2a…")]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The server, as `status` shows it.
    server: Text<ServerUrl>,
    /// The SHA-256 of its certificate, in 64 hex digits.
    fingerprint: Text<Fingerprint>,
}

/// What `wallet trust` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// The certificate is pinned; the server is tried again within half a minute.
    Trusted {
        /// The server.
        server: String,
        /// The certificate.
        fingerprint: String,
    },
}

impl Verb for Args {
    type Line = Line;
    type Summary = Done;

    fn show(Line::Trusted { server, fingerprint }: Line, screen: &mut Screen) -> io::Result<()> {
        screen.text(format_args!("{server} is trusted with the certificate {fingerprint}, and with no other one"))
    }

    fn sum_up(_: Done, _: &mut Screen) -> io::Result<()> {
        Ok(())
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Done, Failure> {
        let (Text(server), Text(fingerprint)) = (self.server, self.fingerprint);
        if !node.config.electrum.contains(&server) {
            let configured: Vec<String> = node.config.electrum.iter().map(ToString::to_string).collect();
            return Err(Failure::new(Exit::NotFound, "unknown_server", format!("{server} is no server of this node"))
                .hint(format!("configured are: {}", configured.join(", "))));
        }
        node.driver.wallet().trust(server.clone(), fingerprint).await.map_err(Failure::system)?;
        out.line(Line::Trusted { server: server.to_string(), fingerprint: fingerprint.to_string() }).await?;
        Ok(Done {})
    }
}
