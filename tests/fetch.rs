//! Downloads from a server on this machine that drops connections, stalls, truncates and lies.

mod common;
#[path = "fetch/server.rs"]
mod server;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{command, parsed};
use cqat::digest::Digest;
use cqat::fetch::{Options, Published, fetch};
use cqat::{Error, ErrorKind};
use server::{HANG, Server, Way};

/// 300,000 bytes of noise, whose SHA-256 is [`SHA256`].
fn content() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

const SHA256: &str = "10e5ea249ba15cf9da0925b29f6caca069e088f63eec3521e5560c1a0394058a";
const FILE: &str = "noise.tar.gz";

fn published() -> Published {
    Published { name: "noise", about: "noise", file: FILE, digest: Digest::Sha256(SHA256) }
}

fn options(servers: &[&Server]) -> Options {
    Options {
        mirrors: servers.iter().map(|s| s.url.clone()).collect(),
        patience: Duration::from_millis(400),
        attempts: 2,
        pause: Duration::from_millis(10),
        most_bytes: 1 << 20,
        quiet: true,
    }
}

fn get(to: &Path, servers: &[&Server]) -> cqat::Result<()> {
    let path = fetch(&published(), to, &options(servers))?;
    assert!(path == to.join(FILE) && std::fs::read(path).unwrap() == content());
    assert!(!to.join(format!("{FILE}.part")).exists());
    Ok(())
}

#[track_caller]
fn says(error: Error, message: &str, hint: &str) {
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    assert!(error.to_string().contains(message), "message: {error}\nexpected: {message}");
    assert!(error.hint_text().unwrap().contains(hint), "hint: {:?}", error.hint_text());
}

/// Fetches from `server` alone, which must fail.
fn fails(server: &Server) -> Error {
    get(tempfile::tempdir().unwrap().path(), &[server]).unwrap_err()
}

#[test]
fn a_good_server_is_asked_once() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::new(&[Way::Well]));
    let to = folder.path().join("new/folder");
    get(&to, &[&server]).unwrap();
    get(&to, &[&server]).unwrap();
    assert_eq!(server.asked(), [0], "what is there is not fetched again");
    std::fs::write(to.join(FILE), "mine").unwrap();
    says(get(&to, &[&server]).unwrap_err(), "is there already and is not the published file", "move it away");
    assert_eq!(std::fs::read(to.join(FILE)).unwrap(), b"mine");
    get(tempfile::tempdir().unwrap().path(), &[&Server::new(&[Way::Redirect, Way::Well])]).unwrap();
}

#[test]
fn a_dropped_or_stalled_download_goes_on_where_it_was() {
    for way in
        [&[Way::Drop(100_000), Way::Drop(50_000), Way::Drop(0), Way::Well][..], &[Way::Stall(150_000), Way::Well]]
    {
        let (folder, server) = (tempfile::tempdir().unwrap(), Server::new(Box::leak(way.to_vec().into())));
        get(folder.path(), &[&server]).unwrap();
        let asked = server.asked();
        assert!(asked[0] == 0 && asked.is_sorted() && *asked.last().unwrap() >= 100_000, "{asked:?}");
    }
}

#[test]
fn a_later_call_goes_on_too() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::new(&[Way::Drop(120_000), Way::Drop(0)]));
    let error = get(folder.path(), &[&server]).unwrap_err();
    says(error, "noise.tar.gz could not be fetched:", "it goes on where it stopped");
    let kept = std::fs::metadata(folder.path().join(format!("{FILE}.part"))).unwrap().len() as usize;
    assert!(kept > 0 && kept <= 120_000, "{kept}");
    let server = Server::new(&[Way::Well]);
    get(folder.path(), &[&server]).unwrap();
    assert_eq!(server.asked(), [kept]);
    // A whole file that only lacks its name.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(format!("{FILE}.part")), content()).unwrap();
    get(folder.path(), &[&server]).unwrap();
}

#[test]
fn a_server_without_ranges_will_do() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::new(&[Way::Drop(10_000), Way::FromTheStart]));
    get(folder.path(), &[&server]).unwrap();
}

/// A log-in page, a mirror without ranges that hangs up: what was there before stays.
#[test]
fn what_has_arrived_outlives_a_server_that_begins_again() {
    for (way, why) in [
        (&[Way::Page(1000)][..], "the server's file is shorter than"),
        (&[Way::Page(250_000)], "does not begin as"),
        (&[Way::DropFromTheStart(60_000)], "Peer disconnected"),
        (&[Way::StallFromTheStart(60_000)], "nothing came from the server for 0.4 s"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join(format!("{FILE}.part"));
        std::fs::write(&part, &content()[..100_000]).unwrap();
        says(get(folder.path(), &[&Server::new(way)]).unwrap_err(), why, "goes on where it stopped");
        assert!(
            std::fs::read(&part).unwrap() == content()[..100_000],
            "{why}: {} bytes",
            std::fs::metadata(&part).unwrap().len()
        );
        get(folder.path(), &[&Server::new(&[Way::FromTheStart])]).unwrap();
    }
}

/// Two processes that append to one file would spoil it.
#[test]
fn one_process_fetches_into_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let other = std::fs::File::create(folder.path().join(format!(".{FILE}.lock"))).unwrap();
    other.lock().unwrap();
    let server = Server::new(&[Way::Well]);
    says(get(folder.path(), &[&server]).unwrap_err(), "another process fetches noise.tar.gz", "--out");
    drop(other);
    get(folder.path(), &[&server]).unwrap();
}

