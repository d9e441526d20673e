//! Any bytes as a message in either direction: an error, or a message that says the same once encoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shrbuf::ipc::fuzzing;

fuzz_target!(|data: &[u8]| fuzzing::parse(data));
