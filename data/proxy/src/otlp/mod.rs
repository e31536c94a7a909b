//! Export of finished spans by OTLP, off the request path.
//!
//! Workers put spans into a bounded queue and never wait: a full queue drops, which they count
//! (`telemetry_dropped`). One task takes them out in batches and sends them; what the collector does not take is
//! dropped and told in the log, not kept: spans are worth less than memory.

use std::pin::pin;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use weir_client::otlp::{Exporter, OtlpOptions, SpanRecord};

use crate::Span;

/// Spans that may wait for export.
const MAX_WAITING: usize = 4096;
/// Spans per call; OpenTelemetry's batch processors use the same.
const MAX_BATCH: usize = 512;
/// The queue is looked at this often.
const PERIOD: Duration = Duration::from_millis(500);
/// Losses are told at most this often.
const TELL_LOSSES: Duration = Duration::from_secs(60);

/// The far end of the queue.
#[derive(Debug)]
pub struct SpanQueue {
    spans: Receiver<Span>,
}

/// A queue: the near end is for [`Options::spans`](crate::Options::spans).
pub fn queue() -> (SyncSender<Span>, SpanQueue) {
    let (sender, spans) = sync_channel(MAX_WAITING);
    (sender, SpanQueue { spans })
}

impl SpanQueue {
    /// Exports until `stop` resolves, and then what is there.
    pub async fn export(self, options: OtlpOptions, stop: impl Future<Output = ()>) {
        let address = options.address.clone();
        let mut exporter = Exporter::new(options);
        let mut losses = Losses::default();
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = pin!(stop);
        let mut stopping = false;
        while !stopping {
            tokio::select! {
                _ = ticks.tick() => {}
                () = &mut stop => stopping = true,
            }
            while let Some(batch) = self.batch() {
                let count = batch.len() as u64;
                match exporter.export(batch).await {
                    Ok(taken) => losses.add(count - taken, "the collector rejected them", &address),
                    Err(error) => losses.add(count, &error, &address),
                }
            }
        }
    }

    fn batch(&self) -> Option<Vec<SpanRecord>> {
        let batch: Vec<_> = self.spans.try_iter().take(MAX_BATCH).map(record).collect();
        (!batch.is_empty()).then_some(batch)
    }
}

fn record(span: Span) -> SpanRecord {
    SpanRecord {
        trace_id: span.trace_id,
        span_id: span.span_id,
        parent_id: span.parent_id,
        name: span.name,
        is_server: span.inbound,
        cluster: span.cluster.to_string(),
        status: span.status,
        start_unix_nanos: span.start_unix_nanos,
        end_unix_nanos: span.start_unix_nanos.saturating_add(span.duration_nanos),
    }
}

/// Counts spans that were not exported, and tells of them now and then.
#[derive(Debug, Default)]
struct Losses {
    untold: u64,
    told: Option<Instant>,
}

impl Losses {
    fn add(&mut self, count: u64, reason: &str, address: &str) {
        self.untold += count;
        let is_due = self.told.is_none_or(|told| told.elapsed() >= TELL_LOSSES);
        if self.untold > 0 && is_due {
            tracing::warn!(spans = self.untold, %reason, collector = %address, "spans were not exported");
            *self = Losses { untold: 0, told: Some(Instant::now()) };
        }
    }
}

#[cfg(test)]
mod tests;
