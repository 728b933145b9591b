//! One round of one sink: of each source a batch.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::sink::{LineType, SinkFilter};
use ostiary_domain::target::Target;
use ostiary_outputs::SendError;
use ostiary_outputs::sinks::{Kind, Limits, Record, SEAL_PURPOSE, Sink, Way};
use ostiary_store::sinks::runs::{self, Running, Sent};
use ostiary_store::sinks::{Cursor, Horizons, cursors};
use ostiary_store::{Db, Result};

use super::deliver::deliver;
use super::lines::{self, Batch};
use crate::App;

/// The longest that a batch may take, whatever the kind: beyond that something hangs.
const LONGEST_BATCH: Duration = Duration::from_secs(300);
const FIRST_WAIT: TimeDelta = TimeDelta::seconds(1);
const LONGEST_WAIT: TimeDelta = TimeDelta::minutes(5);
/// How soon it is looked again when there was nothing.
pub(super) const IDLE: Duration = Duration::from_secs(1);
/// How often it is measured how far a sink is behind.
const MEASURE_EVERY: TimeDelta = TimeDelta::seconds(10);

/// What a worker keeps of a sink while it holds it.
#[derive(Default)]
pub(super) struct Held {
    /// As of which change of its settings it was opened.
    opened: Option<(DateTime<Utc>, Box<dyn Sink>)>,
    horizons: Horizons,
    /// As of which change of its settings it gathers, and until when.
    gathering: Option<(DateTime<Utc>, DateTime<Utc>)>,
    measured_at: Option<DateTime<Utc>>,
}

/// What a round brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    /// Lines that are dealt with.
    pub(super) lines: i64,
    /// When to look again; `None`: at once, there is more.
    pub(super) wait: Option<Duration>,
}

impl Turn {
    fn wait(lines: i64, wait: Duration) -> Self {
        Self {
            lines,
            wait: Some(wait),
        }
    }
}

/// Does one round.
///
/// # Errors
/// Postgres failed. That the sink itself fails is no error: it is noted, and tried again later.
pub(super) async fn turn(app: &App, running: &Running, held: &mut Held) -> Result<Turn> {
    measure(app, running, held).await?;
    if running.test_asked {
        test(app, running, held).await?;
    }
    let now = app.now();
    if running.types.is_empty() {
        return Ok(Turn::wait(0, IDLE));
    }
    if running.due_at > now {
        let left = (running.due_at - now).to_std().unwrap_or(IDLE);
        return Ok(Turn::wait(0, left.min(IDLE)));
    }
    // Looked at again and again all the same: a test may be asked for, or the settings change.
    let is_gathering = |(as_of, until)| as_of == running.updated_at && until > now;
    if held.gathering.is_some_and(is_gathering) {
        return Ok(Turn::wait(0, IDLE));
    }
    let filter = match filter_of(running) {
        Ok(filter) => filter,
        Err(problem) => return fail(app, running, &SendError::Rejected { answer: problem }).await,
    };
    let limits = match open(app, running, held) {
        Ok(sink) => sink.limits(),
        Err(error) => return fail(app, running, &error).await,
    };
    match forward(app, running, held, &filter, limits).await? {
        Ok(turn) if turn.wait.is_none() => Ok(turn),
        Ok(turn) => {
            let pause = TimeDelta::from_std(limits.pause).unwrap_or_default();
            held.gathering = Some((running.updated_at, app.now() + pause));
            Ok(turn)
        }
        Err(error) => {
            // What was opened may be broken.
            held.opened = None;
            fail(app, running, &error).await
        }
    }
}

