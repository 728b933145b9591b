//! libFuzzer around one decoder, which the environment names: `FUZZ_TARGET=log_body`.

#![no_main]

use std::sync::LazyLock;

use ostiary_fuzz::decoders;

static DECODER: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a decoder");
    decoders::find(&name).unwrap_or_else(|| panic!("there is no decoder {name}"))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| DECODER(bytes));
