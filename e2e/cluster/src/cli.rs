//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use crate::cluster::Cluster;
use crate::component::Component;
use crate::existing::Existing;
use crate::kwok::KwokNodes;
use crate::lifecycle::{self, Options};
use crate::progress::say;
use crate::{build, prerequisites};

/// A real Kubernetes on one bare machine: control plane, kubelet and containerd in namespaces of their own.
#[derive(Debug, Parser)]
#[command(name = "quartermaster-cluster", version)]
pub struct Cli {
    /// Name of the cluster; several stand side by side.
    #[arg(long, global = true, env = "QM_CLUSTER", default_value = "quartermaster")]
    name: String,
    /// Use the cluster of the current kubeconfig (kind, k3d, a real one) instead of one of our own.
    #[arg(long, global = true)]
    existing: bool,
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Bring the cluster up; does nothing where it stands already.
    Up {
        /// Add nodes without hardware: kwok=N[,resource=count...], such as kwok=20,nvidia.com/gpu=8.
        #[arg(long, value_name = "kwok=N,...")]
        nodes: Option<KwokNodes>,
    },
    /// Take the cluster down; nothing of it is left.
    Down,
    /// Say what runs.
    Status,
    /// Print the path of the administrator's kubeconfig.
    Kubeconfig,
    /// Run a command inside the cluster's namespaces, with its DNS and kubeconfig.
    Exec {
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Import image tars; one that is there already is skipped.
    Load {
        /// OCI layout tars.
        #[arg(required = true)]
        tars: Vec<PathBuf>,
    },
    /// Only build the components into the cache.
    Build {
        /// KWOK too.
        #[arg(long)]
        kwok: bool,
    },
    /// Kill a component with SIGKILL; `up` starts it again.
    Kill {
        /// Which one.
        component: Component,
    },
    /// End a component and start it again.
    Restart {
        /// Which one.
        component: Component,
    },
}

/// Runs what the command line asks for.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    if cli.existing {
        return run_existing(&cli).await.map(|()| ExitCode::SUCCESS);
    }
    let name = cli.name.as_str();
    match cli.command {
        Action::Up { nodes } => up(Options { name: name.to_owned(), kwok: nodes }).await?,
        Action::Down => {
            lifecycle::down(name)?;
            say(format!("cluster {name} is down"));
        }
        Action::Status => return status(name).await,
        Action::Kubeconfig => println!("{}", Cluster::attach(name)?.kubeconfig_path().display()),
        Action::Exec { command } => return exec(name, &command),
        Action::Load { tars } => load(name, &tars).await?,
        Action::Build { kwok } => {
            build::build(&build::ALWAYS)?;
            build::build(if kwok { &[build::KWOK] } else { &[] })?;
            crate::images::pause_tar()?;
        }
        Action::Kill { component } => Cluster::attach(name)?.kill(component)?,
        Action::Restart { component } => Cluster::attach(name)?.restart(component)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn up(options: Options) -> Result<()> {
    say(format!("bringing up cluster {} (our own; --existing would take the current kubeconfig's)", options.name));
    let cluster = Cluster::up(&options).await?;
    say(format!("cluster {} is up: export KUBECONFIG={}", cluster.name(), cluster.kubeconfig_path().display()));
    Ok(())
}

async fn load(name: &str, tars: &[PathBuf]) -> Result<()> {
    let cluster = Cluster::attach(name)?;
    for tar in tars {
        for image in cluster.load_image(tar).await? {
            say(format!("{image} is on the node"));
        }
    }
    Ok(())
}

fn exec(name: &str, command: &[String]) -> Result<ExitCode> {
    prerequisites::require_root()?;
    let (program, arguments) = command.split_first().context("exec of nothing")?;
    let status = Cluster::attach(name)?
        .command(program)
        .args(arguments)
        .status()
        .with_context(|| format!("running {program}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

async fn status(name: &str) -> Result<ExitCode> {
    let cluster = Cluster::attach(name)?;
    let addresses = cluster.addresses();
    println!(
        "cluster     {name}\nnode        {}\nservices    {}\npods        {}",
        addresses.node(),
        addresses.services(),
        addresses.pods()
    );
    println!("kubeconfig  {}", cluster.kubeconfig_path().display());
    let mut healthy = true;
    let mut total = 0;
    for component in Component::ALL {
        let processes = cluster.processes(component);
        let resident: u64 = processes.iter().filter_map(|process| process.resident_kib()).sum::<u64>() / 1024;
        total += resident;
        match processes.first() {
            Some(process) => println!("{:<24} pid {:<8} {resident:>5} MiB", component.program(), process.pid),
            None if Component::ALWAYS.contains(&component) => {
                healthy = false;
                println!("{:<24} DOWN (log {})", component.program(), cluster.log_path(component).display());
            }
            None => {}
        }
    }
    println!("{:<24} {:>18} MiB", "in all", total);
    let version = match cluster.client().await?.apiserver_version().await {
        Ok(version) => version.git_version,
        Err(error) => {
            healthy = false;
            format!("does not answer: {error}")
        }
    };
    println!("API server  {version}");
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run_existing(cli: &Cli) -> Result<()> {
    let existing = Existing::current()?;
    match &cli.command {
        Action::Up { nodes } => {
            ensure!(nodes.is_none(), "--nodes works only with a cluster of our own, without --existing");
            existing.check().await
        }
        Action::Status => existing.check().await,
        Action::Load { tars } => tars.iter().try_for_each(|tar| existing.load_image(tar)),
        Action::Kubeconfig => {
            println!(
                "{} (context {})",
                std::env::var("KUBECONFIG").unwrap_or_else(|_| "~/.kube/config".to_owned()),
                existing.context
            );
            Ok(())
        }
        Action::Down => {
            say(format!("context {} is not ours: it stays as it is", existing.context));
            Ok(())
        }
        _ => anyhow::bail!("with --existing this works only on a cluster of our own"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exec_keeps_the_flags_of_its_command() {
        let cli = Cli::try_parse_from(["x", "--name", "one", "exec", "ls", "--name", "-l"]).unwrap();
        assert_eq!(cli.name, "one");
        let Action::Exec { command } = cli.command else { panic!("not exec") };
        assert_eq!(command, ["ls", "--name", "-l"]);
    }

    #[test]
    fn bad_nodes_are_refused() {
        let error = Cli::try_parse_from(["x", "up", "--nodes", "20"]).unwrap_err();
        assert!(error.to_string().contains("kwok=N"));
    }
}
