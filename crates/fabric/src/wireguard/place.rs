//! The namespace that leads through WireGuard only: `lo`, the device, and VXLAN's sockets. No guest's frame is ever in it but inside
//! VXLAN, and nothing in it has another way out.
use std::{
    collections::BTreeSet,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    address::AddressAttribute,
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAttribute, RouteHeader, RouteScope},
};
use rtnetlink::{Handle, LinkUnspec, LinkWireguard, RouteMessageBuilder};

use super::{
    DEVICE,
    plan::{Datapath, Device, QUEUE, Step},
};
use crate::{
    FabricError,
    kernel::io_error,
    netns,
    tap::{self, Shape, TapError},
};

/// Made and removed to see whether it can be made.
const TRIAL: &str = "locowgtrial";

#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    file: File,
    handle: Handle,
    /// Of the node: the kernel's WireGuard keeps its UDP socket in the namespace from which it was asked for.
    node: Handle,
}

impl Place {
    pub(super) const fn new(path: PathBuf, file: File, handle: Handle, node: Handle) -> Self {
        Self { path, file, handle, node }
    }

    pub(super) const fn namespace(&self) -> &File {
        &self.file
    }

    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// `true`: it had to be mounted again.
    ///
    /// # Errors
    /// A sentence with the remedy.
    pub(super) fn keep_mounted(&self) -> Result<bool, String> {
        if netns::is_at(&self.path, &self.file) {
            Ok(false)
        } else {
            netns::mount_again(&self.path, &self.file).map(|()| true)
        }
    }

    pub(super) async fn observe(&self) -> Result<Option<Device>, rtnetlink::Error> {
        let Some(link) = find(&self.handle, DEVICE).await? else { return Ok(None) };
        let mut device = Device {
            index: link.header.index,
            kind: None,
            mtu: 0,
            queue: 0,
            up: link.header.flags.contains(LinkFlags::Up),
            addresses: BTreeSet::new(),
            routed: false,
            refused: 0,
        };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
                LinkAttribute::TxQueueLen(packets) => device.queue = *packets,
                LinkAttribute::Stats64(stats) => device.refused = stats.rx_errors + stats.rx_dropped,
                LinkAttribute::LinkInfo(infos) => {
                    device.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(InfoKind::Wireguard) => Some(Datapath::Kernel),
                        LinkInfo::Kind(InfoKind::Tun) => Some(Datapath::User),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        if device.kind != Some(Datapath::Kernel) {
            device.refused = 0;
        }
        let mut addresses = Box::pin(self.handle.address().get().set_link_index_filter(device.index).execute());
        while let Some(address) = addresses.try_next().await? {
            device.addresses.extend(address.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                _ => None,
            }));
        }
        let mut routes = Box::pin(self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute());
        while let Some(route) = routes.try_next().await? {
            device.routed |= route.header.table == RouteHeader::RT_TABLE_MAIN
                && route.header.destination_prefix_length == 0
                && route.attributes.contains(&RouteAttribute::Oif(device.index));
        }
        Ok(Some(device))
    }

    async fn index(&self) -> Result<u32, rtnetlink::Error> {
        find(&self.handle, DEVICE).await?.map(|link| link.header.index).ok_or(rtnetlink::Error::RequestFailed)
    }

    /// The error is a sentence with the remedy.
    pub(super) async fn perform(&self, step: Step) -> Result<(), String> {
        if step == Step::Create(Datapath::User) {
            return self.open_tun().map(drop);
        }
        self.perform_netlink(step).await.map_err(|error| {
            let (error, what) = (io_error(&error), words(step));
            match error.raw_os_error() {
                Some(nix::libc::EPERM) => format!("could not {what}: the agent needs CAP_NET_ADMIN"),
                _ => format!("could not {what}: {error}; it is tried again every second"),
            }
        })
    }

    async fn perform_netlink(&self, step: Step) -> Result<(), rtnetlink::Error> {
        match step {
            Step::Create(Datapath::User) => Ok(()),
            Step::Create(Datapath::Kernel) => self.create_in_kernel(DEVICE).await,
            Step::Delete => self.handle.link().del(self.index().await?).execute().await,
            Step::SetMtu(mtu) => {
                let link = LinkUnspec::new_with_index(self.index().await?).mtu(mtu).build();
                self.handle.link().set(link).execute().await
            }
            Step::SetQueue => {
                let mut link = LinkUnspec::new_with_index(self.index().await?).build();
                link.attributes.push(LinkAttribute::TxQueueLen(QUEUE));
                self.handle.link().set(link).execute().await
            }
            Step::SetUp => {
                let link = LinkUnspec::new_with_index(self.index().await?).up().build();
                self.handle.link().set(link).execute().await
            }
            Step::AddAddress(address) => {
                self.handle.address().add(self.index().await?, address.into(), 32).execute().await
            }
            Step::RemoveAddress(address) => {
                let index = self.index().await?;
                let found = self.handle.address().get().set_link_index_filter(index).set_address_filter(address.into());
                let Some(row) = Box::pin(found.execute()).try_next().await? else { return Ok(()) };
                self.handle.address().del(row).execute().await
            }
            Step::AddRoute => {
                let index = self.index().await?;
                let route = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).scope(RouteScope::Link);
                self.handle.route().add(route.build()).replace().execute().await
            }
        }
    }

    async fn create_in_kernel(&self, name: &str) -> Result<(), rtnetlink::Error> {
        let link = LinkWireguard::new(name).setns_by_fd(self.file.as_raw_fd()).build();
        self.node.link().add(link).execute().await
    }

    /// Whether the kernel has WireGuard: it is asked for a device, which goes again.
    pub(super) async fn kernel_has_it(&self) -> bool {
        let made = match self.create_in_kernel(TRIAL).await {
            Ok(()) => true,
            // Left by an agent that was killed in between.
            Err(error) => io_error(&error).raw_os_error() == Some(nix::libc::EEXIST),
        };
        if made
            && let Ok(Some(link)) = find(&self.handle, TRIAL).await
            && let Err(error) = self.handle.link().del(link.header.index).execute().await
        {
            tracing::warn!(%error, "the link `{TRIAL}` of the tunnel's namespace stays");
        }
        made
    }

    /// The TUN device, made if it is not there; it stays when it is closed. The error is a sentence with the remedy.
    pub(super) fn open_tun(&self) -> Result<OwnedFd, String> {
        netns::inside(&self.file, || tap::open_persistent(DEVICE, Shape::Packets)).and_then(|opened| {
            opened.map_err(|error| match error {
                TapError::NoTun(error) => FabricError::NoTun(error).to_string(),
                TapError::Busy => format!("the device `{DEVICE}` is in use: another agent of this run directory still holds it; end that first"),
                TapError::Io(error) => format!("could not make `{DEVICE}`: {error}; the agent needs CAP_NET_ADMIN"),
            })
        })
    }
}

