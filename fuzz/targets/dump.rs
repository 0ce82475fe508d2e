//! The header of an archive of `pg_dump`: bounded, whatever it says of itself.
#![no_main]
#[expect(dead_code, unreachable_pub, reason = "only its reading is fuzzed")]
#[path = "../../runner/drivers/src/engine/postgresql/dump_header.rs"]
mod dump_header;

use dump_header::DumpHeader;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = DumpHeader::read(bytes) {
        let texts = [&header.database, &header.server_version, &header.dump_version];
        assert!(texts.into_iter().flatten().all(|text| text.len() <= 3 * (16 << 10)));
    }
});
