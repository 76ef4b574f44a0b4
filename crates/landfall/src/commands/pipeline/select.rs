//! Which stages are run, and which of them a person has let run by naming them. Pure.

use landfall_render::PipelineStage;

/// A stage that is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Picked<'a> {
    pub(super) stage: &'a PipelineStage,
    /// Whether it waits for an approval that nobody has given.
    pub(super) waits: bool,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) stages: &'a [String],
    pub(super) from: Option<&'a str>,
    pub(super) environment: Option<&'a str>,
}

/// The stages that are asked for, in the order of the file; or what is not understood.
pub(super) fn pick<'a>(stages: &'a [PipelineStage], asked: Asked<'_>) -> Result<Vec<Picked<'a>>, String> {
    let names = || stages.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>().join(", ");
    let place = |name: &str| {
        let place = stages.iter().position(|stage| stage.name == name);
        place.ok_or_else(|| format!("error: there is no stage `{name}`\nhint: the stages are {}", names()))
    };
    for name in asked.stages {
        place(name)?;
    }
    let first = asked.from.map(place).transpose()?.unwrap_or(0);
    let named = |stage: &PipelineStage| asked.stages.contains(&stage.name) || asked.from == Some(&stage.name);
    let is_asked = |stage: &PipelineStage| {
        let environment = stage.environment.as_deref().zip(asked.environment);
        (asked.stages.is_empty() || asked.stages.contains(&stage.name))
            && environment.is_none_or(|(own, asked)| own == asked)
    };
    let picked: Vec<Picked<'_>> = stages[first..]
        .iter()
        .filter(|stage| is_asked(stage))
        .map(|stage| Picked { stage, waits: stage.gated && !named(stage) })
        .collect();
    if picked.is_empty() {
        let environment = asked.environment.unwrap_or_default();
        return Err(format!(
            "error: no stage that is asked for is about `{environment}`\nhint: the stages are {}",
            names()
        ));
    }
    Ok(picked)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stage(name: &str, environment: Option<&str>, gated: bool) -> PipelineStage {
        PipelineStage {
            name: name.to_owned(),
            environment: environment.map(str::to_owned),
            gated,
            steps: Vec::new(),
            rollback: None,
            tells_author: false,
            reaches_cluster: false,
            limit: Duration::from_mins(30),
        }
    }

    /// The stages that are run; those that wait are in brackets.
    fn check(stages: &[&str], from: Option<&str>, environment: Option<&str>, expected: &str) {
        let all = [
            stage("test", None, false),
            stage("staging", Some("staging"), false),
            stage("approval", Some("production"), true),
            stage("production", Some("production"), false),
        ];
        let stages: Vec<String> = stages.iter().map(|&name| name.to_owned()).collect();
        let text = match pick(&all, Asked { stages: &stages, from, environment }) {
            Ok(picked) => picked
                .iter()
                .map(|picked| if picked.waits { format!("[{}]", picked.stage.name) } else { picked.stage.name.clone() })
                .collect::<Vec<_>>()
                .join(" "),
            Err(why) => why,
        };
        assert_eq!(text, expected);
    }

    #[test]
    fn all_stages_run_in_their_order_and_an_approval_waits() {
        check(&[], None, None, "test staging [approval] production");
        check(&["production", "test"], None, None, "test production");
    }

    #[test]
    fn naming_a_stage_is_the_approval_of_that_stage_alone() {
        check(&["approval"], None, None, "approval");
        check(&[], Some("approval"), None, "approval production");
        check(&[], Some("staging"), None, "staging [approval] production");
    }

    #[test]
    fn stages_of_other_environments_are_left_out() {
        check(&[], None, Some("staging"), "test staging");
        check(
            &["production"],
            None,
            Some("staging"),
            "error: no stage that is asked for is about `staging`\nhint: the stages are test, staging, approval, production",
        );
    }

    #[test]
    fn a_stage_that_is_not_there_is_told_with_those_that_are() {
        check(
            &["tests"],
            None,
            None,
            "error: there is no stage `tests`\nhint: the stages are test, staging, approval, production",
        );
        check(
            &[],
            Some("tests"),
            None,
            "error: there is no stage `tests`\nhint: the stages are test, staging, approval, production",
        );
    }
}
