//! Paths that other managers gave to their nodes: a fleet moves here by DNS alone, without touching a flagfile.
//!
//! An alias *is* its endpoint: the same handler, the same bounds, the same answers to every trouble. Which paths there are is said in
//! the settings, by ready sets and by a table of one's own; what cannot be meant is refused at the start.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::endpoint::{Endpoint, PATHS};

/// Stands for any one segment of a path, e.g. the environment in osctrl's.
pub const WILDCARD: &str = "{any}";

/// No path is longer, and none has more segments.
const MAX_CHARACTERS: usize = 200;
const MAX_SEGMENTS: usize = 12;

/// A manager whose paths are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AliasSet {
    /// fleetdm/fleet, and Kolide Fleet before it: `server/service/handler.go`, also the flags of fleetctl's flagfile.
    Fleet,
    /// Kolide's and K2's TLS paths, those of Kolide Fleet. (Launcher's gRPC is no TLS plugin and cannot be answered.)
    Kolide,
    /// jmpsec/osctrl: `/{environment}/…`, `pkg/environments/environments.go`; and its names before 2020.
    Osctrl,
    /// zentralopensource/zentral: `zentral/contrib/osquery/public_urls.py`, before and behind its prefix `/public`.
    Zentral,
    /// Uptycs' own osqueryd, as in the flagfiles that it ships.
    Uptycs,
    /// PolyLogyx ESP, which grew out of Doorman: Doorman's paths are ours, but for carves.
    Polylogyx,
}

impl AliasSet {
    /// Its paths.
    #[must_use]
    pub fn paths(self) -> &'static [(&'static str, Endpoint)] {
        use Endpoint::{
            CarveContinue, CarveStart, Config, DistributedRead, DistributedWrite, Enroll, Log,
        };
        match self {
            Self::Fleet | Self::Kolide => &[
                ("/api/osquery/enroll", Enroll),
                ("/api/osquery/config", Config),
                ("/api/osquery/log", Log),
                ("/api/osquery/distributed/read", DistributedRead),
                ("/api/osquery/distributed/write", DistributedWrite),
                ("/api/osquery/carve/begin", CarveStart),
                ("/api/osquery/carve/block", CarveContinue),
                ("/api/v1/osquery/enroll", Enroll),
                ("/api/v1/osquery/config", Config),
                ("/api/v1/osquery/log", Log),
                ("/api/v1/osquery/distributed/read", DistributedRead),
                ("/api/v1/osquery/distributed/write", DistributedWrite),
                ("/api/v1/osquery/carve/begin", CarveStart),
                ("/api/v1/osquery/carve/block", CarveContinue),
            ],
            Self::Osctrl => &[
                ("/{any}/enroll", Enroll),
                ("/{any}/config", Config),
                ("/{any}/log", Log),
                ("/{any}/read", DistributedRead),
                ("/{any}/write", DistributedWrite),
                ("/{any}/init", CarveStart),
                ("/{any}/block", CarveContinue),
                ("/{any}/osquery_enroll", Enroll),
                ("/{any}/osquery_config", Config),
                ("/{any}/osquery_log", Log),
                ("/{any}/osquery_read", DistributedRead),
                ("/{any}/osquery_write", DistributedWrite),
                ("/{any}/carver_init", CarveStart),
                ("/{any}/carver_block", CarveContinue),
            ],
            Self::Zentral => &[
                ("/osquery/enroll", Enroll),
                ("/osquery/config", Config),
                ("/osquery/log", Log),
                ("/osquery/distributed/read", DistributedRead),
                ("/osquery/distributed/write", DistributedWrite),
                ("/osquery/carver/start", CarveStart),
                ("/osquery/carver/continue", CarveContinue),
                ("/public/osquery/enroll", Enroll),
                ("/public/osquery/config", Config),
                ("/public/osquery/log", Log),
                ("/public/osquery/distributed/read", DistributedRead),
                ("/public/osquery/distributed/write", DistributedWrite),
                ("/public/osquery/carver/start", CarveStart),
                ("/public/osquery/carver/continue", CarveContinue),
            ],
            Self::Uptycs => &[
                ("/agent/enroll", Enroll),
                ("/agent/config", Config),
                ("/agent/log", Log),
                ("/agent/distributed_read", DistributedRead),
                ("/agent/distributed_write", DistributedWrite),
                ("/agent/carve_start", CarveStart),
                ("/agent/carve_continue", CarveContinue),
            ],
            Self::Polylogyx => &[
                ("/start_uploads", CarveStart),
                ("/upload_blocks", CarveContinue),
            ],
        }
    }
}

