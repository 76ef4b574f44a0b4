//! Where pods are scraped, and what two answers say together.

use serde_json::{Value, json};

use super::*;
use crate::images::{Entry, MetricsPlace};

fn pod(annotations: Value, ports: Value) -> Pod {
    let pod = json!({
        "metadata": { "name": "web", "annotations": annotations },
        "spec": { "containers": [{ "name": "a" }, { "name": "b", "image": "acme/web:2", "ports": ports }] },
        "status": { "podIP": "10.1.0.7" },
    });
    serde_json::from_value(pod).expect("a pod")
}

#[track_caller]
fn check(annotations: Value, ports: Value, expected: &str) {
    check_with(&Catalogue::default(), annotations, ports, expected);
}

#[track_caller]
fn check_with(images: &Catalogue, annotations: Value, ports: Value, expected: &str) {
    let place = Place::of(&pod(annotations, ports), images);
    assert_eq!(place.map_or_else(|why| why, |place| place.to_string()), expected);
}

#[test]
fn a_pod_is_scraped_where_its_annotations_say() {
    let one = json!([{ "containerPort": 8080 }]);
    let asks = "prometheus.io/scrape";
    check(json!({ asks: "true" }), one.clone(), "http://10.1.0.7:8080/metrics");
    check(json!({ asks: "true", "prometheus.io/port": "9000" }), one.clone(), "http://10.1.0.7:9000/metrics");
    let all = json!({
        asks: "true", "prometheus.io/port": "9000", "prometheus.io/path": "figures?all=yes", "prometheus.io/scheme": "http",
    });
    check(all, json!([]), "http://10.1.0.7:9000/figures?all=yes");
    let and_udp = json!([{ "containerPort": 53, "protocol": "UDP" }, { "containerPort": 8080, "protocol": "TCP" }]);
    check(json!({ asks: "true" }), and_udp, "http://10.1.0.7:8080/metrics");
}

#[test]
fn a_pod_that_cannot_be_scraped_says_why() {
    let one = json!([{ "containerPort": 8080 }]);
    let asks = "prometheus.io/scrape";
    check(
        json!({}),
        one.clone(),
        "it has no annotation `prometheus.io/scrape: \"true\"`, and the image catalogue does not say where its image tells metrics",
    );
    check(json!({ asks: "false" }), one.clone(), "its annotation `prometheus.io/scrape` is not `\"true\"`");
    check(
        json!({ asks: "true", "prometheus.io/scheme": "https" }),
        one.clone(),
        "its annotation `prometheus.io/scheme` is `https`, and only `http` is scraped",
    );
    for text in ["0", "http", "70000"] {
        let expected = format!("its annotation `prometheus.io/port` is `{text}`, which is no port");
        check(json!({ asks: "true", "prometheus.io/port": text }), one.clone(), &expected);
    }
    for ports in [json!([]), json!([{ "containerPort": 1 }, { "containerPort": 2 }])] {
        let expected = "it has no annotation `prometheus.io/port`, and more or fewer ports than one";
        check(json!({ asks: "true" }), ports, expected);
    }
}

/// A catalogue that says of the image of the pod, and of one before it, where they tell metrics.
fn catalogue(port: IntOrString, path: &str) -> Catalogue {
    let entry = |image: &str, port, path: &str| Entry {
        image: image.to_owned(),
        metrics: Some(MetricsPlace { port, path: path.to_owned() }),
        ..Entry::default()
    };
    Catalogue { images: vec![entry("other", IntOrString::Int(1), "/"), entry("acme/web", port, path)] }
}

#[test]
fn the_catalogue_says_it_of_a_pod_whose_annotations_do_not() {
    let two = json!([{ "containerPort": 8080, "name": "http" }, { "containerPort": 9000, "name": "admin" }]);
    let numbered = catalogue(IntOrString::Int(7000), "/metrics");
    check_with(&numbered, json!({}), two.clone(), "http://10.1.0.7:7000/metrics");
    let named = catalogue(IntOrString::String("admin".to_owned()), "stats");
    check_with(&named, json!({ "team": "a" }), two.clone(), "http://10.1.0.7:9000/stats");
    check_with(
        &named,
        json!({}),
        json!([]),
        "the image catalogue says `port: admin` of its container b, which has no such port",
    );

    let asks = "prometheus.io/scrape";
    let annotated = json!({ asks: "true", "prometheus.io/port": "8080" });
    check_with(&named, annotated, two.clone(), "http://10.1.0.7:8080/metrics");
    check_with(&named, json!({ asks: "false" }), two, "its annotation `prometheus.io/scrape` is not `\"true\"`");
}

