//! Questions to a node, asked in Erlang (see `admin.erl`).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Enough for the slowest thing asked of a node, stopping and starting the broker in it, on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// What the node runs to answer us.
const SERVER: &str = include_str!("admin.erl");

/// The text of `admin.erl` for one node.
pub(super) fn server(port: u16, cookie: &str) -> String {
    SERVER.replace("PORT,", &format!("{port},")).replace("COOKIE\"", &format!("{cookie}\""))
}

/// A connection to the evaluator in a node.
#[derive(Debug)]
pub(super) struct Admin {
    stream: TcpStream,
    cookie: String,
}

impl Admin {
    /// Connects; an error while the node is not that far yet.
    pub(super) fn connect(port: u16, cookie: &str) -> std::io::Result<Admin> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_nodelay(true)?;
        Ok(Admin { stream, cookie: cookie.to_owned() })
    }

    /// Evaluates expressions (with their final dot). `Err` is the exception that they raised, or what went wrong
    /// with the connection.
    pub(super) fn eval(&mut self, expressions: &str) -> Result<String, String> {
        let request = format!("{}{expressions}", self.cookie);
        let size = u32::try_from(request.len()).map_err(|e| e.to_string())?;
        let mut bytes = size.to_be_bytes().to_vec();
        bytes.extend_from_slice(request.as_bytes());
        let answer = self.exchange(&bytes).map_err(|e| format!("the node does not answer: {e}"))?;
        match answer.split_first() {
            Some((b'+', value)) => Ok(String::from_utf8_lossy(value).into_owned()),
            Some((_, exception)) => Err(String::from_utf8_lossy(exception).into_owned()),
            None => Err("an empty answer".to_owned()),
        }
    }

    fn exchange(&mut self, request: &[u8]) -> std::io::Result<Vec<u8>> {
        self.stream.write_all(request)?;
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let mut answer = vec![0; u32::from_be_bytes(size) as usize];
        self.stream.read_exact(&mut answer)?;
        Ok(answer)
    }
}

/// A string as an Erlang binary: `<<"text"/utf8>>`.
pub(super) fn binary(text: &str) -> String {
    format!("<<\"{}\"/utf8>>", text.replace('\\', "\\\\").replace('"', "\\\""))
}
