//! Sending one alert to one destination: claim, send outside of any transaction, record.
//!
//! **Invariant I8:** the attempt is counted, and committed, before anything is sent, and the claim is a lease. A worker that dies
//! between the sending and the record leads to a second attempt with the same delivery id: at least once.
//!
//! When an attempt failed Postgres holds when the next is due; the sweep rings for it. There is no other retry. A destination that fails
//! again and again is paused, and then tried with one delivery, the probe.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use ostiary_boot::seal::Key;
use ostiary_domain::clock::Clock;
use ostiary_domain::ids::{DeliveryId, DestinationId};
use ostiary_outputs::destinations::{Destination, Kind, SEAL_PURPOSE};
use ostiary_outputs::{AlertKind, Message, Outbound, SendError, Templates, hide};
use ostiary_store::deliveries::{self, Attempt, Claimed, Verdict};
use ostiary_store::{Conn, Db, Result, destination_circuits};
use tokio_util::sync::CancellationToken;

/// Attempts before a delivery is given up: with the waits between them they take about a day.
const MOST_ATTEMPTS: u32 = 31;
const FIRST_WAIT: Duration = Duration::from_secs(15);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Answers in a row that somebody over there may mend before a delivery is given up: with the waits between them some eight hours.
const MOST_REJECTIONS: u32 = 12;
const FIRST_SLOW_WAIT: Duration = Duration::from_secs(300);

/// Failures of a destination in a row before it is paused, and how long at first and at most.
const FAILURES_BEFORE_PAUSE: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Alerts that are told in one message with another, where a destination gathers them.
const MOST_ALONG: i64 = 99;

/// What a claim lasts beyond the longest attempt: time to record it in.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// Rows that are looked at in one go.
const DUE_AT_ONCE: i64 = 100;

/// What came of a delivery that was to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing to do: it has ended, another worker is at it, its time has not come, or an earlier alert of its finding goes first.
    NotDue,
    /// The destination took it.
    Delivered,
    /// It will be tried again.
    Waiting,
    /// It will not be tried again.
    Dead,
    /// Its destination is disabled.
    Skipped,
}

/// Makes one attempt at a delivery, if it is due; where a destination gathers, at all that waits for it.
///
/// # Errors
/// Postgres failed. If that was after the sending, the alert is sent again when the lease is over.
pub(crate) async fn deliver(
    db: &Db,
    outbound: &Outbound,
    key: &Key,
    clock: &dyn Clock,
    id: DeliveryId,
) -> Result<Outcome> {
    let started_at = clock.now();
    let lease_until = started_at + outbound.longest_attempt() + LEASE_MARGIN;
    let mut tx = db.begin().await?;
    let Some(first) = deliveries::take(&mut tx, id, started_at, lease_until).await? else {
        return Ok(Outcome::NotDue);
    };
    let gathers = first.destination.as_ref().is_some_and(|destination| {
        destination.gathers && Kind::find(&destination.kind).is_some_and(|kind| kind.digests)
    });
    let mut claimed = vec![first];
    if gathers {
        let along =
            deliveries::take_along(&mut tx, &claimed[0], started_at, lease_until, MOST_ALONG);
        claimed.extend(along.await?);
        // Whichever was claimed first, people read them in the order in which they were recorded, which is that of their ids.
        claimed.sort_by_key(|each| each.id);
    }
    Db::commit(tx).await?;
    let timer = Instant::now();
    let Sent { result, body } = attempt(outbound, key, &claimed, started_at).await;
    let duration_ms = i32::try_from(timer.elapsed().as_millis()).unwrap_or(i32::MAX);
    let now = clock.now();
    let answer = match &result {
        Ok(answer) => answer,
        Err(error) => error.answer(),
    };
    let mut tx = db.begin().await?;
    let mut outcomes = Vec::new();
    let with_first = format!("Told in one message with delivery {}.", claimed[0].id);
    for (place, each) in claimed.iter().enumerate() {
        let is_along = place > 0 && !body.is_empty();
        let attempt = Attempt {
            started_at,
            duration_ms,
            verdict: judge(each, &claimed[0], &result, now),
            answer,
            body: if is_along { &with_first } else { &body },
        };
        deliveries::record(&mut tx, each, &attempt, now).await?;
        outcomes.push(attempt);
    }
    if let Some(destination) = claimed[0].destination_id {
        note_health(&mut tx, destination, &result, now).await?;
    }
    Db::commit(tx).await?;
    let mut outcome = Outcome::NotDue;
    for (each, attempt) in claimed.iter().zip(&outcomes) {
        let told = tell(each, attempt);
        if each.id == id {
            outcome = told;
        }
    }
    Ok(outcome)
}

