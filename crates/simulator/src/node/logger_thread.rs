//! Flushing the buffer: two log types, one attempt a flush, silence after failures, deletion on success only.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Node;
use crate::client::Client;
use crate::counters::add;
use crate::ledger::LogType;
use crate::misbehave::Misbehaviour;

/// Silence after failures of one log type.
#[derive(Debug, Default)]
struct Silence {
    failures: u32,
    until: Option<Instant>,
}

/// How long a log type is silent after `failures` failed posts in a row: period × n², at most `max`
/// seconds, and only from 5.12.0 on; `max` 0 turns it off.
pub(crate) fn back_off(period: Duration, failures: u32, max: u64) -> Duration {
    period
        .saturating_mul(failures.saturating_mul(failures))
        .min(Duration::from_secs(max))
}

impl Silence {
    fn is_over(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() >= until)
    }

    fn note(&mut self, success: bool, period: Duration, max: u64) {
        if success {
            *self = Silence::default();
        } else {
            self.failures += 1;
            self.until = Some(Instant::now() + back_off(period, self.failures, max));
        }
    }
}

impl Node {
    /// Flushes at once and then each period.
    pub(super) async fn logger_thread(&self) {
        let mut client = self.client();
        let (mut results, mut statuses) = (Silence::default(), Silence::default());
        loop {
            self.flush(&mut client, &mut results, &mut statuses).await;
            tokio::time::sleep(self.logger_period()).await;
        }
    }

    fn logger_period(&self) -> Duration {
        let seconds = self
            .state()
            .number("logger_tls_period", self.settings.logger_tls_period);
        self.settings.timer(seconds)
    }

    async fn flush(&self, client: &mut Client, results: &mut Silence, statuses: &mut Silence) {
        let (max, back_off_max, keep) = {
            let state = self.state();
            (
                state.number("logger_tls_max_lines", 1024),
                state.number("logger_tls_backoff_max", 3600),
                state.number("buffered_log_max", 1_000_000),
            )
        };
        let period = self.logger_period();
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let (result_keys, status_keys) = self.with_buffer(|buffer| buffer.first(max));
        for (log_type, keys, silence) in [
            (LogType::Result, result_keys, results),
            (LogType::Status, status_keys, statuses),
        ] {
            if keys.is_empty() || !silence.is_over() {
                continue;
            }
            let success = self.post_lines(client, log_type, &keys).await;
            if self.version.backs_off() && back_off_max > 0 {
                silence.note(success, period, back_off_max);
            }
        }
        let purged =
            self.with_buffer(|buffer| buffer.purge(usize::try_from(keep).unwrap_or(usize::MAX)));
        if purged > 0 {
            add(&self.counters.lines_lost, purged as u64);
            self.log_status(
                1,
                "buffered.cpp",
                164,
                &format!("Purging buffered logs limit ({keep}) exceeded: {purged}"),
            );
        }
    }

    /// Posts these lines once; deletes them if that is a success.
    async fn post_lines(&self, client: &mut Client, log_type: LogType, keys: &[String]) -> bool {
        let (lines, new) = self.with_buffer(|buffer| buffer.post(keys));
        add(&self.counters.lines_sent, new);
        let (gzip, twice) = {
            let state = self.state();
            let flag = self.within(1, self.settings.gzip_share);
            (
                state.flag("logger_tls_compress", flag),
                state.misbehaves(Misbehaviour::DoublePost),
            )
        };
        let body = |key: &str| envelope(key, log_type, &lines, self.version.writes_property_tree());
        let path = self.settings.endpoints.log.clone();
        let answer = if twice {
            self.post_twice(client, &path, gzip, body).await
        } else {
            self.ask(client, &path, gzip, body).await
        };
        if answer.is_none() {
            return false;
        }
        let deleted = self.with_buffer(|buffer| buffer.delete(keys));
        add(&self.counters.lines_deleted, deleted.len() as u64);
        self.ledger
            .note(deleted.into_iter().map(|line| line.entry).collect());
        true
    }

    /// The same post twice, milliseconds apart, as when the first answer is lost: only the second counts.
    async fn post_twice(
        &self,
        client: &mut Client,
        path: &str,
        gzip: bool,
        body: impl Fn(&str) -> Bytes,
    ) -> Option<serde_json::Map<String, serde_json::Value>> {
        self.enroll_if_needed().await;
        let post = self.keyed_post(path, gzip, body);
        let mut second_client = self.client();
        let second = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            second_client.post(&post).await
        };
        add(&self.counters.posts, 2);
        let (_, answer) = tokio::join!(client.post(&post), second);
        self.heed(answer)
    }
}

/// The body of a log post. Lines are put in as they are: they may hold bytes that no JSON writer makes.
fn envelope(key: &str, log_type: LogType, lines: &[Vec<u8>], newline: bool) -> Bytes {
    let key = serde_json::Value::from(key);
    let mut body = format!(
        "{{\"node_key\":{key},\"log_type\":\"{}\",\"data\":[",
        log_type.word()
    )
    .into_bytes();
    body.extend(lines.join(&b','));
    body.extend_from_slice(b"]}");
    if newline {
        body.push(b'\n');
    }
    body.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_grows_with_the_square_and_has_an_end() {
        let period = Duration::from_secs(4);
        let seconds: Vec<u64> = (1..=4)
            .map(|n| back_off(period, n, 3600).as_secs())
            .collect();
        assert_eq!(seconds, [4, 16, 36, 64]);
        assert_eq!(back_off(period, 1000, 3600).as_secs(), 3600);
    }

    #[test]
    fn a_post_carries_lines_byte_for_byte() {
        let body = envelope(
            "k",
            LogType::Status,
            &[b"{\"a\":\"\xFF\"}".to_vec(), b"{}".to_vec()],
            false,
        );
        assert_eq!(
            &body[..],
            b"{\"node_key\":\"k\",\"log_type\":\"status\",\"data\":[{\"a\":\"\xFF\"},{}]}"
        );
    }
}
