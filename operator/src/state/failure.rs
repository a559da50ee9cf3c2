//! Why a pod does not serve, out of its own status: one reason and one sentence.

use crate::limits::{OOM_APART, RESTARTS_FAILING};
use crate::{clock, names};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition};
use kube::ResourceExt;
use quartermaster_core::units::Millis;
use quartermaster_crds::condition::Reason;
use serde::{Deserialize, Serialize, Serializer};

/// Why a pod does not serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The condition's reason.
    #[serde(serialize_with = "word")]
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// Since when, where the pod says it.
    pub since: Option<Millis>,
    /// The variant whose file could not be had; none where it is about the pod, whatever that serves.
    pub variant: Option<String>,
}

fn word<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.as_str())
}

/// Exit codes of a process that somebody else ended: SIGKILL, SIGTERM.
const KILLED: [i32; 2] = [128 + 9, 128 + 15];

/// The last words of an engine or of the model's copier.
#[derive(Debug, Deserialize)]
struct LastWords {
    reason: String,
    message: String,
}

/// What went wrong with a pod; none when nothing did, or not for good.
#[must_use]
pub fn failure(pod: &Pod) -> Option<Failure> {
    let status = pod.status.as_ref()?;
    let copiers = status.init_container_statuses.as_deref().unwrap_or_default();
    let engines = status.container_statuses.as_deref().unwrap_or_default();
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let unready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "False");
    let unready_since = unready.and_then(|condition| condition.last_transition_time.as_ref()).map(clock::millis);
    let variant = |container: &ContainerStatus| {
        names::model_place(&container.name).and_then(|place| names::files(pod.annotations()).into_iter().nth(place))
    };
    let containers = || copiers.iter().chain(engines);
    containers()
        .find_map(|container| {
            // A model that is fetched is fetched by the engine's image: that one missing is no fault of the model.
            let engines = runs_engines_image(pod, &container.name);
            image(container, engines)
                .map(|failure| Failure { variant: variant(container).filter(|_| !engines), ..failure })
        })
        .or_else(|| {
            containers().find_map(|each| {
                let failure = ended(each, runs_engines_image(pod, &each.name), unready_since)?;
                Some(Failure { variant: variant(each), ..failure })
            })
        })
        .or_else(|| unschedulable(conditions))
}

/// Whether a container is of the image that the engine is of.
fn runs_engines_image(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return name == names::ENGINE_CONTAINER };
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let image = |name: &str| all().find(|container| container.name == name)?.image.as_deref();
    name == names::ENGINE_CONTAINER || (image(name).is_some() && image(name) == image(names::ENGINE_CONTAINER))
}

/// An image that can't be had, or a container that can't be made of it.
fn image(container: &ContainerStatus, engines: bool) -> Option<Failure> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let what = waiting.reason.as_deref()?;
    let reason = match what {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" | "RegistryUnavailable" => {
            Reason::SourceUnavailable
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => Reason::EngineFailing,
        _ => return None,
    };
    let why = waiting.message.clone().unwrap_or_default();
    let of = if engines { "the engine's image" } else { "the model's image" };
    Some(Failure { reason, message: format!("{of} {}: {what}: {why}", container.image), since: None, variant: None })
}

