//! The reader: every length is checked against what is left of the file before it is believed.

use super::types;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 4] = *b"GGUF";
const KEYS_MAX: u64 = 65_536;
const TENSORS_MAX: u64 = 65_536;
const DIMENSIONS_MAX: u32 = 4;
const TEXT_BYTES_MAX: u64 = 16 * 1024 * 1024;
const ARRAY_DEPTH_MAX: u32 = 4;
const ALIGNMENT_DEFAULT: u64 = 32;

/// Why a file is not usable as a model.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// No such file.
    #[error("model file {} does not exist", .0.display())]
    NotFound(PathBuf),
    /// It exists and can't be read.
    #[error("reading model file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its bytes are not those of a whole GGUF file.
    #[error("model file {} is not a whole GGUF file: {problem}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// One value of the metadata. Numbers keep their meaning, not their width.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any integer or boolean.
    Int(i128),
    /// A float.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Value>),
}

/// Where a tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Elements per dimension.
    pub dimensions: Vec<u64>,
    /// ggml's number of its type.
    pub kind: u32,
    /// From the start of the data.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// A checked header.
#[derive(Clone, Debug)]
pub struct Gguf {
    /// The file it was read from.
    pub path: PathBuf,
    /// Metadata by key.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors in file order.
    pub tensors: Vec<Tensor>,
    /// Length of the file.
    pub file_bytes: u64,
}

impl Gguf {
    /// Reads and checks the header of the file at `path`.
    ///
    /// # Errors
    /// Says whether the file is missing, unreadable or broken, and where.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let io = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => GgufError::NotFound(path.to_owned()),
            _ => GgufError::Io { path: path.to_owned(), source },
        };
        let file = File::open(path).map_err(io)?;
        let meta = file.metadata().map_err(io)?;
        if !meta.is_file() {
            return Err(GgufError::Corrupt { path: path.to_owned(), problem: "it is no regular file".into() });
        }
        let mut cursor = Cursor { inner: BufReader::new(file), read: 0, size: meta.len() };
        parse(&mut cursor)
            .map(|(metadata, tensors)| Self { path: path.to_owned(), metadata, tensors, file_bytes: meta.len() })
            .map_err(|problem| GgufError::Corrupt { path: path.to_owned(), problem })
    }

    /// An error about this file.
    #[must_use]
    pub fn corrupt(&self, problem: impl Into<String>) -> GgufError {
        GgufError::Corrupt { path: self.path.clone(), problem: problem.into() }
    }

    /// A text of the metadata.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.metadata.get(key) {
            Some(Value::Int(number)) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A list.
    #[must_use]
    pub fn list(&self, key: &str) -> Option<&[Value]> {
        match self.metadata.get(key) {
            Some(Value::List(items)) => Some(items),
            _ => None,
        }
    }

    /// Bytes of all tensors.
    #[must_use]
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes).fold(0, u64::saturating_add)
    }
}

type Problem = String;

struct Cursor<R> {
    inner: R,
    read: u64,
    size: u64,
}

impl<R: Read> Cursor<R> {
    fn left(&self) -> u64 {
        self.size.saturating_sub(self.read)
    }

    fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Problem> {
        let mut buffer = [0; N];
        self.inner.read_exact(&mut buffer).map_err(|_| format!("it ends inside {what}"))?;
        self.read = self.read.saturating_add(u64::try_from(N).unwrap_or(u64::MAX));
        Ok(buffer)
    }

