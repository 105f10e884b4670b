use std::future::poll_fn;

use futures::{AsyncReadExt, AsyncWriteExt};
use tokio::io::duplex;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::*;

/// Keeps each piece that is written, and takes at most so many bytes of it.
struct Pieces {
    written: Vec<Vec<u8>>,
    at_once: usize,
    is_flushed: bool,
}

impl AsyncWrite for Pieces {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let piece: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).take(self.at_once).collect();
        let len = piece.len();
        self.written.push(piece);
        self.is_flushed = false;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

fn joined(at_once: usize) -> Joined<Pieces> {
    Joined::new(Pieces { written: Vec::new(), at_once, is_flushed: true })
}

#[tokio::test]
async fn a_header_leaves_with_its_body_and_alone_when_it_is_flushed() {
    let mut io = joined(usize::MAX);
    io.write_all(&[1; HEADER_LEN]).await.unwrap();
    assert!(io.io.written.is_empty(), "it waits for its body");
    io.write_all(&[2; 100]).await.unwrap();
    assert_eq!(io.io.written, [[[1; HEADER_LEN].as_slice(), [2; 100].as_slice()].concat()]);
    io.write_all(&[3; HEADER_LEN]).await.unwrap();
    io.flush().await.unwrap();
    assert_eq!(io.io.written[1..], [vec![3; HEADER_LEN]]);
    assert!(io.io.is_flushed);
    io.write_all(&[4; HEADER_LEN]).await.unwrap();
    io.close().await.unwrap();
    assert_eq!(io.io.written[2..], [vec![4; HEADER_LEN]]);
}

#[tokio::test]
async fn nothing_is_lost_or_twice_however_little_the_connection_takes() {
    for at_once in 1..2 * HEADER_LEN {
        let mut io = joined(at_once);
        let mut due = Vec::new();
        for body_len in [0, 1, HEADER_LEN - 1, HEADER_LEN, HEADER_LEN + 1, 0, 40] {
            let (header, body) = ([body_len as u8; HEADER_LEN], vec![0xb0; body_len]);
            io.write_all(&header).await.unwrap();
            io.write_all(&body).await.unwrap();
            due.extend([header.as_slice(), &body].concat());
        }
        io.flush().await.unwrap();
        assert_eq!(io.io.written.concat(), due, "{at_once} bytes at once");
    }
}

/// Lets a connection make progress, until its other end has gone.
fn drive(mut muxer: Muxer<impl AsyncRead + AsyncWrite + Send + Unpin + 'static>) {
    tokio::spawn(async move { while poll_fn(|cx| Pin::new(&mut muxer).poll(cx)).await.is_ok() {} });
}

#[tokio::test]
async fn bulk_and_its_echo_cross_a_connection_whole() {
    const LEN: usize = 3 << 20;
    let (near, far) = duplex(10_000);
    let mut dialer = Yamux::new().upgrade_outbound(near.compat(), PROTOCOL).await.unwrap();
    let mut listener = Yamux::new().upgrade_inbound(far.compat(), PROTOCOL).await.unwrap();
    let sent: Vec<u8> = (0..LEN).map(|at| (at / 7) as u8).collect();
    let stream = poll_fn(|cx| Pin::new(&mut dialer).poll_outbound(cx)).await.unwrap();
    drive(dialer);
    let echo = tokio::spawn(async move {
        let stream = poll_fn(|cx| Pin::new(&mut listener).poll_inbound(cx)).await.unwrap();
        drive(listener);
        let (read, mut write) = stream.split();
        futures::io::copy(read, &mut write).await.unwrap();
        write.close().await.unwrap();
    });
    let (mut read, mut write) = stream.split();
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.close().await.unwrap();
    };
    let mut came = Vec::new();
    let (read, ()) = futures::future::join(read.read_to_end(&mut came), writing).await;
    assert_eq!(read.unwrap(), LEN);
    assert!(came == sent, "the same bytes in the same order");
    echo.await.unwrap();
}
