//! One target of `limpet::fuzz` under libFuzzer, by the name in the environment.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("LIMPET_FUZZ_TARGET").unwrap_or_default();
    limpet::fuzz::find(&name).unwrap_or_else(|| panic!("there is no target '{name}'"))
});

fuzz_target!(|data: &[u8]| TARGET(data));
