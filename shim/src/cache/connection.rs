//! A connection to Redis that takes no more bytes than were asked for.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisError};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls;

/// How many bytes of reply each byte of a command allows: the longest reply, a user's credits of 4 KiB, is to a command of
/// more than 80 bytes.
const REPLY_BYTES_PER_COMMAND_BYTE: usize = 64;
/// The most bytes of replies that may be outstanding: those to some hundred requests at once.
const MAX_REPLY_BYTES: usize = 1 << 20;

/// Where Redis is, and how to log in there.
pub(super) struct Address {
    info: ConnectionInfo,
    /// Of `rediss://`: made once, because the system's certificates are read for it.
    tls: Option<TlsConnector>,
}

impl Address {
    /// Of `redis://…` or `rediss://…`; the configuration has checked it.
    pub(super) fn of(url: &str) -> Result<Self, RedisError> {
        let info = url.into_connection_info()?;
        let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        Ok(Self { info, tls: is_tls.then(|| TlsConnector::from(Arc::new(tls::checked()))) })
    }

    /// Connects and logs in; each reply may take `reply_timeout`. The connection ends when its last handle is dropped, or it fails.
    pub(super) async fn connect(&self, reply_timeout: Duration) -> Result<MultiplexedConnection, RedisError> {
        match (self.info.addr(), &self.tls) {
            (ConnectionAddr::TcpTls { host, port, insecure: false, .. }, Some(connector)) => {
                let name = match host.parse::<IpAddr>() {
                    Ok(address) => ServerName::IpAddress(address.into()),
                    Err(_) => ServerName::try_from(host.clone()).map_err(io::Error::other)?,
                };
                let stream = connected(host, *port).await?;
                self.log_in(connector.connect(name, stream).await?, reply_timeout).await
            }
            (ConnectionAddr::Tcp(host, port), _) => {
                self.log_in(connected(host, *port).await?, reply_timeout).await
            }
            _ => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        }
    }

    async fn log_in<S>(&self, stream: S, reply_timeout: Duration) -> Result<MultiplexedConnection, RedisError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(reply_timeout));
        let stream = Bounded { stream, allowed: 0 };
        let (connection, driver) =
            MultiplexedConnection::new_with_config(self.info.redis_settings(), stream, config).await?;
        tokio::spawn(driver);
        Ok(connection)
    }
}

async fn connected(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A stream that fails when it brings more than was asked for: whoever answers without an end fills no memory.
struct Bounded<S> {
    stream: S,
    /// How many bytes may still come.
    allowed: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        match self.allowed.checked_sub(buffer.filled().len() - before) {
            Some(left) => {
                self.allowed = left;
                Poll::Ready(Ok(()))
            }
            None => Poll::Ready(Err(io::Error::other("it answers more than was asked for"))),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        let allowed = written.saturating_mul(REPLY_BYTES_PER_COMMAND_BYTE);
        self.allowed = self.allowed.saturating_add(allowed).min(MAX_REPLY_BYTES);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn no_more_bytes_are_read_than_were_asked_for() {
        let (stream, mut redis) = duplex(MAX_REPLY_BYTES * 2);
        let mut bounded = Bounded { stream, allowed: 0 };
        bounded.write_all(b"GET 1").await.unwrap();
        redis.write_all(&vec![b'x'; 5 * REPLY_BYTES_PER_COMMAND_BYTE]).await.unwrap();
        let mut reply = vec![0; 5 * REPLY_BYTES_PER_COMMAND_BYTE];
        bounded.read_exact(&mut reply).await.unwrap();
        redis.write_all(b"x").await.unwrap();
        assert!(bounded.read_exact(&mut [0]).await.is_err(), "one more");
    }

    #[tokio::test]
    async fn what_may_come_does_not_add_up_without_end() {
        let (stream, _redis) = duplex(MAX_REPLY_BYTES);
        let mut bounded = Bounded { stream, allowed: 0 };
        for _ in 0..100 {
            bounded.write_all(&[b'x'; 1000]).await.unwrap();
        }
        assert_eq!(bounded.allowed, MAX_REPLY_BYTES);
    }
}
