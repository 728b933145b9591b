//! Handing a batch over; if something in it is refused, finding out what.

use ostiary_outputs::SendError;
use ostiary_outputs::sinks::{Record, Sink, Way};
use ostiary_store::sinks::runs::Sent;

/// Attempts in which nothing at all is taken before the blame is no longer put on single lines.
const MOST_IN_VAIN: usize = 24;

/// Hands a batch over, in order. What is refused is divided until the lines are found that are to blame; these are left out, but only
/// if others are taken, now or just before (`is_proven`): when everything is refused, it is rather the settings that are wrong, and
/// nothing is left out.
///
/// # Errors
/// It was not taken, in part perhaps: all of it is to come again.
pub(super) async fn deliver(
    sink: &mut dyn Sink,
    way: &Way,
    records: &[Record],
    is_proven: bool,
) -> Result<Sent, SendError> {
    let mut sent = Sent::default();
    let mut parts = vec![records];
    let mut in_vain = 0;
    let mut last = None;
    while let Some(part) = parts.pop() {
        match sink.forward(way, part).await {
            Ok(taken) => {
                let refused = taken.refused.min(part.len());
                sent.lines += count(part.len() - refused);
                if refused > 0 {
                    sent.refused += count(refused);
                    sent.refusal = taken.refusal;
                }
            }
            Err(SendError::Refused { answer }) => {
                in_vain += 1;
                if sent.lines == 0 && in_vain > MOST_IN_VAIN {
                    return Err(SendError::Refused { answer });
                }
                if part.len() > 1 {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                } else {
                    sent.refused += 1;
                    sent.refusal.clone_from(&answer);
                }
                last = Some(answer);
            }
            Err(error) => return Err(error),
        }
    }
    match last {
        Some(answer) if sent.lines == 0 && !is_proven => Err(SendError::Refused { answer }),
        _ => Ok(sent),
    }
}

fn count(lines: usize) -> i64 {
    i64::try_from(lines).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use ostiary_outputs::Outbound;
    use ostiary_outputs::sinks::Taken;

    use super::*;

    /// Takes what does not say "bad", and keeps it.
    #[derive(Default)]
    struct Picky {
        taken: Vec<String>,
        asked: usize,
        busy_after: usize,
    }

    #[async_trait]
    impl Sink for Picky {
        fn summary(&self) -> String {
            String::new()
        }

        async fn forward(&mut self, _: &Way, records: &[Record]) -> Result<Taken, SendError> {
            self.asked += 1;
            if self.busy_after > 0 && self.asked > self.busy_after {
                return Err(SendError::Retry {
                    answer: "busy".into(),
                    after: None,
                });
            }
            if records.iter().any(|record| record.id.contains("bad")) {
                return Err(SendError::Refused {
                    answer: "400".into(),
                });
            }
            self.taken.extend(records.iter().map(|one| one.id.clone()));
            Ok(Taken::default())
        }
    }

    fn way() -> Way {
        let options = ostiary_outputs::Options::default();
        Way {
            outbound: Outbound::new(options).unwrap(),
            folder: std::path::PathBuf::new(),
            name: "siem".into(),
            now: chrono::DateTime::UNIX_EPOCH,
        }
    }

    fn records(ids: &[&str]) -> Vec<Record> {
        let test = Record::test("siem", chrono::DateTime::UNIX_EPOCH);
        let named = ids.iter().map(|id| Record {
            id: (*id).to_owned(),
            ..test.clone()
        });
        named.collect()
    }

    #[tokio::test]
    async fn a_line_that_is_refused_costs_only_itself_and_no_order() {
        let mut sink = Picky::default();
        let batch = records(&["1", "2", "bad", "3", "4", "bad", "5"]);
        let sent = deliver(&mut sink, &way(), &batch, false).await.unwrap();
        assert_eq!(sink.taken, ["1", "2", "3", "4", "5"]);
        assert_eq!(
            (sent.lines, sent.refused, sent.refusal.as_str()),
            (5, 2, "400")
        );
    }

    #[tokio::test]
    async fn when_all_is_refused_nothing_is_left_out() {
        for length in [1, 2, 1000] {
            let mut sink = Picky::default();
            let batch = records(&vec!["bad"; length]);
            let refused = deliver(&mut sink, &way(), &batch, false).await;
            assert!(matches!(refused, Err(SendError::Refused { .. })));
            assert!(sink.asked <= MOST_IN_VAIN + 1, "{}", sink.asked);
        }
    }

    #[tokio::test]
    async fn a_line_that_stands_alone_is_left_out_where_others_were_taken_just_before() {
        let mut sink = Picky::default();
        let sent = deliver(&mut sink, &way(), &records(&["bad"]), true).await;
        let sent = sent.unwrap();
        assert_eq!((sent.lines, sent.refused), (0, 1));
    }

    #[tokio::test]
    async fn a_sink_that_gets_busy_gets_all_of_it_again() {
        let mut sink = Picky {
            busy_after: 2,
            ..Picky::default()
        };
        let batch = records(&["1", "bad", "2", "3"]);
        let busy = deliver(&mut sink, &way(), &batch, false).await;
        assert!(matches!(busy, Err(SendError::Retry { .. })), "{busy:?}");
    }
}
