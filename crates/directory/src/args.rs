//! The flags that say where the directory comes from: the same, with the same checks, for every program that follows one.
use std::path::PathBuf;

use crate::kubernetes::AGENT_SERVICE;

/// Where the directory of the cluster comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct SourceArgs {
    /// The directory of the cluster is this snapshot file, which is followed; `loco up` writes it.
    #[arg(long, env = "LOCO_SNAPSHOT", value_name = "FILE", conflicts_with = "kubernetes")]
    pub snapshot: Option<PathBuf>,
    /// The directory of the cluster comes from the Kubernetes API, in the cluster or by KUBECONFIG.
    #[arg(long, env = "LOCO_KUBERNETES", requires = "lans")]
    pub kubernetes: bool,
    /// Namespace of the instances and agents; the one of this pod, or of the kubeconfig, when left out.
    #[arg(long, env = "LOCO_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// File of the LANs (JSON), which is followed; the chart mounts it.
    #[arg(long, env = "LOCO_LANS", value_name = "FILE")]
    pub lans: Option<PathBuf>,
    /// Headless Service whose endpoints are the agents.
    #[arg(long, env = "LOCO_AGENT_SERVICE", value_name = "NAME", default_value = AGENT_SERVICE)]
    pub agent_service: String,
    /// Snapshot file that is used while the API has not answered since the start, and written with what it said since, where
    /// that can be written.
    #[arg(long, env = "LOCO_LAST_KNOWN", value_name = "FILE", requires = "kubernetes")]
    pub last_known: Option<PathBuf>,
}

/// A checked source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The snapshot file.
    File(PathBuf),
    Kubernetes(KubernetesArgs),
}

/// What to follow in the Kubernetes API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesArgs {
    pub namespace: Option<String>,
    pub lans: PathBuf,
    pub agent_service: String,
    pub last_known: Option<PathBuf>,
}

/// The flags cannot be followed: exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{flag} {problem}")]
pub struct WrongUsage {
    /// `--snapshot`.
    pub flag: &'static str,
    pub problem: String,
}

/// Why the API cannot even be tried: exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "there is no way to the Kubernetes API: {problem}; run this in a pod with a service account, or set KUBECONFIG to a file"
    )]
    Access { problem: String },
    #[error("the client for the Kubernetes API at {url} could not be made: {problem}")]
    Client { url: String, problem: String },
}

impl SourceArgs {
    /// # Errors
    /// When the flags name no source, two of them, or half of one.
    pub fn check(self) -> Result<Source, WrongUsage> {
        let wrong = |flag, problem: &str| Err(WrongUsage { flag, problem: problem.to_owned() });
        match (self.snapshot, self.kubernetes) {
            (Some(_), true) => wrong("--snapshot", "and --kubernetes are two sources; give one of them"),
            (None, false) => wrong("--snapshot", "is required, or --kubernetes: one of them says where instances are"),
            (Some(path), false) => Ok(Source::File(path)),
            (None, true) => {
                let Some(lans) = self.lans else {
                    return wrong("--lans", "is required with --kubernetes: the API knows pods and not LANs");
                };
                if self.agent_service.is_empty() {
                    return wrong("--agent-service", "must be the name of a Service");
                }
                Ok(Source::Kubernetes(KubernetesArgs {
                    namespace: self.namespace.filter(|name| !name.is_empty()),
                    lans,
                    agent_service: self.agent_service,
                    last_known: self.last_known,
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        source: SourceArgs,
    }

    fn parse(flags: &str) -> Result<Source, String> {
        let words = std::iter::once("program").chain(flags.split_whitespace());
        let program = Program::try_parse_from(words).map_err(|error| error.to_string())?;
        program.source.check().map_err(|error| error.to_string())
    }

    #[test]
    fn one_source_is_asked_for_and_only_one() {
        assert_eq!(parse("--snapshot s.json"), Ok(Source::File("s.json".into())));
        let Ok(Source::Kubernetes(args)) = parse("--kubernetes --lans l.json --namespace loco") else {
            panic!("not taken");
        };
        assert_eq!((args.namespace.as_deref(), args.agent_service.as_str()), (Some("loco"), AGENT_SERVICE));
        for (flags, word) in [
            ("", "--snapshot is required"),
            ("--snapshot s.json --kubernetes --lans l.json", "--kubernetes"),
            ("--kubernetes", "--lans"),
            ("--snapshot s.json --last-known k.json", "--kubernetes"),
            ("--kubernetes --lans l.json --agent-service=", "--agent-service"),
        ] {
            let error = parse(flags).unwrap_err();
            assert!(error.contains(word), "{flags}: {error}");
        }
    }
}
