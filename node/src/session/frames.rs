//! Frames on a stream: four bytes of kind and length, then the payload (DECISIONS, Wire).

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use pedlar_protocol::wire::{FrameError, FrameHeader, FrameKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{error::Elapsed, timeout};

/// How long one frame may take to be written: a peer that stops reading is no buyer.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of one read: what the muxer delivers at once. All the room that a read is given is zeroed first, also where
/// nothing has come yet.
const READ_LEN: usize = 64 << 10;

/// Bytes of payload that leave together with their header; the rest is not copied. Less than a frame of the muxer, which
/// else would split this piece.
const JOINED_LEN: usize = 60 << 10;

/// Why no frame was read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IoError {
    /// The stream. The error's own text may be the peer's: only its kind is shown.
    #[error("the stream broke: {}", .0.kind())]
    Stream(#[from] io::Error),
    /// The other side breaks the framing.
    #[error("the peer sends no frames: {0}")]
    Frame(#[from] FrameError),
    /// Nothing came or went in time.
    #[error("the peer does not answer")]
    Slow(#[from] Elapsed),
    /// The stream ended between two frames.
    #[error("the peer closed the stream")]
    Closed,
}

impl IoError {
    /// Whether the peer broke off, or sent what is no frame: nothing that a line does by itself.
    pub(crate) fn is_nonsense(&self) -> bool {
        match self {
            Self::Frame(_) | Self::Slow(_) | Self::Closed => true,
            Self::Stream(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        }
    }
}

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct RawFrame {
    /// Control or data.
    pub(crate) kind: FrameKind,
    /// The payload: a part of the read buffer, not a copy.
    pub(crate) payload: Bytes,
}

/// Reads frames; holds at most one and what came with it.
pub(crate) struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
    max_len: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader of frames up to the length of the `longest` kind: who never gets payload holds no room for it.
    pub(crate) fn new(io: R, longest: FrameKind) -> Self {
        Self { io, buffer: BytesMut::new(), max_len: longest.max_len() }
    }

    /// The next frame. Cancelling it loses nothing: what was read stays in the buffer.
    ///
    /// # Errors
    /// [`IoError`]; the stream is worth nothing after it.
    pub(crate) async fn next(&mut self) -> Result<RawFrame, IoError> {
        self.fill(FrameHeader::LEN).await?;
        let mut bytes = [0; FrameHeader::LEN];
        bytes.copy_from_slice(&self.buffer[..FrameHeader::LEN]);
        let header = FrameHeader::parse(bytes)?;
        if header.payload_len() > self.max_len {
            return Err(FrameError::TooLong { len: header.payload_len(), max: self.max_len }.into());
        }
        let whole = FrameHeader::LEN + header.payload_len();
        self.fill(whole).await?;
        let payload = self.buffer.split_to(whole).freeze().slice(FrameHeader::LEN..);
        Ok(RawFrame { kind: header.kind(), payload })
    }

    /// The next frame, if it comes within `limit`.
    ///
    /// # Errors
    /// As [`FrameReader::next`], and [`IoError::Slow`].
    pub(crate) async fn next_within(&mut self, limit: Duration) -> Result<RawFrame, IoError> {
        timeout(limit, self.next()).await?
    }

    async fn fill(&mut self, len: usize) -> Result<(), IoError> {
        while self.buffer.len() < len {
            // Room for a whole frame at once, whatever the next frame is.
            self.buffer.reserve(self.max_len + FrameHeader::LEN);
            if self.io.read_buf(&mut (&mut self.buffer).limit(READ_LEN)).await? == 0 {
                let between = self.buffer.is_empty();
                return Err(if between {
                    IoError::Closed
                } else {
                    io::Error::from(io::ErrorKind::UnexpectedEof).into()
                });
            }
        }
        Ok(())
    }
}

/// Writes frames, each in one piece; holds what is left of one whose sending was cancelled.
pub(crate) struct FrameWriter<W> {
    io: W,
    left: VecDeque<Bytes>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(io: W) -> Self {
        Self { io, left: VecDeque::new() }
    }

    /// Writes one frame, within the write deadline.
    ///
    /// Cancelled, it leaves the rest to the next call: a goodbye in the midst of a frame would pass for bad payload.
    ///
    /// # Errors
    /// [`IoError`]; the stream is worth nothing after it.
    pub(crate) async fn send(&mut self, kind: FrameKind, payload: impl Into<Bytes>) -> Result<(), IoError> {
        let mut payload = payload.into();
        let header = FrameHeader::new(kind, payload.len())?;
        let joined = payload.split_to(payload.len().min(JOINED_LEN));
        let mut beginning = BytesMut::with_capacity(FrameHeader::LEN + joined.len());
        beginning.put_slice(&header.to_bytes());
        beginning.put_slice(&joined);
        self.left.extend([beginning.freeze(), payload]);
        timeout(WRITE_DEADLINE, async {
            while let Some(piece) = self.left.front_mut() {
                self.io.write_all_buf(piece).await?;
                self.left.pop_front();
            }
            self.io.flush().await
        })
        .await??;
        Ok(())
    }

    /// Ends our direction, so that the last frame arrives before the stream goes.
    pub(crate) async fn finish(&mut self) {
        // The other side may be gone already, and then nothing is left to end.
        let _ = timeout(WRITE_DEADLINE, self.io.shutdown()).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn a_cancelled_frame_is_ended_before_the_next() {
        let (ours, theirs) = duplex(1000);
        let (mut writer, mut reader) = (FrameWriter::new(ours), FrameReader::new(theirs, FrameKind::Data));
        let sending = writer.send(FrameKind::Data, vec![7; 70_000]);
        assert!(timeout(Duration::from_millis(10), sending).await.is_err(), "nobody reads");
        let goodbye =
            tokio::spawn(async move { writer.send(FrameKind::Control, b"bye".as_slice()).await.map(|()| writer) });
        let (data, control) = (reader.next().await.unwrap(), reader.next().await.unwrap());
        assert_eq!((data.kind, data.payload.as_ref()), (FrameKind::Data, [7; 70_000].as_slice()));
        assert_eq!((control.kind, control.payload.as_ref()), (FrameKind::Control, b"bye".as_slice()));
        drop(goodbye.await.unwrap().unwrap());
        assert!(matches!(reader.next().await, Err(IoError::Closed)));
    }

    #[tokio::test]
    async fn payload_is_refused_by_its_header_where_none_is_due() {
        let (ours, theirs) = duplex(10);
        let (mut writer, mut reader) = (FrameWriter::new(ours), FrameReader::new(theirs, FrameKind::Control));
        let sending = tokio::spawn(async move { writer.send(FrameKind::Data, vec![0; 17 << 10]).await });
        assert!(matches!(reader.next().await, Err(IoError::Frame(FrameError::TooLong { .. }))));
        drop(reader);
        assert!(matches!(sending.await.unwrap(), Err(IoError::Stream(_))));
    }
}
