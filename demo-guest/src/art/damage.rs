//! What has to be drawn again: a short list of rectangles. QEMU sends rows that changed, so few and tight ones count.
use super::canvas::Rect;

const MOST: usize = 12;

/// Rectangles that may touch; never empty ones.
#[derive(Clone, Copy, Debug)]
pub struct Damage {
    rects: [Rect; MOST],
    count: usize,
}

impl Default for Damage {
    fn default() -> Self {
        Self { rects: [Rect::EMPTY; MOST], count: 0 }
    }
}

impl Damage {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn rects(&self) -> &[Rect] {
        &self.rects[..self.count]
    }

    /// Adds a part of the screen; overlapping ones are united, and so are the cheapest two when the list is full.
    pub fn add(&mut self, rect: Rect) {
        let mut rect = rect.intersect(Rect::SCREEN);
        if rect.is_empty() {
            return;
        }
        // Uniting may make it overlap another one.
        while let Some(i) = self.rects().iter().position(|r| r.overlaps(rect)) {
            rect = rect.union(self.rects[i]);
            self.count -= 1;
            self.rects[i] = self.rects[self.count];
        }
        if self.count == MOST {
            let cost = |r: &Rect| r.union(rect).area() - r.area();
            let cheapest = (0..MOST).min_by_key(|i| cost(&self.rects[*i])).unwrap_or(0);
            let united = self.rects[cheapest].union(rect);
            self.count -= 1;
            self.rects[cheapest] = self.rects[self.count];
            self.add(united);
            return;
        }
        self.rects[self.count] = rect;
        self.count += 1;
    }

    pub fn clear(&mut self) {
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{Damage, MOST};
    use crate::art::canvas::Rect;
    use crate::rng::Rng;

    #[test]
    fn whatever_is_added_is_covered_once() {
        let mut rng = Rng::new(3);
        for _ in 0..200 {
            let mut damage = Damage::default();
            let rects: Vec<_> = (0..rng.range(1, 40))
                .map(|_| Rect::new(rng.range(-20, 640), rng.range(-20, 480), rng.range(0, 60), rng.range(0, 40)))
                .collect();
            for rect in &rects {
                damage.add(*rect);
            }
            assert!(damage.rects().len() <= MOST);
            for rect in rects.iter().map(|r| r.intersect(Rect::SCREEN)).filter(|r| !r.is_empty()) {
                assert!(damage.rects().iter().any(|d| d.intersect(rect) == rect), "{rect:?} in {damage:?}");
            }
            for (i, a) in damage.rects().iter().enumerate() {
                assert!(damage.rects()[..i].iter().all(|b| !a.overlaps(*b)), "{damage:?}");
            }
        }
    }
}
