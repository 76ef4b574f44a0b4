//! What a plan says, refuses, and in which order it ships.

use landfall_model::File;

use super::*;

fn architecture(text: &str) -> Architecture {
    on("ingress: { api: gateway }", text)
}

fn on(platform: &str, text: &str) -> Architecture {
    let text = format!("landfall: v1\nname: shop\nplatform: {{ {platform} }}\n{text}");
    let file = File::read("landfall.yaml", text.as_bytes(), &mut |_| Err("no includes".to_owned()));
    file.architecture(None).unwrap_or_else(|findings| panic!("{findings:?}"))
}

fn shop(rollout: &str, rate: &str) -> Architecture {
    architecture(&format!(
        "services:\n  web: {{ image: web, port: 8080, startup: 5s, expose: {{ host: shop.example }}, rollout: {rollout} }}\nflows:\n  buy: {{ rate: {rate}, steps: [client -> web] }}\n"
    ))
}

const LIVE: Live = Live {
    copies: 3,
    ready: 3,
    settled: true,
    autoscaler: None,
    routed: true,
    meshed: false,
    counted: Counted { by_gateway: true, by_prometheus: None, why_not: String::new() },
    processed: Counted { by_gateway: false, by_prometheus: None, why_not: String::new() },
    asked: Asked { at: None, answers: Vec::new() },
    settles_seconds: 0,
};

fn uncounted() -> Counted {
    Counted { why_not: "no Prometheus is found".to_owned(), ..Counted::default() }
}

fn prometheus() -> Counted {
    Counted { by_prometheus: Some(PrometheusAt::Url("http://prometheus:9090".to_owned())), ..Counted::default() }
}

fn text(architecture: &Architecture, live: Live) -> String {
    text_of(architecture, "web", live)
}

fn text_of(architecture: &Architecture, name: &str, live: Live) -> String {
    let service = architecture.service(name).expect("it is declared");
    match plan(architecture, name, service, &live, verdicts(architecture, [service].into_iter())) {
        Ok(planned) => format!("{}\n{}", planned.strategy.as_str(), planned.lines.join("\n")),
        Err(why) => format!("refused: {why}"),
    }
}

const CANARY: &str = "{ canary: { steps: [10%, 50%], judge: { success: 99%, p99: 300ms }, decide-within: 10m } }";

