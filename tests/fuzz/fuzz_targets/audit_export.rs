#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| countersign_tests::parsers::run("audit_export", input));
