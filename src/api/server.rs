//! The HTTP server on the API socket.

use super::host::Host;
use super::routes;
use std::future::Future;
use std::io;
use tokio::net::UnixListener;

/// Answers requests until `stop` comes; then ends those that are being answered, and returns.
pub async fn serve(
    listener: UnixListener,
    host: Host,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let serving = axum::serve(listener, routes::all(host)).with_graceful_shutdown(stop);
    serving.await
}
