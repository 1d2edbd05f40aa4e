//! Consumers of streams: they do not take what they are given, but read on from an offset. So when one has lost its
//! connection, it goes on after the last offset that its client was given (`x-stream-offset` in the headers of each
//! message), and nothing comes twice.

use warren_wire::content::{BasicProperties, CONTENT_HEADER_LEN};
use warren_wire::table::{Table, Value};

use crate::channel::{Consumer, ConsumerState};
use crate::tables;

/// Where a consumer begins (in its arguments), and where it is (in the headers of its messages).
const OFFSET: &str = "x-stream-offset";

/// What is known of where a consumer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Its queue is no stream.
    Queue,
    /// It has got nothing yet; whether its queue is a stream, its first message will tell.
    Unknown,
    /// It reads a stream and has got nothing yet. `exact`: if it begins again as it did, it misses nothing.
    Unread { exact: bool },
    /// It was given all up to this offset.
    At(u64),
}

impl Reading {
    /// For a consumer that begins with these arguments. `stream`: its queue is known to be one.
    pub(crate) fn begin(arguments: Table<'_>, stream: bool) -> Reading {
        match arguments.get(OFFSET.as_bytes()) {
            None if !stream => Reading::Unknown,
            // What comes next, or what came last, is something else a moment later.
            None => Reading::Unread { exact: false },
            Some(Value::Int(_) | Value::Timestamp(_) | Value::Str(b"first")) => {
                Reading::Unread { exact: true }
            }
            Some(_) => Reading::Unread { exact: false },
        }
    }
}

impl Consumer {
    /// Whether nobody knows where it would have to begin again: it read a stream and has got nothing yet.
    pub(crate) fn has_lost_its_place(&self) -> bool {
        let asked = self.state == ConsumerState::Starting && !self.replayed;
        self.reading == Reading::Unread { exact: false } && !asked
    }

    /// Notes where a message for it stood. `header`: the payload of its content header.
    pub(crate) fn note_offset(&mut self, header: &[u8]) {
        match offset(header) {
            Some(offset) => {
                self.reading = Reading::At(offset);
                self.fixed = true;
            }
            None if self.reading == Reading::Unknown => {
                self.reading = Reading::Queue;
                self.watched = false;
            }
            None => {}
        }
    }

    /// The arguments to begin again with.
    pub(crate) fn arguments_again(&self) -> Vec<u8> {
        let mut table = Vec::new();
        if let Reading::At(last) = self.reading {
            // Of equal keys the first counts.
            tables::put_int(&mut table, OFFSET, i64::try_from(last.saturating_add(1)).unwrap_or(i64::MAX));
        }
        table.extend_from_slice(&self.arguments);
        table
    }
}

fn offset(header: &[u8]) -> Option<u64> {
    let properties = BasicProperties::parse(header.get(CONTENT_HEADER_LEN..)?).ok()?;
    match properties.headers?.get(OFFSET.as_bytes())? {
        Value::Int(offset) => u64::try_from(offset).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun_with(write: impl FnOnce(&mut Vec<u8>), stream: bool) -> Reading {
        let mut table = Vec::new();
        write(&mut table);
        Reading::begin(Table::from_encoded(&table).unwrap(), stream)
    }

    #[test]
    fn who_begins_where_it_began_misses_nothing_or_may() {
        assert_eq!(begun_with(|_| {}, false), Reading::Unknown);
        assert_eq!(begun_with(|_| {}, true), Reading::Unread { exact: false });
        for (word, exact) in [("first", true), ("next", false), ("last", false), ("1h", false)] {
            let reading = begun_with(|table| tables::put_str(table, OFFSET, word), false);
            assert_eq!(reading, Reading::Unread { exact }, "{word}");
        }
        let reading = begun_with(|table| tables::put_int(table, OFFSET, 7), false);
        assert_eq!(reading, Reading::Unread { exact: true });
    }

    #[test]
    fn an_offset_is_read_from_the_headers() {
        let mut headers = Vec::new();
        tables::put_str(&mut headers, "other", "text");
        tables::put_int(&mut headers, OFFSET, 41);
        let headers = Some(Table::from_encoded(&headers).unwrap());
        let mut frame = Vec::new();
        let properties = BasicProperties { headers, ..BasicProperties::default() };
        warren_wire::content::write_header(1, 3, &properties, &mut frame);
        assert_eq!(offset(&frame[7..frame.len() - 1]), Some(41));
        let mut frame = Vec::new();
        warren_wire::content::write_header(1, 3, &BasicProperties::default(), &mut frame);
        assert_eq!(offset(&frame[7..frame.len() - 1]), None);
    }
}