/// A container that ended and said why, or ended again and again.
fn ended(container: &ContainerStatus, engines: bool, unready_since: Option<Millis>) -> Option<Failure> {
    let state = container.state.as_ref();
    let last = container.last_state.as_ref();
    let ended = state.and_then(|s| s.terminated.as_ref()).or_else(|| last.and_then(|s| s.terminated.as_ref()))?;
    let serves = container.ready && state.is_some_and(|state| state.running.is_some());
    let brings_a_model = names::model_place(&container.name).is_some();
    // One that is at it again may go on where it was cut off.
    let tries_again = brings_a_model && state.is_some_and(|state| state.running.is_some());
    if ended.exit_code == 0 || serves || tries_again {
        return None;
    }
    let since = ended.finished_at.as_ref().map(clock::millis);
    let failed = |reason, message| Failure { reason, message, since, variant: None };
    // Words of a process that was killed are older than its end: the engine writes ahead what an abort would mean.
    if let Some((reason, message)) = last_words(ended).filter(|_| !KILLED.contains(&ended.exit_code)) {
        return Some(failed(reason, message));
    }
    if ended.reason.as_deref() == Some("OOMKilled") {
        if burst(container, ended, unready_since) {
            return None;
        }
        let message = format!("container {} was killed: its memory does not suffice", container.name);
        return Some(failed(Reason::ModelTooLarge, message));
    }
    if brings_a_model {
        // A file that is not in the image will not be there the next time either.
        let words = ended.message.as_deref().unwrap_or("it said nothing").trim();
        let message = match engines {
            true => format!("fetching the model: {words}"),
            false => format!("copying the model out of image {}: {words}", container.image),
        };
        return Some(failed(Reason::SourceUnavailable, message));
    }
    (container.restart_count >= RESTARTS_FAILING).then(|| {
        let (code, restarts) = (ended.exit_code, container.restart_count);
        let words = ended.message.as_deref().unwrap_or("it said nothing").trim();
        let message = format!("container {} ended {restarts} times, with code {code} at last: {words}", container.name);
        failed(Reason::EngineFailing, message)
    })
}

/// A kill for memory that says nothing about the model's size: the replica had served, and it is the first kill, or a
/// long time after the one before.
fn burst(container: &ContainerStatus, killed: &ContainerStateTerminated, unready_since: Option<Millis>) -> bool {
    let (Some(started), Some(finished)) = (&killed.started_at, &killed.finished_at) else { return false };
    let (started, finished) = (clock::millis(started), clock::millis(finished));
    // A pod that was never ready has been unready since before its engine started.
    let served = unready_since.is_some_and(|since| since > started);
    // The last end is no restart yet while the container waits for one.
    let waits = container.state.as_ref().is_some_and(|state| state.terminated.is_some());
    let kills = container.restart_count.saturating_add(i32::from(waits));
    served && (kills <= 1 || finished.since(started) >= OOM_APART)
}

fn last_words(ended: &ContainerStateTerminated) -> Option<(Reason, String)> {
    let words: LastWords = serde_json::from_str(ended.message.as_deref()?.trim()).ok()?;
    let reason = match words.reason.as_str() {
        "ModelTooLarge" => Reason::ModelTooLarge,
        "CorruptModel" => Reason::ModelCorrupt,
        "ModelNotFound" | "SourceUnavailable" | "DiskFull" => Reason::SourceUnavailable,
        _ => Reason::EngineFailing,
    };
    Some((reason, words.message))
}

