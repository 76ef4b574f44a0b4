//! Each command with its exit codes.

use insta::assert_snapshot;

use crate::{Folder, TODAY, example, run_in};

const SHOP: &str = "\
landfall: v1
name: shop
services:
  api: { image: shop/api:1.0, port: 3000, replicas: 2, uses: [write: ledger] }
stores:
  ledger: { engine: postgres, members: 3, size: 10Gi }
environments:
  staging: { services: { api: { replicas: 1 } }, stores: { ledger: { members: 1 } } }
  production: { production: true }
";

#[test]
fn a_typing_error_points_at_its_place_and_exits_with_2() {
    let folder = Folder::with(&SHOP.replace("replicas: 2", "replica: 2"));
    assert_snapshot!(folder.run(&["check"]), @"
    exit: 2
    --- stderr
    error[unknown-key]: unknown key `replica` in `services.api`
     --> landfall.yaml:4:43
      |
    4 |   api: { image: shop/api:1.0, port: 3000, replica: 2, uses: [write: ledger] }
      |                                           ^^^^^^^
      |
    help: did you mean `replicas`?

    1 error, 0 warnings, 0 notes (production, staging)
    ");
}

#[test]
fn json_findings_have_a_version_and_a_place() {
    let folder = Folder::with(&SHOP.replace("postgres", "postgress"));
    assert_snapshot!(folder.run(&["check", "--output", "json"]), @r#"
    exit: 2
    --- stdout
    {
      "version": 1,
      "findings": [
        {
          "rule": "unknown-value",
          "severity": "error",
          "message": "`postgress` is not a value of `stores.ledger.engine`",
          "file": "landfall.yaml",
          "line": 6,
          "column": 21,
          "why": [],
          "help": "did you mean `postgres`? Possible: postgres, mongodb, redis, kafka, rabbitmq, s3, mqtt, elasticsearch",
          "subject": null,
          "labels": [],
          "environments": []
        }
      ],
      "waived": [],
      "proofs": []
    }
    "#);
}

#[test]
fn a_file_that_is_not_there_exits_with_3() {
    let folder = Folder::with(SHOP);
    assert_snapshot!(folder.run(&["check", "missing.yaml"]), @"
    exit: 3
    --- stderr
    error: failed to read `missing.yaml`: No such file or directory (os error 2)
    hint: name a file or a folder that has one; a new file begins with `landfall: v1` and `name: …`, and `landfall schema` has the rest
    ");
}

#[test]
fn an_environment_that_is_not_there_exits_with_2() {
    let folder = Folder::with(SHOP);
    assert_snapshot!(folder.run(&["check", "--env", "prod"]), @"
    exit: 2
    --- stderr
    error[unknown-name]: there is no environment `prod`
     |
    help: declared: production, staging

    1 error, 0 warnings, 0 notes (prod)
    ");
}

#[test]
fn differences_between_environments_are_told_in_the_words_of_the_file() {
    let folder = Folder::with(SHOP);
    assert_snapshot!(folder.run(&["diff", "staging", "production"]), @"
    exit: 1
    --- stdout
    services.api
      replicas.count: 1 -> 2
    stores.ledger
      members: 1 -> 3
    --- stderr
    2 differences between `staging` and `production`
    ");
    assert_snapshot!(folder.run(&["diff", "production", "production"]), @"
    exit: 0
    --- stderr
    0 differences between `production` and `production`
    ");
    assert_snapshot!(folder.run(&["diff", "production", "nowhere"]), @"
    exit: 3
    --- stderr
    error: `nowhere` is neither a file, nor an environment of `landfall.yaml`, nor a Git revision that has it
    ");
}

#[test]
fn a_value_is_explained_with_its_place_or_its_default() {
    let folder = Folder::with(SHOP);
    assert_snapshot!(folder.run(&["explain", "store.ledger"]), @"
    exit: 0
    --- stdout
    stores.ledger
      A database, cache, broker or bucket.

      engine                 postgres   line 6
      version                -          default: Its version, such as `17`; a current one when left out.
      title                  -          default: What it holds, for people.
      provider               operator   default: Who runs it: an operator in the cluster, a plain `StatefulSet`, or a cloud provider.
      instance               -          default: The provider's instance class, such as `db.m7g.large`.
      members                3          line 6
      shards                 -          default: For a sharded cache: how many shards; each has its share of the members.
      zones                  none       default: The zones of the members; all zones of the region when left out.
      region                 -          default: The region, when it is not the primary one.
      size                   10Gi       line 6
      data                   -          default: How much data it holds, for the time of a restore; the volume's size when left out.
      storage-class          -          default: The class of its volumes, when it is not the platform's.
      resources.cpu          -          default: Processor time: request and limit.
      resources.memory       -          default: Memory: request and limit.
      resources.storage      -          default: Ephemeral storage: request and limit.
      resources.assumed      false      default: Whether the document leaves the numbers out and the file assumes them.
      persistence            -          default: How it survives a restart.
      replication            -          default: For a broker: on how many members each topic or queue is kept.
      in-sync                -          default: For a broker: how many of them must have a message before it is acknowledged.
      commit                 -          default: For a database: whether a commit waits for a replica.
      lag                    5s         default: How far a replica may lag behind; assumed until it is measured.
      failover               30s        default: How long it takes until another member has taken over from a lost one; assumed until it is measured.
      backup                 -          default: Its backups.
      restore                100MB/s    default: The speed of a restore; assumed until it is measured.
      topics                 none       default: The topics, queues or buckets, by name.
      encryption.at-rest     -          default: Whether its files are encrypted.
      encryption.in-transit  -          default: Whether clients must use TLS.
      availability           -          default: The share of time in which the provider promises that it works.
      placement.zones        preferred  default: Whether copies are spread over the zones.
      placement.nodes        preferred  default: Whether two copies keep off the same node.
      placement.pool         -          default: The node pool; any pool that is not dedicated when left out.
      segment                -          default: The network segment it stands in.
      namespace              -          default: The namespace, when it is not the platform's.
      environments           none       default: The environments that have it; all when left out.
      own-machines           false      default: Whether its members run on machines of their own, outside the node pools.
      assumed                false      default: Whether the document leaves this out and the file assumes it.
    ");
    assert_snapshot!(folder.run(&["explain", "stores.ledger.members", "--env", "staging"]), @"
    exit: 0
    --- stdout
    stores.ledger.members
      How many members (instances, brokers, nodes) it has.

        1  line 8
    ");
    assert_snapshot!(folder.run(&["explain", "stors"]), @"
    exit: 2
    --- stderr
    error: there is no value and no rule `stors`
    hint: did you mean `stores`?
    ");
}

#[test]
fn what_is_not_there_is_explained_by_the_grammar_or_by_its_neighbours() {
    let folder = Folder::with(SHOP);
    assert_snapshot!(folder.run(&["explain", "services.apy"]), @"
    exit: 2
    --- stderr
    error: there is no value and no rule `services.apy`
    hint: did you mean `services.api`?
    ");
    assert_snapshot!(folder.run(&["explain", "recovery.standby"]), @"
    exit: 0
    --- stdout
    recovery.standby
      The region that takes over.

    It takes:

      region   required  The region.
      mode               How much of the platform runs there already.
      start              How long it takes until the platform runs there; nothing for a hot standby.
      dns-ttl            How long clients keep the old address.
      assumed            Whether the document leaves the numbers out and the file assumes them.
    ");
    assert_snapshot!(folder.run(&["explain", "environments.staging.services.api.replicas"]), @"
    exit: 0
    --- stdout
    services.api.replicas
      How many copies run.

      count    1      line 8
      min      -      default: The fewest copies, when their number moves.
      max      -      default: The most copies, when their number moves.
      cpu      -      default: The share of the requested CPU that copies should use on average.
      memory   -      default: The share of the requested memory that copies should use on average.
      custom   none   default: Other metrics by name, each with the average value for each copy that the autoscaler aims at.
      calm     5m     default: How long the load must be low before copies are removed.
      assumed  false  default: Whether the document leaves the numbers out and the file assumes them.
    ");
    let patched = Folder::with(&format!("{SHOP}patches: [{{ target: {{ kind: Service, name: api }} }}]\n"));
    assert_snapshot!(patched.run(&["explain", "patches[0]"]), @"
    exit: 2
    --- stdout
    patches.0
      A change to rendered objects.

    It takes:

      target      required  The objects to change.
      merge                 Merged into each of them, as RFC 7386 says: given keys replace, `null` removes.
      operations            Operations as RFC 6902 says.
      because     required  Why the language is not enough.
    --- stderr
    error[missing-key]: `because` is missing in `patches[0]`
      --> landfall.yaml:10:11
       |
    10 | patches: [{ target: { kind: Service, name: api } }]
       |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
    help: add `because: …`; `landfall explain patches[0]` shows what belongs there
    ");
}

#[test]
fn an_element_that_one_side_lacks_is_one_difference() {
    let folder = Folder::with(&SHOP.replace("stores:\n", "  mock: { kind: mock, environments: [staging] }\nstores:\n"));
    assert_snapshot!(folder.run(&["diff", "staging", "production"]), @"
    exit: 1
    --- stdout
    services.api
      replicas.count: 1 -> 2
    services.mock
      only in `staging`
    stores.ledger
      members: 1 -> 3
    --- stderr
    3 differences between `staging` and `production`
    ");
}

#[test]
fn every_rule_can_be_explained() {
    for rule in landfall_check::RULES {
        let folder = Folder::with(SHOP);
        let text = folder.run(&["explain", rule.name]);
        assert!(text.starts_with("exit: 0\n"), "{text}");
    }
}

#[test]
fn what_cannot_be_rendered_is_said_and_can_be_waived() {
    let rule = landfall_check::RULES.iter().find(|rule| rule.name == "not-rendered").expect("there is the rule");
    let check = |text: &str| Folder::with(text).run(&["check", "--today", TODAY]);
    assert!(!check(rule.passing).contains("[not-rendered]"));
    assert!(check(rule.failing).contains("[not-rendered]"));
    let waiver = "waivers: [ { rule: not-rendered, on: service.web, because: nights are short, until: 2027-01-01 } ]\n";
    let text = check(&format!("{}{waiver}", rule.failing));
    assert!(!text.contains("[not-rendered]") && text.contains("1 waived"), "{text}");
}

#[test]
fn rendering_writes_a_tree_and_checks_it() {
    let folder = Folder::with(SHOP);
    let run = |arguments: &[&str]| folder.run(&[&["render", "kubernetes", "--env", "staging"], arguments].concat());
    assert!(run(&["--check"]).starts_with("exit: 1\n"));
    assert!(run(&[]).starts_with("exit: 0\n"));
    assert!(run(&["--check"]).starts_with("exit: 0\n"));
    let deployment = folder.path().join("rendered/shop/api/deployment.yaml");
    let text = std::fs::read_to_string(&deployment).expect("the deployment was written");
    std::fs::write(&deployment, text.replace("3000", "3001")).expect("it can be changed");
    let text = run(&["--check"]);
    assert!(text.starts_with("exit: 1\n") && text.contains("changed  shop/api/deployment.yaml"), "{text}");
}

#[test]
fn rendering_again_removes_what_is_gone_and_keeps_what_is_not_ours() {
    let folder = Folder::with(SHOP);
    folder.run(&["render", "kubernetes", "--env", "staging"]);
    let own = folder.path().join("rendered/shop/api/notes.txt");
    std::fs::write(&own, "mine").expect("a file can be written");
    std::fs::write(folder.path().join("landfall.yaml"), "landfall: v1\nname: shop\n").expect("the file can be changed");
    let text = folder.run(&["render", "kubernetes"]);
    assert!(text.contains("no longer rendered"), "{text}");
    assert!(own.exists(), "a file that render did not write must stay");
    assert!(!folder.path().join("rendered/shop/api/deployment.yaml").exists());
    assert!(!folder.path().join("rendered/shop/ledger").exists(), "a folder that is empty goes");
}

#[test]
fn a_stream_of_documents_goes_to_stdout() {
    let text = Folder::with(SHOP).run(&["render", "kubernetes", "--env", "staging", "--stdout"]);
    assert!(text.contains("--- stdout\n---\n# Source: "), "{text}");
}

#[test]
fn the_stream_begins_with_what_the_rest_stands_on() {
    let text = Folder::with(SHOP).run(&["render", "kubernetes", "--env", "staging", "--stdout"]);
    let kinds: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
    let place = |kind: &str| kinds.iter().position(|found| *found == kind).expect("the shop has one");
    assert_eq!(kinds[0], "Namespace");
    assert!(place("ServiceAccount") < place("Deployment"), "{kinds:?}");
    assert!(place("NetworkPolicy") < place("Deployment"), "{kinds:?}");
}

#[test]
fn colours_are_used_only_where_they_are_wanted() {
    let folder = Folder::with(&SHOP.replace("replicas: 2", "replica: 2"));
    assert!(!folder.run(&["check"]).contains('\u{1b}'));
    assert!(folder.run(&["check", "--color", "always"]).contains('\u{1b}'));
}

#[test]
fn a_denied_warning_changes_the_answer() {
    let folder = Folder::with(SHOP);
    let text = folder.run(&["check", "--env", "staging", "--today", TODAY, "--deny", "notes"]);
    assert!(text.starts_with("exit: 1\n"), "{text}");
}

#[test]
fn completions_and_the_schema_are_printed() {
    let folder = Folder::with(SHOP);
    for arguments in [&["completions", "bash"][..], &["completions", "zsh"], &["completions", "fish"], &["schema"]] {
        let text = folder.run(arguments);
        assert!(text.starts_with("exit: 0\n--- stdout\n") && text.len() > 1_000, "{arguments:?}: {text}");
    }
}

#[test]
fn arguments_that_are_not_understood_exit_with_2() {
    let folder = Folder::with(SHOP);
    assert!(folder.run(&["chek"]).starts_with("exit: 2\n"));
    assert!(folder.run(&["check", "--today", "soon"]).starts_with("exit: 2\n"));
}

#[test]
fn every_command_has_help_with_examples() {
    for command in ["check", "render", "claims", "explain", "diff", "completions"] {
        let text = run_in(&example(""), &[command, "--help"]);
        assert!(text.starts_with("exit: 0\n") && text.contains("Examples:"), "{text}");
    }
}

#[test]
fn the_status_for_programs_has_every_environment() {
    let folder = Folder::with("landfall: v1\nname: shop\nenvironments: { staging: {}, production: {} }\n");
    assert_snapshot!(folder.run(&["status", "--output", "json"]), @r#"
    exit: 1
    --- stdout
    {
      "version": 1,
      "environments": [
        {
          "environment": "production",
          "process": null,
          "kubeconfig": null,
          "ready": 0,
          "pods": []
        },
        {
          "environment": "staging",
          "process": null,
          "kubeconfig": null,
          "ready": 0,
          "pods": []
        }
      ]
    }
    --- stderr
    production: not up
    staging: not up
    "#);
}

#[test]
fn without_an_engine_a_command_for_one_says_where_it_has_looked() {
    let folder = Folder::with(SHOP);
    assert_snapshot!(folder.run(&["engine", "node", "list", "--data", "nowhere"]), @r"
    exit: 3
    --- stderr
    error: failed to read `nowhere/kubeconfig`: No such file or directory (os error 2)
    hint: `--data` or `--kubeconfig` names the engine
    ");
    // A free port that is let go again: nobody listens there.
    let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let kubeconfig = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: 'https://{address}'}}}}], contexts: [{{name: c, context: {{cluster: c}}}}]}}"
    );
    std::fs::write(folder.path().join("kubeconfig"), kubeconfig).expect("a file can be written");
    let said = folder.run(&["engine", "clock", "--kubeconfig", "kubeconfig"]).replace(&address.to_string(), "ADDRESS");
    assert_snapshot!(said, @r"
    exit: 3
    --- stderr
    error: no engine answers at https://ADDRESS: Connection refused (os error 111)
    ");
}
