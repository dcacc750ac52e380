//! Text without a heap.
use core::fmt;

/// Up to `N` bytes of UTF-8; what does not fit is cut off at a character.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    pub const EMPTY: Self = Self { bytes: [0; N], len: 0 };

    /// From anything that can be printed.
    pub fn of(content: impl fmt::Display) -> Self {
        let mut text = Self::EMPTY;
        // Writing never fails: see `write_str`.
        fmt::write(&mut text, format_args!("{content}")).unwrap_or(());
        text
    }

    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            let mut utf8 = [0; 4];
            let encoded = letter.encode_utf8(&mut utf8).as_bytes();
            let Some(place) = self.bytes.get_mut(self.len..self.len + encoded.len()) else { break };
            place.copy_from_slice(encoded);
            self.len += encoded.len();
        }
        Ok(())
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::EMPTY
    }
}

#[cfg(test)]
mod tests {
    use super::Text;

    #[test]
    fn cuts_at_a_character() {
        assert_eq!(Text::<4>::of("abcdef").as_str(), "abcd");
        assert_eq!(Text::<4>::of("abcä").as_str(), "abc");
        assert_eq!(Text::<8>::of(12345).as_str(), "12345");
    }
}
