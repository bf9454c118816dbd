//! Samples in Apache Parquet: columns `contributor` and `text`.
//!
//! What such a file says of its sizes isn't believed. Of what compresses only Snappy is read, which can't make more than 64 bytes of three, so a
//! file of at most [`MOST`] bytes bounds what a page of it takes.

use crate::error::ApiError;
use crate::uploads::{SAMPLES, UNPACKED, wrong};
use axum::body::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Most bytes of a file.
const MOST: usize = 16 << 20;

/// The columns that are read, in the file's order.
fn columns(name: &str, schema: &Type) -> Result<Type, ApiError> {
    let fields = schema.get_fields();
    let chosen = ["contributor", "text"].map(|column| {
        let mut found = fields.iter().filter(|field| field.name() == column);
        let (first, second) = (found.next(), found.next());
        first.filter(|field| second.is_none() && field.is_primitive()).cloned().ok_or_else(|| {
            let names: Vec<&str> = fields.iter().take(10).map(|field| field.name()).collect();
            wrong(format!("{name}: expected one column `{column}` of texts, found {}", names.join(", ")))
        })
    });
    let [contributor, text] = chosen;
    let both = [contributor?, text?];
    let kept = fields.iter().filter(|field| both.iter().any(|chosen| Arc::ptr_eq(field, chosen))).cloned().collect();
    Type::group_type_builder(schema.name()).with_fields(kept).build().map_err(|e| broken(name, &e))
}

fn broken(name: &str, error: &ParquetError) -> ApiError {
    let message = error.to_string();
    let compressed = message.contains("Disabled feature") || message.contains("compression");
    let hint = "write it uncompressed or with Snappy, pandas' default: df.to_parquet(path, compression=\"snappy\")";
    ApiError { hint: compressed.then(|| hint.to_owned()), ..wrong(format!("{name}: not a Parquet file that can be read: {message}")) }
}

/// A row's text in a column; of bytes, where they are UTF-8: older writers don't say that they are texts.
fn text<'a>(name: &str, number: usize, row: &'a Row, column: &str) -> Result<&'a str, ApiError> {
    let field = row.get_column_iter().find(|(of, _)| *of == column).map(|(_, field)| field);
    match field {
        Some(Field::Str(text)) => Ok(text),
        Some(Field::Bytes(bytes)) => {
            std::str::from_utf8(bytes.data()).map_err(|e| wrong(format!("{name}: row {number}: `{column}`: byte {} isn't UTF-8", e.valid_up_to())))
        }
        Some(Field::Null) => Err(wrong(format!("{name}: row {number}: `{column}` is null"))),
        _ => Err(wrong(format!("{name}: row {number}: `{column}` isn't a text"))),
    }
}

fn rows(name: &str, bytes: &[u8]) -> Result<String, ApiError> {
    let file = SerializedFileReader::new(Bytes::copy_from_slice(bytes)).map_err(|e| broken(name, &e))?;
    let projection = columns(name, file.metadata().file_metadata().schema())?;
    let mut lines = String::new();
    let mut number = 0;
    for group in 0..file.num_row_groups() {
        let group = file.get_row_group(group).map_err(|e| broken(name, &e))?;
        for row in group.get_row_iter(Some(projection.clone())).map_err(|e| broken(name, &e))? {
            let row = row.map_err(|e| broken(name, &e))?;
            number += 1;
            if number > SAMPLES {
                return Err(wrong(format!("{name}: more than {SAMPLES} samples, which are taken in at once")));
            }
            let [contributor, text] = [text(name, number, &row, "contributor")?, text(name, number, &row, "text")?];
            lines += &json!({ "contributor": contributor, "text": text }).to_string();
            lines.push('\n');
            if lines.len() as u64 > UNPACKED {
                return Err(wrong(format!("{name}: more than {} MiB unpacked", UNPACKED >> 20)));
            }
        }
    }
    Ok(lines)
}

