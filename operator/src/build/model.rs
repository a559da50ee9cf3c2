//! What a model has once, whatever its groups: a Service, a PodDisruptionBudget and a NetworkPolicy.

use super::{meta, model_labels};
use crate::names;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use quartermaster_crds::v1alpha1::ModelDeployment;

/// The Service of a model: one name for its replicas, for those whom [`network_policy`] lets in. Gateways go to the pods
/// directly.
#[must_use]
pub fn service(model: &ModelDeployment) -> Service {
    let port = ServicePort {
        name: Some("http".to_owned()),
        port: i32::from(names::POD_PORT),
        target_port: Some(IntOrString::String("http".to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    Service {
        metadata: meta(model, model.name_any()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(model_labels(model)),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// One replica at a time may be evicted.
#[must_use]
pub fn disruption_budget(model: &ModelDeployment) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: meta(model, model.name_any()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector { match_labels: Some(model_labels(model)), ..LabelSelector::default() }),
            // A replica that is not ready protects nothing and would only block a drain.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

/// Only our gateways and operators, in the namespace of the release, and the scrapers that were named may talk to a model's
/// pods: whoever else could would be served past every budget. Metrics and API are one port, so a scraper is trusted.
#[must_use]
pub fn network_policy(model: &ModelDeployment, release: &str, scrapers: &[NetworkPolicyPeer]) -> NetworkPolicy {
    let labels = |key: &str, value: &str| Some([(key.to_owned(), value.to_owned())].into());
    let component = LabelSelectorRequirement {
        key: names::COMPONENT.to_owned(),
        operator: "In".to_owned(),
        values: Some(names::COMPONENTS_TO_PODS.map(str::to_owned).to_vec()),
    };
    let own_namespace =
        LabelSelector { match_labels: labels(names::NAMESPACE_NAME, release), ..LabelSelector::default() };
    // As in the policies of the chart, a peer without a namespace is one of the release's.
    let scrapers = scrapers.iter().cloned().map(|peer| match peer {
        NetworkPolicyPeer { namespace_selector: None, pod_selector: Some(_), .. } => {
            NetworkPolicyPeer { namespace_selector: Some(own_namespace.clone()), ..peer }
        }
        peer => peer,
    });
    let ours = NetworkPolicyPeer {
        namespace_selector: Some(own_namespace.clone()),
        pod_selector: Some(LabelSelector {
            match_labels: labels(names::APP, names::FIELD_MANAGER),
            match_expressions: Some(vec![component]),
        }),
        ip_block: None,
    };
    let peers = [ours].into_iter().chain(scrapers).collect();
    let port = NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(names::POD_PORT))),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    };
    NetworkPolicy {
        metadata: meta(model, model.name_any()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector { match_labels: Some(model_labels(model)), ..LabelSelector::default() }),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule { from: Some(peers), ports: Some(vec![port]) }]),
            egress: None,
        }),
    }
}