fn words(step: Step) -> String {
    match step {
        Step::Delete => format!("delete link `{DEVICE}`"),
        Step::Create(_) => format!("create link `{DEVICE}`"),
        Step::SetMtu(mtu) => format!("give `{DEVICE}` an MTU of {mtu}"),
        Step::SetQueue => format!("let {QUEUE} packets wait in `{DEVICE}`"),
        Step::RemoveAddress(address) => format!("take {address} from `{DEVICE}`"),
        Step::AddAddress(address) => format!("give {address} to `{DEVICE}`"),
        Step::SetUp => format!("set `{DEVICE}` up"),
        Step::AddRoute => format!("send everything through `{DEVICE}`"),
    }
}

/// Where the namespace of the fabric at `fabric` is.
pub(crate) fn path(fabric: &Path) -> PathBuf {
    let mut name = fabric.as_os_str().to_owned();
    name.push(".wireguard");
    name.into()
}

/// Deletes the device of the namespace at `path`, and with the kernel's WireGuard its open port. Nothing there is a success. The error
/// is a sentence with the remedy.
pub(crate) fn remove_device(path: &Path) -> Result<(), String> {
    if !netns::is_mounted(path) {
        return Ok(());
    }
    let failed = |error: &dyn std::fmt::Display| format!("could not delete `{DEVICE}`: {error}; delete it by hand");
    let namespace = File::open(path).map_err(|error| failed(&error))?;
    netns::inside(&namespace, || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
        runtime.block_on(async {
            let handle = crate::kernel::connect().map_err(|error| failed(&error))?;
            match find(&handle, DEVICE).await.map_err(|error| failed(&io_error(&error)))? {
                Some(link) => {
                    handle.link().del(link.header.index).execute().await.map_err(|error| failed(&io_error(&error)))
                }
                None => Ok(()),
            }
        })
    })?
}

async fn find(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, rtnetlink::Error> {
    match Box::pin(handle.link().get().match_name(name).execute()).try_next().await {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENODEV => Ok(None),
        other => other,
    }
}

/// Opens the namespace, which is made and settled if it is not there.
pub(super) fn open(path: &Path) -> Result<File, FabricError> {
    netns::ensure(path)?;
    for problem in netns::settle(path)? {
        tracing::warn!(problem, "the tunnel's namespace is not as desired");
    }
    File::open(path).map_err(|source: io::Error| FabricError::EnterNamespace { path: path.to_owned(), source })
}
