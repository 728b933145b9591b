//! Links to the next page of a list, filters kept.

use ostiary_store::page::PageRequest;
use serde_json::{Value, json};

use crate::views::urlencode;

/// What a page's URL said about paging.
pub(super) fn request(after: Option<&str>) -> PageRequest {
    PageRequest {
        after: after
            .filter(|after| !after.is_empty())
            .map(ToOwned::to_owned),
        limit: None,
    }
}

/// `{next, previous}` of the contract. Lists go one way; back to the first page is all that "previous" can promise.
pub(super) fn pager(
    path: &str,
    filters: &[(&str, &str)],
    cursor: &str,
    next: Option<&str>,
    is_first: bool,
) -> Value {
    let url = |after: Option<&str>| {
        let pairs = filters
            .iter()
            .copied()
            .chain(after.map(|after| (cursor, after)));
        let query: Vec<String> = pairs
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", urlencode(value)))
            .collect();
        if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{}", query.join("&"))
        }
    };
    json!({"next": next.map(|next| url(Some(next))), "previous": (!is_first).then(|| url(None))})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_keep_the_filters() {
        let filters = [("state", "open"), ("rule", ""), ("q", "a&b")];
        let links = pager("/findings", &filters, "after", Some("1~2"), false);
        assert_eq!(
            links,
            json!({"next": "/findings?state=open&q=a%26b&after=1~2", "previous": "/findings?state=open&q=a%26b"})
        );
        assert_eq!(
            pager("/audit", &[], "before", None, true),
            json!({"next": null, "previous": null})
        );
    }
}
