#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamgauge_fuzz::request(data));
