//! Renders the game's pictures on the host, as PPM files, to be looked at: `cargo run --example gallery -- DIRECTORY`.
use demo_guest::art::canvas::{Canvas, HEIGHT, Rect, WIDTH};
use demo_guest::art::panel::{self, Status};
use demo_guest::art::town::{self, Light};
use demo_guest::art::train::{Pose, Puff};
use demo_guest::board::{Side, Square};
use demo_guest::track::{Journey, Route};
use std::{env, fs, io, path::Path};

fn save(path: &Path, pixels: &[u32]) -> io::Result<()> {
    let mut bytes = format!("P6 {WIDTH} {HEIGHT} 255\n").into_bytes();
    bytes.extend(pixels.iter().flat_map(|p| [(p >> 16) as u8, (p >> 8) as u8, *p as u8]));
    fs::write(path, bytes)
}

fn main() -> io::Result<()> {
    let directory = env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let directory = Path::new(&directory);
    let mut pixels = vec![0; WIDTH * HEIGHT];
    for square in Square::all() {
        for (light, word) in [(Light::Day, "day"), (Light::Night, "night")] {
            town::draw(&mut Canvas::new(&mut pixels), square, light);
            save(&directory.join(format!("town-{}-{word}.ppm", square.index())), &pixels)?;
        }
    }
    let canvas = &mut Canvas::new(&mut pixels);
    let square = Square::new(4).expect("a square");
    town::draw(canvas, square, Light::Day);
    for (journey, head, home) in [
        (Journey::Out(Side::East), 0, 0),
        (Journey::Out(Side::North), 6600, 1),
        (Journey::In(Side::East), 2600, 2),
        (Journey::In(Side::West), 1600, 3),
        (Journey::Lap, 15000, 6),
    ] {
        let pose = Pose::new(&Route::of(journey), head, home, Light::Day);
        canvas.set_clip(town::OPEN);
        pose.draw(canvas);
        canvas.set_clip(Rect::SCREEN);
        for (i, age) in [20, 90, 160, 220].into_iter().enumerate() {
            let (x, y) = pose.chimney();
            Puff { place: (x + i as i32 * 90, y - i as i32 * 110), age }.draw(canvas, Light::Day);
        }
    }
    panel::bar(
        canvas,
        &Status {
            seat: 5,
            name: "Emil",
            address: "10.98.0.5",
            session: "Loco Party, 9 of 9 players",
            squares: [Some(0), Some(1), Some(2), Some(3), Some(4), None, Some(6), Some(7), Some(8)],
            own: Some(square),
        },
    );
    save(&directory.join("trains.ppm"), canvas.pixels())?;
    panel::title(canvas, 320, 40);
    let inside = panel::sheet(canvas, Rect::new(190, 140, 260, 230), "What now?");
    for (i, label) in ["Host a game", "Search for games", "Station board", "Night and day"].into_iter().enumerate() {
        panel::button(canvas, Rect::new(inside.x0 + 16, inside.y0 + 14 + i as i32 * 42, 218, 34), label, i == 1);
    }
    panel::pointer(canvas, 380, 260);
    save(&directory.join("menu.ppm"), canvas.pixels())?;
    Ok(())
}
