//! The programs in the kernel: loading them with the maps that are pinned, and putting them on a device.
use std::{io, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData, PerCpuArray, PerCpuHashMap, RingBuf},
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, LinkError, PinnedLink},
        tc::{self, NlOptions, TcAttachOptions, TcError},
    },
    sys::SyscallError,
    util::KernelVersion,
};
use nix::libc;

use crate::{Attach, TrafficError, abi, bpffs::Pins};

/// The object of `ebpf/`, as build.rs made it: for benches, which run the programs in ways of their own.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/loco.o"));

/// [`abi::PortKey`], [`abi::PortRow`] and [`abi::PairKey`] as the plain numbers they are.
pub(crate) type Ports = PerCpuHashMap<MapData, [u32; 2], [u64; abi::PORT_ROW_WORDS]>;
pub(crate) type Pairs = PerCpuHashMap<MapData, [u8; size_of::<abi::PairKey>()], [u64; 2]>;
pub(crate) type Lost = PerCpuArray<MapData, u64>;
/// [`abi::GuardRow`] as the numbers it is.
pub(crate) type Guards = HashMap<MapData, u32, [u64; GUARD_WORDS]>;
pub(crate) type Refused = PerCpuHashMap<MapData, u32, [u64; abi::REFUSALS_MAX]>;
pub(crate) type Events = RingBuf<MapData>;

pub(crate) const GUARD_WORDS: usize = size_of::<abi::GuardRow>() / 8;

/// Where a filter of `clsact` is put among others: what counts before what decides, so that nothing is unseen.
const CLSACT_PRIORITY: u16 = 50;

/// One program at a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Counts what comes in: at a port, from its guest.
    Ingress,
    /// Counts what goes out: at a port, to its guest.
    Egress,
    /// Drops what comes in and may not.
    Guard,
    /// Answers the other nodes' question.
    Answer,
}

impl Direction {
    pub(crate) const ALL: [Self; 4] = [Self::Ingress, Self::Egress, Self::Guard, Self::Answer];

    /// Name of the program for it, in the object.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Ingress => "loco_ingress",
            Self::Egress => "loco_egress",
            Self::Guard => "loco_guard",
            Self::Answer => "loco_answer",
        }
    }

    /// Whether it counts, and therefore comes before what decides.
    const fn counts(self) -> bool {
        matches!(self, Self::Ingress | Self::Egress)
    }

    /// Last word of a pin.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ingress => "in",
            Self::Egress => "out",
            Self::Guard => "guard",
            Self::Answer => "answer",
        }
    }

    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Ingress | Self::Guard | Self::Answer => abi::INGRESS,
            Self::Egress => abi::EGRESS,
        }
    }

    const fn attach_type(self, turned: bool) -> TcAttachType {
        let comes_in = matches!(self, Self::Ingress | Self::Guard | Self::Answer);
        if comes_in == turned { TcAttachType::Egress } else { TcAttachType::Ingress }
    }
}

/// A device of the calling thread's namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device<'a> {
    pub(crate) name: &'a str,
    /// What a guest sends goes out of it, as it is the node's side of the guest's cable (a macvtap), and not the guest's own (a tap).
    pub(crate) turned: bool,
}

impl Device<'_> {
    const fn attach_type(self, direction: Direction) -> TcAttachType {
        direction.attach_type(self.turned)
    }
}

