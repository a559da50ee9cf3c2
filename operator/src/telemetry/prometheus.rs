//! The readings out of a Prometheus that has scraped replicas and gateways.

use super::readings::{HELD, IN_FLIGHT, RUNNING, SLOTS, SPEED, WAITING};
use super::readings::{count, model_key};
use super::{GatewayModel, GatewayReading, PodReading, Readings, queries};
use crate::limits;
use prometheus_http_query::Client;
use quartermaster_core::units::{Millis, Tokens};
use std::collections::BTreeMap;

/// Why the readings could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is none.
    #[error("using {url} as --prometheus-url")]
    Url {
        /// The URL.
        url: String,
        /// Why.
        source: Box<prometheus_http_query::Error>,
    },
    /// A query failed.
    #[error("asking Prometheus for {query}")]
    Query {
        /// The query.
        query: String,
        /// Why.
        source: Box<prometheus_http_query::Error>,
    },
    /// The answer is no instant vector.
    #[error("asking Prometheus for {query}: the answer is no vector")]
    Shape {
        /// The query.
        query: String,
    },
    /// No answer in time.
    #[error("asking Prometheus: no answer within {} s", limits::SCRAPE_TIMEOUT.as_secs())]
    Timeout,
}

/// One figure: its labels, value and instant.
type Figures = Vec<(BTreeMap<String, String>, f64, Millis)>;

