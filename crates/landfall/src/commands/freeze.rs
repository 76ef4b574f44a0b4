//! `landfall freeze`, `landfall thaw`: nothing is shipped to an environment, until it may be again.

use std::io::Write as _;

use landfall_deliver::{Author, freeze, thaw};

use crate::Outcome;
use crate::cli::{FreezeArguments, Output};
use crate::commands::ship::{Target, holder, in_a_cluster};
use crate::output::{FreezeOutput, VERSION};
use crate::terminal::Terminal;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// That nothing is shipped.
    Frozen,
    /// That it may be.
    Thawed,
}

/// Freezes or thaws. The answer is no when it is so already.
pub(crate) fn run(arguments: &FreezeArguments, wanted: Wanted, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let environment = &arguments.environment;
    let target = match Target::find(&arguments.file, Some(environment), terminal)? {
        Ok(target) => target,
        Err(outcome) => return Ok(outcome),
    };
    in_a_cluster(&target, &arguments.cluster, terminal, async |client, terminal| {
        let author = Author::of(&client, target.namespace(), target.name(), &holder()).await?;
        let (namespace, name, because) = (target.namespace(), target.name(), arguments.because.as_str());
        let (there, done, said) = match wanted {
            Wanted::Frozen => {
                let there = freeze(&client, namespace, name, because, &author).await?;
                let done = there.is_none();
                (there, done, format!("{environment} is frozen: {because}"))
            }
            Wanted::Thawed => {
                let there = thaw(&client, namespace, name, because, &author).await?;
                let done = there.is_some();
                (there, done, format!("{environment} is thawed"))
            }
        };
        if arguments.output == Output::Json {
            let frozen = wanted == Wanted::Frozen;
            let document = FreezeOutput { version: VERSION, environment, frozen, freeze: there.as_ref() };
            writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
        } else if done {
            writeln!(terminal.data(), "{said}")?;
        }
        terminal.flush()?;
        match (wanted, &there) {
            (Wanted::Frozen, Some(there)) => terminal.say(&format!(
                "error: {environment} is frozen already, by {} since {}: {}",
                there.by, there.at, there.because
            ))?,
            (Wanted::Thawed, None) => terminal.say(&format!("error: {environment} is not frozen"))?,
            _ => {}
        }
        Ok(if done { Outcome::Done } else { Outcome::No })
    })
}
