//! What runs in the kernel at each tap and at each tunnel. Two programs count every frame, show those that matter to user space,
//! and never touch one; the guard drops what a guest may not send; and one answers for this node when another asks.
//!
//! ```text
//! frame ─> wire::class ─> PORTS[device, direction].classes[class] += 1
//!                    └──> PAIRS[device, direction, other card] += 1
//!                    └──> select ─> bucket of its tier ─> EVENTS (ring) ─> crates/traffic
//! frame of a guest ─> wire::guard, bucket ─> go on, or dropped and REFUSED[device][reason] += 1
//! question over a tunnel, for this node's bridge ─> turned around, back over the tunnel: also while no agent runs
//! ```
//! **Invariants.** The verdict of those that count is always "go on", and the guard's is where it has no row: without these
//! programs, frames flow. What is not shown, and what is dropped, is counted by its reason. All that decides is in `wire` and
//! `select`, which are tested on the host; this file only moves bytes.
#![no_std]
#![no_main]
// An instruction that the optimiser cannot see through; the build sets RUSTC_BOOTSTRAP for aya-ebpf anyway.
#![feature(asm_experimental_arch)]

#[path = "../../crates/traffic/src/abi.rs"]
#[allow(dead_code, reason = "user space has its own part of it")]
mod abi;
#[path = "../../crates/traffic/src/select.rs"]
mod select;

use abi::{
    CLASSES_MAX, Count, DATAGRAMS_MAX, DatagramKey, EGRESS, EVENT_HEADER_LEN, EVENTS_BYTES, EVENTS_RESERVE_AT,
    EVENTS_WAKE_AT, EVENTS_WAKE_TO, EventHeader, FLAG_EVENTS, FLAG_PAIRS, FLOW_IDLE_NS, FLOW_TOUCH_NS, FLOWS_MAX,
    FRAME_MAX, FlowKey, GUARD_SERVERS, GUARD_SOURCE, GUARD_STORM, GUARDS_MAX, GuardRow, INGRESS, Loss, PAIRS_MAX,
    PORTS_MAX, PairKey, PortKey, PortRow, RECORD_MIDDLE, RECORD_SMALL, REFUSALS_MAX,
};
use aya_ebpf::{
    bindings::{
        BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, TC_ACT_SHOT,
        TC_ACT_UNSPEC,
    },
    helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_redirect, bpf_skb_load_bytes, bpf_skb_store_bytes},
    macros::{classifier, map},
    maps::{HashMap, LruHashMap, LruPerCpuHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
    programs::TcContext,
};
use select::{Datagram, FlowId, Selection, Tier, select};
use wire::{
    class::{HEAD_LEN, Octets, TrafficClass, classify},
    guard::{self, Refusal},
    probe,
};

// Not allocated in advance: a row is 552 bytes on each possible CPU, and nodes have a dozen of them, not thousands.
#[map]
static PORTS: PerCpuHashMap<PortKey, PortRow> = PerCpuHashMap::with_max_entries(PORTS_MAX, BPF_F_NO_PREALLOC);
#[map]
static PAIRS: LruPerCpuHashMap<PairKey, Count> = LruPerCpuHashMap::with_max_entries(PAIRS_MAX, 0);
#[map]
static FLOWS: LruHashMap<FlowKey, u64> = LruHashMap::with_max_entries(FLOWS_MAX, 0);
#[map]
static DATAGRAMS: LruHashMap<DatagramKey, u32> = LruHashMap::with_max_entries(DATAGRAMS_MAX, 0);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT, 0);
#[map]
static GUARDS: HashMap<u32, GuardRow> = HashMap::with_max_entries(GUARDS_MAX, BPF_F_NO_PREALLOC);
#[map]
static REFUSED: PerCpuHashMap<u32, [u64; REFUSALS_MAX]> =
    PerCpuHashMap::with_max_entries(GUARDS_MAX, BPF_F_NO_PREALLOC);

#[classifier]
pub fn loco_ingress(ctx: TcContext) -> i32 {
    observe(&ctx, INGRESS);
    TC_ACT_UNSPEC
}

#[classifier]
pub fn loco_egress(ctx: TcContext) -> i32 {
    observe(&ctx, EGRESS);
    TC_ACT_UNSPEC
}