fn unschedulable(conditions: &[PodCondition]) -> Option<Failure> {
    let refused = |c: &&PodCondition| c.type_ == "PodScheduled" && c.status == "False";
    let condition = conditions.iter().find(refused)?;
    (condition.reason.as_deref() == Some("Unschedulable")).then(|| Failure {
        reason: Reason::Unschedulable,
        message: condition.message.clone().unwrap_or_else(|| "no node takes the pod".to_owned()),
        since: condition.last_transition_time.as_ref().map(clock::millis),
        variant: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn container(name: &str, rest: &Value) -> Value {
        let mut status = json!({"name": name, "ready": false, "restartCount": 1, "image": "models/x:1", "imageID": ""});
        for (key, value) in rest.as_object().unwrap() {
            status[key] = value.clone();
        }
        status
    }

    fn of(status: Value) -> Option<(Reason, String)> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap();
        failure(&pod).map(|failure| (failure.reason, failure.message))
    }

    #[test]
    fn an_image_that_does_not_exist() {
        let state = json!({"state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}});
        let (reason, message) = of(json!({"initContainerStatuses": [container("model-1", &state)]})).unwrap();
        assert_eq!(reason, Reason::SourceUnavailable);
        assert_eq!(message, "the model's image models/x:1: ImagePullBackOff: not found");
    }

    #[test]
    fn a_file_that_cannot_be_had_is_of_its_variant() {
        let of = |kind: &str, name: &str| {
            let state = json!({"restartCount": 5, "state": {"terminated": {"exitCode": 1, "message": "no /x.gguf"}}});
            let annotations = json!({names::FILES: "q8,q4"});
            let pod = json!({
                "metadata": {"name": "p", "annotations": annotations}, "status": {kind: [container(name, &state)]},
            });
            failure(&serde_json::from_value(pod).unwrap()).unwrap().variant
        };
        assert_eq!(of("initContainerStatuses", "model-1").as_deref(), Some("q4"));
        assert_eq!(of("initContainerStatuses", "model-copy"), None);
        assert_eq!(of("containerStatuses", "engine"), None);
    }

    #[test]
    fn a_fetch_that_is_tried_again_is_no_failure_until_it_ends() {
        let words = r#"{"reason": "SourceUnavailable", "message": "HTTP 503"}"#;
        let ended = json!({"terminated": {"exitCode": 69, "message": words}});
        let again = json!({"state": {"running": {}}, "lastState": ended});
        assert_eq!(of(json!({"initContainerStatuses": [container("model-0", &again)]})), None);
        let waits = json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended});
        let (reason, message) = of(json!({"initContainerStatuses": [container("model-0", &waits)]})).unwrap();
        assert_eq!((reason, message.as_str()), (Reason::SourceUnavailable, "HTTP 503"));
    }

    #[test]
    fn the_engines_image_is_no_fault_of_the_model_that_it_fetches() {
        let state = json!({"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}});
        let of = |image: &str| {
            let spec = json!({
                "containers": [{"name": "engine", "image": "engine:1"}],
                "initContainers": [{"name": "model-0", "image": image}],
            });
            let metadata = json!({"name": "p", "annotations": {names::FILES: "q8,q4"}});
            let status = json!({"initContainerStatuses": [container("model-0", &state)]});
            let pod = json!({"metadata": metadata, "spec": spec, "status": status});
            let failure = failure(&serde_json::from_value(pod).unwrap()).unwrap();
            (failure.variant, failure.message)
        };
        let (variant, message) = of("engine:1");
        assert!(variant.is_none() && message.starts_with("the engine's image"), "{variant:?} {message}");
        assert_eq!(of("models:q8").0.as_deref(), Some("q8"));
    }

    #[test]
    fn last_words_of_an_engine() {
        for (word, want) in [
            ("ModelTooLarge", Reason::ModelTooLarge),
            ("CorruptModel", Reason::ModelCorrupt),
            ("ModelNotFound", Reason::SourceUnavailable),
            ("SourceUnavailable", Reason::SourceUnavailable),
            ("DiskFull", Reason::SourceUnavailable),
            ("BadConfig", Reason::EngineFailing),
        ] {
            let said = json!({"reason": word, "message": "needs 300 MB, has 200 MB"}).to_string();
            let state = json!({
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 3, "message": said}},
            });
            let got = of(json!({"containerStatuses": [container("engine", &state)]}));
            assert_eq!(got, Some((want, "needs 300 MB, has 200 MB".to_owned())), "{word}");
        }
    }

    #[test]
    fn a_file_that_is_not_in_the_image() {
        let state = json!({"restartCount": 0, "state": {"terminated": {"exitCode": 1, "message": "no /x.gguf"}}});
        let (reason, message) = of(json!({"initContainerStatuses": [container("model-1", &state)]})).unwrap();
        assert_eq!(reason, Reason::SourceUnavailable);
        assert_eq!(message, "copying the model out of image models/x:1: no /x.gguf");
    }

    #[test]
    fn one_crash_is_forgiven_and_three_are_not() {
        let crash = |restarts| {
            let state = json!({"restartCount": restarts, "lastState": {"terminated": {"exitCode": 139}}});
            of(json!({"containerStatuses": [container("engine", &state)]}))
        };
        assert_eq!(crash(1), None);
        assert_eq!(crash(3).unwrap().0, Reason::EngineFailing);
    }

    #[test]
    fn a_container_that_serves_again_does_not_fail() {
        let state = json!({
            "ready": true, "restartCount": 5, "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 1, "message": "{\"reason\":\"CorruptModel\",\"message\":\"x\"}"}},
        });
        assert_eq!(of(json!({"containerStatuses": [container("engine", &state)]})), None);
    }

    #[test]
    fn words_written_ahead_of_a_kill_are_no_last_words() {
        let said = json!({"reason": "CorruptModel", "message": "the engine aborted while it loaded this file"});
        let ended = |code: i32, reason: &str| {
            let state = json!({
                "restartCount": 3,
                "lastState": {"terminated": {"exitCode": code, "reason": reason, "message": said.to_string()}},
            });
            of(json!({"containerStatuses": [container("engine", &state)]})).unwrap().0
        };
        assert_eq!(ended(134, "Error"), Reason::ModelCorrupt, "an abort");
        assert_eq!(ended(137, "OOMKilled"), Reason::ModelTooLarge);
        assert_eq!(ended(137, "Error"), Reason::EngineFailing);
    }

    #[test]
    fn killed_for_memory_is_too_large() {
        let state = json!({"lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}});
        let got = of(json!({"containerStatuses": [container("engine", &state)]}));
        assert_eq!(got.unwrap().0, Reason::ModelTooLarge);
    }

    /// A pod whose engine started at 10:00 and was killed for memory at `killed`, unready since `unready`.
    fn killed(restarts: i32, unready: &str, killed: &str) -> Option<(Reason, String)> {
        let (started, finished) = ("2026-11-22T10:00:00Z", format!("2026-11-22T{killed}Z"));
        let ended = json!({"exitCode": 137, "reason": "OOMKilled", "startedAt": started, "finishedAt": finished});
        let state = json!({
            "restartCount": restarts, "lastState": {"terminated": ended}, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        });
        let since = format!("2026-11-22T{unready}Z");
        let ready = json!({"type": "Ready", "status": "False", "lastTransitionTime": since});
        of(json!({"containerStatuses": [container("engine", &state)], "conditions": [ready]}))
    }

    #[test]
    fn one_kill_of_a_replica_that_had_served_is_forgiven() {
        assert_eq!(killed(1, "10:05:00", "10:05:00"), None);
        assert_eq!(killed(1, "10:04:00", "10:05:00"), None, "it had stopped answering before");
        for (restarts, unready, at) in
            [(1, "09:59:00", "10:05:00"), (1, "10:00:00", "10:00:01"), (2, "10:05:00", "10:05:00")]
        {
            assert_eq!(killed(restarts, unready, at).unwrap().0, Reason::ModelTooLarge, "{restarts} {unready}");
        }
        assert_eq!(killed(7, "11:00:00", "11:00:00"), None, "it served for an hour");
    }

    #[test]
    fn the_second_kill_counts_before_the_restart() {
        let ended = json!({
            "exitCode": 137, "reason": "OOMKilled", "startedAt": "2026-11-22T10:00:00Z", "finishedAt": "2026-11-22T10:05:00Z",
        });
        let ready = json!({"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-22T10:05:00Z"});
        let killed = |restarts: i32| {
            let state = json!({"restartCount": restarts, "state": {"terminated": ended}});
            of(json!({"containerStatuses": [container("engine", &state)], "conditions": [ready]}))
        };
        assert_eq!(killed(0), None);
        assert_eq!(killed(1).unwrap().0, Reason::ModelTooLarge);
    }

    #[test]
    fn a_pod_that_no_node_takes() {
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available",
            "lastTransitionTime": "2026-11-22T10:00:01Z",
        });
        let got = of(json!({"conditions": [condition]})).unwrap();
        assert_eq!(got, (Reason::Unschedulable, "0/1 nodes are available".to_owned()));
    }
}