/// Settings `[api.aliases]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Aliases {
    /// Managers whose paths are answered.
    pub sets: Vec<AliasSet>,
    /// Further paths, each with its endpoint; `{any}` stands for any one segment.
    pub paths: BTreeMap<String, Endpoint>,
}

/// Why aliases cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// The path is none.
    #[error("[api.aliases] {path:?} is no path: {why}")]
    NoPath {
        /// As written.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// One request would fit both.
    #[error(
        "[api.aliases] a request to {path:?} would be meant for {one} and, by {other_path:?}, for {other}"
    )]
    Conflict {
        /// The alias.
        path: String,
        /// What it stands for.
        one: &'static str,
        /// What it collides with.
        other_path: String,
        /// What that stands for.
        other: &'static str,
    },
}

/// A path that is taken already: by an endpoint, or (`None`) by something of the process itself.
pub type Own<'a> = (&'a str, Option<Endpoint>);

impl Aliases {
    /// All aliases, each once. A path of our own is no alias and is left out.
    ///
    /// # Errors
    /// A path is none, or two paths that one request would fit lead to different endpoints.
    pub fn resolve(&self, own: &[Own<'_>]) -> Result<Vec<(String, Endpoint)>, AliasError> {
        let ready = self.sets.iter().flat_map(|set| set.paths());
        let typed = self
            .paths
            .iter()
            .map(|(path, endpoint)| (path.as_str(), *endpoint));
        let mut resolved: Vec<(&str, Endpoint)> = Vec::new();
        for (path, endpoint) in ready.copied().chain(typed) {
            check(path)?;
            let known = resolved
                .iter()
                .map(|(path, endpoint)| (*path, Some(*endpoint)));
            let rival = (own.iter().copied().chain(known))
                .find(|(other, of)| overlap(path, other) && *of != Some(endpoint));
            if let Some((other, of)) = rival {
                return Err(AliasError::Conflict {
                    path: path.to_owned(),
                    one: endpoint.as_str(),
                    other_path: other.to_owned(),
                    other: of.map_or("an operator's path", Endpoint::as_str),
                });
            }
            let is_own = own.iter().any(|(other, _)| *other == path);
            if !is_own && !resolved.contains(&(path, endpoint)) {
                resolved.push((path, endpoint));
            }
        }
        Ok(resolved
            .into_iter()
            .map(|(path, endpoint)| (path.to_owned(), endpoint))
            .collect())
    }
}

impl Aliases {
    /// Is a request to this path answered by that endpoint, as one of ours or as an alias?
    #[must_use]
    pub fn lead_to(&self, path: &str, endpoint: Endpoint) -> bool {
        let own = path.strip_prefix("/v1").unwrap_or(path);
        let is_own = |asked: &str| PATHS.contains(&(asked, endpoint));
        let ready = self.sets.iter().flat_map(|set| set.paths()).copied();
        let typed = (self.paths.iter()).map(|(path, endpoint)| (path.as_str(), *endpoint));
        is_own(path)
            || is_own(own)
            || (ready.chain(typed)).any(|(alias, of)| of == endpoint && overlap(alias, path))
    }
}

fn check(path: &str) -> Result<(), AliasError> {
    let wrong = |why| {
        Err(AliasError::NoPath {
            path: path.to_owned(),
            why,
        })
    };
    let Some(rest) = path.strip_prefix('/') else {
        return wrong("it has to begin with a slash");
    };
    if path.len() > MAX_CHARACTERS || rest.split('/').count() > MAX_SEGMENTS {
        return wrong("it is too long");
    }
    let plain = |segment: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        !segment.is_empty() && segment != "." && segment != ".." && segment.chars().all(allowed)
    };
    if !rest
        .split('/')
        .all(|segment| segment == WILDCARD || plain(segment))
    {
        return wrong("between slashes stand letters, digits and -._~, or {any}");
    }
    if rest.split('/').all(|segment| segment == WILDCARD) {
        return wrong("it has nothing but {any}");
    }
    Ok(())
}

