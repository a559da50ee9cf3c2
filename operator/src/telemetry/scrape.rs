//! Direct scrape of replicas and gateways.

use super::{GatewayReading, Page, ParseError, PodReading, Readings};
use crate::{clock, limits};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Why a page could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address gave no host, or the host no address.
    #[error("resolving {url}: {why}")]
    Resolve {
        /// The URL.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// No answer, or one with a bad status.
    #[error("getting {url}")]
    Http {
        /// The URL.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// Longer than the limit.
    #[error("getting {url}: more than {} bytes", limits::SCRAPE_BYTES_MAX)]
    TooLong {
        /// The URL.
        url: String,
    },
    /// Not the text format.
    #[error("reading {url}")]
    Parse {
        /// The URL.
        url: String,
        /// Why.
        source: ParseError,
    },
    /// A figure that must be there is missing or no number.
    #[error("reading {url}: the load figures are missing")]
    Incomplete {
        /// The URL.
        url: String,
    },
}

/// A replica to scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// UID of the pod.
    pub uid: String,
    /// `ip:port`.
    pub address: String,
}

/// Asks every target and every gateway; a failure leaves the last good reading to grow old.
pub async fn collect(http: &reqwest::Client, targets: Vec<Target>, gateway_urls: &[String], readings: &mut Readings) {
    let known: BTreeSet<String> = targets.iter().map(|target| target.uid.clone()).collect();
    readings.pods.retain(|uid, _| known.contains(uid));
    let (pods, gateways) = tokio::join!(scrape_pods(http, targets), scrape_gateways(http, gateway_urls));
    readings.pods.extend(pods);
    readings.gateways_expected = !gateway_urls.is_empty();
    readings.gateways_failed = gateways.failed;
    if let Some(addresses) = &gateways.addresses {
        readings.gateways.retain(|address, _| addresses.contains(address));
    }
    readings.gateways.extend(gateways.read);
    let silent = gateways.addresses.into_iter().flatten().filter(|address| !readings.gateways.contains_key(address));
    readings.gateways_silent = silent.collect();
}

async fn scrape_pods(http: &reqwest::Client, targets: Vec<Target>) -> Vec<(String, PodReading)> {
    let each = targets.into_iter().map(|target| async move {
        let url = format!("http://{}/metrics", target.address);
        let reading = match page(http, &url, PodReading::wants).await {
            Ok(page) => PodReading::of(&page, clock::now()).ok_or(Error::Incomplete { url }),
            Err(error) => Err(error),
        };
        match reading {
            Ok(reading) => Some((target.uid, reading)),
            Err(error) => {
                tracing::debug!(error = %crate::error::chain(&error), "scrape of a replica");
                None
            }
        }
    });
    stream::iter(each).buffer_unordered(limits::SCRAPE_CONCURRENCY).filter_map(std::future::ready).collect().await
}

#[derive(Default)]
struct Gateways {
    read: Vec<(String, GatewayReading)>,
    /// Every address there is now; none when a name could not be resolved.
    addresses: Option<BTreeSet<String>>,
    failed: Option<String>,
}

async fn scrape_gateways(http: &reqwest::Client, urls: &[String]) -> Gateways {
    let mut found = Gateways { addresses: Some(BTreeSet::new()), ..Gateways::default() };
    let mut pages: Vec<(String, String)> = Vec::new();
    for url in urls {
        match resolve(url).await {
            Ok(each) => pages.extend(each),
            Err(error) => {
                found.addresses = None;
                found.failed = Some(advice(&error));
            }
        }
    }
    pages.truncate(limits::GATEWAYS_MAX);
    if let Some(addresses) = &mut found.addresses {
        addresses.extend(pages.iter().map(|(address, _)| address.clone()));
    }
    let each = pages.into_iter().map(|(address, url)| async move {
        let page = page(http, &url, GatewayReading::wants).await;
        page.map(|page| (address, GatewayReading::of(&page, clock::now())))
    });
    let results: Vec<_> = stream::iter(each).buffer_unordered(limits::SCRAPE_CONCURRENCY).collect().await;
    for result in results {
        match result {
            Ok(reading) => found.read.push(reading),
            Err(error) => found.failed = Some(advice(&error)),
        }
    }
    found
}

