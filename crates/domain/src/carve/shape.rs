//! Blocks and bytes of one carve.

use crate::osquery::CarveStart;

/// How a carve is cut into blocks. **Invariant:** the three numbers fit each other, and there is at least one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    block_count: u32,
    block_size: u32,
    carve_size: u64,
}

impl Shape {
    /// The shape that a start announces; `None` when its numbers do not fit each other. No archive is empty: even a tar of nothing has
    /// an end.
    #[must_use]
    pub fn of(start: &CarveStart) -> Option<Self> {
        Self::new(start.block_count, start.block_size, start.carve_size)
    }

    /// A shape of these numbers, if they fit each other.
    #[must_use]
    pub fn new(block_count: u64, block_size: u64, carve_size: u64) -> Option<Self> {
        let fits =
            block_size > 0 && carve_size > 0 && block_count == carve_size.div_ceil(block_size);
        Some(Self {
            // Postgres counts blocks in a signed integer.
            block_count: u32::try_from(block_count)
                .ok()
                .filter(|count| fits && *count <= i32::MAX as u32)?,
            block_size: u32::try_from(block_size)
                .ok()
                .filter(|size| *size <= i32::MAX as u32)?,
            carve_size: Some(carve_size).filter(|size| i64::try_from(*size).is_ok())?,
        })
    }

    /// How many blocks there are.
    #[must_use]
    pub fn block_count(&self) -> u32 {
        self.block_count
    }

    /// Bytes of each block but the last.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Bytes of all blocks together.
    #[must_use]
    pub fn carve_size(&self) -> u64 {
        self.carve_size
    }

    /// How many bytes this block has, counted from 0; `None` when there is no such block. osqueryd reads the archive from a file of its
    /// own, so only the last block is ever shorter than the others.
    #[must_use]
    pub fn len_of(&self, block: u64) -> Option<usize> {
        let from = block.checked_mul(u64::from(self.block_size))?;
        let left = self.carve_size.checked_sub(from).filter(|left| *left > 0)?;
        usize::try_from(left.min(u64::from(self.block_size))).ok()
    }

    /// Says which blocks are missing, given the numbers of those that are there, in order: `3, 7–9 and 12 more`.
    #[must_use]
    pub fn missing(&self, there: &[u32]) -> String {
        const RANGES: usize = 5;
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        let mut next = 0;
        for &block in there.iter().chain([&self.block_count]) {
            if block > next {
                ranges.push((next, block - 1));
            }
            next = block.saturating_add(1).max(next);
        }
        let text = |(from, to): &(u32, u32)| match to - from {
            0 => from.to_string(),
            1 => format!("{from}, {to}"),
            _ => format!("{from}–{to}"),
        };
        let named: Vec<String> = ranges.iter().take(RANGES).map(text).collect();
        let more: u32 = ranges
            .iter()
            .skip(RANGES)
            .map(|(from, to)| to - from + 1)
            .sum();
        let mut text = named.join(", ");
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k6_k7_numbers_must_fit_each_other() {
        let shape = Shape::new(13, 8192, 100_352).unwrap();
        assert_eq!(
            (shape.len_of(0), shape.len_of(11)),
            (Some(8192), Some(8192))
        );
        assert_eq!(shape.len_of(12), Some(2048), "the last one is shorter");
        assert_eq!((shape.len_of(13), shape.len_of(u64::MAX)), (None, None));
        assert_eq!(Shape::new(2, 512, 1024).unwrap().len_of(1), Some(512));
        for (count, size, total) in [
            (0, 0, 0),
            (0, 512, 0),
            (1, 512, 0),
            (0, 512, 1),
            (1, 0, 1),
            (2, 512, 512),
            (1, 512, 513),
            (u64::MAX, 1, u64::MAX),
            (1, u64::MAX, 1),
            (1 << 31, 1, 1 << 31),
        ] {
            assert_eq!(
                Shape::new(count, size, total),
                None,
                "{count} {size} {total}"
            );
        }
    }

    #[test]
    fn missing_blocks_are_named_as_ranges_and_not_without_end() {
        let shape = Shape::new(10, 1, 10).unwrap();
        assert_eq!(shape.missing(&[]), "0–9");
        assert_eq!(shape.missing(&[0, 1, 2, 4, 5, 6]), "3, 7–9");
        assert_eq!(shape.missing(&[0, 1, 2, 3, 4, 5, 8, 9]), "6, 7");
        assert_eq!(shape.missing(&(0..10).collect::<Vec<_>>()), "");
        let shape = Shape::new(1000, 1, 1000).unwrap();
        let even: Vec<u32> = (0..1000).step_by(2).collect();
        assert_eq!(shape.missing(&even), "1, 3, 5, 7, 9 and 495 more");
    }
}
