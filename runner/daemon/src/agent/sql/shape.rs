//! What a statement gives: its columns, and in which of the two formats each one crosses the wire.
use fallible_iterator::FallibleIterator;
use plugin_host::backend::{ColumnInfo, Error};
use postgres_protocol::message::backend::RowDescriptionBody;

use super::fault::host;

/// How the cells of a column are read. The binary ones are those whose binary form is the same in every server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    /// Bytes of the integer.
    Integer(u8),
    Float(u8),
    Binary,
    Timestamp {
        zoned: bool,
    },
    Text,
}

impl Kind {
    /// By the fixed OIDs of `pg_type.dat`. A domain is described as its base type.
    fn of(oid: u32) -> Self {
        match oid {
            16 => Self::Boolean,
            17 => Self::Binary,
            20 => Self::Integer(8),
            21 => Self::Integer(2),
            23 => Self::Integer(4),
            700 => Self::Float(4),
            701 => Self::Float(8),
            1114 => Self::Timestamp { zoned: false },
            1184 => Self::Timestamp { zoned: true },
            _ => Self::Text,
        }
    }

    pub(super) fn format(self) -> i16 {
        i16::from(self != Self::Text)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) oid: u32,
    pub(super) modifier: i32,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) fields: Vec<Field>,
}

impl Shape {
    pub(super) fn read(body: &RowDescriptionBody) -> Result<Self, Error> {
        let mut fields = Vec::new();
        let mut described = body.fields();
        while let Some(field) =
            described.next().map_err(|error| host(format!("the server's description of the columns: {error}")))?
        {
            let oid = field.type_oid();
            let name = field.name().to_owned();
            fields.push(Field { name, oid, modifier: field.type_modifier(), kind: Kind::of(oid) });
        }
        Ok(Self { fields })
    }

    pub(super) fn infos(&self, type_names: Vec<String>) -> Vec<ColumnInfo> {
        let names = self.fields.iter().map(|field| field.name.clone());
        names.zip(type_names).map(|(name, type_name)| ColumnInfo { name, type_name }).collect()
    }
}

/// Reads every part of a message, for the property test of the decoder.
#[cfg(test)]
pub(super) fn touch(message: &postgres_protocol::message::backend::Message) {
    use postgres_protocol::message::backend::Message;
    match message {
        Message::ErrorResponse(body) => drop(super::fault::server(body)),
        Message::RowDescription(body) => drop(Shape::read(body)),
        Message::ParameterStatus(body) => drop((body.name().is_ok(), body.value().is_ok())),
        Message::CommandComplete(body) => drop(body.tag().is_ok()),
        _ => {}
    }
}
