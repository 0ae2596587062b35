//! Hashes of files, and those of the files that the authors of CIFAR publish.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use md5::Md5;
use sha2::{Digest as _, Sha256};

/// The hash of a file, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256.
    Sha256(&'static str),
    /// MD5: says that a file has arrived whole, and no more.
    Md5(&'static str),
}

impl Digest {
    /// Whether it is that of the file at `path`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn is_of(&self, path: &Path) -> io::Result<bool> {
        Ok(self.is(&digests(path)?))
    }

    /// Whether it is one of these, SHA-256 and MD5.
    fn is(&self, (sha256, md5): &(String, String)) -> bool {
        match self {
            Digest::Sha256(expected) => sha256 == expected,
            Digest::Md5(expected) => md5 == expected,
        }
    }
}

/// SHA-256 and MD5 of a file.
fn digests(path: &Path) -> io::Result<(String, String)> {
    let mut stream = File::open(path)?;
    let (mut sha256, mut md5) = (Sha256::new(), Md5::new());
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                sha256.update(&buffer[..count]);
                md5.update(&buffer[..count]);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok((hexadecimal(&sha256.finalize()), hexadecimal(&md5.finalize())))
}

/// Bytes as hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of `cifar-100-binary.tar.gz`.
pub const CIFAR100_BINARY: Digest = Digest::Sha256("58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec");
/// Of `cifar-10-binary.tar.gz`.
pub const CIFAR10_BINARY: Digest = Digest::Sha256("c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd");
/// Of `cifar-100-python.tar.gz`.
pub const CIFAR100_PYTHON: Digest = Digest::Md5("eb9058c3a382ffc7106e4002c42a8d85");
/// Of `cifar-10-python.tar.gz`.
pub const CIFAR10_PYTHON: Digest = Digest::Sha256("6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce");

/// Every file that the authors publish, packed and unpacked, whose hash is known.
const FILES: [(&str, Digest); 16] = [
    ("cifar-100-binary.tar.gz", CIFAR100_BINARY),
    ("cifar-100-binary/train.bin", Digest::Sha256("f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29")),
    ("cifar-100-binary/test.bin", Digest::Sha256("d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a")),
    ("cifar-100-python.tar.gz", CIFAR100_PYTHON),
    ("cifar-100-python/train", Digest::Md5("16019d7e3df5f24257cddd939b257f8d")),
    ("cifar-100-python/test", Digest::Md5("f0ef6b0ae62326f3e7ffdfab6717acfc")),
    ("cifar-100-python/meta", Digest::Md5("7973b15100ade9c7d40fb424638fde48")),
    ("cifar-10-binary.tar.gz", CIFAR10_BINARY),
    ("cifar-10-python.tar.gz", CIFAR10_PYTHON),
    ("cifar-10-batches-py/data_batch_1", Digest::Md5("c99cafc152244af753f735de768cd75f")),
    ("cifar-10-batches-py/data_batch_2", Digest::Md5("d4bba439e000b95fd0a9bffe97cbabec")),
    ("cifar-10-batches-py/data_batch_3", Digest::Md5("54ebc095f3ab1f0389bbae665268c751")),
    ("cifar-10-batches-py/data_batch_4", Digest::Md5("634d18415352ddfa80567beed471001a")),
    ("cifar-10-batches-py/data_batch_5", Digest::Md5("482c414d41f54cd18b22e5b47cb7c3cb")),
    ("cifar-10-batches-py/test_batch", Digest::Md5("40351d587109b95175f43aff81a1287e")),
    ("cifar-10-batches-py/batches.meta", Digest::Md5("5ff9c542aee3614f3951f8cda6e48888")),
];

/// The published file that the file at `path` is, if it is one.
///
/// # Errors
/// A file that cannot be read.
pub fn published_as(path: &Path) -> io::Result<Option<&'static str>> {
    let found = digests(path)?;
    Ok(FILES.iter().find(|(_, digest)| digest.is(&found)).map(|(name, _)| *name))
}