#[test]
fn a_lying_server_is_left_for_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (liar, honest) = (Server::new(&[Way::Lie]), Server::new(&[Way::Well]));
    get(folder.path(), &[&liar, &honest]).unwrap();
    assert_eq!(honest.asked(), [0], "nothing of the lie is kept");
    says(fails(&liar), "the file has another hash than the published one", "another --mirror");
    // What a liar left behind is thrown away, and the honest server asked again.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(format!("{FILE}.part")), vec![0; 200_000]).unwrap();
    let honest = Server::new(&[Way::Well]);
    get(folder.path(), &[&honest]).unwrap();
    assert_eq!(honest.asked(), [200_000, 0]);
}

#[test]
fn other_servers_are_given_up_with_a_reason() {
    for (ways, why) in [
        (&[Way::Status(404)][..], "the server answers with status 404"),
        (&[Way::Status(500)], "the server answers with status 500"),
        (&[Way::Truncate(200_000)], "the file has another hash"),
        (&[Way::Drop(9000), Way::WrongRange], "another part of the file than it was asked for"),
        (&[Way::Drop(9000), Way::Truncate(5000)], "the server's file is shorter than"),
        (&[Way::Drop(9000), Way::Status(503)], "status 503"),
        (&[Way::Huge(5 << 30)], "the server's file is larger than 1048576 bytes"),
        (&[Way::Endless], "the server sends more than it said"),
        (&[Way::Stall(0)], "nothing came from the server for 0.4 s"),
        (&[Way::Redirect], "too many redirects"),
    ] {
        let error = fails(&Server::new(ways));
        assert!(error.to_string().contains(why), "expected: {why}\n{error}");
    }
    let gone = Server { url: "http://127.0.0.1:9".into(), asked: Arc::default() };
    says(fails(&gone), "http://127.0.0.1:9/noise.tar.gz: ", "download the file by hand");
    // The first good one of several is enough.
    let folder = tempfile::tempdir().unwrap();
    get(folder.path(), &[&gone, &Server::new(&[Way::Status(404)]), &Server::new(&[Way::Well])]).unwrap();
}

/// What will not change is asked for once, and nothing is promised of a next time.
#[test]
fn a_lasting_failure_is_not_tried_again() {
    for (ways, requests) in [
        (&[Way::Status(404)][..], 1),
        (&[Way::Status(403)], 1),
        (&[Way::Huge(5 << 30)], 1),
        (&[Way::Status(500)], 2),
        (&[Way::Status(429)], 2),
        (&[Way::Drop(9000), Way::WrongRange], 2),
    ] {
        let (folder, server) = (tempfile::tempdir().unwrap(), Server::new(ways));
        let error = get(folder.path(), &[&server]).unwrap_err();
        assert_eq!(server.asked().len(), requests, "{error}");
        let kept = folder.path().join(format!("{FILE}.part")).exists();
        assert_eq!(kept, ways.len() == 2, "an empty file is not left behind: {error}");
        assert_eq!(error.hint_text().unwrap().contains("goes on where it stopped"), kept, "{error}");
    }
}

