//! Frames from a connection that blocks.

use std::io::{self, Read};

use anyhow::{Context, Result, bail};
use warren_wire::frame::{FRAME_METHOD, FRAME_OVERHEAD, Frame, next_frame};
use warren_wire::method::Method;

use crate::socket::Reading;

/// frame_max that both the null broker and the clients offer: RabbitMQ's default.
pub(crate) const FRAME_MAX: u32 = 131_072;
/// Connections begin with this much, so that short ones cost little.
const BUFFER_START: usize = 16 * 1024;
/// Once a read fills the buffer: few system calls, and always room for a whole frame.
const BUFFER_FULL: usize = 256 * 1024;

/// Reads frames; what was read and not yet taken stays in its buffer.
pub(crate) struct FrameReader {
    socket: Reading,
    buf: Vec<u8>,
    at: usize,
    end: usize,
}

impl FrameReader {
    /// Takes the buffer of an earlier connection if there is one.
    pub(crate) fn new(socket: Reading, mut buf: Vec<u8>) -> Self {
        if buf.is_empty() {
            buf.resize(BUFFER_START, 0);
        }
        FrameReader { socket, buf, at: 0, end: 0 }
    }

    /// Gives the buffer back for the next connection.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buf
    }

    /// The octets of a frame; valid until the next [`fill`](Self::fill).
    #[inline]
    pub(crate) fn payload(&self, frame: &Frame) -> &[u8] {
        frame.payload(&self.buf)
    }

    /// The next frame that is here already.
    #[inline]
    pub(crate) fn buffered(&mut self) -> Result<Option<Frame>> {
        let found = next_frame(&self.buf[..self.end], self.at, FRAME_MAX - FRAME_OVERHEAD as u32)?;
        if let Some(frame) = &found {
            self.at = frame.end;
        }
        Ok(found)
    }

    /// Waits for bytes. 0: the peer has finished.
    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        self.buf.copy_within(self.at..self.end, 0);
        self.end -= self.at;
        self.at = 0;
        if self.end == self.buf.len() || (self.end > 0 && self.buf.len() < BUFFER_FULL) {
            self.buf.resize(BUFFER_FULL, 0);
        }
        let n = self.socket.read(&mut self.buf[self.end..])?;
        self.end += n;
        if self.end == self.buf.len() && self.buf.len() < BUFFER_FULL {
            self.buf.resize(BUFFER_FULL, 0);
        }
        Ok(n)
    }

    /// Exactly `N` octets, for the protocol header; `None` when the peer has finished instead.
    pub(crate) fn take<const N: usize>(&mut self) -> Result<Option<[u8; N]>> {
        loop {
            if let Some(octets) = self.buf[self.at..self.end].first_chunk::<N>().copied() {
                self.at += N;
                return Ok(Some(octets));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Waits for the next frame.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Frame> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            if self.fill().context("waiting for a frame")? == 0 {
                bail!("the peer closed the connection");
            }
        }
    }

    /// Waits for the next method, whatever comes between.
    pub(crate) fn next_method(&mut self) -> Result<(u16, Method<'_>)> {
        let frame = loop {
            let frame = self.next()?;
            if frame.kind == FRAME_METHOD {
                break frame;
            }
        };
        Ok((frame.channel, Method::parse(self.payload(&frame))?))
    }
}
