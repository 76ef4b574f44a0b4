//! The services of the first channel of Water Channels: `water-channels SERVICE [--messaging URL] [--field-ops URL]`. Somebody
//! writes to Glific; `glific-webhook` hears of it, `messaging` makes a submission of it, `field-ops` keeps it and says so, and
//! `messaging` thanks.

mod field_ops;
mod glific_webhook;
mod messaging;
mod objects;
mod submission;
mod topics;

use std::process::ExitCode;

use example_kit::Failure;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let service = arguments.first().cloned().unwrap_or_default();
    example_kit::main(async {
        match service.as_str() {
            "glific-webhook" => glific_webhook::run(&option(&arguments, "--messaging")?).await,
            "messaging" => messaging::run(&option(&arguments, "--field-ops")?).await,
            "field-ops" => field_ops::run().await,
            other => Err(format!("no service is called `{other}`").into()),
        }
    })
}

/// The value that follows an option.
fn option(arguments: &[String], name: &str) -> Result<String, Failure> {
    let place = arguments.iter().position(|argument| argument == name);
    let value = place.and_then(|place| arguments.get(place + 1));
    value.cloned().ok_or_else(|| format!("`{name} URL` is missing").into())
}
