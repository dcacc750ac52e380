//! QEMU's D-Bus display, as a listener: both shared-memory scanouts and pixels by message.
//!
//! A shared scanout is *read*, not mapped: `pread` of the damaged rows. A mapping would die with SIGBUS if QEMU, taken
//! over by its guest, shrank the memfd under us; `pread` comes back short, which is an error like any other. It costs
//! one copy of the damaged rows, 0.1 ms for a whole 640x480 picture.
use std::{
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use zbus::{Connection, Message, zvariant};

use crate::{
    AttachError, Screen, Size,
    bus::{self, CallError, Serve},
    frame::{BadPicture, Layout, Rect},
};

const LISTENER: &str = "org.qemu.Display1.Listener";
const UNIX_MAP: &str = "org.qemu.Display1.Listener.Unix.Map";

/// A standing display connection; dropping it ends it.
#[derive(Debug)]
pub struct DisplayConnection {
    bus: Connection,
    listener: Connection,
    has_picture: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl DisplayConnection {
    /// Whether QEMU has sent a whole picture over this connection. One that is the same as the screen's is no change of the screen, so
    /// its generation does not tell: a guest that draws nothing is as live as any other.
    pub fn has_picture(&self) -> bool {
        self.has_picture.load(Ordering::Relaxed)
    }

    /// Resolves when QEMU's end of either connection is gone.
    pub async fn closed(&self) {
        tokio::select! { () = self.bus.closed() => {}, () = self.listener.closed() => {} }
    }
}

impl Drop for DisplayConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves the listener on connections that are past `BEGIN`; `RegisterListener` has been called on `bus`.
///
/// Call it inside a tokio runtime. The picture arrives on `screen` soon after; [`DisplayConnection::has_picture`] says when.
pub async fn attach(
    bus: OwnedFd,
    bus_guid: &str,
    listener: OwnedFd,
    listener_guid: &str,
    screen: Arc<Screen>,
) -> Result<DisplayConnection, AttachError> {
    let (listener, calls) = bus::connect("display listener", listener, listener_guid).await?;
    // Its stream of messages is dropped: nothing is asked on it, it only has to stand.
    let (bus, _) = bus::connect("display", bus, bus_guid).await?;
    let has_picture = Arc::new(AtomicBool::new(false));
    let service = Listener { screen, has_picture: Arc::clone(&has_picture), shared: None, buffer: Vec::new() };
    let task = tokio::spawn(bus::serve(listener.clone(), calls, service));
    Ok(DisplayConnection { bus, listener, has_picture, task })
}

/// A scanout that QEMU shares.
struct Shared {
    memory: std::fs::File,
    offset: u64,
    layout: Layout,
}

struct Listener {
    screen: Arc<Screen>,
    has_picture: Arc<AtomicBool>,
    shared: Option<Shared>,
    buffer: Vec<u8>,
}

impl Serve for Listener {
    const WHAT: &'static str = "display";
    const INTERFACES: &'static [&'static str] = &[UNIX_MAP];

    fn call(&mut self, interface: &str, member: &str, message: &Message) -> Result<(), CallError> {
        let body = message.body();
        match (interface, member) {
            (LISTENER, "Scanout") => {
                let (width, height, stride, format, data): (u32, u32, u32, u32, &[u8]) = body.deserialize()?;
                self.shared = None;
                let size = Size { width, height };
                self.screen.scanout(size, Layout::checked(size, stride, format)?, data)?;
                self.has_picture.store(true, Ordering::Relaxed);
            }
            (LISTENER, "Update") => {
                let (x, y, w, h, stride, format, data): (i32, i32, i32, i32, u32, u32, &[u8]) = body.deserialize()?;
                if w == 0 || h == 0 {
                    return Ok(());
                }
                self.screen.update(|frame| {
                    let rect = frame.rect(x, y, w, h)?;
                    let size = Size { width: w.cast_unsigned(), height: h.cast_unsigned() };
                    frame.write(rect, Layout::checked(size, stride, format)?, data, SystemTime::now())
                })?;
            }
            (UNIX_MAP, "ScanoutMap") => {
                type Map = (zvariant::OwnedFd, u32, u32, u32, u32, u32);
                let (fd, offset, width, height, stride, format): Map = body.deserialize()?;
                self.shared = None;
                let size = Size { width, height };
                let layout = Layout::checked(size, stride, format)?;
                let shared = Shared { memory: OwnedFd::from(fd).into(), offset: offset.into(), layout };
                shared.read(&mut self.buffer, Rect { x: 0, y: 0, width: width as usize, height: height as usize })?;
                self.screen.scanout(size, layout, &self.buffer)?;
                self.has_picture.store(true, Ordering::Relaxed);
                self.shared = Some(shared);
            }
            (UNIX_MAP, "UpdateMap") => {
                let (x, y, w, h): (i32, i32, i32, i32) = body.deserialize()?;
                let shared = self.shared.as_ref().ok_or(BadPicture::NoPicture)?;
                let rect = self.screen.lock().rect(x, y, w, h)?;
                if rect.width == 0 || rect.height == 0 {
                    return Ok(());
                }
                shared.read(&mut self.buffer, rect)?;
                // Only this task changes the size, so the rectangle still fits.
                self.screen.update(|frame| frame.write(rect, shared.layout, &self.buffer, SystemTime::now()))?;
            }
            (LISTENER, "MouseSet") => {
                let (x, y, on): (i32, i32, i32) = body.deserialize()?;
                self.change_cursor(|cursor| cursor.place(x, y, on != 0));
            }
            (LISTENER, "CursorDefine") => {
                let (width, height, hot_x, hot_y, data): (i32, i32, i32, i32, &[u8]) = body.deserialize()?;
                let pixels: Vec<u32> =
                    data.chunks_exact(4).map(|p| u32::from_le_bytes([p[0], p[1], p[2], p[3]])).collect();
                self.change_cursor(|cursor| cursor.define(width, height, hot_x, hot_y, &pixels));
            }
            // The console has no surface now; the last picture stays until the next scanout.
            (LISTENER, "Disable") => self.shared = None,
            _ => return Err(CallError::Unknown),
        }
        Ok(())
    }

    fn gone(&mut self) {
        self.shared = None;
    }
}

impl Listener {
    fn change_cursor(&self, change: impl FnOnce(&mut crate::cursor::Cursor)) {
        let Ok(()) = self.screen.update::<std::convert::Infallible>(|f| Ok(f.change_cursor(SystemTime::now(), change)));
    }
}

impl Shared {
    /// Fills `buffer` with the rows of `rect`, in the same layout as in the shared memory.
    fn read(&self, buffer: &mut Vec<u8>, rect: Rect) -> Result<(), CallError> {
        let start = rect.y * self.layout.stride + rect.x * self.layout.format.bytes_per_pixel();
        buffer.resize(self.layout.span(rect.width, rect.height), 0);
        self.memory.read_exact_at(buffer, self.offset + start as u64).map_err(|error| {
            CallError::Refused(format!("shared scanout of {} bytes at {start} cannot be read: {error}", buffer.len()))
        })
    }
}

impl From<BadPicture> for CallError {
    fn from(error: BadPicture) -> Self {
        Self::Refused(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsFd, unix::net::UnixStream};

    use zbus::zvariant::Fd;

    use super::*;

    const GUID: &str = "0123456789abcdef0123456789abcdef";
    const XRGB: u32 = 0x2002_0888;

    struct Qemu {
        listener: Connection,
        bus: Option<OwnedFd>,
        screen: Arc<Screen>,
        display: DisplayConnection,
    }

    /// Our listener at one end of real sockets, and a zbus client in QEMU's place at the other.
    async fn qemu() -> Qemu {
        qemu_of(Screen::new()).await
    }

    async fn qemu_of(screen: Arc<Screen>) -> Qemu {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (bus_ours, bus_theirs) = UnixStream::pair().unwrap();
        let display = attach(bus_ours.into(), GUID, ours.into(), GUID, screen.clone()).await.unwrap();
        let (listener, _) = bus::connect("test", theirs.into(), GUID).await.unwrap();
        Qemu { listener, bus: Some(bus_theirs.into()), screen, display }
    }

    impl Qemu {
        async fn call<B>(&self, interface: &str, member: &str, body: &B) -> zbus::Result<Message>
        where
            B: serde::Serialize + zvariant::DynamicType,
        {
            let call =
                self.listener.call_method(None::<&str>, "/org/qemu/Display1/Listener", Some(interface), member, body);
            tokio::time::timeout(std::time::Duration::from_secs(5), call).await.expect("an answer within 5 s")
        }

        fn row(&self, y: usize) -> Vec<u32> {
            self.screen.lock().row(y, &mut vec![]).to_vec()
        }
    }

    fn pixels(colour: u32, count: usize) -> Vec<u8> {
        colour.to_le_bytes().repeat(count)
    }

    #[tokio::test]
    async fn both_scanouts_and_switching_between_them() {
        let qemu = qemu().await;
        let all = qemu.call("org.freedesktop.DBus.Properties", "GetAll", &LISTENER).await.unwrap();
        let all: std::collections::HashMap<String, zvariant::OwnedValue> = all.body().deserialize().unwrap();
        assert_eq!(all["Interfaces"], zvariant::Value::from(vec![UNIX_MAP]).try_to_owned().unwrap());

        let memory = nix::sys::memfd::memfd_create("scanout", nix::sys::memfd::MFdFlags::empty()).unwrap();
        let memory = std::fs::File::from(memory);
        memory.write_all_at(&pixels(5, 4 * 3), 64).unwrap();
        qemu.call(UNIX_MAP, "ScanoutMap", &(Fd::from(memory.as_fd()), 64u32, 4u32, 3u32, 16u32, XRGB)).await.unwrap();
        assert_eq!((qemu.row(0), qemu.row(2)), (vec![5; 4], vec![5; 4]));
        memory.write_all_at(&pixels(6, 8), 64 + 16).unwrap();
        qemu.call(UNIX_MAP, "UpdateMap", &(0i32, 1i32, 4i32, 1i32)).await.unwrap();
        assert_eq!((qemu.row(1), qemu.row(2)), (vec![6; 4], vec![5; 4]), "only what QEMU called damaged is read");

        let data = serde_bytes::ByteBuf::from(pixels(7, 6));
        qemu.call(LISTENER, "Scanout", &(3u32, 2u32, 12u32, XRGB, &data)).await.unwrap();
        assert_eq!(*qemu.screen.size().borrow(), Some(Size { width: 3, height: 2 }));
        let data = serde_bytes::ByteBuf::from(pixels(8, 2));
        qemu.call(LISTENER, "Update", &(1i32, 1i32, 2i32, 1i32, 8u32, XRGB, &data)).await.unwrap();
        assert_eq!(qemu.row(1), [7, 8, 8]);
        assert!(qemu.call(UNIX_MAP, "UpdateMap", &(0i32, 0i32, 1i32, 1i32)).await.is_err(), "the map is gone");
    }

    #[tokio::test]
    async fn a_second_connection_that_brings_the_same_picture_has_one() {
        let screen = Screen::new();
        let pixels = serde_bytes::ByteBuf::from(pixels(7, 6));
        let mut generations = Vec::new();
        for _ in 0..2 {
            let qemu = qemu_of(Arc::clone(&screen)).await;
            assert!(!qemu.display.has_picture(), "what an earlier connection brought is not this one's");
            assert!(qemu.call(LISTENER, "Scanout", &("what",)).await.is_err());
            assert!(!qemu.display.has_picture());
            qemu.call(LISTENER, "Scanout", &(3u32, 2u32, 12u32, XRGB, &pixels)).await.unwrap();
            assert!(qemu.display.has_picture());
            generations.push(screen.generation());
        }
        assert_eq!(generations[0], generations[1], "the same picture is no change");
    }

    #[tokio::test]
    async fn hostile_calls_are_refused_and_the_connection_goes_on() {
        let qemu = qemu().await;
        let data = serde_bytes::ByteBuf::from(vec![1; 16]);
        assert!(qemu.call(LISTENER, "Scanout", &(u32::MAX, u32::MAX, u32::MAX, XRGB, &data)).await.is_err());
        assert!(qemu.call(LISTENER, "Scanout", &(4u32, 4u32, 16u32, XRGB, &data)).await.is_err(), "too few pixels");
        assert!(qemu.call(LISTENER, "Scanout", &("what",)).await.is_err());
        assert!(qemu.call(LISTENER, "Nonsense", &()).await.is_err());
        let update = (i32::MAX, -1i32, i32::MIN, 7i32, 0u32, 0u32, &data);
        assert!(qemu.call(LISTENER, "Update", &update).await.is_err());
        qemu.call(LISTENER, "CursorDefine", &(i32::MAX, 2i32, 9i32, 9i32, &data)).await.unwrap();
        qemu.call(LISTENER, "MouseSet", &(i32::MIN, i32::MAX, 1i32)).await.unwrap();
        assert!(qemu.screen.size().borrow().is_none());
        qemu.call(LISTENER, "Scanout", &(2u32, 2u32, 8u32, XRGB, &data)).await.unwrap();
        assert_eq!(qemu.row(1), [0x0001_0101; 2]);
    }

    #[tokio::test]
    async fn memory_that_shrinks_under_us_is_an_error_and_no_signal() {
        let qemu = qemu().await;
        let memory = nix::sys::memfd::memfd_create("scanout", nix::sys::memfd::MFdFlags::empty()).unwrap();
        let memory = std::fs::File::from(memory);
        memory.set_len(1 << 20).unwrap();
        qemu.call(UNIX_MAP, "ScanoutMap", &(Fd::from(memory.as_fd()), 0u32, 64u32, 64u32, 256u32, XRGB)).await.unwrap();
        memory.set_len(100).unwrap();
        let error = qemu.call(UNIX_MAP, "UpdateMap", &(0i32, 0i32, 64i32, 64i32)).await.unwrap_err();
        assert!(error.to_string().contains("cannot be read"), "{error}");
        qemu.call(LISTENER, "Disable", &()).await.unwrap();
    }

    #[tokio::test]
    async fn either_socket_closing_ends_the_connection() {
        let mut qemu = qemu().await;
        let closed = |q: &Qemu| futures_util::FutureExt::now_or_never(q.display.closed()).is_some();
        assert!(!closed(&qemu));
        qemu.bus = None;
        tokio::time::timeout(std::time::Duration::from_secs(5), qemu.display.closed()).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_socket_is_named() {
        let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let error = attach(file(), GUID, file(), GUID, Screen::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "the socket of the display listener connection cannot be used");
    }
}
