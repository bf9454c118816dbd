//! Datanets in Parquet files, as data tools write them, to JSON lines.
//!
//! The library that reads them isn't made for hostile files: what a file says of its pages' sizes is believed, and a schema may nest until the stack
//! ends. Whoever reads strangers' files does so in a process of its own, with limits.

use crate::error::Failure;
use parquet::basic::Compression;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::{Type, TypePtr};
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Columns that are read.
const COLUMNS: [&str; 2] = ["contributor", "text"];

/// Writes every row of a Parquet file as a line of JSON with `contributor` and `text`; how many there were.
///
/// # Errors
///
/// When the file isn't one, lacks a column, has a row without a value, or the lines can't be written. Says where.
pub fn to_lines(path: &Path, out: &mut impl Write) -> Result<usize, Failure> {
    let place = path.display();
    let wrong = |what: String| Failure::input(format!("{place}: {what}"));
    let file = File::open(path).map_err(|e| wrong(e.to_string()))?;
    let reader = SerializedFileReader::new(file).map_err(|e| wrong(format!("not a Parquet file: {e}")))?;
    let metadata = reader.metadata();
    let chunks = metadata.row_groups().iter().flat_map(|group| group.columns());
    let other = chunks.map(|chunk| chunk.compression()).find(|c| !matches!(c, Compression::UNCOMPRESSED | Compression::SNAPPY));
    if let Some(other) = other {
        let failure = wrong(format!("its columns are compressed by {other:?}; uncompressed ones and Snappy's are read"));
        return Err(failure.hint("write it with compression=\"snappy\", which is the default of pandas and PyArrow"));
    }
    let schema = metadata.file_metadata().schema();
    let fields = COLUMNS.map(|name| column(schema, name).ok_or_else(|| wrong(format!("there is no column `{name}` of texts"))));
    let fields = fields.into_iter().collect::<Result<Vec<TypePtr>, _>>()?;
    let projection = Type::group_type_builder(schema.name()).with_fields(fields).build().map_err(|e| wrong(e.to_string()))?;
    let rows = reader.get_row_iter(Some(projection)).map_err(|e| wrong(e.to_string()))?;
    let mut count = 0;
    for row in rows {
        let row = row.map_err(|e| wrong(format!("row {count}: {e}")))?;
        let value = |name: &str| {
            let field = row.get_column_iter().find_map(|(own, field)| (own == name).then_some(field));
            let text = match field {
                Some(Field::Str(text)) => Some(text.clone()),
                Some(Field::Bytes(bytes)) => std::str::from_utf8(bytes.data()).ok().map(str::to_owned),
                _ => None,
            };
            text.ok_or_else(|| wrong(format!("row {count}: `{name}` isn't a text")))
        };
        let line = json!({ "contributor": value("contributor")?, "text": value("text")? });
        writeln!(out, "{line}").map_err(|e| Failure::input(format!("writing the lines: {e}")))?;
        count += 1;
    }
    out.flush().map_err(|e| Failure::input(format!("writing the lines: {e}")))?;
    Ok(count)
}

/// A column of the outermost level that isn't a list or a group.
fn column(schema: &Type, name: &str) -> Option<TypePtr> {
    schema.get_fields().iter().find(|field| field.name() == name && field.is_primitive()).map(Arc::clone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::path::PathBuf;

    fn written(dir: &Path, schema: &str, columns: &[&[Option<&str>]], compression: Compression) -> PathBuf {
        let path = dir.join("samples.parquet");
        let properties = WriterProperties::builder().set_compression(compression).build();
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut writer = SerializedFileWriter::new(File::create(&path).unwrap(), schema, Arc::new(properties)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        for values in columns {
            let mut column = group.next_column().unwrap().unwrap();
            let given: Vec<ByteArray> = values.iter().flatten().map(|text| ByteArray::from(*text)).collect();
            let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
            let optional = values.len() != given.len();
            column.typed::<ByteArrayType>().write_batch(&given, optional.then_some(&levels), None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
        path
    }

    fn lines(path: &Path) -> Result<String, String> {
        let mut out = Vec::new();
        let count = to_lines(path, &mut out).map_err(|f| f.message)?;
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), count);
        Ok(text)
    }

    const SCHEMA: &str = "message m { required binary text (utf8); required binary contributor (utf8); }";

    #[test]
    fn rows_become_lines() {
        let dir = tempfile::tempdir().unwrap();
        let texts: [&[Option<&str>]; 2] = [&[Some("one\ntwo"), Some("\"ünï\"")], &[Some("ann"), Some("zoe")]];
        for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
            let found = lines(&written(dir.path(), SCHEMA, &texts, compression)).unwrap();
            assert_eq!(found, "{\"contributor\":\"ann\",\"text\":\"one\\ntwo\"}\n{\"contributor\":\"zoe\",\"text\":\"\\\"ünï\\\"\"}\n");
        }
        // Bytes that are texts, though nobody says so, are texts.
        let plain = "message m { required binary text; required binary contributor (utf8); }";
        assert!(lines(&written(dir.path(), plain, &texts, Compression::SNAPPY)).is_ok());
    }

    #[test]
    fn what_is_no_datanet_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let other = "message m { required binary text (utf8); required binary author (utf8); }";
        let texts: [&[Option<&str>]; 2] = [&[Some("one")], &[Some("ann")]];
        let refused = lines(&written(dir.path(), other, &texts, Compression::SNAPPY)).unwrap_err();
        assert!(refused.contains("no column `contributor`"), "{refused}");
        let optional = "message m { optional binary text (utf8); required binary contributor (utf8); }";
        let missing: [&[Option<&str>]; 2] = [&[Some("one"), None], &[Some("ann"), Some("zoe")]];
        let refused = lines(&written(dir.path(), optional, &missing, Compression::SNAPPY)).unwrap_err();
        assert!(refused.contains("row 1: `text` isn't a text"), "{refused}");
        let path = written(dir.path(), SCHEMA, &texts, Compression::SNAPPY);
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 4, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(lines(&path).unwrap_err().contains("samples.parquet: not a Parquet file"));
        }
        assert!(lines(&dir.path().join("none.parquet")).unwrap_err().contains("none.parquet"));
    }
}
