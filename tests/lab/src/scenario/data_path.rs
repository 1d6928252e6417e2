//! The data path beside its peers: our VMM's two paths, QEMU with a VF by plain VFIO and the stock driver, and
//! QEMU's virtio-net, each flat out, turn by turn in one lab host.

use super::guest::{Guest, GuestOptions};
use super::measure::{self, Direction, PathFigures};
use super::peer::{Card, PeerGuest};
use super::{Check, Context, Report, pool};
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::collections::BTreeMap;

/// Our guest on a VF.
const OURS_VF: &str = "vmm, VF";
/// Our guest on the emulated path.
const OURS_EMULATED: &str = "vmm, emulated";
/// The stock igbvf driver under plain VFIO.
const PEER_VF: &str = "QEMU, VF by VFIO";
/// QEMU's virtio-net on a tap.
const PEER_EMULATED: &str = "QEMU, virtio-net";

/// Medians and samples of all rounds.
#[derive(Debug, Serialize)]
struct DataPathReport {
    kernel: &'static str,
    rounds: usize,
    /// By subject.
    medians: BTreeMap<&'static str, Medians>,
    /// By subject, in the order in which they were taken.
    samples: BTreeMap<&'static str, Vec<PathFigures>>,
}

#[derive(Clone, Debug, Serialize)]
struct Medians {
    send: Direction,
    receive: Direction,
}

/// The benchmark: `--set rounds=N` changes how often each is measured.
pub(crate) fn scenario(context: &Context) -> Result<Report> {
    let rounds: usize = context.setting("rounds", "3").parse().context("rounds is not a number")?;
    let mut samples = BTreeMap::<_, Vec<_>>::new();
    for round in 1..=rounds {
        for (subject, figures) in measure_all(context).with_context(|| format!("round {round}"))? {
            samples.entry(subject).or_default().push(figures);
        }
        eprintln!("round {round} of {rounds}");
    }
    let medians: BTreeMap<_, _> =
        samples.iter().map(|(subject, samples)| (*subject, medians(samples))).collect();
    let exits = |subject: &str, pick: fn(&Medians) -> &Direction| {
        medians.get(subject).map_or(f64::NAN, |medians| pick(medians).exits_per_frame)
    };
    let no_more = |what: &str, pick: fn(&Medians) -> &Direction| {
        let (ours, peer) = (exits(OURS_VF, pick), exits(PEER_VF, pick));
        Check {
            what: format!("KVM exits per frame {what} on the VF, no more than the stock igbvf's"),
            passed: ours <= peer,
            seen: format!("{ours:.4}, the stock igbvf {peer:.4}"),
        }
    };
    let checks = vec![
        no_more("sent", |medians| &medians.send),
        no_more("received", |medians| &medians.receive),
    ];
    print!("{}", table(&medians));
    let report = DataPathReport { kernel: context.kernel.name(), rounds, medians, samples };
    Ok(Report { checks, figures: serde_json::to_value(report)? })
}

/// One round. Each guest runs alone.
fn measure_all(context: &Context) -> Result<Vec<(&'static str, PathFigures)>> {
    let mut round = Vec::new();
    {
        let guest = Guest::launch(GuestOptions::new(context))?;
        guest.expect_traffic()?;
        round.push((OURS_EMULATED, measure::path(&guest).context(OURS_EMULATED)?));
        guest.attach()?;
        round.push((OURS_VF, measure::path(&guest).context(OURS_VF)?));
        guest.detach()?;
    }
    pool::expect_all_free()?;
    for (subject, card) in [(PEER_VF, Card::Vf), (PEER_EMULATED, Card::VirtioNet)] {
        let guest = PeerGuest::launch(context, card).context(subject)?;
        round.push((subject, measure::path(&guest).context(subject)?));
    }
    Ok(round)
}

fn medians(samples: &[PathFigures]) -> Medians {
    let of = |pick: fn(&PathFigures) -> &Direction| {
        let directions: Vec<_> = samples.iter().map(pick).collect();
        let median = |figure: fn(&Direction) -> f64| {
            measure::median(directions.iter().map(|direction| figure(direction)).collect())
        };
        let userspace: Option<Vec<f64>> =
            directions.iter().map(|direction| direction.userspace_exits_per_frame).collect();
        Direction {
            frames_per_s: median(|direction| direction.frames_per_s),
            gbit_per_s: median(|direction| direction.gbit_per_s),
            exits_per_frame: median(|direction| direction.exits_per_frame),
            userspace_exits_per_frame: userspace.map(measure::median),
        }
    };
    Medians { send: of(|path| &path.send), receive: of(|path| &path.receive) }
}

/// One line per subject, with the medians of sending and receiving.
fn table(medians: &BTreeMap<&'static str, Medians>) -> String {
    let mut table = format!(
        "{:<18} {:>21} {:>15} {:>17} {:>19}\n",
        "send / receive", "frames/s", "Gbit/s (TCP)", "exits/frame", "to userspace"
    );
    for (subject, Medians { send, receive }) in medians {
        let pair = |figure: fn(&Direction) -> Option<f64>, digits: usize| {
            let text = |direction| {
                figure(direction).map_or("-".to_owned(), |figure| format!("{figure:.digits$}"))
            };
            format!("{} / {}", text(send), text(receive))
        };
        table += &format!(
            "{subject:<18} {:>21} {:>15} {:>17} {:>19}\n",
            pair(|direction| Some(direction.frames_per_s), 0),
            pair(|direction| Some(direction.gbit_per_s), 3),
            pair(|direction| Some(direction.exits_per_frame), 4),
            pair(|direction| direction.userspace_exits_per_frame, 5),
        );
    }
    table
}