/// A mirror that stalls each time where it stalled before is given up for the next one.
#[test]
fn a_mirror_that_stalls_for_ever_is_left_for_the_next() {
    for way in [Way::StallFromTheStart(60_000), Way::Stall(0)] {
        let (folder, stalling) = (tempfile::tempdir().unwrap(), Server::new(Box::leak([way].into())));
        get(folder.path(), &[&stalling, &Server::new(&[Way::Well])]).unwrap();
        let in_vain = stalling.asked().iter().filter(|&&at| at == *stalling.asked().last().unwrap()).count();
        assert_eq!(in_vain, 2, "{:?}", stalling.asked());
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let server = Server::new(&[Way::Well]);
    says(get(&folder.path().join("file/x"), &[&server]).unwrap_err(), "file/x cannot be read or written", "writable");
    // A disk that is full while it downloads: the file is named, not the address.
    #[cfg(target_os = "linux")]
    {
        std::os::unix::fs::symlink("/dev/full", folder.path().join(format!("{}.part", published().file))).unwrap();
        let error = get(folder.path(), &[&server]).unwrap_err();
        says(error, ".part cannot be read or written", "the disk has room");
    }
}

#[test]
fn the_command_fetches_and_describes() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| common::Ran::of(command(folder.path(), arguments));
    let ran = run(&["data", "fetch", "imagenet"]).fails(2, "invalid value 'imagenet' for '<NAME>'", "");
    assert!(ran.err.contains("[possible values: cifar100, cifar10,"), "{}", ran.err);
    run(&["data", "fetch", "cifar10", "--mirror", "example.org/a"]).fails(
        2,
        "is no address, expected http://",
        "such as",
    );
    let mut away = command(folder.path(), &["data", "fetch", "cifar100", "--quiet"]);
    away.env("CQAT_MIRRORS", "http://127.0.0.1:9/a http://127.0.0.1:9/b");
    let ran = common::Ran::of(away).fails(3, "cifar-100-binary.tar.gz could not be fetched:", "--mirror");
    assert!(
        ran.err.contains("127.0.0.1:9/a/cifar-100-binary.tar.gz") && ran.err.contains("127.0.0.1:9/b/"),
        "{}",
        ran.err
    );
    // Data that is not there: what to do about it.
    run(&["train", "cqat", "--data", "nowhere"]).fails(3, "nowhere does not exist", "cqat data fetch cifar100");

    let json = parsed(&run(&["data", "info", "embedded", "--json", "--contact-sheet", "sheet.png"]).ok().out);
    assert_eq!(
        (&json["name"], &json["train"], &json["test"]),
        (&"fashion-mnist-mini".into(), &1200.into(), &800.into())
    );
    assert_eq!((&json["classes"][9]["name"], &json["classes"][9]["test"]), (&"Ankle boot".into(), &80.into()));
    let sheet = image::open(folder.path().join("sheet.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (340, 340));
    let text = run(&["data", "info", "embedded"]).ok().out;
    assert!(
        text.contains("1200 training and 800 test pictures of 32 x 32 pixels") && text.contains("Trouser"),
        "{text}"
    );
}

/// A device is no file to be replaced, and a link leads somewhere.
#[cfg(target_os = "linux")]
#[test]
fn devices_and_links_are_written_through() {
    use std::os::unix::fs::FileTypeExt as _;
    let folder = tempfile::tempdir().unwrap();
    let sheet =
        |to: &str| common::Ran::of(command(folder.path(), &["data", "info", "embedded", "--contact-sheet", to]));
    sheet("/dev/full").fails(3, "/dev/full cannot be written", "room");
    assert!(std::fs::metadata("/dev/full").unwrap().file_type().is_char_device());
    std::os::unix::fs::symlink("behind.png", folder.path().join("link.png")).unwrap();
    std::fs::write(folder.path().join("behind.png"), "old").unwrap();
    sheet("link.png").ok();
    assert!(folder.path().join("link.png").is_symlink());
    assert!(std::fs::read(folder.path().join("behind.png")).unwrap().starts_with(b"\x89PNG"));
}

/// Ctrl-C keeps what has arrived, and says so; it does not wait for a server that stalls.
#[cfg(unix)]
#[test]
fn an_interrupted_download_stays() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::new(&[Way::Hang(3000)]));
    let mut child =
        command(folder.path(), &["data", "fetch", "cifar100", "--out", ".", "--mirror", &server.url]).spawn().unwrap();
    let part = folder.path().join("cifar-100-binary.tar.gz.part");
    let start = std::time::Instant::now();
    while std::fs::metadata(&part).map_or(0, |m| m.len()) < 3000 {
        assert!(start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let asked = std::time::Instant::now();
    let ran = common::Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{}", ran.err);
    assert!(asked.elapsed() < HANG / 2, "it waited {:?} for the server", asked.elapsed());
    assert!(ran.err.contains("stopping; what has arrived stays for the next call"), "{}", ran.err);
    assert_eq!(std::fs::read(part).unwrap(), content()[..3000]);
}

#[test]
fn files_are_told_from_the_published_ones() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("train.bin"), common::cifar100(40, 1)).unwrap();
    std::fs::write(folder.path().join("test.bin"), common::cifar100(10, 2)).unwrap();
    let ran = common::Ran::of(command(folder.path(), &["data", "info", "."])).ok();
    assert_eq!(ran.out.matches("not a published file whose hash is known").count(), 2, "{}", ran.out);
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    assert_eq!(cqat::digest::published_as(&empty).unwrap(), None);
    let of_nothing = [
        Digest::Sha256("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        Digest::Md5("d41d8cd98f00b204e9800998ecf8427e"),
    ];
    assert!(of_nothing.iter().all(|digest| digest.is_of(&empty).unwrap()));
    assert!(!Digest::Md5("e41d8cd98f00b204e9800998ecf8427e").is_of(&empty).unwrap());
}