/// At a tap, of what the guest sends.
#[classifier]
pub fn loco_guard(ctx: TcContext) -> i32 {
    // SAFETY: the kernel gives a context that is valid while the program runs.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    let Some(row) = GUARDS.get_ptr_mut(ifindex) else { return TC_ACT_UNSPEC };
    let (head, _) = head(&ctx);
    // SAFETY: rows are not removed while a program reads them; user space replaces one as a whole.
    match unsafe { judge(&head, &mut *row) } {
        Ok(()) => TC_ACT_UNSPEC,
        Err(refusal) => {
            if let Some(counts) = REFUSED.get_ptr_mut(ifindex) {
                // SAFETY: this CPU's own.
                if let Some(count) = unsafe { (*counts).get_mut(refusal as usize & (REFUSALS_MAX - 1)) } {
                    *count += 1;
                }
            }
            TC_ACT_SHOT
        }
    }
}

#[inline(always)]
fn judge(head: &Head, row: &mut GuardRow) -> Result<(), Refusal> {
    guard::length(head)?;
    if row.flags & GUARD_SOURCE != 0 {
        guard::source(head, row.mac)?;
    }
    if row.flags & GUARD_SERVERS != 0 {
        guard::server(head)?;
    }
    if row.flags & GUARD_STORM != 0 && guard::is_group(head) {
        // SAFETY: a clock. Of two CPUs that take at once one may take for nothing.
        let now = unsafe { bpf_ktime_get_coarse_ns() };
        let from = if row.full_at > now { row.full_at } else { now };
        if from - now + row.interval_ns > row.burst_ns {
            return Err(Refusal::Storm);
        }
        row.full_at = from + row.interval_ns;
    }
    Ok(())
}

/// At a tunnel, of what other nodes send: answers their question whether this node is there.
#[classifier]
pub fn loco_answer(ctx: TcContext) -> i32 {
    // SAFETY: as above.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    let (head, _) = head(&ctx);
    let asks = head.octets::<2>(12) == Some(probe::ETHERTYPE)
        && head.octets::<4>(14) == Some(probe::MAGIC)
        && head.octets::<1>(probe::KIND_AT) == Some([probe::ASK]);
    if !asks {
        return TC_ACT_UNSPEC;
    }
    let Some(row) = GUARDS.get_ptr(ifindex) else { return TC_ACT_UNSPEC };
    // By way of the stack: six octets in one register are more than the verifier follows.
    let mut cards = [0_u8; 12];
    // SAFETY: the kernel checks the place in the frame, and writes as many octets as there are on the stack.
    if unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), 0, (&raw mut cards).cast(), 12) } != 0 {
        return TC_ACT_UNSPEC;
    }
    let [a, b, c, d, e, f, from @ ..] = cards;
    // SAFETY: rows are not removed while a program reads them.
    if unsafe { (*row).mac } != [a, b, c, d, e, f] || from[0] & 1 != 0 {
        return TC_ACT_UNSPEC;
    }
    let [g, h, i, j, k, l] = from;
    let turned = [g, h, i, j, k, l, a, b, c, d, e, f];
    let kind = probe::ANSWER;
    // SAFETY: the sources are on the stack, of the lengths that are given; the kernel checks the places in the frame.
    unsafe {
        let skb = ctx.skb.skb;
        if bpf_skb_store_bytes(skb, 0, (&raw const turned).cast(), 12, 0) != 0
            || bpf_skb_store_bytes(skb, probe::KIND_AT as u32, (&raw const kind).cast(), 1, 0) != 0
        {
            return TC_ACT_SHOT;
        }
        bpf_redirect(ifindex, 0) as i32
    }
}

/// The part of a frame that lies in one piece.
struct Head {
    data: usize,
    end: usize,
    wire_len: u32,
}

impl Octets for Head {
    #[inline(always)]
    fn octets<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut from = self.data + at;
        // The verifier knows a pointer as checked by its register's history: what is compared and what is read must be
        // one value, and not two of which the optimiser knows that they are equal.
        // SAFETY: a move of a register to itself; nothing at all would leave two lines for one instruction, which the
        // kernel refuses.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) from, options(pure, nomem, preserves_flags, nostack)) };
        if from + N > self.end {
            return None;
        }
        // SAFETY: within data and end, which the verifier checks once more.
        Some(unsafe { *(from as *const [u8; N]) })
    }

    #[inline(always)]
    fn wire_len(&self) -> u32 {
        self.wire_len
    }
}

