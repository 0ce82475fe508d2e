//! The data of a `COPY … FROM stdin`.

/// Where in them we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    LineStart,
    Inside,
    Backslash {
        first: bool,
    },
    /// After `\.` at the beginning of a line.
    End,
}

impl Data {
    /// None where they end. A backslash begins what `COPY TO` writes, and nothing else: where the server refuses a COPY, `psql`
    /// reads its data as code.
    pub(super) fn next(self, byte: u8) -> Result<Option<Self>, String> {
        let next = match (self, byte) {
            (Self::End, b'\n') => return Ok(None),
            (Self::End, b'\r') | (Self::Backslash { first: true }, b'.') => Self::End,
            (Self::End, _) => return Err("something stands behind the end of a COPY's data".to_owned()),
            (Self::Backslash { .. }, b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'N' | b'\\') => Self::Inside,
            (Self::Backslash { .. }, _) => {
                let shown = char::from(byte).escape_default();
                return Err(format!("`\\{shown}` stands in the data of a COPY, where pg_dump does not write it"));
            }
            (Self::LineStart, b'\\') => Self::Backslash { first: true },
            (Self::Inside, b'\\') => Self::Backslash { first: false },
            (Self::LineStart | Self::Inside, b'\n') => Self::LineStart,
            (Self::LineStart | Self::Inside, _) => Self::Inside,
        };
        Ok(Some(next))
    }
}
