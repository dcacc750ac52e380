//! The crash screen: whatever goes wrong is seen on the picture and on the serial line, and then nothing moves any more.
use crate::machine::{interrupt, video};
use crate::say;
use core::panic::PanicInfo;
use demo_guest::art::canvas::{Canvas, Rect};
use demo_guest::art::font::{self, Style};
use demo_guest::text::Text;

const NAMES: [&str; 20] = [
    "divide error",
    "debug",
    "NMI",
    "breakpoint",
    "overflow",
    "bound range",
    "invalid opcode",
    "no coprocessor",
    "double fault",
    "coprocessor overrun",
    "invalid TSS",
    "segment not present",
    "stack fault",
    "general protection",
    "page fault",
    "reserved",
    "x87 error",
    "alignment check",
    "machine check",
    "SIMD error",
];

/// Called by boot.s on a stack of its own.
#[expect(unsafe_code, reason = "boot.s calls it by name")]
#[unsafe(no_mangle)]
extern "C" fn exception(vector: u64, error: u64, rip: u64, rsp: u64) -> ! {
    let name = NAMES.get(vector as usize).copied().unwrap_or("unknown exception");
    show(
        &Text::of(format_args!("Processor exception {vector}: {name}")),
        &Text::of(format_args!("error {error:#x}, rip {rip:#x}, rsp {rsp:#x}")),
    )
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    let place = info.location().map_or(Text::EMPTY, |l| Text::of(format_args!("{}:{}", l.file(), l.line())));
    show(&Text::of(info.message()), &place)
}

fn show(what: &Text<160>, place: &Text<160>) -> ! {
    say!("LOCO crash {what} ({place})");
    if let Some(pixels) = video::start() {
        let mut canvas = Canvas::new(pixels);
        canvas.gradient(Rect::SCREEN, 0xa81c1c, 0x5c0d0d);
        canvas.rounded(Rect::new(40, 120, 560, 240), 16, 0xfdf8ea, 256);
        canvas.rounded(Rect::new(46, 126, 548, 228), 12, 0x7a1414, 256);
        font::centred(&mut canvas, 320, 150, "The guest has crashed", Style::new(24, 70, 0xfdf8ea));
        for (i, part) in [what, place].into_iter().enumerate() {
            lines(&mut canvas, 222 + i as i32 * 56, part.as_str());
        }
        font::centred(&mut canvas, 320, 330, "Reset it to go on.", Style::new(11, 28, 0xf2c14e));
    }
    interrupt::halt()
}

/// Two lines at most; what is longer stands on the serial line.
fn lines(canvas: &mut Canvas, y: i32, text: &str) {
    let style = Style::new(10, 24, 0xffe3dc);
    let mut rest = text;
    for row in 0..2 {
        let mut end = rest.len();
        while font::width(&rest[..end], style) > 520 {
            end = rest[..end].char_indices().next_back().map_or(0, |(i, _)| i);
        }
        font::centred(canvas, 320, y + row * 20, &rest[..end], style);
        rest = &rest[end..];
    }
}