#[test]
fn a_canary_says_how_many_requests_and_how_long_each_step_needs() {
    insta::assert_snapshot!(text(&shop(CANARY, "100/s"), LIVE), @"
    canary
    canary of 2 beside 3 copies, by the weights of its HTTPRoute, counted by the gateway; each step is decided after 595 good requests in a row, about 1937 at half of the limit
    10% of 100/s are 10.00/s: 60 s at least, about 194 s; 600 s are allowed
    50% of 100/s are 50.00/s: 12 s at least, about 39 s; 600 s are allowed
    a version at the limit or worse goes on with a chance of at most 5%
    each copy has 30 s to become ready
    ");
}

#[test]
fn a_canary_that_can_never_be_decided_is_refused() {
    insta::assert_snapshot!(text(&shop(CANARY, "5/s"), LIVE), @"refused: a canary of `web` can never be decided: 595 requests at 10% of 5/s take 1190 s, and 600 s are allowed; begin with a larger step, or set `decide-within` to 1190s");
    insta::assert_snapshot!(text(&shop("{ canary: { steps: [10%] } }", "5/s"), LIVE), @"refused: the canary of `web` is judged by nothing, so it can never be decided; declare `judge: { success: 99.5%, p99: 300ms }`");
    insta::assert_snapshot!(text(&shop("{ canary: { steps: [10%], judge: { success: 100% } } }", "5/s"), LIVE), @"refused: no number of requests shows that all of them succeed: declare a success of `web` below 100%");
    insta::assert_snapshot!(text(&shop(CANARY, "100/s"), Live { routed: false, counted: Counted { by_gateway: true, ..uncounted() }, ..LIVE }), @"refused: nobody counts the requests of a canary of `web`, so it could never be judged: the gateway does not choose between the versions, and no Prometheus is found; declare `rollout: { rolling: {} }`, or name a Prometheus that has them by `--prometheus URL`");
    insta::assert_snapshot!(text(&shop(CANARY, "100/s"), Live { counted: uncounted(), ..LIVE }), @"refused: nobody counts the requests of a canary of `web`, so it could never be judged: no Prometheus is found; declare `rollout: { rolling: {} }`, or name a Prometheus that has them by `--prometheus URL`");
}

#[test]
fn a_metric_of_ones_own_is_asked_for_once_before_anything_begins() {
    use crate::metric::Answer;
    let bounded = |judge: &str, bound: &str| {
        let metric = format!("{{ name: lag, query: 'max(lag{{pod=~\"{{{{pods}}}}\"}})', {bound} }}");
        shop(
            &format!("{{ canary: {{ steps: [50%], judge: {{ {judge}metrics: [{metric}] }}, decide-within: 10m }} }}"),
            "100/s",
        )
    };
    let rollout = |judge: &str| bounded(judge, "at-most: 10");
    let of = |architecture: &Architecture, answer: Answer| {
        let at = Some(PrometheusAt::Url("http://prometheus:9090".to_owned()));
        let said = text(architecture, Live { asked: Asked { at, answers: vec![answer] }, ..LIVE });
        said.lines().find(|line| line.contains("`lag`")).unwrap_or_default().to_owned()
    };
    let told = |answer: Answer| of(&rollout("success: 99%, "), answer);
    insta::assert_snapshot!(told(Answer::Value(4.0)), @"`lag` at most 10: a sample each 15 s, and 3 in a row decide, after 45 s at least, by no exact test; now, of the copies that run, it is 4");
    insta::assert_snapshot!(told(Answer::NoData("there is no such series".to_owned())), @"`lag` at most 10: a sample each 15 s, and 3 in a row decide, after 45 s at least, by no exact test; now, of the copies that run, there is no data: there is no such series");
    insta::assert_snapshot!(told(Answer::Refused("parse error: unexpected end of input".to_owned())), @"refused: the metric `lag` of the canary of `web` cannot be had, so it could never be judged: parse error: unexpected end of input");
    insta::assert_snapshot!(of(&bounded("success: 99%, ", "at-least-of-stable: 0.9"), Answer::Value(4.0)), @"`lag` at least 0.9 times the old version's: a sample each 15 s, and 3 in a row decide, after 45 s at least, by no exact test; now, of the copies that run, it is 4");
    insta::assert_snapshot!(text(&rollout("success: 99%, "), LIVE), @"refused: nobody can be asked for the metrics of the canary of `web`, so it could never be judged: no Prometheus is found; name one by `--prometheus URL`");
    insta::assert_snapshot!(text(&rollout(""), LIVE), @"refused: the canary of `web` is judged by metrics alone, and one that nobody calls keeps every bound; declare `success` or `p99` beside them");
}

#[test]
fn where_nothing_keeps_to_weights_the_canary_has_a_share_of_the_copies() {
    let live = |copies| Live { copies, ready: copies, routed: false, counted: prometheus(), ..LIVE };
    insta::assert_snapshot!(text(&shop(CANARY, "100/s"), live(3)), @"
    canary
    canary of 3 beside 3 copies, by its share of the copies, counted by Prometheus; each step is decided after 595 good requests in a row, about 1937 at half of the limit
    nothing here keeps to weights, so 10%, 50% become 25% (1 of 4), 50% (3 of 6)
    25% of 100/s are 25.00/s: 24 s at least, about 78 s; 600 s are allowed
    50% of 100/s are 50.00/s: 12 s at least, about 39 s; 600 s are allowed
    a version at the limit or worse goes on with a chance of at most 5%
    each copy has 30 s to become ready
    ");
    insta::assert_snapshot!(text(&shop(CANARY, "100/s"), live(1)), @"
    canary
    canary of 1 beside 1 copies, by its share of the copies, counted by Prometheus; each step is decided after 595 good requests in a row, about 1937 at half of the limit
    nothing here keeps to weights, so 10%, 50% become 50% (1 of 2)
    50% of 100/s are 50.00/s: 12 s at least, about 39 s; 600 s are allowed
    a version at the limit or worse goes on with a chance of at most 5%
    each copy has 30 s to become ready
    ");
    let meshed = on(
        "mesh: { kind: istio }",
        "services:\n  web: { image: web, port: 8080 }\n  shop: { image: shop, port: 80, uses: [{ call: web, rate: 100/s }] }\ndelivery: { rollout: { canary: { steps: [10%], judge: { success: 99% } } } }\n",
    );
    insta::assert_snapshot!(text(&meshed, Live { meshed: true, ..live(3) }), @"
    canary
    canary of 1 beside 3 copies, by the weights of its VirtualService, counted by Prometheus; each step is decided after 595 good requests in a row, about 1937 at half of the limit
    10% of 100/s are 10.00/s: 60 s at least, about 194 s; 900 s are allowed
    a version at the limit or worse goes on with a chance of at most 5%
    each copy has 90 s to become ready
    ");
}

/// A worker of its own or of the platform's rollout, which gets so many messages.
fn worker(own: &str, platform: &str, rate: &str) -> Architecture {
    architecture(&format!(
        "services:\n  web: {{ image: web, port: 8080, uses: [{{ publish: events/placed }}] }}\n  mail: {{ image: mail, kind: worker, startup: 5s{own}, uses: [{{ consume: events/placed }}] }}\nstores:\n  events: {{ engine: rabbitmq, topics: {{ placed: {{}} }} }}\nflows:\n  buy: {{ rate: {rate}, steps: [client -> web, web -> events, events -> mail] }}\n{platform}"
    ))
}

/// With messages that nobody counts, or the Prometheus that does.
fn works(counted: bool) -> Live {
    let why_not = "Prometheus has no `messaging_process_duration_seconds_count` of pods of `mail` in `shop`".to_owned();
    let processed = if counted { prometheus() } else { Counted { why_not, ..Counted::default() } };
    Live { routed: false, processed, ..LIVE }
}

#[test]
fn a_worker_has_a_canary_among_its_consumers_where_its_messages_are_counted() {
    let own = |rate| worker(&format!(", rollout: {CANARY}"), "", rate);
    insta::assert_snapshot!(text_of(&own("100/s"), "mail", works(true)), @"
    canary
    canary of 3 beside 3 copies, by its share of the consumers, counted by Prometheus; each step is decided after 595 good messages in a row, about 1937 at half of the limit
    each copy takes as many messages as another, so 10%, 50% become 25% (1 of 4), 50% (3 of 6)
    25% of 100/s are 25.00/s: 24 s at least, about 78 s; 600 s are allowed
    50% of 100/s are 50.00/s: 12 s at least, about 39 s; 600 s are allowed
    a version at the limit or worse goes on with a chance of at most 5%
    each copy has 30 s to become ready
    ");
    insta::assert_snapshot!(text_of(&own("2/s"), "mail", works(true)), @"refused: a canary of `mail` can never be decided: 595 messages at 25% of 2/s take 1190 s, and 600 s are allowed; begin with a larger step, or set `decide-within` to 1190s");
    insta::assert_snapshot!(text_of(&own("100/s"), "mail", works(false)), @"refused: nobody counts the messages of a canary of `mail`, so it could never be judged: Prometheus has no `messaging_process_duration_seconds_count` of pods of `mail` in `shop`; judge it by metrics of its own alone (`judge: { metrics: [...] }`), declare `rollout: { rolling: {} }`, or name a Prometheus that has them by `--prometheus URL`");
    // One for the whole platform means the requests of others.
    let platform = worker("", &format!("delivery: {{ rollout: {CANARY} }}\n"), "100/s");
    insta::assert_snapshot!(text_of(&platform, "mail", works(false)), @"
    rolling
    it takes its work from queues, and nobody counts it: Prometheus has no `messaging_process_duration_seconds_count` of pods of `mail` in `shop`; copy by copy
    each copy has 30 s to become ready
    ");
    assert!(text_of(&platform, "mail", works(true)).starts_with("canary\n"));
}

#[test]
fn a_worker_whose_messages_nobody_counts_is_judged_by_metrics_of_its_own() {
    use crate::metric::Answer;
    let judge = "{ metrics: [{ name: jobs, query: 'sum(rate(jobs{pod=~\"{{pods}}\"}[{{window}}]))', at-least-of-stable: 0.9 }] }";
    let own = worker(&format!(", rollout: {{ canary: {{ steps: [50%], judge: {judge} }} }}"), "", "100/s");
    let at = Some(PrometheusAt::Url("http://prometheus:9090".to_owned()));
    let asked = |counted| Live { asked: Asked { at: at.clone(), answers: vec![Answer::Value(4.0)] }, ..works(counted) };
    insta::assert_snapshot!(text_of(&own, "mail", asked(false)), @"
    canary
    canary of 3 beside 3 copies, by its share of the consumers, judged by its metrics alone: nobody counts its messages, so that one which gets none is told by its metrics or not at all (Prometheus has no `messaging_process_duration_seconds_count` of pods of `mail` in `shop`)
    each copy takes as many messages as another, so 50% become 50% (3 of 6)
    `jobs` at least 0.9 times the old version's: a sample each 15 s, and 3 in a row decide, after 45 s at least, by no exact test; now, of the copies that run, it is 4
    each copy has 30 s to become ready
    ");
    // Whose messages are counted is judged by them, too.
    insta::assert_snapshot!(text_of(&own, "mail", asked(true)), @"refused: the canary of `mail` is judged by metrics alone, and one that nobody calls keeps every bound; declare `success` or `p99` beside them");
}

#[test]
fn who_serves_nothing_and_is_no_worker_has_no_canary() {
    let silent = architecture(&format!("services:\n  web: {{ image: web, rollout: {CANARY} }}\n"));
    insta::assert_snapshot!(text(&silent, LIVE), @"refused: `web` serves no requests that a canary could get a share of; declare `kind: worker` where it takes its work from queues, or `rollout: { rolling: {} }`");
}

#[test]
fn a_rollout_that_cannot_progress_is_refused() {
    insta::assert_snapshot!(text(&shop("{ rolling: { max-surge: 0, max-unavailable: 0 } }", "5/s"), LIVE), @"refused: the rollout of `web` can never make progress: no copy may be added and none removed; set `max-surge` to at least 1");
}

#[test]
fn what_is_broken_already_is_replaced_without_a_canary() {
    insta::assert_snapshot!(text(&shop(CANARY, "100/s"), Live { ready: 0, ..LIVE }), @"
    rolling
    no copy is ready now, so there is nothing to compare a canary with: copy by copy
    each copy has 30 s to become ready
    ");
    insta::assert_snapshot!(text(&shop(CANARY, "100/s"), Live { settled: false, ..LIVE }), @"refused: copies of `web` are being replaced at this moment, by somebody else; wait until they are of one version");
}

#[test]
fn stable_copies_and_canary_stay_within_the_autoscalers_bounds() {
    for floor in 0..8_u32 {
        for ceiling in floor..10 {
            for canary in 1..6 {
                for running in floor..=ceiling {
                    for (has_baseline, more) in [(false, canary), (true, 2 * canary)] {
                        let left = Bounds { floor, ceiling }.beside(canary, has_baseline, running);
                        let Ok(left) = left else { continue };
                        assert!(left >= floor && left + more <= ceiling && running <= left);
                    }
                }
            }
        }
    }
    let bounds = |floor, ceiling| Live { autoscaler: Some(Bounds { floor, ceiling }), ..LIVE };
    insta::assert_snapshot!(text(&shop(CANARY, "100/s"), bounds(3, 4)), @"refused: `web`: a canary of 2 does not fit between the autoscaler's 3 and 4 copies");
    insta::assert_snapshot!(text(&shop(CANARY, "100/s"), bounds(2, 4)), @"refused: `web`: 3 of at most 4 copies run now, which leaves no room for a canary of 2: wait until it is quieter, or raise `replicas.max`");
}

#[test]
fn who_is_called_goes_before_who_calls_and_consumers_before_publishers() {
    let architecture = architecture(
        "services:\n  a: { image: a, uses: [{ call: c }, { publish: events/changed }] }\n  b: { image: b, port: 80, uses: [{ consume: events/changed }] }\n  c: { image: c, port: 80, uses: [{ call: b }] }\n  d: { image: d, port: 80, uses: [{ call: e }] }\n  e: { image: e, port: 80, uses: [{ call: d }] }\nstores:\n  events: { engine: rabbitmq, topics: { changed: {} } }\n",
    );
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(order(&architecture, &names(&["a", "b", "c"])), ["b", "c", "a"]);
    assert_eq!(order(&architecture, &names(&["a", "b"])), ["b", "a"]);
    assert_eq!(order(&architecture, &names(&["d", "e"])), ["d", "e"], "a circle goes by name");
}
