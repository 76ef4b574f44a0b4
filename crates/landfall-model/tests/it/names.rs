//! Names and neighbours: every reference must lead somewhere, and values must not contradict each other.

use insta::assert_snapshot;

use crate::findings;

fn with(rest: &str) -> String {
    findings(&format!("landfall: v1\nname: shop\n{rest}"))
}

#[test]
fn an_edge_to_nothing_offers_the_nearest_name() {
    assert_snapshot!(with("
services: { api: { uses: [read: leger] } }
stores: { ledger: { engine: postgres } }
"), @"4:33 unknown-name: there is no service, store or external `leger` [not declared] => did you mean `ledger`?");
}

#[test]
fn a_verb_must_suit_its_target() {
    assert_snapshot!(with("
services: { api: { uses: [ { publish: ledger }, { read: events }, { call: events, read: ledger }, { rate: 1/s } ] } }
stores: { ledger: { engine: postgres }, events: { engine: kafka } }
"), @"
    4:13 edge-verb: an edge of `service.api` has no verb => write what it does and to what, such as `- read: ledger`
    4:39 edge-verb: one cannot `publish` `store.ledger` (5:11 declared here) => use one of: read, write, store, query
    4:57 edge-verb: one cannot `read` `store.events` (5:41 declared here) => use one of: publish, consume
    4:89 edge-verb: an edge has two verbs, `call` and `read` (4:75 the first one) => write one edge for each verb
    ");
}

#[test]
fn a_service_without_a_port_cannot_be_called() {
    assert_snapshot!(with("
services: { api: { uses: [call: worker] }, worker: { kind: worker } }
"), @"4:33 no-port: `worker` serves no port, so nothing can call it (4:44 declared here) => give it one: `services.worker.port: 8080`");
}

#[test]
fn names_are_unique_over_all_that_edges_can_name() {
    assert_snapshot!(with("
services: { ledger: {}, client: {} }
stores: { ledger: { engine: postgres } }
"), @"
4:25 duplicate-name: `client` means whoever stands outside => choose another name
5:11 duplicate-name: `ledger` is the name of two things (4:13 the other one) => edges name their target, so names are unique
");
}

#[test]
fn references_of_every_section_are_followed() {
    assert_snapshot!(with("
platform: { regions: { west: { zones: [a] } }, nodes: { count: 3, cpu: 4, memory: 16Gi, zones: [b] } }
services:
  api: { segment: dmz, placement: { pool: big }, environments: [qa], env: { URL: { secret: db/url }, HOST: { store: none/host } } }
stores: { ledger: { engine: postgres, backup: { full: 24h, to: ledger } } }
flows: { order: { steps: [client -> apy] } }
observability: { alerts: { routes: { critical: { to: team } } } }
recovery: { standby: { region: east } }
"), @"
    4:97 unknown-name: there is no zone `b` [not declared] => declared: a
    6:19 unknown-name: there is no segment `dmz` [not declared] => none is declared
    6:43 unknown-name: there is no node pool `big` [not declared] => declared: default
    6:65 unknown-name: there is no environment `qa` [not declared] => none is declared
    6:92 unknown-name: there is no secret `db` [not declared] => none is declared
    6:117 unknown-name: there is no store `none` [not declared] => declared: ledger
    7:64 unknown-name: there is no store of engine `s3` `ledger` [not declared] => none is declared
    8:27 unknown-name: there is no service, store or external `apy` [not declared] => did you mean `api`?
    9:54 unknown-name: there is no receiver `team` [not declared] => none is declared
    10:32 unknown-name: there is no region `east` [not declared] => declared: west
    ");
}

#[test]
fn values_that_contradict_their_neighbours_are_found() {
    assert_snapshot!(with("
services:
  api:
    port: 80
    ports: { http: 81 }
    replicas: { count: 3, max: 5 }
    probes: { live: { http: health, tcp: http }, ready: { period: 1s, timeout: 2s, exec: [true] } }
    env: { 1X: a, URL: { value: a, field: b } }
    windows: [ { name: day, from: 08:00, to: 18:00, time-zone: Mars/Olympus } ]
  nightly: { kind: scheduled-job }
  report: { schedule: 61 0 * * * }
  scaler: { replicas: { min: 5, max: 2 } }
  metric: { replicas: { cpu: 70% } }
  own: { run: { command: [], build: make } }
"), @r#"
    7:14 duplicate-name: `api` has two ports named `http` (6:11 `port` is the port `http`) => keep one of them
    8:24 replicas: `api` has both a fixed number of replicas and bounds (8:32 a bound) => keep one of them; in an environment, `replicas: 3` replaces all of it, while `{ count: 3 }` is added to it
    9:29 probe: the path `health` must begin with `/` => write `/health`
    9:42 probe: the `live` probe of `api` needs exactly one of `http`, `tcp`, `grpc` and `exec` => for example `{ http: /health }`
    9:80 probe: the `ready` probe of `api` may wait longer than its period (9:67 the period) => keep `timeout` below `period`
    10:12 environment-variable: `1X` is not the name of a variable => use letters, digits and `_`
    10:19 environment-variable: `URL` needs exactly one source => give it a plain value, or one of `secret`, `store` and `field`
    11:64 time-zone: there is no time zone `Mars/Olympus` => use a name of the IANA database, such as `Europe/Berlin` or `Asia/Kolkata`
    12:20 schedule: `nightly` is a scheduled job without a schedule => add `schedule: "0 2 * * *"`, or choose another kind
    13:23 schedule: `61 0 * * *` is not a schedule => write five fields: minute, hour, day of the month, month, day of the week, such as `0 2 * * *`
    13:23 schedule: `report` has a schedule but is not a scheduled job => add `kind: scheduled-job`
    14:30 replicas: `scaler` has at least 5 and at most 2 replicas (14:38 less than the minimum) => exchange them
    15:30 replicas: `metric` scales by a metric, but has no `max` => add `min` and `max`
    16:37 run: the `run` of `own` names no program => write the program and its arguments, such as `command: [target/debug/web, --verbose]`
    "#);
}

#[test]
fn a_name_that_is_missing_in_many_places_is_one_mistake() {
    assert_snapshot!(with("
services:
  api:
    env: { URL: { store: leger/url }, HOST: { store: leger/host } }
    uses: [{ read: leger }, { write: leger/orders }, { query: leger }]
stores: { ledger: { engine: postgres } }
"), @"6:26 unknown-name: there is no store `leger` [not declared] (6:54 here too) (7:20 here too) (7:38 here too) => did you mean `ledger`?");
}

#[test]
fn shares_hosts_and_the_order_of_environments_must_be_possible() {
    assert_snapshot!(with("
objectives: { availability: 199.5% }
services:
  api: { port: 80, expose: { host: https://api.example/, path: orders } }
  web: { port: 80, expose: { host: '*.example' } }
externals: { bank: { availability: 100%, profile: { errors: 101% } } }
environments: { dev: { after: prod }, qa: { after: dev }, prod: { after: qa }, lab: { after: dev } }
"), @"
    4:29 wrong-value: `199.5%` is more than all of it => write a share of at most `100%`
    6:36 wrong-value: `https://api.example/` is not a DNS name => write the name alone, such as `api.example.com`; the path goes into `path`
    6:64 wrong-value: the path `orders` must begin with `/` => write `/orders`
    8:61 wrong-value: `101%` is more than all of it => write a share of at most `100%`
    9:31 wrong-value: `dev` comes after itself => promotion begins somewhere: remove `after` from one of them
    ");
}

#[test]
fn an_own_metric_of_a_canary_has_one_bound_and_asks_for_nothing_unknown() {
    assert_snapshot!(with(r#"
delivery:
  rollout:
    canary:
      steps: [10%]
      judge:
        metrics:
          - { name: lag, query: up }
          - { name: lag, query: up, at-most: 1, at-least: 1, every: 0s }
          - { name: both, query: up, at-most: 1, at-most-of-stable: 1.2 }
          - { name: none, query: up, at-most-of-stable: 0 }
          - { name: less, query: up, at-least-of-stable: -0.9 }
          - { name: fine, query: up, at-least-of-stable: 0.9 }
          - name: free
            at-least: inf
            query: max(free{pod="{{pod}}"})
"#), @"
    10:21 wrong-value: `lag` needs exactly one bound => write one of `at-most`, `at-least`, `at-most-of-stable` and `at-least-of-stable`; for two bounds, two metrics
    11:21 duplicate-name: two metrics of the canary are called `lag` (10:21 the other one) => give one of them another name
    11:59 wrong-value: `lag` needs exactly one bound => write one of `at-most`, `at-least`, `at-most-of-stable` and `at-least-of-stable`; for two bounds, two metrics
    11:69 wrong-value: `lag` is asked for all the time => give it the time between two scrapes at least, such as `every: 15s`
    12:69 wrong-value: `both` needs exactly one bound => write one of `at-most`, `at-least`, `at-most-of-stable` and `at-least-of-stable`; for two bounds, two metrics
    13:57 wrong-value: `0` is no multiple of what the stable copies have of `none` => write a ratio above 0, such as `at-most-of-stable: 1.2` or `at-least-of-stable: 0.9`; a bound that stays is `at-most` or `at-least`
    14:58 wrong-value: `-0.9` is no multiple of what the stable copies have of `less` => write a ratio above 0, such as `at-most-of-stable: 1.2` or `at-least-of-stable: 0.9`; a bound that stays is `at-most` or `at-least`
    17:23 wrong-value: `inf` is no bound of `free` => write a number
    18:20 wrong-value: `{{pod}}` in the query of `free` stands for nothing => a query has {{pods}}, {{namespace}}, {{window}}
    ");
}
