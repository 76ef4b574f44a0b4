//! A Dockerfile and a `.dockerignore` for each service that is built here and says in which language it is written.
//!
//! Two stages: tools and sources stay in the first, the second has what runs, as a user without rights. Tools that a build
//! needs are installed before the build and taken away after it.
//!
//! Not handled: workspaces with several packages; such a service names its own `dockerfile`.

use std::collections::BTreeSet;

use landfall_model::{Architecture, Build, Finding, Service, suggestion};

use crate::object::FileTree;

/// A user that no image has another meaning for; the number, because the kubelet cannot check a name.
const USER: &str = "65532:65532";

/// How one language is built.
struct Language {
    name: &'static str,
    /// The image with the tools; `build.base` takes its place.
    tools: &'static str,
    /// The image that runs; `None` for the one with the tools.
    runs: Option<&'static str>,
    /// The steps from sources to what runs.
    build: &'static str,
    /// What of it the second stage takes.
    take: &'static str,
    /// The program.
    command: &'static str,
    /// What the build must not see.
    ignore: &'static str,
}

const LANGUAGES: [Language; 5] = [
    Language {
        name: "go",
        tools: "golang:1.26-alpine",
        runs: Some("gcr.io/distroless/static-debian13:nonroot"),
        build: "COPY go.mod go.su[m] ./\nRUN go mod download\nCOPY . .\n\
                RUN CGO_ENABLED=0 go build -trimpath -ldflags=\"-s -w\" -o /out/app .\n",
        take: "COPY --from=build /out/app /app/app\n",
        command: "[\"/app/app\"]",
        ignore: "bin\nvendor\n",
    },
    Language {
        name: "java",
        tools: "maven:3-eclipse-temurin-25-alpine",
        runs: Some("eclipse-temurin:25-jre-alpine"),
        build: "COPY pom.xml ./\nRUN mvn --batch-mode dependency:go-offline\nCOPY . .\n\
                RUN mvn --batch-mode package -DskipTests && mv target/*.jar target/app.jar\n",
        take: "COPY --from=build /src/target/app.jar /app/app.jar\n",
        command: "[\"java\", \"-jar\", \"/app/app.jar\"]",
        ignore: "target\n",
    },
    Language {
        name: "node",
        tools: "node:24-alpine",
        runs: None,
        build: "COPY package.json package-lock.json ./\nRUN npm ci\nCOPY . .\n\
                RUN npm run build && npm prune --omit=dev\n",
        take: "ENV NODE_ENV=production\nCOPY --from=build /src/package.json ./\n\
               COPY --from=build /src/node_modules ./node_modules\nCOPY --from=build /src/dist ./dist\n",
        command: "[\"node\", \"dist/index.js\"]",
        ignore: "node_modules\ndist\nnpm-debug.log\n",
    },
    Language {
        name: "python",
        tools: "python:3.14-slim",
        runs: None,
        build: "RUN python -m venv /opt/venv\nENV PATH=/opt/venv/bin:$PATH\nCOPY requirements.txt ./\n\
                RUN pip install --no-cache-dir --requirement requirements.txt\nCOPY . .\n",
        take: "ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1\n\
               COPY --from=build /opt/venv /opt/venv\nCOPY --from=build /src ./\n",
        command: "[\"python\", \"-m\", \"app\"]",
        ignore: "__pycache__\n*.pyc\n.venv\n",
    },
    Language {
        name: "rust",
        tools: "rust:1-alpine",
        runs: Some("gcr.io/distroless/static-debian13:nonroot"),
        build: "COPY . .\nRUN cargo build --release --locked && find target/release -maxdepth 1 -type f -perm /111 -exec mv {} /app \\; -quit\n",
        take: "COPY --from=build /app /app/app\n",
        command: "[\"/app/app\"]",
        ignore: "target\n",
    },
];

/// Renders the Dockerfiles of the services of all environments, each below the folder of its sources.
pub(crate) fn dockerfile<'a>(environments: impl IntoIterator<Item = &'a Architecture>) -> (FileTree, Vec<Finding>) {
    let (mut files, mut findings, mut seen) = (FileTree::new(), Vec::new(), BTreeSet::new());
    for architecture in environments {
        for (name, service) in &architecture.document.services {
            let Some(build) = service.build.as_ref().filter(|build| build.dockerfile.is_none()) else { continue };
            let folder = build.context.value.trim_matches('/').to_owned();
            // One folder of sources is one image, whichever services run it.
            if !seen.insert(folder.clone()) {
                continue;
            }
            match language(build) {
                Ok(language) => {
                    files.insert(format!("{folder}/Dockerfile"), text(language, name.value.as_str(), service, build));
                    files.insert(format!("{folder}/.dockerignore"), ignored(language));
                }
                Err(reason) => findings.push(
                    Finding::note("not-rendered", build.context.span, format!("`{}` gets no Dockerfile", name.value))
                        .on(format!("service.{}", name.value))
                        .because(reason)
                        .help(format!("set `build.language` to one of {}, or name your own `dockerfile`", known())),
                ),
            }
        }
    }
    (files, findings)
}

fn known() -> String {
    LANGUAGES.map(|language| language.name).join(", ")
}

fn language(build: &Build) -> Result<&'static Language, String> {
    let Some(wanted) = build.language.as_ref().map(|language| language.value.as_str()) else {
        return Err("the file does not say in which language it is written".to_owned());
    };
    LANGUAGES.iter().find(|language| language.name == wanted).ok_or_else(|| {
        let near = suggestion(wanted, LANGUAGES.iter().map(|language| language.name));
        let near = near.map_or_else(String::new, |near| format!("; `{near}` is near"));
        format!("there is no recipe for `{wanted}`{near}")
    })
}

fn text(language: &Language, name: &str, service: &Service, build: &Build) -> String {
    let tools = build.base.as_ref().map_or(language.tools, |base| base.value.as_str());
    let runs = language.runs.unwrap_or(tools);
    let ports = service.all_ports();
    let exposed: String = ports.iter().map(|(_, port)| format!("EXPOSE {}\n", port.port.value.get())).collect();
    let command = match service.command.as_slice() {
        [] => language.command.to_owned(),
        words => {
            let words: Vec<String> =
                words.iter().map(|word| serde_json::Value::from(word.value.as_str()).to_string()).collect();
            format!("[{}]", words.join(", "))
        }
    };
    format!(
        "# From services.{name}.build\nFROM {tools} AS build\nWORKDIR /src\n{}\nFROM {runs}\nWORKDIR /app\n{}USER {USER}\n\
         {exposed}CMD {command}\n",
        language.build, language.take
    )
}

fn ignored(language: &Language) -> String {
    format!(".git\n.env*\nDockerfile\n.dockerignore\n*.md\n{}", language.ignore)
}
