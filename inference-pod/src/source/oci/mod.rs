//! Files in registries: artifacts whose layers are files, and images whose layers are tars.

mod credentials;
pub(super) mod layer;
mod manifest;
mod registry;

pub(super) use registry::Registry;

use super::fetch::Options;
use super::http::{Access, Advice, Http, WebFile};
use super::remote::{Facts, Remote};
use super::uri::OciFile;
use super::{Digest, Kind, Result, SourceError};
use credentials::Credentials;
use manifest::{Choice, Descriptor, Manifest, choose};
use std::sync::Arc;

/// Manifests on the way from a tag to an image: an index, and the image.
const MANIFESTS_MAX: usize = 3;

/// What a reference leads to.
pub(super) enum Found {
    /// A layer that is the file.
    File(Box<(Remote, Facts)>),
    /// Layers that are tars, the uppermost first; and the digest of the manifest that says so.
    Layers { manifest: Digest, layers: Vec<(Remote, Facts)> },
}

/// Reads the manifest and chooses.
pub(super) async fn resolve(http: &Http, options: &Options, file: &OciFile, place: &str) -> Result<Found> {
    let credentials = Credentials::find(options.docker_config.as_deref(), &file.registry, &file.repository)?;
    let registry = Arc::new(Registry::new(http, file, place, credentials)?);
    let mut reference = file.digest.map_or_else(|| file.tag.clone(), |digest| format!("sha256:{digest}"));
    for _ in 0..MANIFESTS_MAX {
        let (bytes, digest) = registry.manifest(&reference).await?;
        let wrong = |what: String| {
            let fix = "name the file of the artifact or image that holds the model";
            SourceError::new(Kind::NotFound, place, what, fix)
        };
        let manifest = Manifest::parse(&bytes).map_err(&wrong)?;
        match choose(&manifest, file.file.as_deref(), std::env::consts::ARCH).map_err(&wrong)? {
            Choice::Manifest(next) => reference = next.digest.clone(),
            Choice::File(layer) => {
                return Ok(Found::File(Box::new(blob(&registry, place, layer)?)));
            }
            Choice::Layers(layers) => {
                let layers = layers.into_iter().map(|layer| blob(&registry, place, layer)).collect::<Result<_>>()?;
                return Ok(Found::Layers { manifest: digest, layers });
            }
        }
    }
    let what = "its index leads to an index, and on and on";
    Err(SourceError::new(Kind::WrongContent, place, what, "name the image by its digest"))
}

fn blob(registry: &Arc<Registry>, place: &str, layer: &Descriptor) -> Result<(Remote, Facts)> {
    let digest = Digest::parse(&layer.digest).map_err(|error| {
        SourceError::new(Kind::WrongContent, place, format!("a layer's {}", error.place), error.fix)
    })?;
    let file = WebFile {
        place: place.to_owned(),
        client: registry.client().clone(),
        url: registry.url(&format!("blobs/sha256:{digest}"))?,
        access: Access::Registry(Arc::clone(registry)),
        advice: registry.advice(),
    };
    Ok((Remote::Web(file), Facts { bytes: Some(layer.size), digest: Some(digest), validator: None }))
}

fn advice(file: &OciFile, with_credentials: bool) -> Advice {
    let OciFile { registry, repository, .. } = file;
    let denied = if with_credentials {
        format!("let the credentials for {registry} in the docker config pull {repository}")
    } else {
        format!("give credentials for {registry} in a docker config by --docker-config (QM_DOCKER_CONFIG)")
    };
    Advice { denied, missing: format!("check that {registry} has {repository} with that tag") }
}
