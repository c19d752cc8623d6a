//! The clients of the control socket: taken in, heard once, answered, and let go.
//!
//! Invariant: whatever a client sends, leaves unsent or does not read, it costs one of a few places, for a limited time, and no more
//! memory than its request and the answer it shares with others. Root has places that nobody else can take.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, warn};

use crate::control::{MAX_REQUEST_BYTES, Reply, Request};
use crate::model::{Class, Failure};

/// How many clients may be connected at a time; more are turned away.
pub(super) const MAX_CLIENTS: usize = 64;

/// How many of them may be others than root, so that members of the operators' group cannot keep root out.
const MAX_OTHER_CLIENTS: usize = 16;

/// How long a client may take to send its request, and to read a reply.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long others than root wait for an answer before they are asked to come again: the worker may be busy for half an hour, and
/// their places are few.
const OTHER_CLIENT_LIMIT: Duration = Duration::from_secs(120);

/// How often it is looked whether a client that waits is still there.
const HANG_UP_CHECK: Duration = Duration::from_secs(1);

/// A request and where its replies go.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) client: Client,
}

/// Who waits for replies.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// Who it is, as the kernel says.
    pub(super) uid: u32,
    replies: mpsc::Sender<Line>,
}

/// One reply as it is sent; shared by all who are told the same.
#[derive(Debug, Clone)]
pub(super) struct Line {
    bytes: Arc<[u8]>,
    is_last: bool,
}

impl Line {
    pub(super) fn of(reply: &Reply) -> Self {
        let mut bytes = serde_json::to_vec(reply).unwrap_or_else(|error| {
            debug!("failed to write a reply: {error}");
            Vec::new()
        });
        bytes.push(b'\n');
        Line {
            bytes: bytes.into(),
            is_last: !matches!(reply, Reply::Progress { .. }),
        }
    }
}

impl Client {
    /// Does nobody wait any more.
    pub(super) fn is_gone(&self) -> bool {
        self.replies.is_closed()
    }

    /// Answers; false when the client is gone, or too slow to be told more.
    pub(super) fn answer(&self, reply: &Reply) -> bool {
        self.send(Line::of(reply))
    }

    /// The same, with a reply that others get, too.
    pub(super) fn send(&self, line: Line) -> bool {
        self.replies.try_send(line).is_ok()
    }

    /// Says why nothing was done.
    pub(super) fn refuse(&self, failure: Failure) {
        self.answer(&Reply::Failed { failure });
    }
}

/// Takes clients in, at most [`MAX_CLIENTS`] at a time.
pub(super) async fn accept(listener: std::os::unix::net::UnixListener, ask: mpsc::Sender<Asked>) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!("failed to serve the control socket: {error}"),
    };
    let all = Arc::new(Semaphore::new(MAX_CLIENTS));
    let others = Arc::new(Semaphore::new(MAX_OTHER_CLIENTS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Ok(uid) = stream.peer_cred().map(|peer| peer.uid()) else {
                    continue;
                };
                let place = match uid {
                    0 => None,
                    _ => Some(others.clone().try_acquire_owned()),
                };
                let (Ok(place), Ok(of_all)) = (place.transpose(), all.clone().try_acquire_owned())
                else {
                    debug!("turned a client of user {uid} away: too many are connected");
                    let _ = stream.try_write(&Line::of(&busy("too many ask at once")).bytes);
                    continue;
                };
                let ask = ask.clone();
                tokio::spawn(async move {
                    let _places = (place, of_all);
                    if let Err(error) = converse(stream, uid, ask).await {
                        debug!("a client of the control socket was lost, ignoring: {error}");
                    }
                });
            }
            Err(error) => {
                debug!("failed to take a client in, ignoring: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One request, its replies, and goodbye.
async fn converse(stream: UnixStream, uid: u32, ask: mpsc::Sender<Asked>) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    let mut limited = BufReader::new(reader.take(MAX_REQUEST_BYTES));
    tokio::time::timeout(CLIENT_TIMEOUT, limited.read_until(b'\n', &mut line)).await??;
    if line.is_empty() {
        return Ok(());
    }
    let (replies, mut answers) = mpsc::channel(64);
    let client = Client { uid, replies };
    match serde_json::from_slice(&line) {
        Ok(request) => {
            if ask.send(Asked { request, client }).await.is_err() {
                return Ok(());
            }
        }
        Err(error) => {
            client.refuse(Failure::new(
                Class::Host,
                format!("the request cannot be understood: {error}"),
            ));
            drop(client);
        }
    }
    drop(line);
    let patience = tokio::time::sleep(OTHER_CLIENT_LIMIT);
    tokio::pin!(patience);
    loop {
        let answer = tokio::select! {
            answer = answers.recv() => answer,
            () = hang_up(&writer) => return Ok(()),
            () = &mut patience, if uid != 0 => Some(Line::of(&busy("the agent is busy"))),
        };
        let Some(answer) = answer else {
            return Ok(());
        };
        tokio::time::timeout(CLIENT_TIMEOUT, writer.write_all(&answer.bytes)).await??;
        if answer.is_last {
            return Ok(());
        }
    }
}

/// Returns when the client is gone. One that only closed its own direction still waits.
async fn hang_up(writer: &OwnedWriteHalf) {
    loop {
        tokio::time::sleep(HANG_UP_CHECK).await;
        match writer.ready(Interest::WRITABLE).await {
            Ok(ready) if !ready.is_write_closed() => {}
            _ => return,
        }
    }
}

fn busy(why: &str) -> Reply {
    let failure = Failure::new(Class::Transient, why).with_hint("try again in a while");
    Reply::Failed { failure }
}
