//! Paths of fields in a spec, as `kubectl explain` writes them.

/// A field of a spec, such as `spec.scaling.warmPool` or `spec.variants[fast].format`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath(pub String);

impl std::fmt::Display for FieldPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Collects the fields that are set but not obeyed.
#[derive(Debug, Default)]
pub(crate) struct NotObeyed(Vec<FieldPath>);

impl NotObeyed {
    /// Notes `path` when `set`.
    pub(crate) fn when(&mut self, set: bool, path: impl Into<String>) {
        if set {
            self.0.push(FieldPath(path.into()));
        }
    }

    /// What was noted, in order.
    pub(crate) fn into_fields(self) -> Vec<FieldPath> {
        self.0
    }
}
