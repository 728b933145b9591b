//! One installation of Ostiary, made for one test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ostiary_dev::certificates::Certificates;
use ostiary_dev::mail::{self, MailCatcher};
use ostiary_dev::process::{Process, Recipe};
use ostiary_store::testing::TestDb;
use rustix::process::Signal;
use serde_json::json;

use crate::{PATIENCE, Rest, Servers, Wire, eventually};

/// The secret by which nodes of a test enroll.
const ENROLL_SECRET: &str = "journey-enroll-secret";
/// How long programs wait for Postgres where nobody stops it, in milliseconds.
const PATIENT_MS: u32 = 60_000;
const ADMIN: (&str, &str) = ("admin", "journey-password-1");

/// One of our processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// `ostiary-api`.
    Api,
    /// `ostiary-manager`.
    Manager,
    /// `ostiary-worker`.
    Worker,
}

impl Program {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Manager => "manager",
            Self::Worker => "worker",
        }
    }
}

/// What a world begins with.
#[derive(Debug, Clone)]
pub struct WorldOptions {
    /// The processes to start.
    pub programs: Vec<Program>,
    /// Fill in the packs and rules of the demo?
    pub demo: bool,
    /// A Postgres and a Redis of its own, which can be stopped and emptied without harm to other tests?
    pub private_servers: bool,
    /// More settings: `("API__LOG_MAX_BYTES", "1000")`.
    pub settings: Vec<(String, String)>,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            programs: vec![Program::Api, Program::Manager, Program::Worker],
            demo: false,
            private_servers: false,
            settings: Vec::new(),
        }
    }
}

impl WorldOptions {
    /// Everything, with the packs and rules of the demo.
    #[must_use]
    pub fn demo() -> Self {
        Self {
            demo: true,
            ..Self::default()
        }
    }

    /// With servers of its own. The time-outs are those of production then: such servers are stopped and paused.
    #[must_use]
    pub fn private_servers(mut self) -> Self {
        self.private_servers = true;
        self.set("DATABASE__ACQUIRE_TIMEOUT_MS", "3000")
            .set("DATABASE__STATEMENT_TIMEOUT_MS", "10000")
            .set("API__ANSWER_TIMEOUT_MS", "5000")
    }

    /// Only these programs.
    #[must_use]
    pub fn only(programs: &[Program]) -> Self {
        Self {
            programs: programs.to_vec(),
            ..Self::default()
        }
    }

    /// Another setting.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// The installation. Its processes end with it.
#[derive(Debug)]
pub struct World {
    /// Its database, logged in as the owner.
    pub db: TestDb,
    /// Mails that were sent.
    pub mail: MailCatcher,
    /// Where nodes connect.
    pub api: SocketAddr,
    /// Where people connect.
    pub manager: SocketAddr,
    /// What nodes trust.
    pub certificates: Certificates,
    /// A token for REST.
    pub api_token: String,
    folder: PathBuf,
    settings: Vec<(String, String)>,
    processes: BTreeMap<Program, Process>,
    servers: Option<Servers>,
}

impl World {
    /// Starts everything and waits until it answers.
    ///
    /// # Panics
    /// Something cannot be started: the test cannot run.
    pub async fn start(options: WorldOptions) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let name = format!(
            "ostiary-world-{}-{}",
            std::process::id(),
            ostiary_dev::random_hex(4)
        );
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
        let servers = if options.private_servers {
            Some(Servers::start(&folder).await)
        } else {
            None
        };
        let (db, redis_url) = match &servers {
            Some(servers) => (
                TestDb::at(servers.postgres_url()).await,
                servers.redis_url().to_owned(),
            ),
            None => (
                TestDb::new().await,
                std::env::var("OSTIARY_TEST_REDIS_URL").expect("script/test starts a Redis"),
            ),
        };
        let names = ["localhost", "127.0.0.1"].map(String::from);
        let certificates =
            Certificates::ensure(&folder.join("tls"), &names).expect("certificates can be made");
        let mail = MailCatcher::start(loopback(0), &folder.join("mail"), mail::Options::default())
            .await
            .expect("mail can be caught");
        let (api, manager, worker) = (free_address(), free_address(), free_address());
        let mut settings = base_settings(&certificates, (redis_url, &name), api, manager, worker);
        settings.push((
            "OSTIARY_BLOBS__FOLDER".to_owned(),
            folder.join("blobs").display().to_string(),
        ));
        settings.extend(
            options
                .settings
                .iter()
                .map(|(name, value)| (format!("OSTIARY_{name}"), value.clone())),
        );
        let mut world = Self {
            db,
            mail,
            api,
            manager,
            certificates,
            api_token: String::new(),
            folder,
            settings,
            processes: BTreeMap::new(),
            servers,
        };
        world.fill(options.demo).await;
        for program in &options.programs {
            world.launch(*program).await;
        }
        if options.programs.contains(&Program::Api) {
            world.ready().await;
        }
        world
    }

