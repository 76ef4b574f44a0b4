//! What the language finds while it reads a file: entries for `landfall explain`; the findings are made by
//! `landfall-model`.

use landfall_model::Severity;

use crate::rule::{Rule, Subject};

const fn language(
    name: &'static str,
    summary: &'static str,
    explanation: &'static str,
    [passing, failing]: [&'static str; 2],
) -> Rule {
    Rule {
        name,
        subject: Subject::Language,
        severity: Severity::Error,
        summary,
        explanation,
        passing,
        failing,
        run: None,
    }
}

pub(super) const DUPLICATE_KEY: Rule = language(
    "duplicate-key",
    "No key is written twice in one mapping.",
    "YAML readers disagree on which of two equal keys counts, so the file would mean different things to \
     different tools. The same holds for a key that two included files share. The YAML specification \
     demands unique keys (https://yaml.org/spec/1.2.2/#3213-node-comparison).",
    [
        include_str!("../../tests/it/rules/duplicate-key/ok.yaml"),
        include_str!("../../tests/it/rules/duplicate-key/bad.yaml"),
    ],
);

pub(super) const DUPLICATE_NAME: Rule = language(
    "duplicate-name",
    "Services, stores and externals have names of their own, and so do ports and claims.",
    "Edges name their target alone, so one name must mean one thing. `client` is taken: it means whoever \
     stands outside. `port` is short for the port `http`, so a service has only one of them.",
    [
        include_str!("../../tests/it/rules/duplicate-name/ok.yaml"),
        include_str!("../../tests/it/rules/duplicate-name/bad.yaml"),
    ],
);

pub(super) const EDGE_VERB: Rule = language(
    "edge-verb",
    "Each edge has one verb, and the verb can be done to its target.",
    "A verb says what is spoken and in which direction the data flows: one publishes to a broker, reads \
     from a store and calls a service. An edge with two verbs would have two protocols. An external can \
     only call exposed services.",
    [include_str!("../../tests/it/rules/edge-verb/ok.yaml"), include_str!("../../tests/it/rules/edge-verb/bad.yaml")],
);

pub(super) const EMPTY_FILE: Rule = language(
    "empty-file",
    "The file says something.",
    "A file of comments alone is not a platform without services, but a file that somebody has not \
     written yet.",
    [include_str!("../../tests/it/rules/empty-file/ok.yaml"), include_str!("../../tests/it/rules/empty-file/bad.yaml")],
);

pub(super) const EMPTY_FLOW: Rule = language(
    "empty-flow",
    "Each flow has steps.",
    "A flow is a test of the platform. Without steps it passes always and shows nothing.",
    [include_str!("../../tests/it/rules/empty-flow/ok.yaml"), include_str!("../../tests/it/rules/empty-flow/bad.yaml")],
);

pub(super) const ENVIRONMENT_VARIABLE: Rule = language(
    "environment-variable",
    "Each environment variable has one source and a name that a program can read.",
    "A variable is a plain value, a key of a secret, an address of a store or a field of the pod; with \
     two sources nobody knows which one counts, with none it is not set at all. Kubernetes takes letters, \
     digits, `_`, `-` and `.` in names.",
    [
        include_str!("../../tests/it/rules/environment-variable/ok.yaml"),
        include_str!("../../tests/it/rules/environment-variable/bad.yaml"),
    ],
);

pub(super) const FILE_TOO_LARGE: Rule = language(
    "file-too-large",
    "The file is no larger than 8 MiB and holds no more than 2,000,000 values.",
    "A platform of 1,000 services fits into one tenth of that. What is larger is generated, or not a \
     `landfall.yaml` at all, and reading it would only cost memory.",
    [
        include_str!("../../tests/it/rules/file-too-large/ok.yaml"),
        include_str!("../../tests/it/rules/file-too-large/bad.yaml"),
    ],
);

pub(super) const INCLUDE: Rule = language(
    "include",
    "Each file under `include` can be read, once, and is a mapping of sections.",
    "Included files add their sections to the file that names them, relative to its own place. A file \
     that is included twice, or includes itself, would declare everything twice.",
    [include_str!("../../tests/it/rules/include/ok.yaml"), include_str!("../../tests/it/rules/include/bad.yaml")],
);

pub(super) const MISSING_KEY: Rule = language(
    "missing-key",
    "Everything that has no default is given.",
    "Most values have a default that can be shown with `landfall explain`. What has none, such as the \
     engine of a store, cannot be guessed.",
    [
        include_str!("../../tests/it/rules/missing-key/ok.yaml"),
        include_str!("../../tests/it/rules/missing-key/bad.yaml"),
    ],
);

pub(super) const NESTED_TOO_DEEP: Rule = language(
    "nested-too-deep",
    "The file nests no deeper than 64 levels.",
    "The language itself needs 12 levels, raw objects a few more. Deeper nesting is a mistake or an \
     attack on the reader.",
    [
        include_str!("../../tests/it/rules/nested-too-deep/ok.yaml"),
        include_str!("../../tests/it/rules/nested-too-deep/bad.yaml"),
    ],
);

pub(super) const NO_MEMBERS: Rule = language(
    "no-members",
    "Each store has a member.",
    "A store without members holds nothing and answers nobody. To leave it out of an environment, use \
     `environments`.",
    [include_str!("../../tests/it/rules/no-members/ok.yaml"), include_str!("../../tests/it/rules/no-members/bad.yaml")],
);

pub(super) const NO_PORT: Rule = language(
    "no-port",
    "A service that is called serves a port.",
    "An edge to a service becomes a Service and a policy with a port. Without one there is nothing to \
     connect to.",
    [include_str!("../../tests/it/rules/no-port/ok.yaml"), include_str!("../../tests/it/rules/no-port/bad.yaml")],
);

pub(super) const NOT_UTF_8: Rule = language(
    "not-utf-8",
    "The file is UTF-8.",
    "YAML files are Unicode, and positions in findings count characters. Latin-1 or UTF-16 would be read \
     as other letters, or not at all. A byte order mark is accepted.",
    [include_str!("../../tests/it/rules/not-utf-8/ok.yaml"), include_str!("../../tests/it/rules/not-utf-8/bad.yaml")],
);

pub(super) const NOTIFY: Rule = language(
    "notify",
    "Whoever is told of releases is told by one means, and no secret stands in its URL.",
    "A message goes to a webhook or into a file. Whoever has the URL of most webhooks can send to them, so a URL with a \
     password, a token or a part that looks random belongs into the secret back end, and the file names the secret: \
     `webhook: release-mail/url`.",
    [include_str!("../../tests/it/rules/notify/ok.yaml"), include_str!("../../tests/it/rules/notify/bad.yaml")],
);

pub(super) const OBJECT: Rule = language(
    "object",
    "Each raw object has an `apiVersion`, a `kind` and a name.",
    "Raw objects are rendered as they stand, so they are what one would give to `kubectl apply`.",
    [include_str!("../../tests/it/rules/object/ok.yaml"), include_str!("../../tests/it/rules/object/bad.yaml")],
);

pub(super) const PATCH: Rule = language(
    "patch",
    "Each patch has either a fragment to merge or operations.",
    "`merge` follows RFC 7386 and `operations` RFC 6902. A patch with both has no order, a patch with \
     neither does nothing.",
    [include_str!("../../tests/it/rules/patch/ok.yaml"), include_str!("../../tests/it/rules/patch/bad.yaml")],
);

pub(super) const PROBE: Rule = language(
    "probe",
    "Each probe asks in exactly one way, and gives up before it asks again.",
    "Kubernetes takes one of `httpGet`, `tcpSocket`, `grpc` and `exec` in a probe and refuses two. A \
     timeout above the period makes probes overlap, so that the time until a failure is noticed is no \
     longer period × failures \
     (https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/).",
    [include_str!("../../tests/it/rules/probe/ok.yaml"), include_str!("../../tests/it/rules/probe/bad.yaml")],
);

pub(super) const REPLICAS: Rule = language(
    "replicas",
    "The number of copies is fixed or moves between bounds, not both.",
    "A fixed number and an autoscaler undo each other: each apply sets the number back, and the \
     autoscaler moves it again. A metric needs a `max`, because without one nothing scales.",
    [include_str!("../../tests/it/rules/replicas/ok.yaml"), include_str!("../../tests/it/rules/replicas/bad.yaml")],
);

pub(super) const SCHEDULE: Rule = language(
    "schedule",
    "Scheduled jobs have a schedule that cron understands, and nothing else has one.",
    "Kubernetes takes five fields, or a word such as `@daily`. Six fields, with seconds, are another \
     cron.",
    [include_str!("../../tests/it/rules/schedule/ok.yaml"), include_str!("../../tests/it/rules/schedule/bad.yaml")],
);

pub(super) const TIME_ZONE: Rule = language(
    "time-zone",
    "Each time zone is one of the IANA database.",
    "Abbreviations such as `IST` mean three different zones, and offsets know no daylight saving time \
     (https://www.iana.org/time-zones).",
    [include_str!("../../tests/it/rules/time-zone/ok.yaml"), include_str!("../../tests/it/rules/time-zone/bad.yaml")],
);

pub(super) const UNKNOWN_KEY: Rule = language(
    "unknown-key",
    "Each key is one of the language.",
    "A key that is not known would be ignored by a lenient reader, and a misspelt limit would be no \
     limit. The nearest known key is suggested.",
    [
        include_str!("../../tests/it/rules/unknown-key/ok.yaml"),
        include_str!("../../tests/it/rules/unknown-key/bad.yaml"),
    ],
);

pub(super) const UNKNOWN_NAME: Rule = language(
    "unknown-name",
    "Each name that is referred to is declared.",
    "Edges, flows, routes, zones, regions, environments and secrets are found by name. A name that no \
     environment declares is a spelling mistake, and the nearest one is suggested.",
    [
        include_str!("../../tests/it/rules/unknown-name/ok.yaml"),
        include_str!("../../tests/it/rules/unknown-name/bad.yaml"),
    ],
);

pub(super) const UNKNOWN_VALUE: Rule = language(
    "unknown-value",
    "Each choice is one of the possible ones.",
    "Engines, kinds, verbs and policies are closed lists, so that each of them can be rendered and \
     checked. All possible values are listed.",
    [
        include_str!("../../tests/it/rules/unknown-value/ok.yaml"),
        include_str!("../../tests/it/rules/unknown-value/bad.yaml"),
    ],
);

pub(super) const WRONG_VALUE: Rule = language(
    "wrong-value",
    "Each value has the form of its type.",
    "Quantities carry their unit, so that 512 is never taken for megabytes: durations such as `30s`, \
     sizes such as `512Mi`, shares such as `99.9%`, rates such as `20/s`.",
    [
        include_str!("../../tests/it/rules/wrong-value/ok.yaml"),
        include_str!("../../tests/it/rules/wrong-value/bad.yaml"),
    ],
);

pub(super) const YAML_ANCHOR: Rule = language(
    "yaml-anchor",
    "The file has no anchors and aliases.",
    "An alias hides where a value comes from, so that a finding could not point at it, and a few lines of \
     aliases unfold to gigabytes. Values that differ between environments go under `environments`.",
    [
        include_str!("../../tests/it/rules/yaml-anchor/ok.yaml"),
        include_str!("../../tests/it/rules/yaml-anchor/bad.yaml"),
    ],
);

pub(super) const YAML_SYNTAX: Rule = language(
    "yaml-syntax",
    "The file is YAML, and one document.",
    "Indentation is by spaces, brackets and quotes close, keys are single words. A second document \
     (`---`) belongs into a file of its own.",
    [
        include_str!("../../tests/it/rules/yaml-syntax/ok.yaml"),
        include_str!("../../tests/it/rules/yaml-syntax/bad.yaml"),
    ],
);

pub(super) const YAML_TAG: Rule = language(
    "yaml-tag",
    "The file has no YAML tags.",
    "Tags such as `!include` or `!!binary` mean something to some readers only.",
    [include_str!("../../tests/it/rules/yaml-tag/ok.yaml"), include_str!("../../tests/it/rules/yaml-tag/bad.yaml")],
);
