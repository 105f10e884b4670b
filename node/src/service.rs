//! What a good is to the node: a price is asked for, then it is delivered. Money is not its business.
//!
//! **Invariant:** a service has no other way to send payload than [`Session::deliver`], which counts and holds; it
//! knows no price, no account and no swarm. A new good is one file under `services`, and one line in [`all`].

use std::sync::Arc;

use futures::future::BoxFuture;
use pedlar_protocol::content::Size;
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::session::Request;

use crate::services::Chunks;
use crate::session::{Session, SessionError};
use crate::shop::Shelf;

/// A good that this node sells.
pub(crate) trait Service: Send + Sync {
    /// The name of its stream protocol: `/pedlar/<network>/<name>/1`.
    fn name(&self) -> &'static str;

    /// Looks whether what is asked for can be delivered now; the price is made elsewhere.
    fn quote(&self, request: Request) -> BoxFuture<'_, Result<Delivery, Refusal>>;
}

/// Delivers over a session until that ends.
pub(crate) type Serve = Box<dyn for<'a> FnOnce(&'a mut Session) -> BoxFuture<'a, Result<(), SessionError>> + Send>;

/// What was found for a request, ready to be delivered.
pub(crate) struct Delivery {
    /// What was asked for.
    pub(crate) request: Request,
    /// How long it is.
    pub(crate) size: Size,
    /// Delivers it.
    pub(crate) serve: Serve,
}

/// Every good that this version knows to sell.
pub(crate) fn all(shelf: &Arc<Shelf>) -> Vec<Arc<dyn Service>> {
    vec![Arc::new(Chunks::new(Arc::clone(shelf)))]
}
