//! The header of an archive of `pg_dump`: bounded, whatever it says of itself.
use super::dump_header::DumpHeader;

#[cfg(test)]
#[path = "replay.rs"]
#[allow(clippy::duplicate_mod, reason = "each property brings it along, into whichever crate it is tested in")]
mod replay;

pub(crate) fn holds(bytes: &[u8]) {
    if let Ok(header) = DumpHeader::read(bytes) {
        let texts = [&header.database, &header.server_version, &header.dump_version];
        assert!(texts.into_iter().flatten().all(|text| text.len() <= 3 * (16 << 10)));
    }
}

#[cfg(test)]
#[test]
fn it_holds_for_what_fuzzing_kept() {
    replay::replay(env!("CARGO_MANIFEST_DIR"), "dump", holds);
}
