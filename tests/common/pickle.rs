//! Pickles as Python 2's cPickle wrote the published files of CIFAR.

/// A pickle in the making.
pub struct Pickle {
    bytes: Vec<u8>,
    memo: u32,
}

/// `data_batch_1` or `train`: pictures (N, 3072) and their labels.
pub struct Batch<'a> {
    /// Lists of labels by key.
    pub labels: &'a [(&'a str, Vec<i64>)],
    pub pictures: &'a [u8],
}

impl Batch<'_> {
    pub fn pickled(&self) -> Vec<u8> {
        let mut p = Pickle::new();
        p.dictionary(|p| {
            p.string(b"filenames");
            let names: Vec<String> = (0..self.pictures.len() / 3072).map(|i| format!("picture_{i:06}.png")).collect();
            p.list(names.len(), |p, i| p.string(names[i].as_bytes()));
            p.string(b"batch_label");
            p.string(b"training batch 1 of 1");
            for (key, values) in self.labels {
                p.string(key.as_bytes());
                p.list(values.len(), |p, i| p.int(values[i]));
            }
            p.string(b"data");
            p.array(self.pictures);
        });
        p.end()
    }
}

/// `meta` or `batches.meta`: lists of names by key.
pub fn names(lists: &[(&str, Vec<String>)]) -> Vec<u8> {
    let mut p = Pickle::new();
    p.dictionary(|p| {
        for (key, names) in lists {
            p.string(key.as_bytes());
            p.list(names.len(), |p, i| p.string(names[i].as_bytes()));
        }
        p.string(b"num_vis");
        p.int(3072);
    });
    p.end()
}

impl Pickle {
    pub fn new() -> Pickle {
        Pickle { bytes: vec![0x80, 2], memo: 0 }
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bytes.push(b'.');
        self.bytes
    }

    fn put(&mut self) {
        self.memo += 1;
        match u8::try_from(self.memo) {
            Ok(slot) => self.bytes.extend([b'q', slot]),
            Err(_) => {
                self.bytes.push(b'r');
                self.bytes.extend(self.memo.to_le_bytes());
            }
        }
    }

    fn dictionary(&mut self, fill: impl FnOnce(&mut Pickle)) {
        self.bytes.push(b'}');
        self.put();
        self.bytes.push(b'(');
        fill(self);
        self.bytes.push(b'u');
    }

    /// Items are appended a thousand at a time.
    fn list(&mut self, count: usize, mut item: impl FnMut(&mut Pickle, usize)) {
        self.bytes.push(b']');
        self.put();
        for start in (0..count).step_by(1000) {
            self.bytes.push(b'(');
            (start..count.min(start + 1000)).for_each(|i| item(self, i));
            self.bytes.push(b'e');
        }
    }

    fn string(&mut self, text: &[u8]) {
        self.raw_string(text);
        self.put();
    }

    fn raw_string(&mut self, text: &[u8]) {
        match u8::try_from(text.len()) {
            Ok(length) => self.bytes.extend([b'U', length]),
            Err(_) => {
                self.bytes.push(b'T');
                self.bytes.extend((text.len() as u32).to_le_bytes());
            }
        }
        self.bytes.extend(text);
    }

    fn int(&mut self, value: i64) {
        match value {
            0..=255 => self.bytes.extend([b'K', value as u8]),
            256..=65535 => {
                self.bytes.push(b'M');
                self.bytes.extend((value as u16).to_le_bytes());
            }
            _ => {
                self.bytes.push(b'J');
                self.bytes.extend((value as i32).to_le_bytes());
            }
        }
    }

    fn array(&mut self, pictures: &[u8]) {
        self.bytes.extend(b"cnumpy.core.multiarray\n_reconstruct\n");
        self.put();
        self.bytes.extend(b"cnumpy\nndarray\n");
        self.put();
        self.int(0);
        self.bytes.push(0x85);
        self.raw_string(b"b");
        self.bytes.push(0x87);
        self.bytes.push(b'R');
        self.put();
        self.bytes.push(b'(');
        self.int(1);
        self.int((pictures.len() / 3072) as i64);
        self.int(3072);
        self.bytes.push(0x86);
        self.bytes.extend(b"cnumpy\ndtype\n");
        self.put();
        self.raw_string(b"u1");
        self.int(0);
        self.int(1);
        self.bytes.extend([0x87, b'R']);
        self.put();
        self.bytes.push(b'(');
        self.int(3);
        self.raw_string(b"|");
        self.bytes.extend(b"NNN");
        self.int(-1);
        self.int(-1);
        self.int(0);
        self.bytes.extend(b"tb");
        self.bytes.push(0x89);
        self.raw_string(pictures);
        self.bytes.extend(b"tb");
    }
}
