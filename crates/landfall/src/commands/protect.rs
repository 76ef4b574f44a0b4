//! `landfall protect`: an environment admits only what releases bring.

use std::io::Write as _;

use landfall_deliver::{Author, People, protect, protection};

use crate::Outcome;
use crate::cli::{Output, ProtectArguments};
use crate::commands::ship::{Target, holder, in_a_cluster};
use crate::output::{ProtectOutput, VERSION};
use crate::terminal::Terminal;

/// Protects it, or prints what would.
pub(crate) fn run(arguments: &ProtectArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let place = &arguments.place;
    let target = match Target::find(&place.file, place.environment.as_deref(), terminal)? {
        Ok(target) => target,
        Err(outcome) => return Ok(outcome),
    };
    let people = People { shippers: arguments.shippers.clone(), approvers: arguments.approvers.clone() };
    if arguments.print {
        for object in protection(&target.architecture, &people) {
            writeln!(terminal.data(), "---\n{}", serde_json::to_string_pretty(&object)?)?;
        }
        return Ok(Outcome::Done);
    }
    in_a_cluster(&target, &place.cluster, terminal, async |client, terminal| {
        let author = Author::of(&client, target.namespace(), target.name(), &holder()).await?;
        let images = protect(&client, &target.architecture, &people, &author).await?;
        if place.output == Output::Json {
            let document = ProtectOutput { version: VERSION, images: &images };
            writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
        } else {
            writeln!(terminal.data(), "`{}` admits what runs there, and what releases bring:", target.namespace())?;
            for image in &images {
                writeln!(terminal.data(), "  {image}")?;
            }
        }
        Ok(Outcome::Done)
    })
}
