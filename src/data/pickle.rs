//! A reader for the few pickles that CIFAR's Python version consists of. It runs nothing.
//!
//! A pickle is a program for a small stack machine (Python's `pickletools.py` documents each operation). Understood are
//! the operations that Python 2 wrote into the published files, and of the functions that they call the three that make up
//! a NumPy array of bytes. Anything else is an error that names the byte. Values borrow from the file; there are at most
//! [`MOST_VALUES`] of them, nested at most [`MOST_DEPTH`] deep, and as many are remembered for later.

use std::collections::HashMap;

/// Ten times what the largest published file holds.
const MOST_VALUES: usize = 2 << 20;

/// A dictionary of lists is two deep.
const MOST_DEPTH: usize = 6;

/// A value of a pickle.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// A string of Python 2: bytes.
    Bytes(&'a [u8]),
    List(Vec<Value<'a>>),
    Tuple(Vec<Value<'a>>),
    Dict(Vec<(&'a [u8], Value<'a>)>),
    /// An array of u8, row by row: (rows, columns).
    Array {
        shape: [usize; 2],
        data: &'a [u8],
    },
    /// An array that has not got its content yet.
    EmptyArray,
    /// The element type u8.
    ByteType,
    /// A function or type by name.
    Global(Global),
}

/// The functions and types that a pickle may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    Reconstruct,
    NdArray,
    DType,
}

impl<'a> Value<'a> {
    /// The entry `key` of a dictionary.
    pub(super) fn get(&self, key: &str) -> Option<&Value<'a>> {
        let Value::Dict(entries) = self else { return None };
        entries.iter().rev().find(|(name, _)| *name == key.as_bytes()).map(|(_, value)| value)
    }

    /// The items of a list.
    pub(super) fn list(&self) -> Option<&[Value<'a>]> {
        match self {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    fn depth(&self) -> usize {
        match self {
            Value::List(items) | Value::Tuple(items) => 1 + items.iter().map(Value::depth).max().unwrap_or(0),
            Value::Dict(entries) => 1 + entries.iter().map(|(_, v)| v.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether the value may be fetched from the memo: one that can no longer change.
    fn is_settled(&self) -> bool {
        !matches!(self, Value::List(_) | Value::Dict(_) | Value::Tuple(_) | Value::EmptyArray | Value::Array { .. })
    }
}

/// Why bytes are not a pickle of CIFAR, and the byte at which that shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) at: usize,
    pub(super) what: String,
}

/// The value that a pickle describes.
///
/// # Errors
/// What is not understood, and where.
pub(super) fn parse(bytes: &[u8]) -> Result<Value<'_>, Refused> {
    let mut machine = Machine { bytes, next: 0, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), values: 0 };
    loop {
        let at = machine.next;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(value)) if machine.next == bytes.len() => return Ok(value),
            Ok(Some(_)) => {
                let what = format!("{} bytes follow its end", bytes.len() - machine.next);
                return Err(Refused { at: machine.next, what });
            }
            Err(what) => return Err(Refused { at, what }),
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    next: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    /// `None` for a value that could still change: the published files fetch none of these.
    memo: HashMap<u32, Option<Value<'a>>>,
    values: usize,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    /// One operation; the result once it is the last.
    fn step(&mut self) -> Step<Option<Value<'a>>> {
        match self.take(1)?[0] {
            0x80 => match self.take(1)?[0] {
                2 => {}
                version => return Err(format!("it has protocol {version}, expected 2")),
            },
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'K' => {
                let value = self.number::<1>()?;
                self.push(Value::Int(i64::from(value)))?;
            }
            b'M' => {
                let value = self.number::<2>()?;
                self.push(Value::Int(i64::from(value)))?;
            }
            b'J' => {
                let value = self.number::<4>()? as i32;
                self.push(Value::Int(i64::from(value)))?;
            }
            b'U' => {
                let length = self.number::<1>()? as usize;
                let text = self.take(length)?;
                self.push(Value::Bytes(text))?;
            }
            b'T' => {
                let length = self.number::<4>()? as usize;
                let text = self.take(length)?;
                self.push(Value::Bytes(text))?;
            }
            b']' => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b'(' => {
                if self.marks.len() >= MOST_DEPTH {
                    return Err(format!("marks are nested more than {MOST_DEPTH} deep"));
                }
                self.marks.push(self.stack.len());
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.set(items)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(items)?;
            }
            count @ 0x85..=0x87 => {
                let items = self.pop_many(usize::from(count - 0x84))?;
                self.push_tuple(items)?;
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_tuple(items)?;
            }
            b'q' => {
                let slot = self.number::<1>()?;
                self.remember(slot)?;
            }
            b'r' => {
                let slot = self.number::<4>()?;
                self.remember(slot)?;
            }
            b'h' => {
                let slot = self.number::<1>()?;
                self.recall(slot)?;
            }
            b'j' => {
                let slot = self.number::<4>()?;
                self.recall(slot)?;
            }
            b'c' => self.global()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            b'.' => return self.pop().map(Some),
            operation => return Err(format!("operation {operation:#04x} does not occur in CIFAR's files")),
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.next..];
        let Some(taken) = rest.get(..count) else {
            return Err(format!("{count} bytes should follow, but only {} are left", rest.len()));
        };
        self.next += count;
        Ok(taken)
    }

    /// An unsigned little-endian number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Step<u32> {
        Ok(self.take(N)?.iter().rev().fold(0, |n, &byte| n << 8 | u32::from(byte)))
    }

    /// The bytes up to a line feed, which is taken as well.
    fn line(&mut self) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.next..];
        let Some(end) = rest.iter().take(256).position(|&byte| byte == b'\n') else {
            return Err("a name has no end".into());
        };
        self.next += end + 1;
        Ok(&rest[..end])
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        self.values += 1;
        if self.values > MOST_VALUES {
            return Err(format!("it holds more than {MOST_VALUES} values"));
        }
        self.stack.push(value);
        Ok(())
    }

    fn push_tuple(&mut self, items: Vec<Value<'a>>) -> Step<()> {
        let tuple = Value::Tuple(items);
        shallow(&tuple)?;
        self.push(tuple)
    }

    /// The values above the last mark's height: a mark fences off what is below it.
    fn pop(&mut self) -> Step<Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("a value is missing from the stack".into());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    fn pop_many(&mut self, count: usize) -> Step<Vec<Value<'a>>> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Step<Vec<_>>>()?;
        items.reverse();
        Ok(items)
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Step<&mut Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self.stack.last_mut().ok_or_else(|| "the stack is empty".into()),
            false => Err("a value is missing from the stack".into()),
        }
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> Step<()> {
        let Value::List(list) = self.top()? else { return Err("items are added to something that is no list".into()) };
        items.iter().try_for_each(shallow)?;
        list.extend(items);
        Ok(())
    }

    fn set(&mut self, items: Vec<Value<'a>>) -> Step<()> {
        let Value::Dict(entries) = self.top()? else {
            return Err("entries are added to something that is no dictionary".into());
        };
        if !items.len().is_multiple_of(2) {
            return Err("a key without a value".into());
        }
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            let Value::Bytes(key) = key else { return Err("a key that is no string".into()) };
            shallow(&value)?;
            entries.push((key, value));
        }
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> Step<()> {
        let value = self.top()?;
        let kept = value.is_settled().then(|| value.clone());
        self.memo.insert(slot, kept);
        match self.memo.len() > MOST_VALUES {
            true => Err(format!("it remembers more than {MOST_VALUES} values")),
            false => Ok(()),
        }
    }

    fn recall(&mut self, slot: u32) -> Step<()> {
        match self.memo.get(&slot) {
            Some(Some(value)) => {
                let value = value.clone();
                self.push(value)
            }
            Some(None) => Err(format!("memo {slot} holds a container, which CIFAR's files do not share")),
            None => Err(format!("memo {slot} is empty")),
        }
    }

    fn global(&mut self) -> Step<()> {
        let (module, name) = (self.line()?, self.line()?);
        let global = match (module, name) {
            (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"_reconstruct") => Global::Reconstruct,
            (b"numpy", b"ndarray") => Global::NdArray,
            (b"numpy", b"dtype") => Global::DType,
            _ => {
                return Err(format!("it asks for {}.{}, which is not run", module.escape_ascii(), name.escape_ascii()));
            }
        };
        self.push(Value::Global(global))
    }

    /// `_reconstruct(ndarray, (0,), 'b')` and `dtype('u1', 0, 1)`.
    fn reduce(&mut self) -> Step<()> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        let Value::Tuple(arguments) = arguments else { return Err("a call without a tuple of arguments".into()) };
        match (function, &arguments[..]) {
            (Value::Global(Global::Reconstruct), [Value::Global(Global::NdArray), _, _]) => {
                self.push(Value::EmptyArray)
            }
            (Value::Global(Global::DType), [Value::Bytes(b"u1" | b"|u1"), ..]) => self.push(Value::ByteType),
            (Value::Global(Global::DType), _) => Err("an array whose elements are not bytes".into()),
            _ => Err("a call that CIFAR's files do not make".into()),
        }
    }

    /// The state of an array, `(1, (rows, columns), dtype, False, bytes)`, or of an element type, which is ignored.
    fn build(&mut self) -> Step<()> {
        let state = self.pop()?;
        let object = self.top()?;
        match (&*object, state) {
            (Value::ByteType, Value::Tuple(_)) => Ok(()),
            (Value::EmptyArray, Value::Tuple(state)) => {
                let [_, Value::Tuple(shape), Value::ByteType, order, Value::Bytes(data)] = &state[..] else {
                    return Err("the state of an array has an unknown form".into());
                };
                let [Value::Int(rows), Value::Int(columns)] = shape[..] else {
                    return Err("an array that has not two dimensions".into());
                };
                if *order != Value::Bool(false) {
                    return Err("an array that is stored column by column".into());
                }
                let size = |n: i64| usize::try_from(n).map_err(|_| "an array of negative size".to_owned());
                let shape = [size(rows)?, size(columns)?];
                if shape[0].checked_mul(shape[1]) != Some(data.len()) {
                    return Err(format!("an array of {rows} x {columns} with {} bytes", data.len()));
                }
                *object = Value::Array { shape, data };
                Ok(())
            }
            _ => Err("a state for something that takes none".into()),
        }
    }
}

/// Refuses a value that is nested too deep to be one of CIFAR's.
fn shallow(value: &Value) -> Step<()> {
    match value.depth() < MOST_DEPTH {
        true => Ok(()),
        false => Err(format!("values are nested more than {MOST_DEPTH} deep")),
    }
}
