//! Every CEL rule and every malformed field of the API, on the real API server: the table is the one of the crate `crds`.

use anyhow::{Context, Result, ensure};
use http::Method;
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use quartermaster_crds::testing::{Case, Expect, cases};
use quartermaster_e2e::stage::Stage;
use serde_json::Value;

/// Where the table's objects are tried; no operator obeys anything here for long, since nothing is stored but `before`.
const NAMESPACE: &str = "default";
/// A HardwareClass that the demo has: the table's objects of that name take another.
const DEMO_CLASS: &str = "cpu-standard";
/// Name of the objects that are stored for a rule on updates.
const TRIAL: &str = "rule-trial";

pub(super) async fn hold_on_the_api_server(stage: &Stage) -> Result<()> {
    let mut wrong = Vec::new();
    let cases = cases()?;
    for case in &cases {
        let answer = tried(stage, case).await?;
        let as_expected = match (&case.expect, &answer) {
            (Expect::Accept, Ok(())) => true,
            (Expect::Refuse(text), Err(refusal)) => refusal.contains(text.as_str()),
            _ => false,
        };
        if !as_expected {
            wrong.push(format!("{} {:?}: expected {:?}, got {answer:?}", case.file, case.name, case.expect));
        }
    }
    ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    println!("{} objects were accepted or refused as the table says", cases.len());
    Ok(())
}

/// What the API server says to the case's object: created, or replacing its `before`.
async fn tried(stage: &Stage, case: &Case) -> Result<Result<(), String>> {
    let object = typed(&case.object)?;
    let api = api(stage, &object)?;
    let Some(before) = &case.before else {
        let mut fresh = case.object.clone();
        if fresh["metadata"]["name"] == DEMO_CLASS {
            fresh["metadata"]["name"] = TRIAL.into();
        }
        let body = serde_json::to_vec(&fresh)?;
        return Ok(refusal(strictly(stage, Method::POST, api.resource_url(), body).await));
    };
    // Another name than any object that is really there.
    let (mut before, mut object) = (typed(before)?, object);
    before.metadata.name = Some(TRIAL.to_owned());
    object.metadata.name = Some(TRIAL.to_owned());
    let name = TRIAL;
    let stored =
        api.create(&PostParams::default(), &before).await.with_context(|| format!("`before` of {:?}", case.name))?;
    let mut after = object;
    after.metadata.resource_version = stored.metadata.resource_version;
    let body = serde_json::to_vec(&after)?;
    let answer = refusal(strictly(stage, Method::PUT, &format!("{}/{name}", api.resource_url()), body).await);
    api.delete(name, &DeleteParams::default()).await.context("could not delete a `before`")?;
    Ok(answer)
}

/// As kubectl asks: an unknown field is refused. Nothing is stored.
async fn strictly(stage: &Stage, method: Method, path: &str, body: Vec<u8>) -> kube::Result<DynamicObject> {
    let request = http::Request::builder()
        .method(method)
        .uri(format!("{path}?dryRun=All&fieldValidation=Strict"))
        .header("content-type", "application/json")
        .body(body)
        .map_err(kube::Error::HttpError)?;
    stage.client().request(request).await
}

fn refusal(answer: kube::Result<DynamicObject>) -> Result<(), String> {
    answer.map(|_| ()).map_err(|error| error.to_string())
}

fn typed(object: &Value) -> Result<DynamicObject> {
    serde_json::from_value(object.clone()).context("a case is no Kubernetes object")
}

fn api(stage: &Stage, object: &DynamicObject) -> Result<Api<DynamicObject>> {
    let types: &TypeMeta = object.types.as_ref().context("a case has no kind")?;
    let kind = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
    Ok(match types.kind.as_str() {
        "HardwareClass" => Api::all_with(stage.client(), &kind),
        _ => Api::namespaced_with(stage.client(), NAMESPACE, &kind),
    })
}