    /// The enroll secret.
    #[must_use]
    pub fn enroll_secret(&self) -> &'static str {
        ENROLL_SECRET
    }

    /// Name and password of the admin.
    #[must_use]
    pub fn admin(&self) -> (&'static str, &'static str) {
        ADMIN
    }

    /// A client that speaks as a node does.
    #[must_use]
    pub fn wire(&self) -> Wire {
        Wire::new(self.api, &self.certificates.ca)
    }

    /// A client of REST.
    #[must_use]
    pub fn rest(&self) -> Rest {
        Rest::new(format!("http://{}", self.manager), self.api_token.clone())
    }

    /// The folder of this world.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The servers of its own.
    ///
    /// # Panics
    /// It was started without.
    pub fn servers(&mut self) -> &mut Servers {
        self.servers.as_mut().expect("a world with private servers")
    }

    /// The process id of a program, if it was started.
    #[must_use]
    pub fn pid(&self, program: Program) -> Option<u32> {
        self.processes.get(&program).map(|process| process.pid)
    }

    /// The log of a process so far.
    #[must_use]
    pub fn log(&self, program: Program) -> String {
        let file = self.folder.join(format!("{}.log", program.name()));
        String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
    }

    /// Waits until the api can do its work.
    ///
    /// # Panics
    /// It cannot within [`PATIENCE`].
    pub async fn ready(&self) {
        let wire = self.wire();
        eventually("the api is ready", PATIENCE, async || {
            let answer = wire.request("GET", "/readyz", &[], b"").await?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// Starts a process and waits until it listens.
    ///
    /// # Panics
    /// It does not within [`PATIENCE`]; the message holds the end of its log.
    pub async fn launch(&mut self, program: Program) {
        let name = program.name();
        let mut recipe = Recipe::new(
            name,
            vec![binary(name)],
            &self.folder.join(format!("{name}.log")),
        );
        let unknown = match program {
            Program::Api => "KEYS__DESTINATIONS",
            Program::Worker => "KEYS__ENROLL",
            Program::Manager => "none",
        };
        recipe.env = self
            .settings
            .iter()
            .filter(|(name, _)| !name.ends_with(unknown))
            .cloned()
            .collect();
        recipe.env.push((
            "OSTIARY_DATABASE__URL".into(),
            self.db.url(Some(&format!("ostiary_{name}"))),
        ));
        let mut process = recipe
            .start()
            .expect("script/test builds the programs first");
        let address = match program {
            Program::Api => self.api,
            Program::Manager => self.manager,
            Program::Worker => self.worker_address(),
        };
        eventually(
            &format!(
                "{name} listens; the end of its log: {}",
                self.folder.display()
            ),
            PATIENCE,
            async || {
                if let Ok(Some(status)) = process.ended() {
                    panic!("{name} ended ({status}):\n{}", process.last_words());
                }
                tokio::net::TcpStream::connect(address).await.ok()
            },
        )
        .await;
        self.processes.insert(program, process);
    }

    /// Ends a process with SIGKILL, as a crash would.
    pub async fn kill(&mut self, program: Program) {
        if let Some(process) = self.processes.remove(&program) {
            process.stop(Signal::KILL, Duration::from_secs(60)).await;
        }
    }

    /// Ends a process with SIGTERM, as an operator would.
    pub async fn stop(&mut self, program: Program) {
        if let Some(process) = self.processes.remove(&program) {
            process.stop(Signal::TERM, Duration::from_secs(60)).await;
        }
    }

    /// Restarts the Postgres of its own, as an operator would or (`crash`) as a failure does. Its clients are cut off.
    ///
    /// # Panics
    /// The world has no servers of its own, or Postgres does not come back.
    pub async fn restart_postgres(&mut self, crash: bool) {
        self.servers().restart_postgres(crash).await;
    }

    /// Empties the Redis of its own.
    ///
    /// # Panics
    /// The world has no servers of its own, or Redis does not obey.
    pub async fn flush_redis(&self) {
        let servers = self.servers.as_ref();
        servers
            .expect("a world with private servers")
            .flush_redis()
            .await;
    }

    /// Ends everything and removes what it made. A test that panics leaves the folder, for a look at the logs.
    pub async fn end(mut self) {
        for program in [Program::Api, Program::Worker, Program::Manager] {
            self.stop(program).await;
        }
        drop(self.mail);
        match self.servers {
            None => self.db.drop().await,
            Some(servers) => {
                self.db.db.close().await;
                servers.stop().await;
            }
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }

    /// Runs `ostiary-manager` with these arguments.
    ///
    /// # Panics
    /// It fails; the message holds what it said.
    pub async fn command(&self, arguments: &[&str], input: &str) -> String {
        let mut command = vec![binary("manager")];
        command.extend(arguments.iter().map(ToString::to_string));
        let mut recipe = Recipe::new(
            "ostiary-manager",
            command,
            &self.folder.join("commands.log"),
        );
        recipe.env = self.settings.clone();
        recipe.env.push(patient());
        recipe.env.push((
            "OSTIARY_DATABASE__URL".into(),
            self.db.url(Some("ostiary_manager")),
        ));
        recipe
            .run(input)
            .await
            .unwrap_or_else(|error| panic!("{arguments:?}: {error:#}"))
    }

    /// Runs `ostiary-manager` with these arguments as the owner of the database.
    ///
    /// # Errors
    /// It fails; what it said.
    pub async fn owner_command(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = vec![binary("manager")];
        command.extend(arguments.iter().map(ToString::to_string));
        let log = self.folder.join("commands.log");
        let mut recipe = Recipe::new("ostiary-manager", command, &log);
        recipe.env = self.settings.clone();
        recipe.env.push(patient());
        recipe
            .env
            .push(("OSTIARY_DATABASE__URL".into(), self.db.url(None)));
        recipe.run("").await.map_err(|error| format!("{error:#}"))
    }

    /// The present rows of a node by query: what is kept of its latest sets, values as text. It is named by its instance: two machines
    /// may have one host name.
    ///
    /// # Panics
    /// Postgres fails, or rows cannot be read back.
    pub async fn present_rows(
        &self,
        instance_id: &str,
    ) -> BTreeMap<String, Vec<BTreeMap<String, String>>> {
        let mut conn = self.db.db.acquire().await.expect("Postgres answers");
        let sql = format!(
            "SELECT n.id || ' ' || q.id || ' ' || q.name FROM present_rows p JOIN nodes n ON n.id = p.node_id \
             JOIN query_names q ON q.id = p.query_name_id WHERE n.instance_id = '{instance_id}'"
        );
        let mut names = BTreeMap::new();
        let mut pairs = Vec::new();
        for line in self.db.texts(&sql).await {
            let mut words = line.splitn(3, ' ');
            let node: uuid::Uuid = words.next().and_then(|id| id.parse().ok()).expect("an id");
            let query: i32 = words
                .next()
                .and_then(|id| id.parse().ok())
                .expect("a number");
            names.insert(query, words.next().unwrap_or_default().to_owned());
            pairs.push((node.into(), query));
        }
        let found = ostiary_store::present_rows::find(&mut conn, &pairs).await;
        let mut rows = BTreeMap::new();
        for stored in found.expect("rows can be read") {
            let own = stored.present.rows.iter();
            let mut own: Vec<BTreeMap<String, String>> = own
                .map(|row| serde_json::from_str(row).expect("a row is an object"))
                .collect();
            own.sort();
            rows.insert(names[&stored.query_name_id].clone(), own);
        }
        rows
    }

    fn worker_address(&self) -> SocketAddr {
        let setting = self
            .settings
            .iter()
            .find(|(name, _)| name == "OSTIARY_WORKER__LISTEN");
        setting
            .and_then(|(_, address)| address.parse().ok())
            .expect("the setting was made from an address")
    }

    async fn fill(&mut self, demo: bool) {
        let (user, password) = ADMIN;
        self.command(
            &[
                "create-user",
                "--name",
                user,
                "--role",
                "admin",
                "--password-stdin",
            ],
            password,
        )
        .await;
        let token = self
            .command(&["create-token", "--user", user, "--name", "journey"], "")
            .await;
        self.api_token = token.trim().to_owned();
        self.command(
            &[
                "create-enroll-secret",
                "--name",
                "journey",
                "--secret-stdin",
            ],
            ENROLL_SECRET,
        )
        .await;
        let address = self.mail.address();
        let mail = json!({"server": address.ip(), "port": address.port(), "encryption": "none",
            "from": "Ostiary <ostiary@localhost>", "to": "admin@localhost"});
        self.command(
            &[
                "create-destination",
                "--name",
                "mail",
                "--kind",
                "email",
                "--settings-stdin",
            ],
            &mail.to_string(),
        )
        .await;
        if demo {
            for (folder, command) in [("packs", "import-pack"), ("rules", "create-rule")] {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("../deploy/demo")
                    .join(folder);
                let entries = std::fs::read_dir(folder).expect("the demo is part of the sources");
                for entry in entries {
                    let file = entry.expect("the folder can be read").path();
                    self.command(&[command, &file.display().to_string()], "")
                        .await;
                }
            }
        }
    }
}

fn base_settings(
    certificates: &Certificates,
    (redis, prefix): (String, &str),
    api: SocketAddr,
    manager: SocketAddr,
    worker: SocketAddr,
) -> Vec<(String, String)> {
    [
        ("REDIS__URL", redis),
        ("REDIS__PREFIX", prefix.to_owned()),
        ("KEYS__ENROLL", "11".repeat(32)),
        ("KEYS__DESTINATIONS", "22".repeat(32)),
        ("PUBLIC__API_HOST", format!("localhost:{}", api.port())),
        ("PUBLIC__MANAGER_URL", format!("http://{manager}")),
        ("API__LISTEN", api.to_string()),
        (
            "API__CERTIFICATE",
            certificates.certificate.display().to_string(),
        ),
        (
            "API__PRIVATE_KEY",
            certificates.private_key.display().to_string(),
        ),
        ("MANAGER__LISTEN", manager.to_string()),
        (
            "MANAGER__CA_CERTIFICATE",
            certificates.ca.display().to_string(),
        ),
        ("WORKER__LISTEN", worker.to_string()),
        ("OUTPUTS__ALLOW_PRIVATE_ADDRESSES", "true".into()),
        // On a busy machine everything takes long, and few journeys are about that.
        ("DATABASE__ACQUIRE_TIMEOUT_MS", PATIENT_MS.to_string()),
        ("DATABASE__STATEMENT_TIMEOUT_MS", PATIENT_MS.to_string()),
        ("API__ANSWER_TIMEOUT_MS", PATIENT_MS.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (format!("OSTIARY_{name}"), value))
    .collect()
}

/// For a command, which tries nothing again.
fn patient() -> (String, String) {
    let name = "OSTIARY_DATABASE__ACQUIRE_TIMEOUT_MS".to_owned();
    (name, PATIENT_MS.to_string())
}

/// The programs that script/test has just built, else those beside this test.
fn binary(name: &str) -> String {
    let folder = if let Some(folder) = std::env::var_os("OSTIARY_BIN_DIR") {
        PathBuf::from(folder)
    } else {
        let this = std::env::current_exe().expect("a process knows its program");
        let target = this.parent().and_then(Path::parent);
        target
            .expect("tests lie in target/<profile>/deps")
            .to_owned()
    };
    folder.join(format!("ostiary-{name}")).display().to_string()
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn free_address() -> SocketAddr {
    loopback(ostiary_dev::free_port().expect("a port is free"))
}