/// May one request fit both?
fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == WILDCARD || b == WILDCARD => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [AliasSet; 6] = [
        AliasSet::Fleet,
        AliasSet::Kolide,
        AliasSet::Osctrl,
        AliasSet::Zentral,
        AliasSet::Uptycs,
        AliasSet::Polylogyx,
    ];

    fn own() -> Vec<Own<'static>> {
        vec![
            ("/enroll", Some(Endpoint::Enroll)),
            ("/v1/enroll", Some(Endpoint::Enroll)),
            ("/v1/log", Some(Endpoint::Log)),
            ("/distributed/read", Some(Endpoint::DistributedRead)),
            ("/metrics", None),
        ]
    }

    fn typed(paths: &[(&str, Endpoint)]) -> Result<Vec<(String, Endpoint)>, AliasError> {
        let paths = paths.iter().map(|(path, of)| ((*path).to_owned(), *of));
        let aliases = Aliases {
            sets: Vec::new(),
            paths: paths.collect(),
        };
        aliases.resolve(&own())
    }

    #[test]
    fn all_sets_go_together() {
        let aliases = Aliases {
            sets: ALL.to_vec(),
            paths: BTreeMap::new(),
        };
        let resolved = aliases.resolve(&own()).unwrap();
        assert!(resolved.contains(&("/{any}/enroll".into(), Endpoint::Enroll)));
        let mut paths: Vec<_> = resolved.iter().map(|(path, _)| path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), resolved.len(), "each path once");
    }

    #[test]
    fn what_one_request_would_fit_twice_is_refused() {
        let cases = [
            ("/metrics", Endpoint::Log, "an operator's path"),
            ("/{any}/log", Endpoint::Config, "log"),
            ("/distributed/{any}", Endpoint::Log, "distributed_read"),
            ("/v1/enroll", Endpoint::Log, "enroll"),
        ];
        for (path, of, rival) in cases {
            let error = typed(&[(path, of)]).unwrap_err();
            assert!(
                matches!(&error, AliasError::Conflict { other, .. } if *other == rival),
                "{path}: {error}"
            );
        }
        assert!(typed(&[("/a/{any}", Endpoint::Log), ("/{any}/b", Endpoint::Config)]).is_err());
        assert!(typed(&[("/a/{any}", Endpoint::Log), ("/{any}/b", Endpoint::Log)]).is_ok());
        assert!(typed(&[("/a/{any}", Endpoint::Log), ("/a", Endpoint::Config)]).is_ok());
        assert_eq!(typed(&[("/v1/enroll", Endpoint::Enroll)]).unwrap(), []);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in [
            "", "log", "/", "/{any}", "/a//b", "/a/", "/a b", "/{*rest}", "/{x}/log", "/../log",
            "/a?b", "/%41",
        ] {
            let error = typed(&[(path, Endpoint::Log)]).unwrap_err();
            assert!(
                matches!(error, AliasError::NoPath { .. }),
                "{path}: {error}"
            );
        }
    }

    #[test]
    fn a_path_leads_to_one_endpoint() {
        let aliases = Aliases {
            sets: vec![AliasSet::Osctrl],
            paths: [("/logs".to_owned(), Endpoint::Log)].into(),
        };
        for path in ["/log", "/v1/log", "/logs", "/prod/log"] {
            assert!(aliases.lead_to(path, Endpoint::Log), "{path}");
            assert!(!aliases.lead_to(path, Endpoint::Config), "{path}");
        }
        for path in ["/config", "/v1/logs", "/v1/v1/log", "/a/b/log", "log", ""] {
            assert!(!aliases.lead_to(path, Endpoint::Log), "{path}");
        }
    }
}
