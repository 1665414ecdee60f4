//! What goes to a server on a stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio_stream::Stream;

use crate::wire::WatchRequest;

/// One message, and the end: the server answers it first. A stream that stayed open would be kept
/// by both sides for as long as the connection.
pub(super) struct One<T>(pub(super) Option<T>);

impl<T: Unpin> Stream for One<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<T>> {
        Poll::Ready(self.0.take())
    }
}

/// What the watch stream is to be told.
pub(super) struct Orders(pub(super) UnboundedReceiver<WatchRequest>);

impl Stream for Orders {
    type Item = WatchRequest;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<WatchRequest>> {
        self.0.poll_recv(context)
    }
}
