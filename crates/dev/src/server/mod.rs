//! The supervisor behind `script/server`: everything that Ostiary needs, Ostiary itself, and a simulated fleet.

mod secrets;
mod seed;
mod status;
mod supervise;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::certificates::Certificates;
use crate::mail::{self, MailCatcher};
use crate::postgres::{Durability, Postgres};
use crate::process::{Recipe, wait_until};
use crate::redis::Redis;
use secrets::Secrets;
use supervise::Supervisor;

/// What the environment chooses.
#[derive(Debug, Args)]
pub struct Choices {
    /// The folder that holds everything it creates.
    #[arg(long, env = "OSTIARY_DATA", default_value = ".local")]
    data: PathBuf,
    /// Where nodes connect, by TLS.
    #[arg(long, env = "OSTIARY_API_LISTEN", default_value = "127.0.0.1:8443")]
    api_listen: SocketAddr,
    /// Where people connect.
    #[arg(long, env = "OSTIARY_MANAGER_LISTEN", default_value = "127.0.0.1:8080")]
    manager_listen: SocketAddr,
    /// How many nodes are simulated; 0 for none.
    #[arg(long, env = "OSTIARY_SIMULATED_NODES", default_value_t = 25)]
    simulated_nodes: u32,
    /// The folder of our binaries.
    #[arg(long)]
    binaries: PathBuf,
    /// The folder of the sources, for demo packs and rules.
    #[arg(long)]
    sources: PathBuf,
}

/// Everything that is in place before our own processes start.
#[derive(Debug)]
struct Ground {
    data: PathBuf,
    logs: PathBuf,
    secrets: Secrets,
    certificates: Certificates,
    mail_address: SocketAddr,
    redis_url: String,
    database_url: String,
    worker_listen: SocketAddr,
}

/// Runs until SIGINT, SIGTERM or SIGHUP.
///
/// # Errors
/// Something cannot be started; everything that was started is stopped again.
pub async fn run(choices: Choices) -> anyhow::Result<()> {
    std::fs::create_dir_all(&choices.data)
        .with_context(|| format!("{} cannot be made", choices.data.display()))?;
    let data = choices.data.canonicalize()?;
    let _lock = lock(&data)?;
    let status_file = data.join("server.json");
    let _ = std::fs::remove_file(&status_file);
    let mut stop = supervise::Stop::new()?;
    let mut started = Started::default();
    let outcome = tokio::select! {
        outcome = started.start_and_watch(&choices, &data, &status_file) => outcome,
        () = stop.asked() => Ok(()),
    };
    let _ = std::fs::remove_file(&status_file);
    println!("Stopping …");
    // A second signal must not leave half of it running.
    started.stop().await;
    if outcome.is_ok() {
        println!(
            "Stopped. `script/server` starts again with the same data ({}).",
            data.display()
        );
    }
    outcome
}

/// Only one supervisor may use a folder; the lock goes with the process.
fn lock(data: &Path) -> anyhow::Result<std::fs::File> {
    let file = std::fs::File::create(data.join("lock"))?;
    if file.try_lock().is_err() {
        bail!(
            "another script/server uses {}: stop it, or choose another folder by OSTIARY_DATA",
            data.display()
        );
    }
    Ok(file)
}

#[derive(Debug, Default)]
struct Started {
    supervisor: Option<Supervisor>,
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    mail: Option<MailCatcher>,
}

