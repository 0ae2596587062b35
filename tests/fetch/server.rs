//! A server on this machine that treats each request as it is told.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::{FILE, content};

pub const HANG: Duration = Duration::from_secs(20);

/// How a server treats a request.
#[derive(Clone, Copy)]
pub enum Way {
    /// Sends what was asked for.
    Well,
    /// Sends this many bytes of it and hangs up.
    Drop(usize),
    /// Sends this many bytes of it and nothing more, for a second.
    Stall(usize),
    /// The same, for longer than anybody should wait.
    Hang(usize),
    /// Ignores the range, and stalls.
    StallFromTheStart(usize),
    /// Says that there is less than there is.
    Truncate(usize),
    /// Sends other bytes.
    Lie,
    /// Ignores the range that it is asked for.
    FromTheStart,
    /// The same, and hangs up after this many bytes.
    DropFromTheStart(usize),
    /// Answers whatever it is asked with a page of this many bytes.
    Page(usize),
    /// Sends another range than it is asked for.
    WrongRange,
    /// Answers with this status and no file.
    Status(u16),
    /// Sends without end.
    Endless,
    /// Says that the file has this many bytes.
    Huge(u64),
    /// Points to the other path `/moved/`.
    Redirect,
}

/// A server; what was asked of it.
pub struct Server {
    pub url: String,
    /// The byte at which each request began.
    pub asked: Arc<Mutex<Vec<usize>>>,
}

impl Server {
    /// Treats the first request in the first way and so on; all further ones in the last.
    pub fn new(ways: &'static [Way]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/data", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (number, list) = (AtomicUsize::new(0), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let way = ways[number.fetch_add(1, Ordering::SeqCst).min(ways.len() - 1)];
                let list = list.clone();
                std::thread::spawn(move || answer(stream.unwrap(), way, &list));
            }
        });
        Server { url, asked }
    }

    pub fn asked(&self) -> Vec<usize> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(mut stream: TcpStream, way: Way, asked: &Mutex<Vec<usize>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    let mut from = 0;
    for line in lines.map_while(Result::ok).take_while(|l| !l.is_empty()) {
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
    }
    assert!(request.contains(".tar.gz"), "{request}");
    asked.lock().unwrap().push(from);
    let mut bytes = content();
    let total = match way {
        Way::Truncate(total) => total,
        _ => bytes.len(),
    };
    bytes.truncate(total);
    if matches!(way, Way::Lie) {
        bytes.iter_mut().for_each(|b| *b ^= 1);
    }
    if let Way::Page(length) = way {
        bytes = vec![b'<'; length];
    }
    let total = if matches!(way, Way::Page(_)) { bytes.len() } else { total };
    if matches!(way, Way::FromTheStart | Way::DropFromTheStart(_) | Way::StallFromTheStart(_) | Way::Page(_)) {
        from = 0;
    }
    let (status, range) = match way {
        Way::Status(status) => (format!("{status} No"), String::new()),
        Way::Redirect => ("302 Found".into(), format!("Location: /moved/{FILE}\r\n")),
        _ if from > total => ("416 No".into(), format!("Content-Range: bytes */{total}\r\n")),
        _ if from == total && from > 0 => ("416 No".into(), format!("Content-Range: bytes */{total}\r\n")),
        Way::WrongRange => ("206 Part".into(), format!("Content-Range: bytes 0-{}/{total}\r\n", total - 1)),
        _ if from > 0 => ("206 Part".into(), format!("Content-Range: bytes {from}-{}/{total}\r\n", total - 1)),
        _ => ("200 OK".into(), String::new()),
    };
    let body = if status.starts_with('2') { &bytes[from.min(total)..] } else { &[] };
    let length = match way {
        Way::Huge(length) => length,
        _ => body.len() as u64,
    };
    let length = if matches!(way, Way::Endless) { String::new() } else { format!("Content-Length: {length}\r\n") };
    let _ = write!(stream, "HTTP/1.1 {status}\r\n{length}{range}Connection: close\r\n\r\n");
    let _ = match way {
        Way::Drop(count) | Way::DropFromTheStart(count) => stream.write_all(&body[..count.min(body.len())]),
        Way::Stall(count) | Way::StallFromTheStart(count) | Way::Hang(count) => {
            let sent = stream.write_all(&body[..count.min(body.len())]);
            std::thread::sleep(if matches!(way, Way::Hang(_)) { HANG } else { Duration::from_secs(1) });
            sent
        }
        Way::Endless => (0..30_000).try_for_each(|_| stream.write_all(&[0; 1 << 16])),
        _ => stream.write_all(body),
    };
}