/// What keeps a program at a device.
#[derive(Debug)]
pub(crate) enum Link {
    /// The pin does; it outlives this process.
    Pinned,
    /// This does: closed with the process.
    Held(#[expect(dead_code, reason = "it is its being there that counts")] FdLink),
    /// The kernel does, until somebody removes the filter or the device.
    Filter,
}

/// The maps, taken out of the object.
pub(crate) struct Maps {
    pub(crate) ports: Ports,
    pub(crate) pairs: Pairs,
    pub(crate) lost: Lost,
    pub(crate) guards: Guards,
    pub(crate) refused: Refused,
}

/// Loaded and verified; attached nowhere yet.
pub(crate) struct Programs {
    ebpf: Ebpf,
    attach: Attach,
    ids: [u32; Direction::ALL.len()],
}

impl Programs {
    /// Loads the object: maps that are pinned are taken over, with what they have counted.
    pub(crate) fn load(pins: Option<&Pins>, attach: Option<Attach>) -> Result<(Self, Maps, Events), TrafficError> {
        let mut loader = EbpfLoader::new();
        if let Some(pins) = pins {
            for name in Pins::names() {
                loader.map_pin_path(name, pins.map(name));
            }
        }
        let mut ebpf = loader.load(OBJECT).map_err(|error| TrafficError::Load(chain(&error)))?;
        let mut map = |name: &str| ebpf.take_map(name).ok_or_else(|| TrafficError::Load(format!("no map `{name}`")));
        let shape = |error: aya::maps::MapError| TrafficError::Load(chain(&error));
        let maps = Maps {
            ports: Ports::try_from(map("PORTS")?).map_err(shape)?,
            pairs: Pairs::try_from(map("PAIRS")?).map_err(shape)?,
            lost: Lost::try_from(map("LOST")?).map_err(shape)?,
            guards: Guards::try_from(map("GUARDS")?).map_err(shape)?,
            refused: Refused::try_from(map("REFUSED")?).map_err(shape)?,
        };
        let events = Events::try_from(map("EVENTS")?).map_err(shape)?;
        let has_tcx = KernelVersion::current().is_ok_and(|current| current >= KernelVersion::new(6, 6, 0));
        let attach = attach.unwrap_or(if has_tcx { Attach::Tcx } else { Attach::Clsact });
        let mut programs = Self { ebpf, attach, ids: [0; Direction::ALL.len()] };
        for (slot, direction) in Direction::ALL.into_iter().enumerate() {
            let program = programs.program(direction)?;
            program.load().map_err(|error| TrafficError::Load(chain(&error)))?;
            let info = program.info().map_err(|error| TrafficError::Load(chain(&error)))?;
            tracing::debug!(program = direction.program(), verified = ?info.verified_instruction_count(), "loaded");
            if let Some(id) = programs.ids.get_mut(slot) {
                *id = info.id();
            }
        }
        Ok((programs, maps, events))
    }

    pub(crate) const fn attach_mode(&self) -> Attach {
        self.attach
    }

    fn program(&mut self, direction: Direction) -> Result<&mut SchedClassifier, TrafficError> {
        let name = direction.program();
        let program = self.ebpf.program_mut(name).ok_or_else(|| TrafficError::Load(format!("no program `{name}`")))?;
        program.try_into().map_err(|error: ProgramError| TrafficError::Load(chain(&error)))
    }

    /// Whether this very program sees the frames of `device`. `None`: the kernel cannot be asked that way.
    pub(crate) fn is_on(&self, device: Device<'_>, direction: Direction) -> Option<bool> {
        if self.attach == Attach::Clsact {
            return None;
        }
        let (_, programs) = SchedClassifier::query_tcx(device.name, device.attach_type(direction)).ok()?;
        let id = self.ids[direction as usize];
        Some(programs.iter().any(|program| program.id() == id))
    }

    /// Puts the program on `device`. A pinned link is given this program in one step,
    /// so that no frame is missed and none is counted twice.
    pub(crate) fn put_on(
        &mut self,
        device: Device<'_>,
        direction: Direction,
        pin: Option<&Path>,
    ) -> Result<Link, String> {
        match self.attach {
            Attach::Tcx => self.put_tcx(device, direction, pin),
            Attach::Clsact => self.put_clsact(device, direction),
        }
    }

    fn put_tcx(&mut self, device: Device<'_>, direction: Direction, pin: Option<&Path>) -> Result<Link, String> {
        if let Some(pin) = pin
            && self.take_over(direction, pin)?
        {
            if self.is_on(device, direction) == Some(true) {
                return Ok(Link::Pinned);
            }
            // The link lives and is at another device, of a namespace that is no longer ours.
            std::fs::remove_file(pin).map_err(|error| error.to_string())?;
        }
        let program = self.program(direction).map_err(|error| error.to_string())?;
        let order = if direction.counts() { LinkOrder::first() } else { LinkOrder::last() };
        let order = TcAttachOptions::TcxOrder(order);
        let id = program
            .attach_with_options(device.name, device.attach_type(direction), order)
            .map_err(|error| chain(&error))?;
        let link = program.take_link(id).map_err(|error| chain(&error))?;
        let link = FdLink::try_from(link).map_err(|error| chain(&error))?;
        let Some(pin) = pin else { return Ok(Link::Held(link)) };
        link.pin(pin).map_err(|error| chain(&error))?;
        Ok(Link::Pinned)
    }