impl Started {
    async fn start_and_watch(
        &mut self,
        choices: &Choices,
        data: &Path,
        status_file: &Path,
    ) -> anyhow::Result<()> {
        for (name, address) in [
            ("OSTIARY_API_LISTEN", choices.api_listen),
            ("OSTIARY_MANAGER_LISTEN", choices.manager_listen),
        ] {
            check_free(name, address)?;
        }
        let ground = self.prepare(choices, data).await?;
        let supervisor = self.supervisor.insert(Supervisor::default());
        println!("Starting api, manager and worker …");
        for recipe in own_processes(choices, &ground) {
            supervisor.start(recipe)?;
        }
        wait_for_answers(choices, &ground, supervisor).await?;
        if choices.simulated_nodes > 0 {
            println!("Starting {} simulated nodes …", choices.simulated_nodes);
            supervisor.start(fleet(choices, &ground))?;
        }
        let write = |supervisor: &Supervisor, postgres: &Postgres, redis: &Redis| {
            let mut processes = supervisor.pids();
            processes.insert("postgres".into(), postgres.pid());
            processes.insert("redis".into(), redis.pid());
            processes.insert("mail".into(), std::process::id());
            status::write(status_file, choices, &ground, &processes)
        };
        let (postgres, redis) = (self.postgres.as_mut(), self.redis.as_mut());
        let (postgres, redis) = postgres.zip(redis).context("both were just started")?;
        write(supervisor, postgres, redis)?;
        status::announce(status_file, choices, &ground);
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let changed = supervisor.revive();
            if postgres.ended()? {
                println!("postgres ended; starting it again");
                let again = Postgres::start(data, Durability::Kept, Some(postgres.port())).await?;
                *postgres = again;
            } else if redis.ended()? {
                println!("redis ended; starting it again");
                let (port, password) = redis.place();
                *redis = Redis::start(data, Some(port), Some(password)).await?;
            } else if !changed {
                continue;
            }
            write(supervisor, postgres, redis)?;
        }
    }

    /// Servers, keys, certificates, schema and the first contents.
    async fn prepare(&mut self, choices: &Choices, data: &Path) -> anyhow::Result<Ground> {
        println!("Data: {}", data.display());
        let logs = data.join("logs");
        std::fs::create_dir_all(&logs)?;
        let mut secrets = Secrets::load_or_make(&data.join("secrets.json"))?;
        println!("Starting Postgres …");
        let ports = secrets.ports(&[choices.api_listen.port(), choices.manager_listen.port()])?;
        let postgres = self
            .postgres
            .insert(Postgres::start(data, Durability::Kept, Some(ports.postgres)).await?);
        println!("Starting Redis …");
        let redis = Redis::start(
            data,
            Some(ports.redis),
            Some(secrets.redis_password.clone()),
        )
        .await?;
        let redis = self.redis.insert(redis);
        let names = ["localhost", "127.0.0.1", "::1"]
            .map(String::from)
            .into_iter();
        let mut names: Vec<String> = names.chain([choices.api_listen.ip().to_string()]).collect();
        names.dedup();
        let certificates = Certificates::ensure(&data.join("tls"), &names)?;
        let mail_address = SocketAddr::from(([127, 0, 0, 1], ports.mail));
        self.mail = Some(
            MailCatcher::start(mail_address, &data.join("mail"), mail::Options::default()).await?,
        );
        postgres.ensure_database("ostiary").await?;
        let ground = Ground {
            data: data.to_owned(),
            logs,
            certificates,
            mail_address,
            redis_url: redis.url(),
            database_url: postgres.url("ostiary"),
            worker_listen: SocketAddr::from(([127, 0, 0, 1], ports.worker)),
            secrets: secrets.clone(),
        };
        println!("Applying migrations …");
        manager(choices, &ground, &ground.database_url, &["migrate"])
            .run("")
            .await?;
        for role in ["ostiary_api", "ostiary_manager", "ostiary_worker"] {
            let password = &ground.secrets.role_password;
            postgres
                .sql(
                    "ostiary",
                    &format!("ALTER ROLE {role} PASSWORD '{password}'"),
                )
                .await?;
        }
        println!("Filling in the demo: user, enroll secret, destination, packs, rules …");
        seed::seed(choices, &ground, &mut secrets).await?;
        Ok(Ground { secrets, ..ground })
    }

    async fn stop(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.stop().await;
        }
        if let Some(redis) = self.redis.take() {
            redis.stop().await;
        }
        if let Some(postgres) = self.postgres.take() {
            postgres.stop().await;
        }
    }
}

fn check_free(name: &str, address: SocketAddr) -> anyhow::Result<()> {
    std::net::TcpListener::bind(address)
        .map(drop)
        .with_context(|| format!("{address} cannot be used (something else may listen there): choose another by {name}"))
}

impl Ground {
    fn role_url(&self, role: &str) -> String {
        let (_, rest) = self.database_url.split_once('@').unwrap_or_default();
        format!("postgres://{role}:{}@{rest}", self.secrets.role_password)
    }

    /// The settings of one of our processes, by its environment.
    fn settings(&self, choices: &Choices, database_url: &str) -> Vec<(String, String)> {
        let path = |path: &Path| path.display().to_string();
        [
            ("DATABASE__URL", database_url.to_owned()),
            ("REDIS__URL", self.redis_url.clone()),
            ("KEYS__ENROLL", self.secrets.enroll_key.clone()),
            ("KEYS__DESTINATIONS", self.secrets.destinations_key.clone()),
            (
                "PUBLIC__API_HOST",
                format!("localhost:{}", choices.api_listen.port()),
            ),
            (
                "PUBLIC__MANAGER_URL",
                format!("http://{}", choices.manager_listen),
            ),
            ("API__LISTEN", choices.api_listen.to_string()),
            ("API__CERTIFICATE", path(&self.certificates.certificate)),
            ("API__PRIVATE_KEY", path(&self.certificates.private_key)),
            ("MANAGER__LISTEN", choices.manager_listen.to_string()),
            ("MANAGER__CA_CERTIFICATE", path(&self.certificates.ca)),
            ("WORKER__LISTEN", self.worker_listen.to_string()),
            ("OUTPUTS__ALLOW_PRIVATE_ADDRESSES", "true".into()),
        ]
        .into_iter()
        .map(|(name, value)| (format!("OSTIARY_{name}"), value))
        .collect()
    }