/// The front of the frame, and the tag that the kernel took out of it: its control information and its type.
#[inline(always)]
fn head(ctx: &TcContext) -> (Head, Option<(u16, u16)>) {
    let len = ctx.len();
    // Only where the front of the frame is not in one piece, which taps do not do to frames of this size.
    if ctx.data() + HEAD_LEN > ctx.data_end() && ctx.data() + (len as usize) > ctx.data_end() {
        // What cannot be pulled is judged by what is there.
        let _ = ctx.pull_data(if (len as usize) < HEAD_LEN { len } else { HEAD_LEN as u32 });
    }
    // SAFETY: the kernel gives a context that is valid while the program runs; the verifier checks each field.
    let (vlan, tci, kind) = unsafe {
        let skb = ctx.skb.skb;
        ((*skb).vlan_present != 0, (*skb).vlan_tci as u16, (*skb).vlan_proto as u16)
    };
    // The kernel takes the tag out of a frame before anybody sees it, and puts it back at the very end.
    let wire_len = if vlan { len + 4 } else { len };
    let tag = if vlan { Some((tci, kind)) } else { None };
    (Head { data: ctx.data(), end: ctx.data_end(), wire_len }, tag)
}

struct Seen {
    ifindex: u32,
    direction: u8,
    class: u8,
    len: u32,
    wire_len: u32,
    vlan_tci: u16,
    vlan_type: u16,
}

#[inline(always)]
fn observe(ctx: &TcContext, direction: u8) {
    let len = ctx.len();
    let (head, tag) = head(ctx);
    let wire_len = head.wire_len;
    // SAFETY: the kernel gives a context that is valid while the program runs.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    let class = if tag.is_some() { TrafficClass::Vlan } else { classify(&head) };

    let Some(row) = PORTS.get_ptr_mut(PortKey { ifindex, direction: u32::from(direction) }) else {
        return lose(Loss::NoRow);
    };
    // SAFETY: a row of this CPU's own; programs on one CPU do not interrupt each other at one device and direction.
    let row = unsafe { &mut *row };
    let Some(count) = row.classes.get_mut((class as usize) & (CLASSES_MAX - 1)) else { return };
    count.frames += 1;
    count.bytes += u64::from(wire_len);
    if row.flags & FLAG_PAIRS != 0 {
        pair(&head, ifindex, direction, wire_len);
    }
    if row.flags & FLAG_EVENTS == 0 {
        return;
    }
    let (vlan_tci, vlan_type) = tag.unwrap_or((0, 0));
    let seen = Seen { ifindex, direction, class: class as u8, len, wire_len, vlan_tci, vlan_type };
    match select(&head, class) {
        Selection::Show(tier) => show(ctx, row, &seen, tier),
        Selection::ShowDatagram(tier, datagram) => {
            // Where it cannot be noted its other fragments are not shown.
            let _ = DATAGRAMS.insert(datagram_key(&seen, &datagram), tier as u32, 0);
            show(ctx, row, &seen, tier);
        }
        Selection::Fragment(datagram) => {
            let tier = DATAGRAMS.get_ptr(datagram_key(&seen, &datagram));
            // SAFETY: rows of this map are one number, which is always whole.
            if let Some(tier) = tier.and_then(|tier| Tier::from_u32(unsafe { *tier })) {
                show(ctx, row, &seen, tier);
            }
        }
        Selection::First(flow) => {
            if is_first(&seen, flow) {
                show(ctx, row, &seen, Tier::Other);
            }
        }
        Selection::Nothing => {}
    }
}

#[inline(always)]
fn pair(head: &Head, ifindex: u32, direction: u8, wire_len: u32) {
    let (Some(destination), Some(source)) = (head.octets::<6>(0), head.octets::<6>(6)) else { return };
    let group = destination[0] & 1;
    let peer = match (direction, group) {
        (EGRESS, _) => source,
        (_, 0) => destination,
        _ => [0xff; 6],
    };
    let key = PairKey { ifindex, direction, group, peer };
    let found = match PAIRS.get_ptr_mut(key) {
        Some(found) => Some(found),
        None => {
            // Another CPU may be faster; then it is there as well.
            let _ = PAIRS.insert(key, Count { frames: 0, bytes: 0 }, u64::from(BPF_NOEXIST));
            PAIRS.get_ptr_mut(key)
        }
    };
    match found {
        // SAFETY: this CPU's own.
        Some(count) => unsafe {
            (*count).frames += 1;
            (*count).bytes += u64::from(wire_len);
        },
        None => lose(Loss::NoPair),
    }
}

