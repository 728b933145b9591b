//! Paths of other managers as routes. Which there are, and what each stands for, is in `domain::osquery::aliases`.

use ostiary_domain::osquery::aliases::WILDCARD;
pub use ostiary_domain::osquery::aliases::{AliasError, AliasSet, Aliases};
pub use ostiary_domain::osquery::endpoint::Endpoint;

/// axum wants a name of its own for each wildcard of a path, and the same ones in paths that share a beginning.
pub(crate) fn numbered(path: &str) -> String {
    let segments = path.split('/').enumerate().map(|(index, segment)| {
        if segment == WILDCARD {
            format!("{{any{index}}}")
        } else {
            segment.to_owned()
        }
    });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_all_sets_can_be_routes_together() {
        use AliasSet::{Fleet, Kolide, Osctrl, Polylogyx, Uptycs, Zentral};
        let aliases = Aliases {
            sets: vec![Fleet, Kolide, Osctrl, Zentral, Uptycs, Polylogyx],
            ..Aliases::default()
        };
        let resolved = aliases.resolve(&[]).unwrap();
        assert_eq!(numbered("/{any}/enroll"), "/{any1}/enroll");
        let mut routes = axum::Router::<()>::new();
        for (path, _) in &resolved {
            routes = routes.route(&numbered(path), axum::routing::get(async || ()));
        }
        drop(routes);
    }
}