    /// The settings of a process without what it must not know.
    fn settings_without(
        &self,
        choices: &Choices,
        role: &str,
        unknown: &[&str],
    ) -> Vec<(String, String)> {
        let all = self.settings(choices, &self.role_url(role));
        all.into_iter()
            .filter(|(name, _)| !unknown.iter().any(|unknown| name.ends_with(unknown)))
            .collect()
    }
}

fn manager(choices: &Choices, ground: &Ground, database_url: &str, arguments: &[&str]) -> Recipe {
    let mut command = vec![
        choices
            .binaries
            .join("ostiary-manager")
            .display()
            .to_string(),
    ];
    command.extend(arguments.iter().map(ToString::to_string));
    let name = format!(
        "ostiary-manager {}",
        arguments.first().copied().unwrap_or_default()
    );
    let mut recipe = Recipe::new(&name, command, &ground.logs.join("manager.log"));
    recipe.env = ground.settings(choices, database_url);
    recipe
        .env
        .push(("OSTIARY_LOG__FILTER".into(), "warn,rustls=error".into()));
    recipe
}

fn own_processes(choices: &Choices, ground: &Ground) -> Vec<Recipe> {
    [
        ("api", &["KEYS__DESTINATIONS"][..]),
        ("manager", &[]),
        ("worker", &["KEYS__ENROLL"]),
    ]
    .into_iter()
    .map(|(name, unknown)| {
        let command = vec![
            choices
                .binaries
                .join(format!("ostiary-{name}"))
                .display()
                .to_string(),
        ];
        let mut recipe = Recipe::new(name, command, &ground.logs.join(format!("{name}.log")));
        recipe.env = ground.settings_without(choices, &format!("ostiary_{name}"), unknown);
        recipe
    })
    .collect()
}

/// The fleet: quick timers, so that a newcomer sees life within seconds, and one drift after a while.
fn fleet(choices: &Choices, ground: &Ground) -> Recipe {
    let path = |path: PathBuf| path.display().to_string();
    let command = [
        path(choices.binaries.join("ostiary-fleet")),
        "--tls-hostname".into(),
        format!("localhost:{}", choices.api_listen.port()),
        "--max-interval".into(),
        "30".into(),
        "--max-timer".into(),
        "5".into(),
        "--ca-cert".into(),
        path(ground.certificates.ca.clone()),
        "--nodes".into(),
        choices.simulated_nodes.to_string(),
        "--state".into(),
        path(ground.data.join("fleet")),
        "--ledger".into(),
        path(ground.data.join("fleet-ledger.jsonl")),
        "--control".into(),
        path(ground.data.join("fleet.sock")),
        "--drift".into(),
        "firewall".into(),
        "--drift-after".into(),
        "45s".into(),
    ];
    let mut recipe = Recipe::new("fleet", command.into(), &ground.logs.join("fleet.log"));
    recipe.env = vec![(
        "OSTIARY_ENROLL_SECRET".into(),
        ground.secrets.enroll_secret.clone(),
    )];
    recipe
}

async fn wait_for_answers(
    choices: &Choices,
    ground: &Ground,
    supervisor: &mut Supervisor,
) -> anyhow::Result<()> {
    let ca = reqwest::Certificate::from_pem(&std::fs::read(&ground.certificates.ca)?)?;
    let client = reqwest::Client::builder()
        .tls_certs_only([ca])
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()?;
    let urls = [
        (
            "api",
            format!("https://localhost:{}/readyz", choices.api_listen.port()),
        ),
        (
            "manager",
            format!("http://{}/readyz", choices.manager_listen),
        ),
        ("worker", format!("http://{}/readyz", ground.worker_listen)),
    ];
    for (name, url) in urls {
        let answers = async || {
            supervisor.is_dead(name)
                || client
                    .get(&url)
                    .send()
                    .await
                    .is_ok_and(|response| response.status().is_success())
        };
        let waited = wait_until(&format!("{name} answers"), Duration::from_secs(60), answers).await;
        if waited.is_err() || supervisor.is_dead(name) {
            bail!(
                "{name} does not start; the end of its log:\n{}",
                supervisor.last_words(name)
            );
        }
    }
    Ok(())
}