/// Forwards a batch of each source. The inner error is the sink's.
///
/// A source whose whole batch is refused has another try behind the others: if they took something, its own lines are to blame, and not
/// the settings. So a single line that nobody takes holds up neither them nor its own source.
async fn forward(
    app: &App,
    running: &Running,
    held: &mut Held,
    filter: &SinkFilter,
    limits: Limits,
) -> Result<std::result::Result<Turn, SendError>> {
    let mut conn = app.db.acquire().await?;
    let all = cursors::list(&mut conn, running.id).await?;
    drop(conn);
    let mut sources: VecDeque<(Cursor, Option<SendError>)> =
        all.into_iter().map(|cursor| (cursor, None)).collect();
    let (mut lines, mut taken, mut is_more) = (0, 0, false);
    while let Some((cursor, refusal)) = sources.pop_front() {
        let is_proven = match refusal {
            Some(refusal) if taken == 0 => return Ok(Err(refusal)),
            refusal => refusal.is_some(),
        };
        let mut conn = app.db.acquire().await?;
        let up_to = held.horizons.look(&mut conn, cursor.source).await?;
        let from = cursor.position;
        if up_to <= from.after_id {
            continue;
        }
        let batch = lines::read(&mut conn, cursor.source, from, up_to, limits, filter).await?;
        drop(conn);
        is_more |= batch.is_full;
        match send(app, running, held, &cursor, &batch, is_proven).await? {
            Ok(sent) => {
                lines += sent.lines + sent.refused;
                taken += sent.lines;
            }
            Err(error @ SendError::Refused { .. }) if !is_proven => {
                sources.push_back((cursor, Some(error)));
            }
            Err(error) => return Ok(Err(error)),
        }
    }
    let wait = (!is_more).then_some(IDLE);
    Ok(Ok(Turn { lines, wait }))
}

fn filter_of(running: &Running) -> std::result::Result<SinkFilter, String> {
    let target = Target::parse(&running.target)
        .map_err(|error| format!("the choice of nodes cannot be read: {error}"))?;
    Ok(SinkFilter {
        types: running
            .types
            .iter()
            .filter_map(|name| LineType::parse(name))
            .collect(),
        queries: running.queries.clone(),
        target,
    })
}

fn way(app: &App, running: &Running) -> Way {
    Way {
        outbound: app.outbound.clone(),
        folder: app.settings.sinks.folder.clone(),
        name: running.name.clone(),
        now: app.now(),
    }
}

/// The sink, opened as its settings are now.
fn open<'h>(
    app: &App,
    running: &Running,
    held: &'h mut Held,
) -> std::result::Result<&'h mut Box<dyn Sink>, SendError> {
    let rejected = |answer: String| SendError::Rejected { answer };
    let is_fresh = matches!(&held.opened, Some((as_of, _)) if *as_of == running.updated_at);
    if !is_fresh {
        let kind = Kind::find(&running.kind).ok_or_else(|| {
            rejected(format!(
                "this worker knows no sinks of kind {}",
                running.kind
            ))
        })?;
        let key = &app.settings.keys.destinations;
        let settings = key.open(SEAL_PURPOSE, &running.settings_sealed).map_err(|_| {
            rejected("the settings were sealed with another key than [keys] destinations of today: type them in anew".into())
        })?;
        let settings = serde_json::from_slice(&settings)
            .map_err(|_| rejected("the settings are damaged: type them in anew".into()))?;
        let sink = kind
            .read(&settings)
            .map_err(|error| rejected(error.to_string()))?;
        held.opened = Some((running.updated_at, sink));
    }
    let (_, sink) = held.opened.as_mut().expect("it was just opened");
    Ok(sink)
}

/// Hands a batch over and moves the cursor on. The inner error is the sink's.
async fn send(
    app: &App,
    running: &Running,
    held: &mut Held,
    cursor: &Cursor,
    batch: &Batch,
    is_proven: bool,
) -> Result<std::result::Result<Sent, SendError>> {
    let mut sent = Sent::default();
    if !batch.records.is_empty() {
        let way = way(app, running);
        let sink = match open(app, running, held) {
            Ok(sink) => sink,
            Err(error) => return Ok(Err(error)),
        };
        let delivered = deliver(sink.as_mut(), &way, &batch.records, is_proven);
        let delivered = tokio::time::timeout(LONGEST_BATCH, delivered);
        sent = match delivered.await {
            Ok(Ok(sent)) => sent,
            Ok(Err(error)) => return Ok(Err(error)),
            Err(_) => {
                let answer = "a batch takes too long".to_owned();
                return Ok(Err(SendError::Retry {
                    answer,
                    after: None,
                }));
            }
        };
    }
    let mut tx = app.db.begin().await?;
    let noted = runs::note_sent(&mut tx, running.id, running.lease, &sent, app.now()).await?;
    let moved = noted
        && cursors::advance(
            &mut tx,
            running.id,
            cursor.source,
            cursor.position,
            batch.end,
        )
        .await?;
    if !noted {
        // Somebody else runs it by now, and sends this batch again.
        tracing::warn!(sink.id = %running.id, "a sink was taken up by somebody else");
        return Ok(Ok(Sent::default()));
    }
    Db::commit(tx).await?;
    if !moved {
        tracing::info!(sink.id = %running.id, source = cursor.source.table(), "a sink was set to another place meanwhile");
    }
    if sent.refused > 0 {
        tracing::warn!(sink.id = %running.id, refused = sent.refused, answer = sent.refusal, "a sink refuses lines for good");
    }
    let counted = |lines: i64| u64::try_from(lines).unwrap_or(0);
    let name = running.name.clone();
    metrics::counter!("ostiary_sink_lines_total", "sink" => name.clone(), "outcome" => "sent")
        .increment(counted(sent.lines));
    metrics::counter!("ostiary_sink_lines_total", "sink" => name, "outcome" => "refused")
        .increment(counted(sent.refused));
    Ok(Ok(sent))
}

