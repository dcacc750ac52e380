//! `loco instance restart|reset ID`: what its runner does with a guest of this machine's wall.
use std::time::Duration;

use anyhow::{Context as _, Result};
use api::agent::{ControlAction, ControlRequest};
use model::InstanceId;

use crate::{
    lan::Answer,
    moving::{self, MoveFlags},
    paths::Paths,
    pcap::sound,
    plan::Wall,
    secrets, state,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum InstanceVerb {
    /// Switch a guest off in order and start it again, on the same disk
    Restart {
        /// The instance, as `loco status` names it
        #[arg(value_name = "ID")]
        instance: InstanceId,
    },
    /// Switch a guest off in order and start it again on a fresh disk; the disk before is kept until the next reset
    Reset {
        /// The instance, as `loco status` names it
        #[arg(value_name = "ID")]
        instance: InstanceId,
    },
    /// Plug a running guest into another LAN, or another seat; it plays on and asks for its new address
    ///
    /// It moves among LANs of mode vxlan, or of mode socket. On a wall it stays there until it is moved again, under Kubernetes for as long as
    /// its pod lives.
    Move(MoveFlags),
}

/// Carries it out.
pub(crate) async fn run(verb: &InstanceVerb, paths: &Paths) -> Result<Answer> {
    let said = match verb {
        InstanceVerb::Move(flags) => return moving::run(flags, paths).await,
        InstanceVerb::Restart { instance } => {
            order(instance, ControlAction::Restart, "is being restarted", paths).await?
        }
        InstanceVerb::Reset { instance } => {
            order(instance, ControlAction::Reset, "is being started on a fresh disk", paths).await?
        }
    };
    Ok(said.map_or(Answer::NothingRuns, |text| Answer::Said { text, ok: true }))
}

/// What was ordered, in words; `None`: nothing runs.
async fn order(instance: &InstanceId, action: ControlAction, words: &str, paths: &Paths) -> Result<Option<String>> {
    if !paths.wall().try_exists().with_context(|| format!("cannot look at {}", paths.wall().display()))? {
        return Ok(None);
    }
    let wall: Wall = state::read_json(&paths.wall())?;
    let client = reqwest::Client::builder().timeout(Duration::from_secs(15)).no_proxy().build()?;
    let url = format!("{}/api/control/{instance}", wall.base_url());
    let request = client.post(&url).bearer_auth(secrets::read(paths)?).json(&ControlRequest { action });
    sound(request.send().await.context("the gateway does not answer; `loco status` tells what runs")?).await?;
    Ok(Some(format!("{instance} {words}; `loco status` shows when it is live")))
}
