//! A request on a thread of its own, so that whoever waits for its answer can be interrupted, or lose patience.

use std::io::Read as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::interrupt;

/// Bytes that are handed over at once, and how many such pieces may wait.
const PIECE_BYTES: usize = 1 << 16;
const WAITING: usize = 16;
/// Time between two looks at whether there was an interrupt.
const TICK: Duration = Duration::from_millis(100);

/// What a server says before the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// HTTP's.
    pub(super) status: u16,
    /// Bytes that follow.
    pub(super) length: Option<u64>,
    /// First byte of the part that follows, where it says that this is one.
    pub(super) start: Option<u64>,
    /// Bytes of the whole file, where it says so beside a part or in place of one.
    pub(super) total: Option<u64>,
}

/// Why a connection brings no more.
#[derive(Debug)]
pub(super) enum Fault {
    /// The next one may be better.
    Passing(String),
    /// No other one will be.
    Lasting(String),
    /// The user wants to stop.
    Interrupted,
}

enum News {
    Head(Head),
    Bytes(Vec<u8>),
    End,
    Fault(Fault),
}

/// A request under way. Dropped, its thread ends with the next that it hears of the server.
pub(super) struct Connection {
    news: Receiver<News>,
    patience: Duration,
}

impl Connection {
    /// Asks for what lies at `url` from byte `at` on. No answer may be longer in coming than `patience`, from one to the next.
    pub(super) fn open(url: &str, at: u64, patience: Duration) -> Connection {
        let (to, news) = sync_channel(WAITING);
        let url = url.to_string();
        std::thread::spawn(move || {
            let last = match talk(&url, at, &to) {
                Ok(()) => News::End,
                Err(fault) => News::Fault(fault),
            };
            let _ = to.send(last); // nobody may be listening any more
        });
        Connection { news, patience }
    }

    /// The answer's beginning, to be asked for once.
    pub(super) fn head(&self) -> Result<Head, Fault> {
        match self.next()? {
            News::Head(head) => Ok(head),
            _ => Err(Fault::Passing("the connection ended before an answer".into())),
        }
    }

    /// The next bytes; `None` at the end.
    pub(super) fn bytes(&self) -> Result<Option<Vec<u8>>, Fault> {
        match self.next()? {
            News::Bytes(bytes) => Ok(Some(bytes)),
            _ => Ok(None),
        }
    }

    fn next(&self) -> Result<News, Fault> {
        let start = Instant::now();
        loop {
            if interrupt::requested() {
                return Err(Fault::Interrupted);
            }
            match self.news.recv_timeout(TICK.min(self.patience)) {
                Ok(News::Fault(fault)) => return Err(fault),
                Ok(news) => return Ok(news),
                Err(RecvTimeoutError::Timeout) if start.elapsed() < self.patience => {}
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = self.patience.as_secs_f32();
                    return Err(Fault::Passing(format!("nothing came from the server for {seconds} s")));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Fault::Passing("the connection was lost".into()));
                }
            }
        }
    }
}

/// Sends what the server says, until its end or until nobody listens.
fn talk(url: &str, at: u64, to: &SyncSender<News>) -> Result<(), Fault> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let request = ureq::Agent::new_with_config(config).get(url);
    let request = request.header("User-Agent", concat!("cqat/", env!("CARGO_PKG_VERSION")));
    let request = if at > 0 { request.header("Range", format!("bytes={at}-")) } else { request };
    let response = request.call().map_err(|e| match e {
        ureq::Error::BadUri(_)
        | ureq::Error::Http(_)
        | ureq::Error::InvalidProxyUrl
        | ureq::Error::RedirectFailed
        | ureq::Error::TooManyRedirects => Fault::Lasting(e.to_string()),
        e => Fault::Passing(e.to_string()),
    })?;
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
    // `bytes 100-199/200`, or `bytes */200`.
    let range = header("content-range").and_then(|range| range.strip_prefix("bytes ")?.split_once('/'));
    let head = Head {
        status: response.status().as_u16(),
        length: header("content-length").and_then(|length| length.parse().ok()),
        start: range.and_then(|(span, _)| span.split('-').next()?.parse().ok()),
        total: range.and_then(|(_, total)| total.parse().ok()),
    };
    let mut listening = to.send(News::Head(head)).is_ok();
    let mut reader = response.into_body().into_reader();
    let mut piece = vec![0; PIECE_BYTES];
    while listening {
        match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => listening = to.send(News::Bytes(piece[..count].to_vec())).is_ok(),
            Err(e) => return Err(Fault::Passing(e.to_string())),
        }
    }
    Ok(())
}
