//! What the session wants done, done in its order: what is to be kept is stored before the next frame leaves.

use std::{collections::VecDeque, time::Duration};

use aos_api::{Severity, TimelineKind};
use aos_cloud_protocol::{Body, Header, Message, Nack};
use aos_db::{Happening, LinkWrite};
use aos_session::{Dropped, Frame, Gone, Input, Output};
use aos_time::Clock;
use axum::extract::ws::{self, close_code};
use tokio::time::{Instant, timeout};

use super::{
    Link, LinkError,
    ending::ending,
    records::{link_key, link_record},
};
use crate::incoming::Incoming;

/// How long one frame may take to leave; a peer that does not read for so long is dropped.
const SEND_DEADLINE: Duration = Duration::from_secs(30);

impl Link {
    /// Gives an input to the session and carries out what comes of it.
    pub(super) async fn feed(&mut self, input: Input<Incoming>) -> Result<(), LinkError> {
        self.session.handle(self.steady.now(), input);
        self.carry_out().await
    }

    pub(super) fn collect(&mut self) {
        while let Some(output) = self.session.poll() {
            self.outputs.push_back(output);
        }
    }

    /// Takes the records that come before the next frame, so that they can be stored together with something else.
    pub(super) fn records_ahead(&mut self) -> LinkWrite {
        self.collect();
        let mut write = LinkWrite::default();
        let mut rest = VecDeque::with_capacity(self.outputs.len());
        let mut before_frame = true;
        for output in self.outputs.drain(..) {
            match output {
                Output::Persist(record) if before_frame => write.put.extend(link_record(record)),
                Output::Forget(key) if before_frame => write.forget.extend(link_key(key)),
                other => {
                    before_frame &= !matches!(other, Output::Transmit(_) | Output::Deliver { .. });
                    rest.push_back(other);
                }
            }
        }
        self.outputs = rest;
        write
    }

    pub(super) async fn carry_out(&mut self) -> Result<(), LinkError> {
        let mut write = LinkWrite::default();
        loop {
            self.collect();
            let Some(output) = self.outputs.pop_front() else {
                return self.flush(&mut write).await;
            };
            match output {
                Output::Persist(record) => write.put.extend(link_record(record)),
                Output::Forget(key) => write.forget.extend(link_key(key)),
                Output::Transmit(frame) => {
                    self.flush(&mut write).await?;
                    self.transmit(frame).await?;
                }
                Output::Deliver { txn, message } => {
                    self.flush(&mut write).await?;
                    self.deliver(txn, message).await?;
                }
                Output::Acked { txn } => {
                    for waiting in [&mut self.desired_txn, &mut self.env_txn] {
                        waiting.take_if(|waiting| *waiting == txn);
                    }
                    let records = std::mem::take(&mut write);
                    self.shared
                        .options
                        .db
                        .desired_acked(self.unit, &txn, &records)
                        .await?;
                }
                Output::Dropped { txn, why } => {
                    // What replaced it is noted where it was sent.
                    if why != Dropped::Replaced {
                        for waiting in [&mut self.desired_txn, &mut self.env_txn] {
                            waiting.take_if(|waiting| *waiting == txn);
                        }
                    }
                    if why == Dropped::Full {
                        self.shared.counts.add("dropped");
                        let event = Happening::new(
                            TimelineKind::Protocol,
                            Severity::Warning,
                            "a message to the Unit was dropped: more wait for it than are kept",
                        );
                        let records = std::mem::take(&mut write);
                        let db = &self.shared.options.db;
                        db.note(self.unit, &[event], &records).await?;
                    }
                }
                Output::Disconnect(Gone::Silent) => {
                    self.close(close_code::POLICY, "nothing was heard for too long")
                        .await;
                    self.online = None;
                    self.set_offline("nothing was heard for too long").await?;
                }
                Output::WakeAt(at) => {
                    self.wake = Some(Instant::now() + at.since(self.steady.now()));
                }
                // The cloud is called, it never calls; and people see its timeline, not the Unit's.
                Output::Connect | Output::Report(_) => {}
            }
        }
    }

    pub(super) async fn flush(&mut self, write: &mut LinkWrite) -> Result<(), LinkError> {
        let write = std::mem::take(write);
        Ok(self.shared.options.db.write_link(self.unit, &write).await?)
    }

    pub(super) async fn transmit(&mut self, frame: Frame) -> Result<(), LinkError> {
        let frame = match frame {
            Frame::Message { payload, .. } => {
                ws::Message::Binary(bytes::Bytes::from_owner(payload))
            }
            Frame::Ack { txn } => self.reply(txn, Body::Ack),
            Frame::Nack { txn, retry_after } => {
                let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
                self.reply(txn, Body::Nack(Nack { retry_after_ms }))
            }
            Frame::Ping => ws::Message::Ping(bytes::Bytes::new()),
        };
        let Some(online) = &mut self.online else {
            return Ok(());
        };
        let lost = match timeout(SEND_DEADLINE, online.socket.send(frame)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => ending(&error).1,
            Err(_) => "the Unit does not read what is sent".into(),
        };
        self.gone(&lost).await
    }

    pub(super) fn reply(&self, txn: String, body: Body) -> ws::Message {
        let message = Message {
            header: self.header(txn),
            correlation_id: None,
            body,
        };
        ws::Message::Binary(message.encode().into())
    }

    pub(super) fn header(&self, txn: String) -> Header {
        Header {
            system_id: self.system_id.clone(),
            created_at: self.now(),
            txn,
        }
    }
}
