//! Services that are programs of this machine: where each is, and who tells how to make it when it is not there. The file names them
//! by `run`, or the image catalogue of the user does.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use landfall_engine::{Catalogue, Entry};
use landfall_model::{Run, Service};
use landfall_standin::Program;
use serde::Serialize;
use serde_json::Value;

use super::{Place, Plan};

/// A service that the file, or `--images`, has run by a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::commands::up) struct ProgramPlan {
    pub(in crate::commands::up) service: String,
    /// The program, as it is named there.
    pub(in crate::commands::up) program: String,
    /// The command that makes it.
    pub(in crate::commands::up) build: Option<String>,
    /// Whether it is there and runs; otherwise the stand-in does.
    pub(in crate::commands::up) runs: bool,
    /// Who names it.
    #[serde(skip)]
    by: NamedBy,
    /// Where its metrics are: the port and the path.
    #[serde(skip)]
    metrics: Option<(u16, String)>,
}

/// Who says which program a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NamedBy {
    /// The service's `run`.
    Run,
    /// The service's `command`, behind an image that the catalogue has.
    Command,
    /// The entry of the catalogue.
    Catalogue,
}

/// The program of an entry of the catalogue, where it is on this machine, and its arguments.
pub(super) fn program_of(entry: &Entry, folder: &Path) -> Option<Vec<String>> {
    let path = find(entry.program.as_ref()?, folder)?.display().to_string();
    Some(std::iter::once(path).chain(entry.args.iter().cloned()).collect())
}

impl Plan {
    /// The program of a service. Where there is none its stand-in runs, so that everything else is shown all the same: the
    /// platform of a colleague who has built nothing comes up, and is told what it is not.
    pub(super) fn own_program(&mut self, name: &str, service: &Service, run: &Run, place: &Place) -> Option<Program> {
        let command = run.command.iter().map(|word| word.value.clone()).collect();
        let build = run.build.as_ref().map(|build| build.value.clone());
        self.named_program(name, service, command, build, NamedBy::Run, place)
    }

    /// The same of a service whose image the catalogue has: what its `command` says wins, as in any pod.
    pub(super) fn program_of_image(
        &mut self,
        name: &str,
        service: &Service,
        entry: &Entry,
        place: &Place,
    ) -> Option<Program> {
        let command: Vec<_> = service.command.iter().map(|word| word.value.clone()).collect();
        let (argv, by) = match &entry.program {
            Some(program) if entry.ignore_command || command.is_empty() => {
                (std::iter::once(program).chain(&entry.args).cloned().collect(), NamedBy::Catalogue)
            }
            _ => (command, NamedBy::Command),
        };
        if argv.is_empty() {
            self.left_out.push(format!(
                "`{name}` is a stand-in: `{}` of `--images` names no program, and the service has no `command`",
                entry.image
            ));
        }
        let mut program = self.named_program(name, service, argv, None, by, place)?;
        if let Some(folder) = &entry.working_dir {
            program.folder = place.folder().join(folder).display().to_string();
        }
        Some(program)
    }

    /// Leads the images of all other pods to what the catalogue says, and tells of entries that lead nothing.
    pub(super) fn add_catalogue(&mut self, catalogue: &Catalogue) {
        let mut images = BTreeSet::new();
        self.objects.iter().for_each(|object| container_images(object, &mut images));
        let used: BTreeSet<usize> = images.iter().filter_map(|image| catalogue.position(image)).collect();
        let idle = catalogue.images.iter().enumerate().filter(|(position, _)| !used.contains(position));
        // What a part leaves out may be what it is for.
        let idle = idle.filter(|_| self.part.is_none()).map(|(_, entry)| {
            format!(
                "`{}` of `--images` is no image of a service, or of a pod of `objects`, that no entry before it fits",
                entry.image
            )
        });
        self.left_out.extend(idle.collect::<Vec<_>>());
        self.images.images.extend(catalogue.images.iter().cloned());
    }

