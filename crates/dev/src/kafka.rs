//! A private Kafka cluster of three brokers on free ports of 127.0.0.1: the mock cluster of librdkafka, which speaks the real protocol
//! and keeps what it gets in memory (Debian's kcat has the library in it). A topic has four partitions and is there as soon as it is
//! asked for.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;

use crate::process::{Process, Recipe, find_program};

/// A running cluster.
#[derive(Debug)]
pub struct Kafka {
    process: Process,
    program: String,
    /// Its brokers, with commas between.
    pub brokers: String,
}

/// A message as a consumer reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaMessage {
    /// The number of its partition.
    pub partition: u32,
    /// Its key.
    pub key: String,
    /// What it says.
    pub text: String,
}

impl Kafka {
    /// Starts a cluster that logs into `folder`.
    ///
    /// # Errors
    /// kcat is not installed, or does not start; the message holds its last words.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let program = find_program("kcat")?;
        let log = folder.join("kafka.log");
        // A consumer that waits for a topic of its own; the cluster lives in its process, and says in its log where.
        let command = [
            program.as_str(),
            "-C",
            "-X",
            "test.mock.num.brokers=3",
            "-b",
            "mock",
            "-d",
            "mock",
            "-t",
            "nothing",
            "-p",
            "0",
        ];
        let mut brokers = None;
        let recipe = Recipe::new("kcat", command.map(String::from).into(), &log);
        let process = recipe
            .start_server(async || {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
                brokers = (whole.lines())
                    .find_map(|line| line.split_once("bootstrap.servers="))
                    .map(|(_, brokers)| brokers.trim().to_owned());
                brokers.is_some()
            })
            .await?;
        Ok(Self {
            process,
            program,
            brokers: brokers.context("the cluster said where it listens")?,
        })
    }

    /// All messages of a topic, in the order of each partition, read and checked by librdkafka.
    ///
    /// # Errors
    /// kcat does not end well.
    pub async fn messages(&self, topic: &str) -> anyhow::Result<Vec<KafkaMessage>> {
        let command = [
            self.program.as_str(),
            "-C",
            "-q",
            "-e",
            "-b",
            &self.brokers,
            "-X",
            "check.crcs=true",
            "-t",
            topic,
            "-o",
            "beginning",
            "-f",
            "%p\\t%k\\t%s\\n",
        ];
        let recipe = Recipe::new("kcat", command.map(String::from).into(), Path::new(""));
        let text = recipe.run("").await?;
        text.lines()
            .map(|line| {
                let mut parts = line.splitn(3, '\t');
                let mut part = || parts.next().context("kcat prints three columns");
                Ok(KafkaMessage {
                    partition: part()?.parse()?,
                    key: part()?.to_owned(),
                    text: part()?.to_owned(),
                })
            })
            .collect()
    }

    /// Ends the cluster.
    pub async fn stop(self) {
        self.process
            .stop(Signal::KILL, Duration::from_secs(5))
            .await;
    }
}