/// A file's samples as JSON lines, a row each.
///
/// # Errors
///
/// Says which row or column is wrong.
pub fn jsonl(name: &str, bytes: &[u8]) -> Result<String, ApiError> {
    if bytes.len() > MOST {
        let message = format!("{name}: {} bytes, at most {MOST} of a Parquet file are read", bytes.len());
        return Err(ApiError { hint: Some("upload it in parts, or as .jsonl or .csv".into()), ..wrong(message) });
    }
    // The reader isn't written for files that somebody made to break it.
    let read = catch_unwind(AssertUnwindSafe(|| rows(name, bytes)));
    read.unwrap_or_else(|_| Err(wrong(format!("{name}: not a Parquet file that can be read: it is damaged"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    /// A file of columns of texts, nulls where there are none.
    fn written(schema: &str, compression: Compression, columns: &[&[Option<&[u8]>]]) -> Vec<u8> {
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        for column in columns {
            let mut open = group.next_column().unwrap().unwrap();
            let values: Vec<ByteArray> = column.iter().flatten().map(|&bytes| bytes.to_vec().into()).collect();
            let levels: Vec<i16> = column.iter().map(|value| i16::from(value.is_some())).collect();
            open.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
            open.close().unwrap();
        }
        group.close().unwrap();
        writer.into_inner().unwrap()
    }

    const SCHEMA: &str = "message s { optional binary text (UTF8); optional binary note (UTF8); optional binary contributor (UTF8); }";
    const TEXTS: [&[Option<&[u8]>]; 3] = [&[Some(b"one"), Some("zw\u{f6}lf".as_bytes())], &[None, None], &[Some(b"ann"), Some(b"zoe")]];

    #[test]
    fn rows_are_samples() {
        for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
            let read = jsonl("a.parquet", &written(SCHEMA, compression, &TEXTS)).unwrap();
            assert_eq!(read, "{\"contributor\":\"ann\",\"text\":\"one\"}\n{\"contributor\":\"zoe\",\"text\":\"zw\u{f6}lf\"}\n");
        }
        // Without an annotation: bytes.
        let plain = "message s { optional binary contributor; optional binary text; }";
        let read = jsonl("a.parquet", &written(plain, Compression::SNAPPY, &[&[Some(b"ann")], &[Some(b"one")]])).unwrap();
        assert_eq!(read, "{\"contributor\":\"ann\",\"text\":\"one\"}\n");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_row() {
        let refused = |bytes: &[u8]| jsonl("a.parquet", bytes).unwrap_err().message;
        assert!(
            refused(&written(SCHEMA, Compression::SNAPPY, &[&[Some(b"one"), None], &[None, None], &[Some(b"ann"), Some(b"zoe")]]))
                .contains("row 2: `text` is null")
        );
        let plain = "message s { optional binary contributor; optional binary text; }";
        assert!(refused(&written(plain, Compression::SNAPPY, &[&[Some(b"ann")], &[Some(b"a\xff")]])).contains("byte 1 isn't UTF-8"));
        let other = "message s { optional binary author (UTF8); optional binary text (UTF8); }";
        let message = refused(&written(other, Compression::SNAPPY, &[&[Some(b"ann")], &[Some(b"one")]]));
        assert!(message.contains("column `contributor`") && message.contains("author, text"), "{message}");
        let nested = "message s { optional binary contributor (UTF8); required group text { optional binary a (UTF8); } }";
        assert!(refused(&written(nested, Compression::SNAPPY, &[&[Some(b"ann")], &[Some(b"one")]])).contains("column `text`"));
        assert!(refused(b"PAR1 nothing of it PAR1").contains("not a Parquet file"));
        assert!(refused(&vec![0; MOST + 1]).contains("at most 16777216"));
    }

    /// Whatever byte is another, the file is read or refused.
    #[test]
    fn damaged_files_are_refused() {
        let whole = written(SCHEMA, Compression::SNAPPY, &TEXTS);
        for at in 0..whole.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] ^= flip;
                let _: Result<String, ApiError> = jsonl("a.parquet", &damaged);
            }
            assert!(jsonl("a.parquet", &whole[..at]).is_err());
        }
    }
}
