//! Pictures that are cut short, or that promise more than there is.

use std::io::Read as _;

use cqat::{ErrorKind, pictures};
use image::Rgb;

use crate::common::limited;
use crate::{RED, means, paint, says};

/// The decoder makes what is missing of a JPEG grey: a network would be trained on that.
#[test]
fn a_picture_that_is_cut_short_is_broken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("picture");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        pictures::read(&path, 16)
    };
    let shade = |x: u32, y: u32| Rgb([(9 * x) as u8, (12 * y) as u8, (x * y) as u8]);
    let painted = |name: &str| {
        paint(&dir.path().join(name), 30, 20, shade);
        std::fs::read(dir.path().join(name)).unwrap()
    };
    let (baseline, png) = (painted("a.jpg"), painted("a.png"));
    let progressive = include_bytes!("../../fuzz/seeds/picture/progressive.jpg").to_vec();
    // A camera's small picture has an end mark of its own.
    let segment = [&b"\xff\xe1"[..], &(2 + 6 + baseline.len() as u16).to_be_bytes(), b"Exif\0\0", &baseline].concat();
    let with_small_one = [&baseline[..2], &segment, &baseline[2..]].concat();
    for (what, jpeg) in [("baseline", &baseline), ("progressive", &progressive), ("with a small one", &with_small_one)]
    {
        let whole = read(jpeg).unwrap();
        for cut in 3..jpeg.len() {
            let error = read(&jpeg[..cut]).expect_err(&format!("{what}: {cut} of {} bytes", jpeg.len()));
            says(error, ErrorKind::Data, "is cut short", "replace it");
        }
        assert_eq!(read(&[&jpeg[..], b"a note"].concat()).unwrap(), whole, "{what}: what follows is not looked at");
    }
    let whole = read(&png).unwrap();
    for cut in 4..png.len() {
        assert!(read(&png[..cut]).map_or(true, |image| image == whole), "PNG: {cut} of {} bytes", png.len());
    }
}

/// Files of a few hundred bytes that promise pictures of gigabytes.
#[test]
fn a_picture_takes_no_more_memory_than_its_file_justifies() {
    let dir = tempfile::tempdir().unwrap();
    let huge = [0x7f, 0xff, 0x7f, 0xff];
    for i in 0..2 {
        let path = dir.path().join(format!("png/{i}.png"));
        paint(&path, 8, 8, |_, _| RED);
        let mut png = std::fs::read(&path).unwrap();
        png[16..24].copy_from_slice(&[0, 0, huge[0], huge[1], 0, 0, huge[2], huge[3]]);
        let crc = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        std::fs::write(&path, &png).unwrap();
        let path = dir.path().join(format!("jpeg/{i}.jpg"));
        paint(&path, 8, 8, |_, _| RED);
        let mut jpeg = std::fs::read(&path).unwrap();
        let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
        jpeg[frame + 5..frame + 9].copy_from_slice(&huge);
        std::fs::write(&path, &jpeg).unwrap();
    }
    // Of a size that would be justified, but more than there should be of one picture.
    let path = dir.path().join("png/large.png");
    let side = 12_000u32.to_be_bytes();
    let header = chunk(b"IHDR", &[&side[..], &side, &[8, 2, 0, 0, 0]].concat());
    let pixels = chunk(b"IDAT", &packed(12_000 * (1 + 3 * 12_000)));
    std::fs::write(&path, [PNG, &header, &pixels, &chunk(b"IEND", &[])].concat()).unwrap();
    // A good picture with a colour profile that unpacks to 300 MiB: nobody asked for that.
    let path = dir.path().join("png/profile.png");
    let profile = chunk(b"iCCP", &[b"name\0\0", &packed(300 << 20)[..]].concat());
    paint(&path, 8, 8, |_, _| RED);
    let png = std::fs::read(&path).unwrap();
    let (header, rest) = png.split_at(33);
    std::fs::write(&path, [header, &profile, rest].concat()).unwrap();
    let ran = limited(400, dir.path(), &["data", "info", "."]);
    ran.fails(3, "5 of 6 pictures are broken", "data.skip_broken");
    for name in ["png/0.png", "png/large.png", "jpeg/0.jpg"] {
        let error = pictures::read(&dir.path().join(name), 32).unwrap_err();
        says(error, ErrorKind::Data, "unpacks to more than 400 MiB or than its size justifies", "replace it");
    }
    // A blank one of ordinary size is packed a thousand times and fine.
    let path = dir.path().join("blank.png");
    paint(&path, 3000, 2000, |_, _| Rgb([0; 3]));
    assert_eq!(means(&pictures::read(&path, 32).unwrap()), [0; 3]);
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A chunk of a PNG.
fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let body = [kind, content].concat();
    [&(content.len() as u32).to_be_bytes()[..], &body, &crc32(&body).to_be_bytes()].concat()
}

/// So many zeros, as a PNG packs them.
fn packed(count: u64) -> Vec<u8> {
    let mut packer = flate2::read::ZlibEncoder::new(std::io::repeat(0).take(count), flate2::Compression::fast());
    let mut out = Vec::new();
    packer.read_to_end(&mut out).unwrap();
    out
}

/// The checksum of PNG's chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
    })
}
