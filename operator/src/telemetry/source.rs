//! Where signals come from.

use super::scrape::{self, Target};
use super::{Readings, prometheus};
use crate::names;
use crate::state::Index;

/// Where signals come from.
#[derive(Clone)]
pub enum Source {
    /// Asked for directly; the gateways' metrics pages.
    Direct(Vec<String>),
    /// Out of a Prometheus.
    Prometheus(Box<prometheus_http_query::Client>),
}

impl Source {
    /// Reads everything anew; what does not answer leaves its last reading to grow old.
    pub async fn collect(&self, http: &reqwest::Client, index: &Index, readings: &mut Readings) {
        let ready = || index.replicas().filter(|pod| pod.ready());
        match self {
            Self::Direct(gateways) => {
                let targets = ready().filter_map(|pod| Some(Target { uid: pod.uid.clone(), address: pod.address()? }));
                scrape::collect(http, targets.collect(), gateways, readings).await;
            }
            Self::Prometheus(client) => {
                let uids = ready().map(|pod| (names::key(&pod.namespace, &pod.name), pod.uid.clone())).collect();
                prometheus::collect(client, &uids, readings).await;
            }
        }
    }
}
