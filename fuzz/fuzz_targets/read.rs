//! Any bytes at all: reading gives findings or an architecture, and an architecture renders and checks without a panic.
#![no_main]

use landfall_model::File;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let file = File::read("fuzz.yaml", bytes, &mut |_| Err(String::new()));
    let environments = file.environments();
    for environment in environments.iter().map(|name| Some(name.as_str())).chain([None]).take(3) {
        if let Ok(architecture) = file.architecture(environment) {
            let mut rendered = landfall_render::kubernetes(&architecture);
            let findings = std::mem::take(&mut rendered.findings);
            let objects = rendered.into_values();
            let rendering = landfall_check::Rendering { objects: &objects, findings: &findings };
            landfall_check::check(&architecture, rendering, "2026-11-21".parse().expect("the date is a date"));
        }
    }
});
