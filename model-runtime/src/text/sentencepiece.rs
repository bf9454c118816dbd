//! SentencePiece models (`.model`): just enough protobuf for the pieces, the trainer's and the normaliser's settings.
//!
//! Field numbers are those of `sentencepiece_model.proto`. Settings that would change the encoding and aren't implemented here
//! (a normalisation table, user-defined pieces) are refused; such a model can be converted to `tokenizer.json`.

use super::pieces::{Algorithm, Pieces};
use std::collections::HashMap;

/// A SentencePiece model.
pub(super) struct Model {
    pub(super) pieces: Pieces,
    pub(super) bos: u32,
    pub(super) eos: u32,
    dummy_prefix: bool,
    trim_spaces: bool,
}

/// SentencePiece's visible space.
const SPACE: &str = "\u{2581}";

impl Model {
    /// Parses the file; the error says what is wrong.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (mut raw, mut trainer, mut normaliser) = (Vec::new(), Trainer::default(), Normaliser::default());
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(b)) => raw.push(RawPiece::parse(b)?),
                (2, Value::Bytes(b)) => trainer = Trainer::parse(b)?,
                (3, Value::Bytes(b)) => normaliser = Normaliser::parse(b)?,
                _ => {}
            }
        }
        let algorithm = match trainer.model_type {
            1 => Algorithm::Unigram,
            2 => Algorithm::Bpe,
            other => return Err(format!("expected model type 1 (unigram) or 2 (BPE), found {other}")),
        };
        if normaliser.has_table {
            return Err("expected no normalisation table; convert the model to tokenizer.json".into());
        }
        if trainer.suffix_spaces || !normaliser.escape_spaces {
            let settings = "treat_whitespace_as_suffix false and escape_whitespaces true";
            return Err(format!("expected {settings}; convert the model to tokenizer.json"));
        }
        let special = |name: &str, id: i32| {
            u32::try_from(id).ok().filter(|&id| (id as usize) < raw.len()).ok_or(format!("expected {name} below {}, found {id}", raw.len()))
        };
        let (bos, eos, unknown) = (special("BOS id", trainer.bos)?, special("EOS id", trainer.eos)?, special("unknown id", trainer.unknown)?);
        let mut pieces = build_pieces(raw, unknown, algorithm)?;
        pieces.bytes = pieces.bytes.filter(|_| trainer.byte_fallback);
        Ok(Self { pieces, bos, eos, dummy_prefix: normaliser.dummy_prefix, trim_spaces: normaliser.trim_spaces })
    }

    /// Encodes a text, without BOS.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let mut text = text.to_string();
        if self.trim_spaces {
            text = text.split(' ').filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
        }
        if self.dummy_prefix && !text.is_empty() {
            text.insert(0, ' ');
        }
        let text = text.replace(' ', SPACE);
        // A visible space that a text ends with is trimmed like a space, one inside isn't.
        self.pieces.encode(if self.trim_spaces { text.trim_end_matches(SPACE) } else { &text })
    }

    /// Whether [`Model::encode`] puts a space in front, which decoding takes away again.
    pub(super) fn strips_prefix(&self) -> bool {
        self.dummy_prefix
    }
}

fn build_pieces(raw: Vec<RawPiece>, unknown: u32, algorithm: Algorithm) -> Result<Pieces, String> {
    let mut pieces = Pieces { decoded: Vec::new(), scores: Vec::new(), ids: HashMap::new(), bytes: None, unknown, algorithm };
    let mut bytes = vec![None; 256];
    for (id, piece) in raw.into_iter().enumerate() {
        pieces.scores.push(piece.score);
        let mut decoded = Vec::new();
        match piece.kind {
            1 => {
                decoded = piece.text.replace(SPACE, " ").into_bytes();
                pieces.ids.insert(piece.text, id as u32);
            }
            2 | 3 => {}
            6 => {
                let value = parse_byte(&piece.text).ok_or_else(|| format!("expected a byte piece, found `{}`", piece.text))?;
                bytes[usize::from(value)] = Some(id as u32);
                decoded.push(value);
            }
            kind => return Err(format!("piece {id} has type {kind}, which isn't supported; convert the model to tokenizer.json")),
        }
        pieces.decoded.push(decoded);
    }
    pieces.bytes = bytes.into_iter().collect();
    Ok(pieces)
}

/// `<0xHH>`.
fn parse_byte(text: &str) -> Option<u8> {
    u8::from_str_radix(text.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()
}

struct RawPiece {
    text: String,
    score: f32,
    kind: u64,
}

impl RawPiece {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut piece = Self { text: String::new(), score: 0.0, kind: 1 };
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(b)) => piece.text = String::from_utf8(b.to_vec()).map_err(|_| "a piece isn't UTF-8")?,
                (2, Value::Fixed32(bits)) => piece.score = f32::from_bits(bits),
                (3, Value::Varint(kind)) => piece.kind = kind,
                _ => {}
            }
        }
        if piece.score.is_finite() { Ok(piece) } else { Err(format!("piece `{}` has score {}", piece.text, piece.score)) }
    }
}

struct Trainer {
    model_type: u64,
    /// Spaces belong to the word before them.
    suffix_spaces: bool,
    byte_fallback: bool,
    unknown: i32,
    bos: i32,
    eos: i32,
}

impl Default for Trainer {
    fn default() -> Self {
        Self { model_type: 1, suffix_spaces: false, byte_fallback: false, unknown: 0, bos: 1, eos: 2 }
    }
}

impl Trainer {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut trainer = Self::default();
        for field in Fields(bytes) {
            match field? {
                (3, Value::Varint(v)) => trainer.model_type = v,
                (24, Value::Varint(v)) => trainer.suffix_spaces = v != 0,
                (35, Value::Varint(v)) => trainer.byte_fallback = v != 0,
                (40, Value::Varint(v)) => trainer.unknown = v as i32,
                (41, Value::Varint(v)) => trainer.bos = v as i32,
                (42, Value::Varint(v)) => trainer.eos = v as i32,
                _ => {}
            }
        }
        Ok(trainer)
    }
}

struct Normaliser {
    has_table: bool,
    escape_spaces: bool,
    dummy_prefix: bool,
    trim_spaces: bool,
}

impl Default for Normaliser {
    fn default() -> Self {
        Self { has_table: false, escape_spaces: true, dummy_prefix: true, trim_spaces: true }
    }
}

impl Normaliser {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut normaliser = Self::default();
        for field in Fields(bytes) {
            match field? {
                (2, Value::Bytes(table)) => normaliser.has_table = !table.is_empty(),
                (3, Value::Varint(v)) => normaliser.dummy_prefix = v != 0,
                (4, Value::Varint(v)) => normaliser.trim_spaces = v != 0,
                (5, Value::Varint(v)) => normaliser.escape_spaces = v != 0,
                _ => {}
            }
        }
        Ok(normaliser)
    }
}

/// A protobuf field's value.
enum Value<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message; stops after an error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| "the protobuf message is cut or malformed".to_string()))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed64)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}
