//! A small seeded generator (xorshift64*): towns and timetables are random to look at, yet the same at each boot.

#[derive(Clone, Copy, Debug)]
pub struct Rng(u64);

impl Rng {
    pub const fn new(seed: u64) -> Self {
        // A zero state would stay zero; the multiplication spreads small seeds.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn draw(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// From `low` up to and without `high`; `low` if that is nothing.
    pub fn range(&mut self, low: i32, high: i32) -> i32 {
        if high <= low { low } else { low + ((u64::from(self.draw()) * (high - low) as u64) >> 32) as i32 }
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn ranges_hold_and_are_used_whole() {
        let mut rng = Rng::new(0);
        let mut seen = [0; 5];
        for _ in 0..1000 {
            seen[(rng.range(-2, 3) + 2) as usize] += 1;
        }
        assert!(seen.iter().all(|n| (120..280).contains(n)), "{seen:?}");
        assert_eq!(rng.range(4, 4), 4);
    }
}
