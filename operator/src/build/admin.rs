//! The token that a model's pods take orders by. It is derived from our own secret and stored nowhere; pods get its digest,
//! by which they recognise it and which is of no use to who reads it.

use crate::keys;
use kube::ResourceExt;
use quartermaster_crds::v1alpha1::ModelDeployment;
use sha2::{Digest, Sha256};

/// What else may one day be derived from the secret is another thing.
const PURPOSE: &str = "quartermaster.dev/admin-token/v1";

/// The bearer token of this very ModelDeployment's pods.
#[must_use]
pub fn token(secret: &[u8], model: &ModelDeployment) -> String {
    keys::hash(secret, format!("{PURPOSE}{}", model.uid().unwrap_or_default()).as_bytes())
}

/// Hex of the digest that pods know.
#[must_use]
pub fn recognised_by(token: &str) -> String {
    hex::encode(Sha256::digest(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fixtures::model;

    #[test]
    fn a_token_is_of_one_secret_and_one_model() {
        let of = |secret: &str, name: &str| token(secret.as_bytes(), &model("demo", name));
        assert_eq!(of("s", "chat"), of("s", "chat"));
        assert_ne!(of("s", "chat"), of("s", "other"));
        assert_ne!(of("s", "chat"), of("t", "chat"));
        assert_ne!(recognised_by(&of("s", "chat")), of("s", "chat"));
    }
}