#[inline(always)]
fn datagram_key(seen: &Seen, datagram: &Datagram) -> DatagramKey {
    DatagramKey {
        ifindex: seen.ifindex,
        source: datagram.source,
        destination: datagram.destination,
        identification: datagram.identification,
        protocol: datagram.protocol,
        direction: seen.direction,
    }
}

#[inline(always)]
fn is_first(seen: &Seen, flow: FlowId) -> bool {
    let key = FlowKey { ifindex: seen.ifindex, flow, direction: seen.direction, zero: [0; 3] };
    // SAFETY: a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let Some(last) = FLOWS.get_ptr_mut(key) else {
        // Where it cannot be noted it is shown again.
        let _ = FLOWS.insert(key, now, 0);
        return true;
    };
    // SAFETY: rows of this map are one number, which is always whole.
    let silent = now.saturating_sub(unsafe { *last });
    if silent > FLOW_TOUCH_NS {
        // SAFETY: as above; of two CPUs that write, either is right.
        unsafe { *last = now };
    }
    silent > FLOW_IDLE_NS
}

/// Takes the event from its tier's bucket (generic cell rate algorithm: one number and no timer).
#[inline(always)]
fn is_granted(row: &mut PortRow, tier: Tier) -> bool {
    // SAFETY: a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let full_at = match tier {
        Tier::Control => &mut row.full_at[0],
        Tier::Game => &mut row.full_at[1],
        Tier::Other => &mut row.full_at[2],
    };
    let from = if *full_at > now { *full_at } else { now };
    if from - now > Tier::BURST_NS {
        return false;
    }
    *full_at = from + tier.interval_ns();
    true
}

#[inline(always)]
fn show(ctx: &TcContext, row: &mut PortRow, seen: &Seen, tier: Tier) {
    if !is_granted(row, tier) {
        return lose(Loss::storm(tier));
    }
    let fill = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    if !matches!(tier, Tier::Control) && fill > EVENTS_RESERVE_AT {
        return lose(Loss::RingFull);
    }
    let flags = if fill >= EVENTS_WAKE_AT && fill < EVENTS_WAKE_TO { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    if seen.len <= RECORD_SMALL as u32 {
        record::<RECORD_SMALL>(ctx, seen, flags);
    } else if seen.len <= RECORD_MIDDLE as u32 {
        record::<RECORD_MIDDLE>(ctx, seen, flags);
    } else {
        record::<FRAME_MAX>(ctx, seen, flags);
    }
}

/// A record whose size the verifier can see.
#[repr(C)]
struct Record<const N: usize> {
    header: EventHeader,
    bytes: [u8; N],
}
const _: () = assert!(EVENT_HEADER_LEN == 24);

#[inline(always)]
fn record<const N: usize>(ctx: &TcContext, seen: &Seen, flags: u32) {
    let Some(mut entry) = EVENTS.reserve::<Record<N>>(0) else {
        return lose(Loss::RingFull);
    };
    let captured = if seen.len > N as u32 { N as u32 } else { seen.len };
    let at = entry.as_mut_ptr();
    // SAFETY: the entry has room for a record; `captured` is at least 1 and at most N.
    let outcome = unsafe {
        (*at).header = EventHeader {
            at_ns: bpf_ktime_get_ns(),
            ifindex: seen.ifindex,
            wire_len: seen.wire_len,
            captured: captured as u16,
            direction: seen.direction,
            class: seen.class,
            vlan_tci: seen.vlan_tci,
            vlan_type: seen.vlan_type,
        };
        if captured == 0 {
            -1
        } else {
            bpf_skb_load_bytes(ctx.skb.skb.cast(), 0, (&raw mut (*at).bytes).cast(), captured)
        }
    };
    if outcome == 0 {
        entry.submit(u64::from(flags));
    } else {
        entry.discard(u64::from(BPF_RB_NO_WAKEUP));
        lose(Loss::Unread);
    }
}

#[inline(always)]
fn lose(loss: Loss) {
    if let Some(count) = LOST.get_ptr_mut(loss as u32) {
        // SAFETY: this CPU's own.
        unsafe { *count += 1 };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier refuses a program that could come here.
    loop {}
}

/// Which helpers the kernel lends depends on it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