/// Notes a failure, and when it is tried again: later and later, and not before the other side asks for.
async fn fail(app: &App, running: &Running, error: &SendError) -> Result<Turn> {
    let doubled = FIRST_WAIT * (1 << running.attempts.clamp(0, 10));
    let asked = match error {
        SendError::Retry { after, .. } => after.and_then(|after| TimeDelta::from_std(after).ok()),
        _ => None,
    };
    let wait = doubled.min(LONGEST_WAIT).max(asked.unwrap_or_default());
    let now = app.now();
    tracing::warn!(sink.id = %running.id, sink.name = running.name, %error, "a sink takes nothing for now");
    metrics::counter!("ostiary_sink_failures_total", "sink" => running.name.clone()).increment(1);
    let mut conn = app.db.acquire().await?;
    let due_at = now + wait;
    runs::note_failed(
        &mut conn,
        running.id,
        running.lease,
        error.answer(),
        now,
        due_at,
    )
    .await?;
    Ok(Turn::wait(0, IDLE))
}

/// Sends the test that a person asked for, and notes how it went.
async fn test(app: &App, running: &Running, held: &mut Held) -> Result<()> {
    let record = Record::test(&running.name, app.now());
    let way = way(app, running);
    let answer = match open(app, running, held) {
        Err(error) => Err(error),
        Ok(sink) => {
            match tokio::time::timeout(LONGEST_BATCH, sink.forward(&way, &[record])).await {
                Ok(Ok(taken)) => Ok(taken.answer),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(SendError::Retry {
                    answer: "it takes too long".to_owned(),
                    after: None,
                }),
            }
        }
    };
    if answer.is_err() {
        held.opened = None;
    }
    let told = answer
        .as_ref()
        .map(String::as_str)
        .map_err(SendError::answer);
    let mut conn = app.db.acquire().await?;
    runs::note_tested(&mut conn, running.id, running.lease, told, app.now()).await
}

/// Says in metrics how far the sink is behind.
async fn measure(app: &App, running: &Running, held: &mut Held) -> Result<()> {
    let now = app.now();
    if held.measured_at.is_some_and(|at| now - at < MEASURE_EVERY) {
        return Ok(());
    }
    held.measured_at = Some(now);
    let mut conn = app.db.acquire().await?;
    let (mut rows, mut oldest_at) = (0, None::<DateTime<Utc>>);
    for cursor in cursors::list(&mut conn, running.id).await? {
        let lag = cursors::lag(&mut conn, &cursor).await?;
        rows += lag.rows;
        oldest_at = oldest_at.into_iter().chain(lag.oldest_at).min();
    }
    let seconds = oldest_at.map_or(0.0, |at| (now - at).as_seconds_f64().max(0.0));
    let name = running.name.clone();
    metrics::gauge!("ostiary_sink_lag_seconds", "sink" => name.clone()).set(seconds);
    metrics::gauge!("ostiary_sink_lag_rows", "sink" => name)
        .set(f64::from(i32::try_from(rows).unwrap_or(i32::MAX)));
    Ok(())
}
