//! `loco lan trace --from A --to B`: the agents of both guests watch at the same time, and what they saw is put together.
use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result};
use api::{
    status::{Status, StatusInstance},
    trace::{Trace, TraceRequest},
};
use clap::Args;
use futures_util::future::try_join_all;
use rand::{TryRngCore as _, rngs::OsRng};

use super::{Answer, FormFlag, wall};
use crate::{doctor::seat, paths::Paths, pcap::sound};

/// An answer takes a guest milliseconds, or a second when it must ask for the other's card first.
const LIMIT_MS: u64 = 3_000;
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct TraceFlags {
    /// Whose frame is followed: `instance-3`, or its number as people say it: `4`
    #[arg(long, value_name = "A")]
    from: String,
    /// Where it should arrive
    #[arg(long, value_name = "B")]
    to: String,
    #[command(flatten)]
    form: FormFlag,
}

pub(super) async fn run(flags: &TraceFlags, paths: &Paths) -> Result<Answer> {
    let Some((status, token)) = wall(paths).await? else { return Ok(Answer::NothingRuns) };
    let (from, to) = match (seat(&status, &flags.from), seat(&status, &flags.to)) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(why), _) | (_, Err(why)) => return Ok(Answer::Usage(why)),
    };
    if from.id == to.id || from.lan != to.lan {
        let why = format!(
            "there is no way from {} ({}) to {} ({}): name two guests of one LAN",
            from.id, from.lan, to.id, to.lan
        );
        return Ok(Answer::Usage(why));
    }
    let mut octets = [0; 12];
    OsRng.try_fill_bytes(&mut octets).context("the system gives no random bytes")?;
    let mut mark = "LOCOTRACE".to_owned();
    octets.iter().try_for_each(|octet| write!(mark, "{octet:02x}"))?;
    let request = TraceRequest { from: from.id.clone(), to: to.id.clone(), mark, limit_ms: LIMIT_MS };
    let mut urls: Vec<&str> = [from, to].into_iter().filter_map(|end| url(&status, end)).collect();
    urls.dedup();
    let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
    let ask = async |url: &str| -> Result<Trace> {
        let request = client.post(format!("{url}/v1/lan/trace")).bearer_auth(&token).json(&request);
        let answer = request.send().await.with_context(|| format!("the agent at {url} does not answer"))?;
        sound(answer).await?.json().await.context("the agent answered something else")
    };
    let trace = put_together(try_join_all(urls.iter().map(|url| ask(url))).await?);
    let ok = trace.delivered;
    Answer::said(flags.form.output, &trace, ok, || words(&trace, from, to))
}

fn url<'a>(status: &'a Status, instance: &StatusInstance) -> Option<&'a str> {
    Some(&status.nodes.iter().find(|node| node.name == instance.node)?.agent_url)
}

/// The parts of the way, in its order, and what the first gap in it means.
fn put_together(parts: Vec<Trace>) -> Trace {
    let mut hops: Vec<_> = parts.into_iter().flat_map(|part| part.hops).collect();
    hops.sort_by_key(|hop| hop.step);
    let delivered = hops.iter().any(|hop| hop.step == 4 && hop.seen);
    let gap = hops.iter().find(|hop| !hop.seen).filter(|_| !delivered);
    let problem = gap.map(|gap| {
        match gap.step {
            0 => "the question could not be put to the guest: its tap is down, or nobody is at its port; look at `loco status`",
            1 => "the guest did not answer a ping: it is not booted so far, has no or another address, or a firewall; look at its screen and at `loco doctor`",
            2 => "this node did not send it to the other one; `loco_fabric_repairs_total`, `loco_switch_unsent_total` and the agent's log say why",
            3 => "it was lost between the two nodes; let UDP of the LAN's port (14789, or 14790 in mode socket) through between them, and see `loco lan check` on both",
            _ => "it arrived at the node and not at the guest; the guest may not be reading, see its `rx_dropped`",
        }
        .to_owned()
    });
    Trace { delivered, hops, problem }
}

fn words(trace: &Trace, from: &StatusInstance, to: &StatusInstance) -> String {
    let outcome = if trace.delivered { "arrives at" } else { "does NOT arrive at" };
    let mut text = format!("A frame of {} {outcome} {}.\n", from.id, to.id);
    for hop in &trace.hops {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "  {:<9}{}", if hop.seen { "seen" } else { "NOT SEEN" }, hop.at);
    }
    if let Some(problem) = &trace.problem {
        let _infallible = writeln!(text, "  To do: {problem}");
    }
    text
}

#[cfg(test)]
mod tests {
    use api::trace::TraceHop;

    use super::*;

    fn part(hops: &[(u8, bool)]) -> Trace {
        let hops = hops.iter().map(|(step, seen)| TraceHop { at: format!("hop {step}"), seen: *seen, step: *step });
        Trace { hops: hops.collect(), ..Trace::default() }
    }

    #[test]
    fn the_parts_of_two_agents_are_one_way() {
        let trace = put_together(vec![part(&[(3, true), (4, true)]), part(&[(0, true), (1, true), (2, true)])]);
        assert!(trace.delivered && trace.problem.is_none());
        assert_eq!(trace.hops.iter().map(|hop| hop.step).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn the_first_gap_says_what_to_do() {
        for (hops, want) in [
            (&[(0, false), (1, false), (2, false), (3, false), (4, false)][..], "tap is down"),
            (&[(0, true), (1, false), (4, false)], "did not answer a ping"),
            (&[(0, true), (1, true), (2, true), (3, false), (4, false)], "between the two nodes"),
            (&[(0, true), (1, true), (4, false)], "not at the guest;"),
        ] {
            let trace = put_together(vec![part(hops)]);
            assert!(!trace.delivered && trace.problem.as_ref().is_some_and(|p| p.contains(want)), "{trace:?}");
        }
        // No hop at all is not a delivery.
        assert!(!put_together(Vec::new()).delivered);
    }
}