/// All figures by metric.
#[derive(Default)]
struct Answers(BTreeMap<&'static str, Figures>);

/// A client for the Prometheus at `url`.
pub fn client(http: reqwest::Client, url: &str) -> Result<Client, Error> {
    Client::from(http, url).map_err(|source| Error::Url { url: url.to_owned(), source: Box::new(source) })
}

/// Asks for everything; on failure the old readings stay and grow old. `uids` is the UID of each pod by `namespace/name`.
pub async fn collect(prometheus: &Client, uids: &BTreeMap<String, String>, readings: &mut Readings) {
    readings.gateways_expected = true;
    let asked = tokio::time::timeout(limits::SCRAPE_TIMEOUT, ask(prometheus)).await;
    match asked.unwrap_or(Err(Error::Timeout)) {
        Ok(answers) => {
            readings.pods = pods(&answers, uids);
            readings.gateways = gateways(&answers);
            readings.gateways_failed = readings
                .gateways
                .is_empty()
                .then(|| format!("Prometheus has no series {HELD}; check that it scrapes the gateways"));
        }
        Err(error) => {
            let why = crate::error::chain(&error);
            readings.gateways_failed = Some(format!("{why}; check --prometheus-url"));
        }
    }
}

async fn ask(prometheus: &Client) -> Result<Answers, Error> {
    let mut answers = Answers::default();
    for metric in queries::PODS.into_iter().chain(queries::GATEWAYS) {
        let (values, instants) =
            tokio::try_join!(vector(prometheus, queries::value(metric)), vector(prometheus, queries::instant(metric)))?;
        answers.0.insert(metric, joined(values, &instants));
    }
    Ok(answers)
}

async fn vector(prometheus: &Client, query: String) -> Result<Vec<(BTreeMap<String, String>, f64)>, Error> {
    let result = prometheus.query(&query).get().await;
    let result = result.map_err(|source| Error::Query { query: query.clone(), source: Box::new(source) })?;
    let vector = result.data().as_vector().ok_or(Error::Shape { query })?;
    let each = vector.iter().map(|one| {
        let labels = one.metric().iter().filter(|(name, _)| *name != "__name__");
        (labels.map(|(name, value)| (name.clone(), value.clone())).collect(), one.sample().value())
    });
    Ok(each.collect())
}

/// Values with the instants of the same labels; a value without an instant is no figure.
fn joined(values: Vec<(BTreeMap<String, String>, f64)>, instants: &[(BTreeMap<String, String>, f64)]) -> Figures {
    let instants: BTreeMap<&BTreeMap<String, String>, f64> =
        instants.iter().map(|(labels, at)| (labels, *at)).collect();
    let finite = values.into_iter().filter(|(_, value)| value.is_finite());
    finite.filter_map(|(labels, value)| instants.get(&labels).map(|at| (labels.clone(), value, seconds(*at)))).collect()
}

/// An instant in seconds, to the millisecond: rounded to seconds, a sample could lie in the future.
fn seconds(at: f64) -> Millis {
    let millis = count(at.fract() * 1_000.0);
    Millis::seconds(i64::from(count(at.trunc()))).saturating_add(Millis(i64::from(millis)))
}

fn pods(answers: &Answers, uids: &BTreeMap<String, String>) -> BTreeMap<String, PodReading> {
    let of = |metric: &str| -> BTreeMap<String, (f64, Millis)> {
        let figures = answers.0.get(metric).map_or(&[][..], Vec::as_slice);
        let named = figures.iter().filter_map(|(labels, value, at)| {
            let key = crate::names::key(labels.get("namespace")?, labels.get("pod")?);
            Some((uids.get(&key)?.clone(), (*value, *at)))
        });
        named.collect()
    };
    let (waiting, slots, speed) = (of(WAITING), of(SLOTS), of(SPEED));
    let complete = of(RUNNING).into_iter().filter_map(|(uid, (running, at))| {
        let (waits, waits_at) = waiting.get(&uid)?;
        let reading = PodReading {
            at: at.min(*waits_at),
            running: count(running),
            waiting: count(*waits),
            slots: slots.get(&uid).map(|(slots, _)| count(*slots)).filter(|slots| *slots > 0),
            tokens_per_second: speed.get(&uid).map(|(speed, _)| *speed).filter(|speed| *speed > 0.0),
        };
        Some((uid, reading))
    });
    complete.collect()
}

fn gateways(answers: &Answers) -> BTreeMap<String, GatewayReading> {
    let figures = |metric: &str| answers.0.get(metric).map_or(&[][..], Vec::as_slice);
    let mut in_flight = BTreeMap::new();
    for (labels, tokens, _) in figures(IN_FLIGHT) {
        if let (Some(instance), Some(model)) = (labels.get("instance"), model_key(labels)) {
            in_flight.insert((instance.clone(), model), *tokens);
        }
    }
    let mut gateways: BTreeMap<String, GatewayReading> = BTreeMap::new();
    for (labels, waiting, at) in figures(HELD) {
        let (Some(instance), Some(model)) = (labels.get("instance"), model_key(labels)) else { continue };
        let Some(tokens) = in_flight.get(&(instance.clone(), model.clone())) else { continue };
        let empty = || GatewayReading { at: *at, models: BTreeMap::new() };
        let gateway = gateways.entry(instance.clone()).or_insert_with(empty);
        gateway.at = gateway.at.min(*at);
        let said = GatewayModel { waiting: count(*waiting), tokens_in_flight: Tokens(u64::from(count(*tokens))) };
        gateway.models.insert(model, said);
    }
    gateways
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::Query;
    use axum::{Json, Router, routing::get};
    use serde_json::{Value, json};
    use std::collections::HashMap;

    /// A Prometheus with one replica (whose `waiting` is a minute old) and one gateway.
    async fn answer(Query(parameters): Query<HashMap<String, String>>) -> Json<Value> {
        let query = parameters["query"].clone();
        let pod = json!({"namespace": "demo", "pod": "chat-0", "instance": "10.0.0.1:8000"});
        let gateway =
            json!({"namespace": "qm", "exported_namespace": "demo", "model": "chat", "instance": "10.0.0.2:9090"});
        let (labels, value, at) = match query {
            q if q.contains(RUNNING) => (pod, "2", "1000"),
            q if q.contains(WAITING) => (pod, "1", "940"),
            q if q.contains(SPEED) => (pod, "NaN", "1000"),
            q if q.contains(SLOTS) => (pod, "4", "1000"),
            q if q.contains(HELD) => (gateway, "3", "1000"),
            _ => (gateway, "77", "1000"),
        };
        let value = if parameters["query"].starts_with("timestamp") { at } else { value };
        let result = json!([{"metric": labels, "value": [1000, value]}]);
        Json(json!({"status": "success", "data": {"resultType": "vector", "result": result}}))
    }

    #[tokio::test]
    async fn the_age_is_that_of_the_oldest_sample() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/api/v1/query", get(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let prometheus = client(reqwest::Client::new(), &url).unwrap();
        let mut readings = Readings::default();
        let uids = [("demo/chat-0".to_owned(), "uid-0".to_owned())].into();
        collect(&prometheus, &uids, &mut readings).await;
        let (at, running, waiting) = (Millis(940_000), 2, 1);
        let pod = PodReading { at, running, waiting, slots: Some(4), tokens_per_second: None };
        assert_eq!(readings.pods["uid-0"], pod);
        let said = readings.gateways["10.0.0.2:9090"].models["demo/chat"];
        assert_eq!(said, GatewayModel { waiting: 3, tokens_in_flight: Tokens(77) });
        assert_eq!(readings.gateways_failed, None);
    }

    #[test]
    fn an_instant_is_not_rounded_into_the_future() {
        assert_eq!(seconds(1_795_600_000.75), Millis(1_795_600_000_750));
        assert_eq!(seconds(1_795_600_000.0), Millis(1_795_600_000_000));
    }

    #[tokio::test]
    async fn a_silent_prometheus_is_named() {
        let prometheus = client(reqwest::Client::new(), "http://127.0.0.1:1").unwrap();
        let mut readings = Readings::default();
        collect(&prometheus, &BTreeMap::new(), &mut readings).await;
        assert!(readings.gateways_expected && readings.gateways.is_empty());
        assert!(readings.gateways_failed.unwrap().contains("--prometheus-url"));
    }
}
