//! Keyset paging: a page is found by the last row of the one before, never by counting rows away.

/// How much of a list is wanted.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// The `next` of the page before; `None` for the first.
    pub after: Option<String>,
    /// Rows at most.
    pub limit: Option<i64>,
}

impl PageRequest {
    /// Rows at most, within 1 and `max`.
    #[must_use]
    pub fn limit_within(&self, default: i64, max: i64) -> i64 {
        self.limit.unwrap_or(default).clamp(1, max)
    }

    /// The key of the last row of the page before, its parts joined by [`Page::cut`]; `None` for the first page or a text that is
    /// no key.
    #[must_use]
    pub fn key<const PARTS: usize>(&self) -> Option<[&str; PARTS]> {
        let parts: Vec<&str> = self.after.as_deref()?.split('~').collect();
        parts.try_into().ok()
    }
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows, in order.
    pub items: Vec<T>,
    /// What to ask for the next page; `None` at the end.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of `limit` rows out of up to `limit + 1` that were read. `key` gives the key of a row: parts without `~`.
    #[must_use]
    pub fn cut<const PARTS: usize>(
        mut rows: Vec<T>,
        limit: i64,
        key: impl Fn(&T) -> [String; PARTS],
    ) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more {
            rows.last().map(|row| key(row).join("~"))
        } else {
            None
        };
        Self { items: rows, next }
    }

    /// The same page of other things.
    #[must_use]
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(change).collect(),
            next: self.next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_knows_the_next_one_only_if_there_is_more() {
        let key = |n: &i32| [n.to_string(), "x".to_owned()];
        let page = Page::cut(vec![1, 2, 3], 2, key);
        assert_eq!(
            (page.items.as_slice(), page.next.as_deref()),
            (&[1, 2][..], Some("2~x"))
        );
        let request = PageRequest {
            after: page.next,
            limit: None,
        };
        assert_eq!(request.key::<2>(), Some(["2", "x"]));
        assert_eq!(request.key::<3>(), None);
        assert_eq!(Page::cut(vec![1, 2], 2, key).next, None);
    }
}
