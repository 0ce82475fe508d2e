//! What a statement or a command of `psql`, once it is whole, does to the reading of what follows.
use super::super::meta::{self, Meta};
use super::{Event, Refusal, Scanner, State};

/// Client encodings in which a byte that looks like a quote or a backslash may be half of a character (`PG_ENCODING_BE_LAST`).
const UNSAFE_ENCODINGS: [&str; 17] = [
    "sjis",
    "shiftjis",
    "mskanji",
    "win932",
    "windows932",
    "shiftjis2004",
    "big5",
    "win950",
    "windows950",
    "gbk",
    "win936",
    "windows936",
    "uhc",
    "win949",
    "windows949",
    "gb18030",
    "johab",
];

impl<F: FnMut(Event<'_>)> Scanner<F> {
    pub(super) fn end_statement(&mut self) -> Result<(), Refusal> {
        let statement = std::mem::take(&mut self.statement);
        let tail = std::mem::take(&mut self.tail);
        let text = String::from_utf8_lossy(&statement);
        let text = text.trim();
        let first = text.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default().to_ascii_lowercase();
        if first == "copy" {
            let tail = String::from_utf8_lossy(&tail).to_ascii_lowercase();
            let mut words = tail.split_ascii_whitespace().rev();
            if (words.next(), words.next()) != (Some("stdin"), Some("from")) {
                return self.refuse("a COPY that is not from stdin, which pg_dump does not write");
            }
            self.state = State::CopyHead;
        }
        self.settings(&first, text)?;
        self.complete = false;
        (self.tell)(Event::Statement(text));
        Ok(())
    }

    /// What changes how the rest is read.
    fn settings(&mut self, first: &str, text: &str) -> Result<(), Refusal> {
        let plain: String =
            text.chars().filter(|c| !c.is_whitespace() && *c != '\'').collect::<String>().to_ascii_lowercase();
        let changes = |name: &str| match first {
            "set" | "reset" => plain.contains(name),
            "select" => plain.contains(&format!("set_config({name}")),
            _ => false,
        };
        if changes("standard_conforming_strings") {
            match plain
                .strip_prefix("setstandard_conforming_strings")
                .map(|value| value.trim_start_matches(['=']).to_owned())
            {
                Some(value) if value == "on" => self.conforming = true,
                Some(value) if value == "off" => self.conforming = false,
                _ => return self.refuse("it changes how quotes are read in a way that pg_dump does not"),
            }
        }
        if changes("client_encoding") {
            let value = plain
                .strip_prefix("setclient_encoding")
                .map(|value| value.trim_start_matches('=').replace(['_', '-'], ""));
            let Some(value) = value else {
                return self.refuse("it changes the client encoding in a way that pg_dump does not");
            };
            if UNSAFE_ENCODINGS.contains(&value.as_str()) {
                return Err(Refusal {
                    line: self.line,
                    why: format!("its encoding {value} has characters that hold the bytes of quotes"),
                    advice: "dump with `--encoding=UTF8`, or in an archive format",
                });
            }
        }
        Ok(())
    }

    pub(super) fn meta(&mut self, text: &[u8]) -> Result<(), Refusal> {
        let text = String::from_utf8_lossy(text);
        match meta::parse(&text) {
            Some(Meta::Restrict) => Ok(()),
            Some(Meta::Connect(database)) => {
                if self.connected.as_ref().is_some_and(|other| *other != database) {
                    return Err(Refusal {
                        line: self.line,
                        why: "it connects to a second database: it is of pg_dumpall, or several dumps in one file"
                            .to_owned(),
                        advice: "drill each database's own dump, and hand its roles to `muster adopt --globals`",
                    });
                }
                // The server's own default, until the dump says it again.
                self.conforming = true;
                (self.tell)(Event::Connect(&database));
                self.connected = Some(database);
                Ok(())
            }
            None => {
                let command: String = text.chars().take_while(|c| !c.is_whitespace()).take(20).collect();
                let command: String = command.chars().filter(|c| !c.is_control()).collect();
                self.refuse(format!("`\\{command}` is a command of psql that pg_dump does not write so"))
            }
        }
    }
}
