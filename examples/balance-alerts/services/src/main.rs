//! The services of Balance Alerts: `balance-alerts SERVICE`. Each is a module; what they share is around them.

mod balance;
mod cache;
mod event;
mod events;
mod notification;
mod qualification;
mod reporting;
mod tables;
mod tracking;

use std::process::ExitCode;

fn main() -> ExitCode {
    let service = std::env::args().nth(1).unwrap_or_default();
    example_kit::main(async {
        match service.as_str() {
            "balance" => balance::run().await,
            "qualification" => qualification::run().await,
            "notification" => notification::run().await,
            "tracking" => tracking::run().await,
            "reporting" => reporting::run().await,
            other => Err(format!("no service is called `{other}`").into()),
        }
    })
}
