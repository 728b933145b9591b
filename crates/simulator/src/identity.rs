//! Who a simulated node is: hardware, system, osquery's version, and the tables that enrollment carries.
//! Everything follows from the node's number and the fleet's seed, so that a fleet can be made again.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use crate::value::Row;
use crate::version::Version;

/// The operating system of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// Ubuntu on x86_64.
    Linux,
    /// macOS on Apple silicon.
    Darwin,
    /// Windows 11 on x86_64.
    Windows,
}

impl Platform {
    /// The name that osquery was built for.
    pub fn build_name(self) -> &'static str {
        match self {
            Platform::Linux => "linux",
            Platform::Darwin => "darwin",
            Platform::Windows => "windows",
        }
    }

    /// The decimal bit mask of `platform_type`.
    pub fn mask(self) -> i64 {
        match self {
            Platform::Linux => 9,
            Platform::Darwin => 21,
            Platform::Windows => 2,
        }
    }
}

/// What `--host_identifier` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum HostIdentifier {
    /// The host's name.
    Hostname,
    /// The hardware's UUID.
    Uuid,
    /// The random id of the osquery database.
    Instance,
}

/// What a node is and keeps while its osquery database lives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The node's number in its fleet, from 0.
    pub index: usize,
    /// Its operating system.
    pub platform: Platform,
    /// Its osquery, as major, minor, patch.
    pub version: (u32, u32, u32),
    /// Hardware UUID; upper case except on Linux.
    pub uuid: String,
    /// Id of the osquery database; a wiped one gets another.
    pub instance_id: String,
    /// Hardware serial.
    pub serial: String,
    /// Host name.
    pub hostname: String,
    /// Vendor of the hardware.
    pub vendor: String,
    /// Model of the hardware.
    pub model: String,
    /// Name of the processor.
    pub cpu: String,
    /// Logical cores.
    pub cores: u32,
    /// Memory in GiB.
    pub memory_gib: u64,
    /// The person who uses it.
    pub user: String,
}

const PEOPLE: [&str; 12] = [
    "ada", "grace", "linus", "barbara", "ken", "margaret", "dennis", "radia", "edsger", "frances",
    "donald", "joan",
];

impl Identity {
    /// The identity of node `index`: platforms and versions go round, the rest follows from `seed`.
    pub fn of(index: usize, seed: u64, version: Version) -> Identity {
        let mut dice = dice(seed, index, 1);
        let platform = [Platform::Linux, Platform::Darwin, Platform::Windows][index % 3];
        let user = PEOPLE[dice.random_range(0..PEOPLE.len())].to_owned();
        let pick = |dice: &mut StdRng, choices: &[(&str, &str)]| {
            let (a, b) = choices[dice.random_range(0..choices.len())];
            (a.to_owned(), b.to_owned())
        };
        let (vendor, model) = match platform {
            Platform::Linux => pick(
                &mut dice,
                &[
                    ("Dell Inc.", "PowerEdge R650"),
                    ("Supermicro", "SYS-120U-TNR"),
                    ("LENOVO", "ThinkPad X1 Carbon Gen 11"),
                ],
            ),
            Platform::Darwin => (
                "Apple Inc.".to_owned(),
                ["Mac14,2", "MacBookPro18,3", "Mac15,6"][dice.random_range(0..3)].to_owned(),
            ),
            Platform::Windows => pick(
                &mut dice,
                &[
                    ("LENOVO", "20XXS3HC00"),
                    ("HP", "HP EliteBook 840 G9"),
                    ("Dell Inc.", "Latitude 7440"),
                ],
            ),
        };
        let cpu = match platform {
            Platform::Darwin => "Apple M2 Pro",
            Platform::Linux => "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz",
            Platform::Windows => "13th Gen Intel(R) Core(TM) i7-1365U",
        };
        let hostname = match platform {
            Platform::Linux => format!("web-{index:03}"),
            Platform::Darwin => format!("{user}s-MacBook-{index:03}.local"),
            Platform::Windows => format!("DESKTOP-{:04X}{index:03}", dice.random::<u16>()),
        };
        let uuid = random_uuid(&mut dice);
        Identity {
            index,
            platform,
            version: (version.0, version.1, version.2),
            uuid: if platform == Platform::Linux {
                uuid
            } else {
                uuid.to_uppercase()
            },
            instance_id: random_uuid(&mut dice),
            serial: serial(&mut dice),
            hostname,
            vendor,
            model,
            cpu: cpu.to_owned(),
            cores: [4, 8, 10, 16][dice.random_range(0..4)],
            memory_gib: [8, 16, 32, 64][dice.random_range(0..4)],
            user,
        }
    }

