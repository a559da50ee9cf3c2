//! A cluster that is there already (kind, k3d, a real one): the one that the current kubeconfig points to.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use kube::config::Kubeconfig;

use crate::network::run;
use crate::prerequisites::path_of;

/// The current context of the user's kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Name of the context.
    pub context: String,
    /// Address of its API server.
    pub server: String,
}

impl Existing {
    /// Reads the current context from `KUBECONFIG` or `~/.kube/config`.
    pub fn current() -> Result<Self> {
        let config = Kubeconfig::read().context("--existing: reading the current kubeconfig")?;
        Self::of(&config)
    }

    fn of(config: &Kubeconfig) -> Result<Self> {
        let context = config.current_context.clone().context("--existing: the kubeconfig names no current context")?;
        let named = config.contexts.iter().find(|named| named.name == context);
        let cluster = named.and_then(|named| named.context.as_ref()).map(|context| &context.cluster);
        let server = config
            .clusters
            .iter()
            .find(|named| Some(&named.name) == cluster)
            .and_then(|named| named.cluster.as_ref()?.server.clone())
            .with_context(|| format!("--existing: context {context:?} has no cluster with a server"))?;
        Ok(Self { context, server })
    }

    /// Fails unless the API server says that it is ready.
    pub async fn check(&self) -> Result<()> {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let client =
            kube::Client::try_default().await.with_context(|| format!("--existing: a client for {}", self.server))?;
        let version =
            client.apiserver_version().await.with_context(|| format!("--existing: {} does not answer", self.server))?;
        crate::progress::say(format!(
            "using the existing cluster of context {} at {} ({})",
            self.context, self.server, version.git_version
        ));
        Ok(())
    }

    /// Loads an image tar by the cluster's own tool, where it has one.
    pub fn load_image(&self, tar: &Path) -> Result<()> {
        let tar = tar.display().to_string();
        let (program, arguments): (&str, Vec<&str>) = if let Some(name) = self.context.strip_prefix("kind-") {
            ("kind", vec!["load", "image-archive", &tar, "--name", name])
        } else if let Some(name) = self.context.strip_prefix("k3d-") {
            ("k3d", vec!["image", "import", &tar, "--cluster", name])
        } else {
            bail!(
                "--existing: context {} is neither kind nor k3d: push the image to a registry that it reads",
                self.context
            );
        };
        run(Command::new(path_of(program)?).args(arguments))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: kind-x\ncontexts:\n- name: kind-x\n  context: {cluster: c, user: u}\nclusters:\n- name: c\n  cluster: {server: 'https://127.0.0.1:1'}\nusers: []\n";

    #[test]
    fn the_current_context_is_taken() {
        let found = Existing::of(&Kubeconfig::from_yaml(CONFIG).unwrap()).unwrap();
        assert_eq!(found, Existing { context: "kind-x".to_owned(), server: "https://127.0.0.1:1".to_owned() });
    }

    #[test]
    fn what_is_missing_is_named() {
        let none = CONFIG.replace("current-context: kind-x\n", "");
        assert!(
            Existing::of(&Kubeconfig::from_yaml(&none).unwrap()).unwrap_err().to_string().contains("current context")
        );
        let other = CONFIG.replace("cluster: c,", "cluster: d,");
        assert!(Existing::of(&Kubeconfig::from_yaml(&other).unwrap()).unwrap_err().to_string().contains("kind-x"));
        let real = Existing { context: "prod".to_owned(), server: String::new() };
        assert!(real.load_image(Path::new("x.tar")).unwrap_err().to_string().contains("registry"));
    }
}
