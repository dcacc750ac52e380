//! The frame buffer of one guest, shared by what feeds it (QEMU) and what reads it (encoders, screenshots).
//!
//! **Invariants.** One mutex, held for a copy or a conversion and never across an await; readers are threads that wait
//! on the condition variable. A picture stays when QEMU goes, so that a page shows the last thing seen.
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;

use crate::frame::{BadPicture, Frame, Layout};

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

/// A guest's picture.
#[derive(Debug)]
pub struct Screen {
    frame: Mutex<Frame>,
    /// Signalled on damage, and by [`Self::wake`].
    changed: Condvar,
    size: watch::Sender<Option<Size>>,
}

impl Screen {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { frame: Mutex::new(Frame::new()), changed: Condvar::new(), size: watch::Sender::new(None) })
    }

    /// The picture's size as it changes; `None` until the first picture has arrived.
    pub fn size(&self) -> watch::Receiver<Option<Size>> {
        self.size.subscribe()
    }

    /// Grows with every change of the picture; 0 before the first one.
    pub fn generation(&self) -> u64 {
        self.lock().generation()
    }

    /// The picture as a PNG file; `None` until there is one.
    pub async fn screenshot_png(self: &Arc<Self>) -> Option<Vec<u8>> {
        let screen = Arc::clone(self);
        // Compressing takes some 10 ms of a core: not on a thread that serves sockets.
        tokio::task::spawn_blocking(move || screen.png()).await.ok().flatten()
    }

    fn png(&self) -> Option<Vec<u8>> {
        let (size, rgb) = {
            let frame = self.lock();
            let size = frame.size()?;
            let mut rgb = Vec::with_capacity(size.width as usize * size.height as usize * 3);
            let mut scratch = Vec::new();
            for y in 0..size.height as usize {
                for pixel in frame.row(y, &mut scratch) {
                    let [b, g, r, _] = pixel.to_le_bytes();
                    rgb.extend_from_slice(&[r, g, b]);
                }
            }
            (size, rgb)
        };
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, size.width, size.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        encoder.write_header().and_then(|mut w| w.write_image_data(&rgb)).ok()?;
        Some(file)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Frame> {
        // A panic while the lock was held can only have left a half-copied picture, which the next update repairs.
        self.frame.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A whole picture from QEMU.
    pub(crate) fn scanout(&self, size: Size, layout: Layout, bytes: &[u8]) -> Result<(), BadPicture> {
        if self.lock().scanout(size, layout, bytes, SystemTime::now())? {
            self.changed.notify_all();
        }
        self.size.send_if_modified(|old| old.replace(size) != Some(size));
        Ok(())
    }

    /// Some change made under the lock; `change` says whether there was one.
    pub(crate) fn update<E>(&self, change: impl FnOnce(&mut Frame) -> Result<bool, E>) -> Result<(), E> {
        if change(&mut self.lock())? {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Makes everybody in [`Self::wait`] look again.
    pub(crate) fn wake(&self) {
        // Taking the lock orders this after a waiter's look at its condition, so that no wake-up is lost.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Waits until `ready` or `deadline`; whoever makes `ready` true by other means than damage calls [`Self::wake`].
    pub(crate) fn wait(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut(&Frame) -> bool,
    ) -> MutexGuard<'_, Frame> {
        let mut frame = self.lock();
        loop {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if ready(&frame) || left == Some(Duration::ZERO) {
                return frame;
            }
            frame = match left {
                Some(left) => self.changed.wait_timeout(frame, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(frame).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_screenshot_shows_the_pixels() {
        let screen = Screen::new();
        assert!(screen.screenshot_png().await.is_none());
        let size = Size { width: 2, height: 1 };
        let layout = Layout::checked(size, 8, 0x2002_0888).unwrap();
        screen.scanout(size, layout, &[3, 2, 1, 0, 6, 5, 4, 0]).unwrap();
        assert_eq!(*screen.size().borrow(), Some(size));
        let file = screen.screenshot_png().await.unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = [0; 6];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_wake_reaches_a_waiter() {
        let screen = Screen::new();
        let flag = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (s, f) = (screen.clone(), flag.clone());
        let waiter = std::thread::spawn(move || {
            drop(s.wait(None, |_| f.load(std::sync::atomic::Ordering::Acquire)));
        });
        flag.store(true, std::sync::atomic::Ordering::Release);
        screen.wake();
        waiter.join().unwrap();
    }
}
