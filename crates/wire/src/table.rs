//! Field tables (AMQP 0-9-1, 4.2.5.5), with the field types of RabbitMQ.
//!
//! A [`Table`] borrows encoded entries that were walked to their end once, so that whoever holds one can pass it on
//! or look into it without a check. Nothing is allocated until somebody asks for [`Table::to_field_table`].

mod encode;
mod walk;

use amq_protocol_types::FieldTable;
use amq_protocol_types::parsing::parse_field_table;

use crate::Malformed;
use crate::read::Reader;

pub use encode::encode_table;
pub use walk::MAX_TABLE_DEPTH;

/// A well-formed field table: the encoded entries, without the four octets of length before them.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Table<'a>(&'a [u8]);

/// One value of a table, as far as Warren looks into values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `t`: any octet but 0 is true.
    Bool(bool),
    /// `b B s u I i l L`: the integers of any width. `L` is signed, as RabbitMQ has it.
    Int(i64),
    /// `f d`.
    Float(f64),
    /// `T`: seconds since the epoch.
    Timestamp(u64),
    /// `S`: a long string, not necessarily UTF-8.
    Str(&'a [u8]),
    /// `F`.
    Table(Table<'a>),
    /// `A`.
    Array(Array<'a>),
    /// `D x V`: decimal, byte array, void.
    Other,
}

/// A well-formed field array: the encoded elements.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Array<'a>(&'a [u8]);

impl<'a> Table<'a> {
    /// The table without entries.
    pub const EMPTY: Table<'static> = Table(&[]);

    /// Takes encoded entries (without the four octets of length) after a walk to their end: every entry whole,
    /// every nested table and array filled exactly, nesting at most [`MAX_TABLE_DEPTH`], and only values that
    /// RabbitMQ reads, so neither NaN nor an infinity. Keys and strings may be any octets.
    pub fn from_encoded(entries: &'a [u8]) -> Result<Self, Malformed> {
        walk::check_table(entries, 1).ok_or(Malformed)?;
        Ok(Table(entries))
    }

    /// The encoded entries, without the four octets of length.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key of this table itself, not of nested ones. Of equal keys the first counts, as with
    /// RabbitMQ.
    pub fn get(&self, key: &[u8]) -> Option<Value<'a>> {
        self.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// The entries in the order in which they were sent.
    pub fn iter(&self) -> Entries<'a> {
        Entries(Reader::new(self.0))
    }

    /// The keys in the order in which they were sent, each with its whole entry as it is encoded: for passing on some of
    /// them.
    pub fn encoded(&self) -> EncodedEntries<'a> {
        EncodedEntries { all: self.0, at: 0 }
    }

    /// An owned copy for whoever keeps or changes the table. Of equal keys the last remains.
    ///
    /// # Errors
    /// When a key is not UTF-8, which [`FieldTable`] cannot hold.
    pub fn to_field_table(&self) -> Result<FieldTable, Malformed> {
        let mut bytes = Vec::with_capacity(self.0.len() + 4);
        crate::write::table(&mut bytes, *self);
        match parse_field_table(&bytes[..]) {
            Ok(([], table)) => Ok(table),
            _ => Err(Malformed),
        }
    }
}

impl<'a> IntoIterator for &Table<'a> {
    type Item = (&'a [u8], Value<'a>);
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}

impl<'a> Array<'a> {
    /// The elements in the order in which they were sent.
    pub fn iter(&self) -> Elements<'a> {
        Elements(Reader::new(self.0))
    }
}

impl<'a> IntoIterator for &Array<'a> {
    type Item = Value<'a>;
    type IntoIter = Elements<'a>;

    fn into_iter(self) -> Elements<'a> {
        self.iter()
    }
}

/// Iterator over the entries of a [`Table`].
pub struct Entries<'a>(Reader<'a>);

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.0.short()?;
        Some((key, walk::value(&mut self.0)?))
    }
}

/// Iterator over the entries of a [`Table`] as they are encoded.
pub struct EncodedEntries<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Iterator for EncodedEntries<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.all.get(self.at..)?;
        let mut reader = Reader::new(rest);
        let key = reader.short()?;
        walk::value(&mut reader)?;
        let len = rest.len() - reader.left();
        self.at += len;
        Some((key, &rest[..len]))
    }
}

/// Iterator over the elements of an [`Array`].
pub struct Elements<'a>(Reader<'a>);

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        walk::value(&mut self.0)
    }
}