/// Notes in the destination's circuit whether it works. Whoever refuses what was said listens, so that is no failure of the
/// destination.
async fn note_health(
    conn: &mut Conn,
    id: DestinationId,
    result: &std::result::Result<String, SendError>,
    now: DateTime<Utc>,
) -> Result<()> {
    let answer = match result {
        Ok(_) | Err(SendError::Refused { .. }) => {
            if destination_circuits::close(conn, id).await? {
                tracing::info!(destination.id = %id, "the destination works again");
            }
            return Ok(());
        }
        Err(SendError::Retry { answer, .. } | SendError::Rejected { answer }) => answer,
    };
    let failures = destination_circuits::note_failure(conn, id, answer, now).await?;
    if let Some(beyond) = failures.checked_sub(FAILURES_BEFORE_PAUSE) {
        let pause = (FIRST_PAUSE * (1 << beyond.min(8))).min(LONGEST_PAUSE);
        let pause = TimeDelta::from_std(pause).expect("some minutes");
        destination_circuits::pause(conn, id, pause, now).await?;
        tracing::warn!(destination.id = %id, failures, %pause, answer, "the destination fails and is paused");
    }
    Ok(())
}

/// Makes every delivery that is due, some at once, until none is left; gives the number of attempts. After `shutdown` none is
/// begun, and those under way end.
///
/// # Errors
/// Postgres failed.
pub(crate) async fn deliver_due(
    db: &Db,
    outbound: &Outbound,
    key: &Key,
    clock: &dyn Clock,
    concurrency: usize,
    shutdown: &CancellationToken,
) -> Result<usize> {
    let mut attempts = 0;
    loop {
        let mut conn = db.acquire().await?;
        let due = deliveries::list_due(&mut conn, clock.now(), DUE_AT_ONCE).await?;
        drop(conn);
        let outcomes: Vec<Outcome> = futures::stream::iter(due)
            .take_while(|_| std::future::ready(!shutdown.is_cancelled()))
            .map(|id| deliver(db, outbound, key, clock, id))
            .buffer_unordered(concurrency.max(1))
            .try_collect()
            .await?;
        let made = outcomes
            .iter()
            .filter(|outcome| **outcome != Outcome::NotDue)
            .count();
        if made == 0 {
            return Ok(attempts);
        }
        attempts += made;
    }
}

/// What an attempt brought, and what was said by it.
struct Sent {
    result: std::result::Result<String, SendError>,
    body: String,
}

/// Sends. Whatever cannot be sent at all is refused with words for whoever reads the delivery.
async fn attempt(outbound: &Outbound, key: &Key, claimed: &[Claimed], now: DateTime<Utc>) -> Sent {
    let refused = |answer| Sent {
        result: Err(SendError::Refused { answer }),
        body: String::new(),
    };
    let Opened {
        destination,
        secrets,
    } = match open(key, &claimed[0]) {
        Ok(opened) => opened,
        Err(answer) => return refused(answer),
    };
    let messages: std::result::Result<Vec<Message>, String> =
        claimed.iter().map(|each| read(each, now)).collect();
    let messages = match messages {
        Ok(messages) => messages,
        Err(answer) => return refused(answer),
    };
    let (recording, transcript) = outbound.recording();
    let sending = async {
        match messages.as_slice() {
            [one] => destination.send(&recording, one).await,
            all => destination.send_digest(&recording, all).await,
        }
    };
    // Destinations end in time by themselves. If one does not, it must not outlive its lease.
    let result = tokio::time::timeout(outbound.longest_attempt(), sending)
        .await
        .unwrap_or_else(|_| {
            Err(SendError::Retry {
                answer: "no answer in time".to_owned(),
                after: None,
            })
        });
    Sent {
        result: result
            .map(|answer| hide(&secrets, &answer))
            .map_err(|error| error.hiding(&secrets)),
        body: transcript.said(&secrets),
    }
}

/// A destination that is ready to be sent to, and what must not be kept of what is said to it.
struct Opened {
    destination: Box<dyn Destination>,
    secrets: Vec<String>,
}

fn open(key: &Key, claimed: &Claimed) -> std::result::Result<Opened, String> {
    // Such an attempt ended without a record each time: it takes the worker down with it.
    if claimed.counted_attempts > MOST_ATTEMPTS {
        return Err(format!(
            "given up: {MOST_ATTEMPTS} attempts were begun, and the last did not end"
        ));
    }
    let destination = claimed
        .destination
        .as_ref()
        .ok_or("the destination was deleted")?;
    if !destination.enabled {
        return Err("not sent: the destination is disabled".to_owned());
    }
    let kind = Kind::find(&destination.kind)
        .ok_or_else(|| format!("there is no kind of destination \"{}\"", destination.kind))?;
    let settings = key
        .open(SEAL_PURPOSE, &destination.settings)
        .map_err(|_| "the destination's settings were sealed with another key than [keys] destinations of today")?;
    // What is wrong with them is not said here: it might quote a secret.
    let unusable = "the destination's settings cannot be used: edit and save it";
    let settings = serde_json::from_slice(&settings).map_err(|_| unusable)?;
    let destination = kind.read(&settings).map_err(|_| unusable.to_owned())?;
    Ok(Opened {
        destination,
        secrets: kind.secrets(&settings),
    })
}

