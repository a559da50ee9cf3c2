//! Our HTTP servers: probes, metrics and debug pages for people; snapshot and wake for gateways.

pub mod admin;
pub mod internal;

use crate::limits;
use axum::Router;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("listening on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// It broke off.
    #[error("serving on {address}")]
    Serve {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Binds an address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })
}

/// Serves until `stop`; open requests have [`limits::SHUTDOWN`] to end.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> Result<(), Error> {
    let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    let bounded = ServiceBuilder::new().layer(GlobalConcurrencyLimitLayer::new(limits::CONNECTIONS_MAX));
    let router = router.layer(axum::extract::DefaultBodyLimit::max(limits::BODY_BYTES_MAX)).layer(bounded);
    let graceful = stop.clone();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move { graceful.cancelled().await });
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(limits::SHUTDOWN).await;
    };
    tokio::select! {
        result = async { serving.await } => result.map_err(|source| Error::Serve { address, source }),
        () = late => Ok(()),
    }
}