    /// Gives the link at `pin` this program. False: there is none, or its device is gone; then nothing is at `pin`.
    fn take_over(&mut self, direction: Direction, pin: &Path) -> Result<bool, String> {
        let old = match PinnedLink::from_pin(pin) {
            Ok(old) => old,
            Err(LinkError::SyscallError(SyscallError { io_error, .. }))
                if io_error.kind() == io::ErrorKind::NotFound =>
            {
                return Ok(false);
            }
            Err(error) => return Err(chain(&error)),
        };
        let program = self.program(direction).map_err(|error| error.to_string())?;
        let link = FdLink::from(old).try_into().map_err(|error: LinkError| chain(&error))?;
        match program.attach_to_link(link) {
            // Closes our copy; the pin keeps the link.
            Ok(id) => program.take_link(id).map(drop).map_err(|error| chain(&error)).map(|()| true),
            Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
                if io_error.raw_os_error() == Some(libc::ENOLINK) =>
            {
                std::fs::remove_file(pin).map_err(|error| error.to_string())?;
                Ok(false)
            }
            Err(error) => Err(chain(&error)),
        }
    }

    fn put_clsact(&mut self, device: Device<'_>, direction: Direction) -> Result<Link, String> {
        match tc::qdisc_add_clsact(device.name) {
            // Its error does not say which; what is wrong beside "there is one" the attachment will say.
            Ok(()) | Err(TcError::NetlinkError(_) | TcError::AlreadyAttached) => {}
            Err(error) => return Err(chain(&error)),
        }
        let kind = device.attach_type(direction);
        // Of an earlier agent: left there it would count every frame a second time.
        remove_filter(device, direction)?;
        let program = self.program(direction).map_err(|error| error.to_string())?;
        let options = NlOptions { priority: CLSACT_PRIORITY + u16::from(!direction.counts()), ..NlOptions::default() };
        let options = TcAttachOptions::Netlink(options);
        let id = program.attach_with_options(device.name, kind, options).map_err(|error| chain(&error))?;
        let link = program.take_link(id).map_err(|error| chain(&error))?;
        // Its drop would remove the filter, which shall outlive this process.
        std::mem::forget(link);
        Ok(Link::Filter)
    }

    /// Takes the program off again.
    pub(crate) fn take_off(
        device: Device<'_>,
        direction: Direction,
        link: Link,
        pin: Option<&Path>,
    ) -> Result<(), String> {
        match (link, pin) {
            (Link::Pinned, Some(pin)) => match std::fs::remove_file(pin) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.to_string()),
                _ => Ok(()),
            },
            (Link::Filter, _) => remove_filter(device, direction),
            (Link::Pinned | Link::Held(_), _) => Ok(()),
        }
    }
}

fn remove_filter(device: Device<'_>, direction: Direction) -> Result<(), String> {
    match tc::qdisc_detach_program(device.name, device.attach_type(direction), direction.program()) {
        Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A device that is gone took its filters along.
        Err(TcError::IoError(error)) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        Err(error) => Err(chain(&error)),
        Ok(()) => Ok(()),
    }
}

/// An error of aya's with its causes, on one line and not endless: the verifier's log has thousands.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    const CAUSE_MAX: usize = 400;
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let cause = error.to_string();
        // The end of the log is what says why.
        let from = cause.char_indices().rev().nth(CAUSE_MAX).map_or(0, |(at, _)| at);
        let cause = cause.get(from..).unwrap_or(&cause).replace('\n', " ");
        if !text.contains(cause.trim()) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(cause.trim());
        }
        next = error.source();
    }
    text
}