    fn u32(&mut self, what: &str) -> Result<u32, Problem> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, Problem> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    fn text(&mut self, what: &str) -> Result<String, Problem> {
        let length = self.u64(what)?;
        if length > TEXT_BYTES_MAX || length > self.left() {
            return Err(format!("{what} claims {length} bytes, with {} left in the file", self.left()));
        }
        let mut buffer = vec![0; usize::try_from(length).map_err(|error| error.to_string())?];
        self.inner.read_exact(&mut buffer).map_err(|_| format!("it ends inside {what}"))?;
        self.read = self.read.saturating_add(length);
        Ok(match String::from_utf8(buffer) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }
}

fn parse<R: Read>(cursor: &mut Cursor<R>) -> Result<(BTreeMap<String, Value>, Vec<Tensor>), Problem> {
    if cursor.bytes::<4>("its first four bytes")? != MAGIC {
        return Err("it does not begin with \"GGUF\"".into());
    }
    let version = cursor.u32("its version")?;
    if !(2..=3).contains(&version) {
        return Err(format!("its format version is {version}; 2 and 3 are known"));
    }
    let tensor_count = counted(cursor.u64("the number of tensors")?, TENSORS_MAX, "tensors")?;
    let key_count = counted(cursor.u64("the number of metadata keys")?, KEYS_MAX, "metadata keys")?;
    let mut metadata = BTreeMap::new();
    for _ in 0..key_count {
        let key = cursor.text("a metadata key")?;
        let kind = cursor.u32(&key)?;
        let value = value(cursor, kind, &key, 0)?;
        metadata.insert(key, value);
    }
    let tensors = (0..tensor_count).map(|_| tensor(cursor)).collect::<Result<Vec<_>, _>>()?;
    check_tensors(&metadata, &tensors, cursor.read, cursor.size)?;
    Ok((metadata, tensors))
}

fn counted(count: u64, most: u64, what: &str) -> Result<u64, Problem> {
    if count > most { Err(format!("it claims {count} {what}; at most {most} are read")) } else { Ok(count) }
}

fn value<R: Read>(cursor: &mut Cursor<R>, kind: u32, key: &str, depth: u32) -> Result<Value, Problem> {
    Ok(match kind {
        0 => Value::Int(u8::from_le_bytes(cursor.bytes(key)?).into()),
        1 => Value::Int(i8::from_le_bytes(cursor.bytes(key)?).into()),
        2 => Value::Int(u16::from_le_bytes(cursor.bytes(key)?).into()),
        3 => Value::Int(i16::from_le_bytes(cursor.bytes(key)?).into()),
        4 => Value::Int(cursor.u32(key)?.into()),
        5 => Value::Int(i32::from_le_bytes(cursor.bytes(key)?).into()),
        6 => Value::Float(f32::from_le_bytes(cursor.bytes(key)?).into()),
        7 => match cursor.bytes::<1>(key)? {
            [flag @ (0 | 1)] => Value::Int(flag.into()),
            [other] => return Err(format!("{key} is the boolean {other}")),
        },
        8 => Value::Text(cursor.text(key)?),
        9 => list(cursor, key, depth)?,
        10 => Value::Int(cursor.u64(key)?.into()),
        11 => Value::Int(i64::from_le_bytes(cursor.bytes(key)?).into()),
        12 => Value::Float(f64::from_le_bytes(cursor.bytes(key)?)),
        other => return Err(format!("{key} has the unknown type {other}")),
    })
}

fn list<R: Read>(cursor: &mut Cursor<R>, key: &str, depth: u32) -> Result<Value, Problem> {
    if depth >= ARRAY_DEPTH_MAX {
        return Err(format!("{key} nests lists deeper than {ARRAY_DEPTH_MAX}"));
    }
    let kind = cursor.u32(key)?;
    let length = cursor.u64(key)?;
    if length > cursor.left() {
        return Err(format!("{key} claims {length} items, with {} bytes left in the file", cursor.left()));
    }
    (0..length).map(|_| value(cursor, kind, key, depth + 1)).collect::<Result<_, _>>().map(Value::List)
}

fn tensor<R: Read>(cursor: &mut Cursor<R>) -> Result<Tensor, Problem> {
    let name = cursor.text("a tensor's name")?;
    let dimension_count = cursor.u32(&name)?;
    if dimension_count == 0 || dimension_count > DIMENSIONS_MAX {
        return Err(format!("tensor {name} has {dimension_count} dimensions"));
    }
    let dimensions = (0..dimension_count).map(|_| cursor.u64(&name)).collect::<Result<Vec<_>, _>>()?;
    let kind = cursor.u32(&name)?;
    let offset = cursor.u64(&name)?;
    let bytes = tensor_bytes(&dimensions, kind).map_err(|problem| format!("tensor {name} {problem}"))?;
    Ok(Tensor { name, dimensions, kind, offset, bytes })
}

fn tensor_bytes(dimensions: &[u64], kind: u32) -> Result<u64, Problem> {
    let (elements, bytes) = types::block(kind).ok_or_else(|| format!("has the unknown type {kind}"))?;
    let row = dimensions.first().copied().unwrap_or_default();
    if row == 0 || row % elements != 0 {
        return Err(format!("has rows of {row}, which are no multiple of its type's blocks of {elements}"));
    }
    let blocks = dimensions.iter().try_fold(1_u64, |product, size| product.checked_mul(*size));
    blocks.and_then(|count| (count / elements).checked_mul(bytes)).ok_or_else(|| "is larger than any file".to_owned())
}

fn check_tensors(
    metadata: &BTreeMap<String, Value>,
    tensors: &[Tensor],
    header: u64,
    size: u64,
) -> Result<(), Problem> {
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT_DEFAULT,
        Some(Value::Int(number)) => u64::try_from(*number).ok().filter(|a| a.is_power_of_two()).unwrap_or_default(),
        Some(_) => 0,
    };
    if alignment == 0 {
        return Err("general.alignment is no power of two".into());
    }
    let start = header.checked_next_multiple_of(alignment).ok_or("its header is too long")?;
    for tensor in tensors {
        if tensor.offset % alignment != 0 {
            return Err(format!("tensor {} begins at {}, off the alignment {alignment}", tensor.name, tensor.offset));
        }
        let end = start.checked_add(tensor.offset).and_then(|begin| begin.checked_add(tensor.bytes));
        match end {
            Some(end) if end <= size => {}
            Some(end) => {
                return Err(format!("tensor {} ends at byte {end}, the file at {size}: it is truncated", tensor.name));
            }
            None => return Err(format!("tensor {} ends beyond any file", tensor.name)),
        }
    }
    Ok(())
}