/// The alert as it is told.
fn read(claimed: &Claimed, now: DateTime<Utc>) -> std::result::Result<Message, String> {
    let kind = AlertKind::parse(&claimed.alert_kind)
        .ok_or_else(|| format!("there is no kind of alert \"{}\"", claimed.alert_kind))?;
    let destination = claimed.destination.as_ref();
    let templates = destination.map_or_else(Templates::default, |destination| Templates {
        title: destination.title_template.clone(),
        text: destination.text_template.clone(),
    });
    let alert = serde_json::from_value(claimed.body.clone())
        .map_err(|error| format!("the alert cannot be read: {error}"))?;
    Ok(Message {
        alert_id: claimed.alert_id,
        delivery_id: claimed.id,
        kind,
        alert,
        templates,
        now,
    })
}

/// What an attempt means for one of the deliveries that were made by it. They wait together, as the first of them does.
fn judge(
    claimed: &Claimed,
    first: &Claimed,
    result: &std::result::Result<String, SendError>,
    now: DateTime<Utc>,
) -> Verdict {
    let due_at = |wait| now + TimeDelta::from_std(wait).unwrap_or(TimeDelta::hours(1));
    let is_disabled = claimed
        .destination
        .as_ref()
        .is_some_and(|destination| !destination.enabled);
    match result {
        Ok(_) => Verdict::Delivered,
        Err(_) if is_disabled => Verdict::Skipped,
        Err(SendError::Refused { .. }) => Verdict::Refused,
        Err(_) if claimed.counted_attempts >= MOST_ATTEMPTS => Verdict::GivenUp,
        Err(SendError::Rejected { .. }) if claimed.rejections + 1 >= MOST_REJECTIONS => {
            Verdict::GivenUp
        }
        Err(SendError::Rejected { .. }) => Verdict::Rejected {
            due_at: due_at(back_off(FIRST_SLOW_WAIT, first.id, first.rejections + 1)),
        },
        Err(SendError::Retry { after, .. }) => {
            let wait = back_off(FIRST_WAIT, first.id, first.counted_attempts);
            Verdict::Again {
                due_at: due_at(wait.max(after.unwrap_or_default())),
            }
        }
    }
}

/// How long to wait after so many attempts: twice as long each time, up to an hour, give or take a quarter, so that what failed
/// together does not come again together. The chance is in the id, whose end is random.
fn back_off(first: Duration, id: DeliveryId, attempts: u32) -> Duration {
    const STEPS: u32 = 1 << 16;
    let doublings = attempts.saturating_sub(1).min(16);
    let wait = (first * (1 << doublings)).min(LONGEST_WAIT);
    let dice = (id.0.as_u64_pair().1 ^ u64::from(attempts)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let step = u32::try_from(dice >> 48).expect("16 bits are left");
    wait * 3 / 4 + (wait / 2) * step / STEPS
}

/// Says in log and metrics what came of an attempt.
fn tell(claimed: &Claimed, attempt: &Attempt<'_>) -> Outcome {
    let (id, destination) = (claimed.id, &claimed.destination_name);
    let (attempts, duration_ms, answer) = (claimed.attempts, attempt.duration_ms, attempt.answer);
    let (outcome, name) = match attempt.verdict {
        Verdict::Delivered => {
            tracing::info!(delivery.id = %id, destination.name = destination, attempts, duration_ms, "alert delivered");
            (Outcome::Delivered, "delivered")
        }
        Verdict::Again { due_at } | Verdict::Rejected { due_at } => {
            tracing::info!(
                delivery.id = %id, destination.name = destination, attempts, duration_ms, %due_at, answer, "alert not delivered yet"
            );
            (Outcome::Waiting, "retry")
        }
        Verdict::Skipped => (Outcome::Skipped, "skipped"),
        Verdict::GivenUp | Verdict::Refused => {
            tracing::warn!(delivery.id = %id, destination.name = destination, attempts, duration_ms, answer, "alert given up");
            (Outcome::Dead, "dead")
        }
    };
    metrics::counter!("ostiary_delivery_attempts_total", "outcome" => name).increment(1);
    outcome
}

#[cfg(test)]
#[path = "deliver_alert_tests.rs"]
mod tests;