fn look(taken: Instant, text: &str) -> Result<Arc<Look>, String> {
    let metrics = exposition::parse(text).map_err(|error| error.to_string())?;
    Ok(Arc::new(Look { at: Timestamp::UNIX_EPOCH, taken, metrics }))
}

/// What is told of `name` by an answer, and one that came 10 s earlier: the values in the order of their labels.
fn told(before: Option<&str>, newest: &str, name: &str) -> Result<Vec<f64>, String> {
    let now = Instant::now();
    let before = before.map(|text| look(now, text).expect("it is of the format"));
    let known = Known { newest: look(now + Duration::from_secs(10), newest), before };
    known.series(name).map(|told| told.series.into_iter().map(|(_, value)| value).collect())
}

#[test]
fn a_gauge_is_as_it_is() {
    let newest = "# TYPE waiting gauge\nwaiting{queue=\"a\"} 3\nwaiting{queue=\"b\"} 4\nuntyped 5\n";
    assert_eq!(told(None, newest, "waiting"), Ok(vec![3.0, 4.0]));
    assert_eq!(told(None, newest, "untyped"), Ok(vec![5.0]));
    assert_eq!(told(None, newest, "other"), Err("it tells no such metric".to_owned()));
}

#[test]
fn a_counter_is_its_rate_between_two_answers() {
    let before = "# TYPE handled_total counter\nhandled_total{queue=\"a\"} 100\nhandled_total{queue=\"b\"} 70\n";
    let newest = "# TYPE handled_total counter\nhandled_total{queue=\"a\"} 150\nhandled_total{queue=\"b\"} 20\n\
                  handled_total{queue=\"c\"} 10\n";
    let rates = Ok(vec![5.0, 2.0, 1.0]);
    assert_eq!(told(Some(before), newest, "handled_total"), rates, "the second began anew, the third is new");
    assert_eq!(told(Some(before), newest, "handled"), rates, "as prometheus-adapter calls it");
    let only_once = "it was scraped only once, and the rate of a counter takes twice";
    assert_eq!(told(None, newest, "handled_total"), Err(only_once.to_owned()));
    let gauge = "# TYPE waiting_total gauge\nwaiting_total 1\n";
    assert_eq!(told(None, gauge, "waiting"), Err("it tells no such metric".to_owned()));
}

#[test]
fn a_histogram_is_how_often_in_a_second_something_was_observed() {
    let text = |count: u32| {
        format!("# TYPE took histogram\ntook_bucket{{le=\"+Inf\"}} {count}\ntook_sum 1\ntook_count {count}\n")
    };
    assert_eq!(told(Some(&text(20)), &text(50), "took_count"), Ok(vec![3.0]));
    assert!(told(Some(&text(20)), &text(50), "took_bucket").is_err());
}

#[test]
fn a_pod_that_does_not_answer_is_not_known_and_its_rate_goes_on_when_it_does_again() {
    let scrapes = Scrapes::default();
    let uid: Arc<str> = "1".into();
    let known = scrapes.ask(&uid);
    let now = Instant::now();
    let answer = |after: u64, count: u32| {
        let metrics = exposition::parse(&format!("# TYPE handled counter\nhandled {count}\n")).expect("it is one");
        Ok(Look { at: Timestamp::UNIX_EPOCH, taken: now + Duration::from_secs(after), metrics })
    };
    let rate = |known: &watch::Receiver<Option<Known>>| {
        let known = known.borrow().clone().expect("it was scraped");
        known.series("handled").map(|told| (told.window, told.series[0].1))
    };
    assert_eq!(scrapes.unseen(), [Arc::clone(&uid)]);
    assert!(scrapes.unseen().is_empty(), "it is being scraped");
    scrapes.record(&uid, answer(0, 10));
    assert!(scrapes.unseen().is_empty(), "it was scraped");
    assert_eq!(scrapes.due(), [Arc::clone(&uid)]);
    scrapes.record(&uid, Err("connect: connection refused".to_owned()));
    assert_eq!(rate(&known), Err("connect: connection refused".to_owned()));
    scrapes.record(&uid, answer(20, 30));
    assert_eq!(rate(&known), Ok((Some(Duration::from_secs(20)), 1.0)));
    assert_eq!(scrapes.names(), BTreeSet::from(["handled".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_which_nobody_asks_is_forgotten() {
    let scrapes = Scrapes::default();
    let uid: Arc<str> = "1".into();
    let mut known = scrapes.ask(&uid);
    tokio::time::advance(LINGER.saturating_sub(Duration::from_secs(1))).await;
    assert_eq!(scrapes.due(), [Arc::clone(&uid)]);
    scrapes.record(&uid, Err("it does not run".to_owned()));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(scrapes.due().is_empty());
    known.mark_unchanged();
    assert!(known.changed().await.is_err(), "nothing more is to come");
}
