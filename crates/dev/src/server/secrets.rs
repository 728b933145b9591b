//! What is drawn by lot once per data folder, and kept in a file that only its owner may read.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// Secrets and ports of one data folder.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Secrets {
    pub(super) admin_user: String,
    pub(super) admin_password: String,
    /// Given out by the manager, once; empty until then.
    pub(super) api_token: String,
    pub(super) enroll_secret: String,
    pub(super) enroll_key: String,
    pub(super) destinations_key: String,
    pub(super) role_password: String,
    pub(super) redis_password: String,
    ports: Option<Ports>,
    #[serde(skip)]
    file: PathBuf,
}

/// Ports that nobody needs to know by heart. They stay, so that a restart finds its neighbours again.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) postgres: u16,
    pub(super) redis: u16,
    pub(super) mail: u16,
    pub(super) worker: u16,
}

impl Secrets {
    pub(super) fn load_or_make(file: &Path) -> anyhow::Result<Self> {
        if let Ok(text) = std::fs::read(file) {
            let mut secrets: Self = serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged", file.display()))?;
            file.clone_into(&mut secrets.file);
            return Ok(secrets);
        }
        let secrets = Self {
            admin_user: "admin".into(),
            admin_password: crate::random_hex(10),
            api_token: String::new(),
            enroll_secret: crate::random_hex(16),
            enroll_key: crate::random_hex(32),
            destinations_key: crate::random_hex(32),
            role_password: crate::random_hex(16),
            redis_password: crate::random_hex(16),
            ports: None,
            file: file.to_owned(),
        };
        secrets.save()?;
        Ok(secrets)
    }

    pub(super) fn save(&self) -> anyhow::Result<()> {
        crate::write_private(&self.file, &serde_json::to_vec_pretty(self)?)
    }

    /// The ports of last time if they are still free, else others; never one of `taken`.
    pub(super) fn ports(&mut self, taken: &[u16]) -> anyhow::Result<Ports> {
        let mut used = taken.to_vec();
        let last = self.ports.map_or([0; 4], |ports| {
            [ports.postgres, ports.redis, ports.mail, ports.worker]
        });
        let mut chosen = [0; 4];
        for (port, last) in chosen.iter_mut().zip(last) {
            let free = last != 0
                && !used.contains(&last)
                && std::net::TcpListener::bind(("127.0.0.1", last)).is_ok();
            *port = last;
            while !free && (*port == last || used.contains(port)) {
                *port = crate::free_port()?;
            }
            used.push(*port);
        }
        let [postgres, redis, mail, worker] = chosen;
        let ports = Ports {
            postgres,
            redis,
            mail,
            worker,
        };
        self.ports = Some(ports);
        self.save()?;
        Ok(ports)
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets")
            .field("ports", &self.ports)
            .finish_non_exhaustive()
    }
}