fn advice(error: &Error) -> String {
    let why = crate::error::chain(error);
    format!("{why}; check that gateways run and that --gateway-metrics-url names their metrics page")
}

/// Every address behind a URL, and the URL with that address in it. A name may have many; each is a gateway of its own.
async fn resolve(url: &str) -> Result<Vec<(String, String)>, Error> {
    let error = |why: &str| Error::Resolve { url: url.to_owned(), why: why.to_owned() };
    let parsed = reqwest::Url::parse(url).map_err(|source| error(&source.to_string()))?;
    let host = parsed.host_str().ok_or_else(|| error("it names no host"))?;
    let port = parsed.port_or_known_default().ok_or_else(|| error("it names no port"))?;
    if parsed.scheme() != "http" {
        return Ok(vec![(format!("{host}:{port}"), url.to_owned())]);
    }
    let look_up = tokio::time::timeout(limits::SCRAPE_TIMEOUT, tokio::net::lookup_host((host, port))).await;
    let found = look_up.map_err(|_| error("no answer from the name service"))?;
    let addresses: BTreeSet<SocketAddr> = found.map_err(|source| error(&source.to_string()))?.collect();
    let with = |address: &SocketAddr| {
        let mut each = parsed.clone();
        each.set_ip_host(address.ip()).map_err(|()| error("its host can't be replaced"))?;
        Ok((address.to_string(), each.to_string()))
    };
    addresses.iter().map(with).collect()
}

/// One page, bounded in time and size.
async fn page(http: &reqwest::Client, url: &str, wanted: impl Fn(&str) -> bool) -> Result<Page, Error> {
    let http_error = |source: reqwest::Error| Error::Http { url: url.to_owned(), source: source.without_url() };
    let request = http.get(url).timeout(limits::SCRAPE_TIMEOUT).send();
    let response = request.await.and_then(reqwest::Response::error_for_status).map_err(http_error)?;
    let body = body(response, limits::SCRAPE_BYTES_MAX).await.map_err(http_error)?;
    let body = body.ok_or_else(|| Error::TooLong { url: url.to_owned() })?;
    Page::parse(&String::from_utf8_lossy(&body), wanted).map_err(|source| Error::Parse { url: url.to_owned(), source })
}

/// The body, or none when it is longer than `most`.
pub(crate) async fn body(mut response: reqwest::Response, most: usize) -> reqwest::Result<Option<Bytes>> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len().saturating_add(chunk.len()) > most {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, routing::get};

    const POD: &str = "vllm:num_requests_running 1\nvllm:num_requests_waiting 0\nquartermaster_engine_slots 4\n";
    const GATEWAY: &str = "quartermaster_gateway_requests_waiting{namespace=\"demo\",model=\"chat\"} 1\n\
                           quartermaster_gateway_tokens_in_flight{namespace=\"demo\",model=\"chat\"} 9\n";

    async fn serve(page: &'static str) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/metrics", get(move || async move { page }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    #[tokio::test]
    async fn reads_pods_and_gateways_and_keeps_old_readings_of_silent_ones() {
        let (pod, gateway) = (serve(POD).await, serve(GATEWAY).await);
        let target = |uid: &str, address: String| Target { uid: uid.into(), address };
        let mut readings = Readings::default();
        let url = format!("http://localhost:{}/metrics", gateway.port());
        let http = reqwest::Client::new();
        collect(&http, vec![target("a", pod.to_string())], std::slice::from_ref(&url), &mut readings).await;
        assert_eq!(readings.pods["a"].slots, Some(4));
        let reading = readings.gateways.values().next().unwrap();
        assert_eq!(reading.models["demo/chat"].waiting, 1);
        let at = readings.pods["a"].at;
        collect(&http, vec![target("a", "127.0.0.1:1".into())], &[url], &mut readings).await;
        assert_eq!(readings.pods["a"].at, at, "a failed scrape leaves the old reading to age");
        collect(&http, vec![], &["http://127.0.0.1:1/metrics".into()], &mut readings).await;
        assert!(readings.pods.is_empty() && readings.gateways.is_empty());
        assert!(readings.gateways_failed.unwrap().contains("127.0.0.1:1/metrics"));
    }
}
