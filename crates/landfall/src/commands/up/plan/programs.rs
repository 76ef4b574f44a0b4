//! Services that are programs of this machine: where each is, and who tells how to make it when it is not there.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use landfall_model::{Run, Service};
use landfall_standin::Program;
use serde::Serialize;

use super::{Place, Plan};

/// A service that the file has run by a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::commands::up) struct ProgramPlan {
    pub(in crate::commands::up) service: String,
    /// The program, as the file names it.
    pub(in crate::commands::up) program: String,
    /// The command that makes it.
    pub(in crate::commands::up) build: Option<String>,
    /// Whether it is there and runs; otherwise the stand-in does.
    pub(in crate::commands::up) runs: bool,
    /// Where its metrics are: the port and the path.
    #[serde(skip)]
    metrics: Option<(u16, String)>,
}

impl Plan {
    /// The program of a service. Where there is none its stand-in runs, so that everything else is shown all the same: the
    /// platform of a colleague who has built nothing comes up, and is told what it is not.
    pub(super) fn own_program(&mut self, name: &str, service: &Service, run: &Run, place: &Place) -> Option<Program> {
        let (named, arguments) = run.command.split_first()?;
        let path = find(named, place.folder());
        let (metrics, ports) = (&service.metrics, service.all_ports());
        let port = ports.iter().find(|(port, _)| metrics.port.as_ref().is_none_or(|named| named.as_str() == port));
        self.own_programs.push(ProgramPlan {
            service: name.to_owned(),
            metrics: port.map(|(_, port)| (port.port.get(), metrics.path.value.clone())),
            program: named.value.clone(),
            build: run.build.as_ref().map(|build| build.value.clone()),
            runs: path.is_some(),
        });
        let path = path?.display().to_string();
        let arguments = arguments.iter().map(|argument| argument.value.clone());
        Some(Program {
            argv: std::iter::once(path).chain(arguments).collect(),
            folder: place.folder().display().to_string(),
            trust: place.trust().display().to_string(),
        })
    }

    /// Where the metrics of a program are: the port and the path.
    pub(in crate::commands::up) fn metrics_of(&self, service: &str) -> Option<(u16, &str)> {
        let program = self.own_programs.iter().find(|program| program.service == service)?;
        program.metrics.as_ref().map(|(port, path)| (*port, path.as_str()))
    }
}

/// One line for each program that is not there: which services are stand-ins therefore, and how that ends.
pub(in crate::commands::up) fn missing(programs: &[ProgramPlan]) -> Vec<String> {
    let mut lines: Vec<(&ProgramPlan, Vec<&str>)> = Vec::new();
    for program in programs.iter().filter(|program| !program.runs) {
        let same = |other: &ProgramPlan| other.program == program.program && other.build == program.build;
        match lines.iter_mut().find(|(first, _)| same(first)) {
            Some((_, services)) => services.push(&program.service),
            None => lines.push((program, vec![&program.service])),
        }
    }
    let line = |(program, services): (&ProgramPlan, Vec<&str>)| {
        let where_to = if program.program.contains('/') { "" } else { " on the `PATH`" };
        let remedy = program.build.as_ref().map_or_else(
            || "the service's `run` names it, and no `build` that makes it".to_owned(),
            |build| format!("`{build}` makes it"),
        );
        let (verb, what) = if services.len() == 1 { ("is", "a stand-in") } else { ("are", "stand-ins") };
        let services = services.iter().map(|service| format!("`{service}`")).collect::<Vec<_>>().join(", ");
        format!("{services} {verb} {what}: there is no program `{}`{where_to}; {remedy}", program.program)
    };
    lines.into_iter().map(line).collect()
}

/// A path from the folder of the file, or a name that is looked for on the `PATH`, as a shell does.
fn find(named: &str, folder: &Path) -> Option<PathBuf> {
    let is_program =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    if named.contains('/') {
        return Some(folder.join(named)).filter(is_program);
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).filter(|folder| folder.is_absolute()).map(|folder| folder.join(named)).find(is_program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_a_path_from_the_folder_or_a_name_on_the_path() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("bin/web");
        fs::create_dir(folder.path().join("bin")).expect("a folder can be made");
        fs::write(&file, "#!/bin/sh\n").expect("a file can be written");
        assert_eq!(find("bin/web", folder.path()), None, "it is no program yet");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it can be made one");
        assert_eq!(find("bin/web", folder.path()), Some(file));
        assert_eq!(find("web", folder.path()), None);
        assert!(find("sh", folder.path()).is_some());
    }

    #[test]
    fn a_program_that_is_missing_is_told_once() {
        let program = |service: &str, program: &str, build: Option<&str>, runs| ProgramPlan {
            service: service.to_owned(),
            program: program.to_owned(),
            build: build.map(ToOwned::to_owned),
            runs,
            metrics: None,
        };
        let all = [
            program("web", "bin/shop", Some("make shop"), false),
            program("mail", "bin/shop", Some("make shop"), false),
            program("stock", "nodejs", None, false),
            program("here", "bin/here", None, true),
        ];
        assert_eq!(
            missing(&all),
            [
                "`web`, `mail` are stand-ins: there is no program `bin/shop`; `make shop` makes it",
                "`stock` is a stand-in: there is no program `nodejs` on the `PATH`; the service's `run` names it, and no `build` that makes it",
            ]
        );
    }
}