    fn named_program(
        &mut self,
        name: &str,
        service: &Service,
        argv: Vec<String>,
        build: Option<String>,
        by: NamedBy,
        place: &Place,
    ) -> Option<Program> {
        let (named, arguments) = argv.split_first()?;
        let path = find(named, place.folder());
        let (metrics, ports) = (&service.metrics, service.all_ports());
        let port = ports.iter().find(|(port, _)| metrics.port.as_ref().is_none_or(|named| named.as_str() == port));
        self.own_programs.push(ProgramPlan {
            service: name.to_owned(),
            metrics: port.map(|(_, port)| (port.port.get(), metrics.path.value.clone())),
            program: named.clone(),
            build,
            runs: path.is_some(),
            by,
        });
        let path = path?.display().to_string();
        Some(Program {
            argv: std::iter::once(path).chain(arguments.iter().cloned()).collect(),
            of_catalogue: by == NamedBy::Catalogue,
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
        let known = (&program.program, &program.build, program.by);
        let same = |other: &ProgramPlan| (&other.program, &other.build, other.by) == known;
        match lines.iter_mut().find(|(first, _)| same(first)) {
            Some((_, services)) => services.push(&program.service),
            None => lines.push((program, vec![&program.service])),
        }
    }
    let line = |(program, services): (&ProgramPlan, Vec<&str>)| {
        let where_to = if program.program.contains('/') { "" } else { " on the `PATH`" };
        let remedy = match (&program.build, program.by) {
            (Some(build), _) => format!("`{build}` makes it"),
            (None, NamedBy::Run) => "the service's `run` names it, and no `build` that makes it".to_owned(),
            (None, NamedBy::Command) => "the service's `command` names it".to_owned(),
            (None, NamedBy::Catalogue) => "`--images` names it".to_owned(),
        };
        let (verb, what) = if services.len() == 1 { ("is", "a stand-in") } else { ("are", "stand-ins") };
        let services = services.iter().map(|service| format!("`{service}`")).collect::<Vec<_>>().join(", ");
        format!("{services} {verb} {what}: there is no program `{}`{where_to}; {remedy}", program.program)
    };
    lines.into_iter().map(line).collect()
}

/// The images of all containers in an object.
fn container_images<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            let lists = ["containers", "initContainers"].iter().filter_map(|field| fields.get(*field)?.as_array());
            found.extend(lists.flatten().filter_map(|container| container["image"].as_str()));
            fields.values().for_each(|field| container_images(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| container_images(item, found)),
        _ => {}
    }
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
    use std::collections::BTreeMap;

    use super::super::Part;
    use super::super::tests::planned;
    use super::*;
    use crate::commands::up::architecture_of;

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

    /// Three services of one image, one of which is of another version.
    const SHOP: &str = "
landfall: v1
name: shop
services:
  web: { image: 'acme/shop:1.0.0', port: 8080 }
  worker: { kind: worker, image: 'acme/shop:1.0.0', command: [sh, -c, 'sleep 9'] }
  old: { image: 'acme/shop:0.9.0', port: 8080 }
";

    fn plan(text: &str, catalogue: &str) -> Plan {
        let images = Catalogue::parse(catalogue).expect("it is one");
        planned(&architecture_of(text), &Part { images, ..Part::default() })
    }

    #[test]
    fn services_whose_image_the_catalogue_has_are_its_program_or_their_command() {
        let plan =
            plan(SHOP, "images: [{ image: 'acme/shop:1.*', program: sh, args: ['{{port}}'], working-dir: site }]");
        let sh = find("sh", Path::new("/")).expect("every system has it").display().to_string();
        let programs: BTreeMap<_, _> =
            plan.services.iter().map(|service| (service.service.as_str(), service.program.clone())).collect();
        assert_eq!(programs["old"], None);
        let web = programs["web"].as_ref().expect("its image fits");
        assert_eq!((&web.argv, web.of_catalogue), (&vec![sh.clone(), "{{port}}".to_owned()], true));
        assert_eq!(web.folder, "/shop/site");
        let worker = programs["worker"].as_ref().expect("its image fits");
        assert_eq!(
            (&worker.argv, worker.of_catalogue),
            (&vec![sh.clone(), "-c".to_owned(), "sleep 9".to_owned()], false)
        );

        let arguments = |image: &str| plan.images.find(image).map(|entry| entry.args[1..].to_vec()).unwrap_or_default();
        let [web, worker, old] =
            ["web", "worker", "old"].map(|name| format!("/shop/.landfall/shop/standins/{name}.json"));
        assert_eq!(arguments("acme/shop:1.0.0"), ["service-of", "{{pod_name}}", &web, &worker, "--", &sh, "{{port}}"]);
        assert_eq!(arguments("acme/shop:0.9.0"), ["service", &old]);
    }

    #[test]
    fn every_version_of_an_image_is_the_same_program_and_what_fits_nothing_is_told() {
        let shop = SHOP.replace("0.9.0", "1.1.0");
        let catalogue = "images: [{ image: 'acme/shop:1.*', program: sh, env: { A: b } }, { image: acme/shop }]";
        let plan = plan(&shop, catalogue);
        let entry = plan.images.find("acme/shop:2.0.0").expect("a release may bring it");
        assert_eq!((entry.image.as_str(), entry.env["A"].as_str()), ("acme/shop", "b"));
        let told = "`acme/shop` of `--images` is no image of a service, or of a pod of `objects`, that no entry before it fits";
        assert_eq!(plan.left_out, [told]);
    }

    #[test]
    fn an_image_without_a_program_needs_a_command() {
        let plan = plan(SHOP, "images: [{ image: acme/shop }]");
        let runs: Vec<_> = plan.own_programs.iter().map(|program| program.service.as_str()).collect();
        assert_eq!(runs, ["worker"]);
        let told = |name: &str| {
            format!(
                "`{name}` is a stand-in: `acme/shop` of `--images` names no program, and the service has no `command`"
            )
        };
        assert_eq!(plan.left_out, [told("old"), told("web")]);
    }

    #[test]
    fn a_program_that_is_missing_is_told_once() {
        let program = |service: &str, program: &str, build: Option<&str>, runs| ProgramPlan {
            service: service.to_owned(),
            program: program.to_owned(),
            build: build.map(ToOwned::to_owned),
            runs,
            by: NamedBy::Run,
            metrics: None,
        };
        let all = [
            ProgramPlan { by: NamedBy::Catalogue, ..program("shelf", "nodejs", None, false) },
            program("web", "bin/shop", Some("make shop"), false),
            program("mail", "bin/shop", Some("make shop"), false),
            program("stock", "nodejs", None, false),
            program("here", "bin/here", None, true),
        ];
        assert_eq!(
            missing(&all),
            [
                "`shelf` is a stand-in: there is no program `nodejs` on the `PATH`; `--images` names it",
                "`web`, `mail` are stand-ins: there is no program `bin/shop`; `make shop` makes it",
                "`stock` is a stand-in: there is no program `nodejs` on the `PATH`; the service's `run` names it, and no `build` that makes it",
            ]
        );
    }
}