    /// The version of its osquery.
    pub fn version(&self) -> Version {
        Version(self.version.0, self.version.1, self.version.2)
    }

    /// The value of `host_identifier` under the given flag.
    pub fn host_identifier(&self, kind: HostIdentifier) -> &str {
        match kind {
            HostIdentifier::Hostname => &self.hostname,
            HostIdentifier::Uuid => &self.uuid,
            HostIdentifier::Instance => &self.instance_id,
        }
    }
}

/// A random stream for one use in one node.
pub(crate) fn dice(seed: u64, index: usize, stream: u64) -> StdRng {
    StdRng::seed_from_u64(
        seed ^ (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03),
    )
}

/// A random UUID in lower case.
pub(crate) fn random_uuid(dice: &mut StdRng) -> String {
    uuid::Builder::from_random_bytes(dice.random())
        .into_uuid()
        .to_string()
}

fn serial(dice: &mut StdRng) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ0123456789";
    (0..10)
        .map(|_| char::from(LETTERS[dice.random_range(0..LETTERS.len())]))
        .collect()
}

/// The body of an enrollment. `tables` holds the first rows of the tables that `host_details` carries, a
/// table without rows is left out; `poison` puts NULs where real hardware has been seen to have them.
pub fn enroll_body(
    secret: &str,
    host_identifier: &str,
    identity: &Identity,
    tables: &[(&str, Option<Row>)],
    poison: bool,
) -> Json {
    let mut body = json!({
        "enroll_secret": secret,
        "host_identifier": host_identifier,
        "platform_type": identity.platform.mask().to_string(),
    });
    if identity.version().sends_host_details() {
        let mut details = Map::new();
        for (table, first) in tables {
            let Some(first) = first else { continue };
            let mut columns: Map<String, Json> = first
                .iter()
                .map(|(name, value)| (name.clone(), Json::String(value.text())))
                .collect();
            if poison && *table == "system_info" {
                columns.insert(
                    "cpu_brand".to_owned(),
                    Json::String(format!("{}{}", identity.cpu, "\0".repeat(24))),
                );
                columns.insert(
                    "hardware_serial".to_owned(),
                    Json::String(format!("{}\0", identity.serial)),
                );
            }
            details.insert((*table).to_owned(), Json::Object(columns));
        }
        body["host_details"] = Json::Object(details);
    }
    body
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::version::MIX;

    #[test]
    fn identities_are_distinct_and_repeatable() {
        let make = || {
            (0..60)
                .map(|i| Identity::of(i, 7, MIX[i % 6]))
                .collect::<Vec<_>>()
        };
        let (first, second) = (make(), make());
        let distinct =
            |of: fn(&Identity) -> &String| first.iter().map(of).collect::<HashSet<_>>().len();
        assert_eq!(distinct(|i| &i.uuid), 60);
        assert_eq!(distinct(|i| &i.instance_id), 60);
        assert_eq!(distinct(|i| &i.serial), 60);
        assert_eq!(distinct(|i| &i.hostname), 60);
        assert!(
            first
                .iter()
                .zip(&second)
                .all(|(a, b)| a.uuid == b.uuid && a.model == b.model)
        );
    }

    #[test]
    fn an_enrollment_names_the_platform_by_its_mask_and_only_old_ones_lack_details() {
        let tables = [
            (
                "os_version",
                Some(vec![("name".to_owned(), "Ubuntu".into())]),
            ),
            ("platform_info", None),
        ];
        let identity = Identity::of(0, 7, Version(5, 23, 1));
        let body = enroll_body("s", "h", &identity, &tables, false);
        assert_eq!(body["platform_type"], "9");
        assert_eq!(body["host_details"]["os_version"]["name"], "Ubuntu");
        assert!(body["host_details"].get("platform_info").is_none());
        let ancient = Identity::of(0, 7, Version(2, 7, 0));
        assert!(
            enroll_body("s", "h", &ancient, &tables, false)
                .get("host_details")
                .is_none()
        );
    }
}
