//! Little Junction on bare metal: the emulated PC, and the loop that joins it to the game (`lib.rs`).
//!
//! ```text
//! sleep until an interrupt -> input (mark first) -> network -> time -> draw what changed -> copy it to the screen -+
//!   ^                                                                                                              |
//!   +--------------------------------------------------------------------------------------------------------------+
//! ```
//!
//! **Invariants.** One loop, one stack, interrupts open only while it sleeps. Nothing waits without a bound. A crash is
//! painted (`crash.rs`).
#![no_std]
#![no_main]

mod boot;
mod crash;
mod machine;
mod net;
mod nic;

use demo_guest::args::Arguments;
use demo_guest::art::canvas::{HEIGHT, WIDTH};
use demo_guest::art::damage::Damage;
use demo_guest::game::{Config, Game, Layers, Notice};
use demo_guest::input::Event;
use demo_guest::sound;
use machine::clock::Power;
use machine::input::Input;
use machine::sound::Sound;
use machine::{interrupt, port, start_info, video};
use net::{Net, once};

/// How long the good-byes may take before the machine goes off, in ms.
const FAREWELL: u64 = 300;
type Picture = [u32; WIDTH * HEIGHT];

/// Entered by boot.s once, in 64-bit mode with a stack.
#[expect(unsafe_code, reason = "boot.s calls it by name")]
#[unsafe(no_mangle)]
extern "C" fn kmain() -> ! {
    let arguments = Arguments::parse(start_info::command_line());
    if arguments.probe {
        say!("READY");
        // isa-debug-exit: QEMU ends with status 2 * value + 1.
        port::outl(0xf4, 0x10);
        interrupt::halt()
    }
    say!("LOCO boot seat={} name={} autoplay={}", arguments.seat, arguments.name, u8::from(arguments.autoplay));
    interrupt::start(20);
    let Some(screen) = video::start() else {
        say!("LOCO crash no display card (use -vga std)");
        interrupt::halt()
    };
    let mut power = Power::new();
    let Some(nic) = nic::Nic::find() else { panic!("no network card (use -device pcnet or ne2k_pci)") };
    let (name, mac) = (nic.name(), nic.mac());
    // The counter tells two boots of one seat apart, the address two seats.
    let seed = rdtsc() ^ u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0]).rotate_left(16);
    let config = Config { seat: arguments.seat, name: arguments.name, autoplay: arguments.autoplay, seed };
    let mut machine = Machine {
        screen,
        layers: Layers {
            town: once!(Picture, [0; WIDTH * HEIGHT]),
            base: once!(Picture, [0; WIDTH * HEIGHT]),
            work: once!(Picture, [0; WIDTH * HEIGHT]),
        },
        game: once!(Option<Game>, None).insert(Game::new(config)),
        net: once!(Option<Net>, None).insert(Net::start(nic, arguments.ip, seed, power.micros() / 1000)),
        sound: Sound::find(),
        input: Input::start(),
        power,
        hz: 20,
        base_ms: rdtsc() % 1024,
    };
    say!("LOCO nic {name} sound {}", if machine.sound.is_some() { "sb16" } else { "none" });
    machine.game.set_address(machine.net.address());
    machine.draw();
    say!("LOCO ready");
    machine.run()
}

/// Everything there is.
struct Machine {
    screen: &'static mut [u32],
    layers: Layers<'static>,
    game: &'static mut Game,
    net: &'static mut Net,
    sound: Option<Sound>,
    input: Input,
    power: Power,
    /// Present rate of the timer.
    hz: u32,
    /// Start of time: not the same for all guests, or their timers would stay in step.
    base_ms: u64,
}

impl Machine {
    fn run(&mut self) -> ! {
        loop {
            let now = self.now();
            while let Some(event) = self.input.poll() {
                self.event(event);
            }
            let more = self.net.poll(self.game, now);
            self.game.tick(now, &mut self.net.outbound);
            self.draw();
            self.notices();
            if self.power.button() {
                self.switch_off();
            }
            if self.net.flush(self.game) || more {
                self.net.exchange(now);
                continue;
            }
            let hz = self.game.pace();
            if hz != self.hz {
                self.hz = hz;
                interrupt::set_rate(hz);
            }
            interrupt::open(self.net.irq());
            interrupt::sleep();
        }
    }

    fn now(&mut self) -> u64 {
        self.base_ms + self.power.micros() / 1000
    }

    /// The mark is on the screen before the game does anything else with a press.
    fn event(&mut self, event: Event) {
        if let Some(damage) = self.game.press(&event, self.layers.work) {
            self.show(&damage);
        }
        self.game.input(event, &mut self.net.outbound);
    }

    fn draw(&mut self) {
        let damage = self.game.render(&mut self.layers);
        self.show(&damage);
    }

    fn show(&mut self, damage: &Damage) {
        for rect in damage.rects() {
            for y in rect.y0 as usize..rect.y1 as usize {
                let part = y * WIDTH + rect.x0 as usize..y * WIDTH + rect.x1 as usize;
                self.screen[part.clone()].copy_from_slice(&self.layers.work[part]);
            }
        }
    }

    fn notices(&mut self) {
        while let Some(notice) = self.game.take_notice() {
            match notice {
                Notice::Line(line) => say!("LOCO {line}"),
                Notice::Sound(effect) => {
                    if let Some(card) = &mut self.sound {
                        card.play(|samples| sound::fill(effect, samples));
                    }
                }
            }
        }
    }

    /// Says good-bye to the session, waits for it to be heard, and is gone.
    fn switch_off(&mut self) {
        say!("LOCO power button");
        self.game.leave(&mut self.net.outbound);
        let start = self.now();
        loop {
            let now = self.now();
            self.net.poll(self.game, now);
            if now > start + FAREWELL || !self.net.is_unsent() {
                break;
            }
        }
        say!("LOCO off");
        self.power.off();
        interrupt::halt()
    }
}

fn rdtsc() -> u64 {
    #[expect(unsafe_code, reason = "an intrinsic without preconditions on this processor")]
    // SAFETY: every x86-64 has the time-stamp counter, and ring 0 may read it.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
}
