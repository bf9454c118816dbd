//! A codeword whose rows lie in memory while its tree is made, and in a file from then on.

use circuits::ir::F;
use p3_field::{PrimeCharacteristicRing, PrimeField32};
use p3_matrix::dense::DenseMatrix;
use p3_matrix::{Dimensions, Matrix};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::{Deref, Range};
use std::sync::{Mutex, OnceLock};

/// Bytes of an element in a file: its canonical representative, little-endian.
const ELEMENT: usize = 4;
/// Elements written at a time.
const WRITTEN: usize = 1 << 16;

/// A codeword as a matrix, a leaf a row. Serialised, it is its dimensions alone: rows are in the file that [`Codeword::attach`] gives it.
#[derive(Debug)]
pub struct Codeword {
    width: usize,
    height: usize,
    held: Option<DenseMatrix<F>>,
    file: OnceLock<Mutex<File>>,
}

impl From<DenseMatrix<F>> for Codeword {
    fn from(held: DenseMatrix<F>) -> Self {
        Self { width: held.width(), height: held.height(), held: Some(held), file: OnceLock::new() }
    }
}

impl Codeword {
    /// Bytes that a codeword of these dimensions takes in a file; `None` if no file is so long.
    pub fn bytes(Dimensions { width, height }: Dimensions) -> Option<u64> {
        let elements = width.checked_mul(height)?.checked_mul(ELEMENT)?;
        u64::try_from(elements).ok()
    }

    /// Writes the rows, if they are in memory.
    ///
    /// # Errors
    ///
    /// When they can't be written, or are in no memory.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let held = self.held.as_ref().ok_or_else(|| io::Error::other("the codeword isn't in memory"))?;
        held.values.chunks(WRITTEN).try_for_each(|chunk| {
            let bytes: Vec<u8> = chunk.iter().flat_map(|x| x.as_canonical_u32().to_le_bytes()).collect();
            out.write_all(&bytes)
        })
    }

    /// Reads rows from the start of this file from now on, unless they are in memory or in another file.
    pub fn attach(&self, file: File) {
        self.file.get_or_init(|| Mutex::new(file));
    }

    /// Elements of a row, read from the file. What can't be read is zero: whoever opens it notices that it doesn't lead to the root.
    fn read(&self, row: usize, columns: Range<usize>) -> Vec<F> {
        let mut bytes = vec![0; columns.len() * ELEMENT];
        let at = (row * self.width + columns.start) * ELEMENT;
        let read = self.file.get().map(|file| {
            let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            file.seek(SeekFrom::Start(at as u64)).and_then(|_| file.read_exact(&mut bytes))
        });
        if !matches!(read, Some(Ok(()))) {
            return vec![F::ZERO; columns.len()];
        }
        bytes.chunks_exact(ELEMENT).map(|b| F::from_u32(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
    }

    fn columns(&self, row: usize, columns: Range<usize>) -> Cow<'_, [F]> {
        let start = row * self.width;
        match &self.held {
            Some(held) => Cow::Borrowed(&held.values[start + columns.start..start + columns.end]),
            None => Cow::Owned(self.read(row, columns)),
        }
    }
}

/// The unchecked methods check as the others do: they index slices.
impl Matrix<F> for Codeword {
    fn width(&self) -> usize {
        self.width
    }

    fn height(&self) -> usize {
        self.height
    }

    unsafe fn row_unchecked(&self, r: usize) -> impl IntoIterator<Item = F, IntoIter = impl Iterator<Item = F> + Send + Sync> {
        let row = self.columns(r, 0..self.width);
        (0..row.len()).map(move |i| row[i])
    }

    unsafe fn row_slice_unchecked(&self, r: usize) -> impl Deref<Target = [F]> {
        self.columns(r, 0..self.width)
    }

    unsafe fn row_subslice_unchecked(&self, r: usize, start: usize, end: usize) -> impl Deref<Target = [F]> {
        self.columns(r, start..end)
    }

    fn contiguous_rows(&self, rows: Range<usize>) -> Option<impl Deref<Target = [F]>> {
        let held = self.held.as_ref()?;
        held.values.get(rows.start * self.width..rows.end * self.width)
    }
}

impl Serialize for Codeword {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.width as u64, self.height as u64).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Codeword {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (width, height) = <(u64, u64)>::deserialize(deserializer)?;
        let narrow = |x: u64| usize::try_from(x).map_err(serde::de::Error::custom);
        Ok(Self { width: narrow(width)?, height: narrow(height)?, held: None, file: OnceLock::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A codeword in a file has the rows that it had in memory, and the same tree.
    #[test]
    fn rows_in_a_file_are_rows_in_memory() {
        let matrix = DenseMatrix::new((0..24).map(|i| F::from_u32(i * i + 7) - F::from_u32(20)).collect(), 3);
        let held = Codeword::from(matrix.clone());
        let mut file = tempfile::tempfile().unwrap();
        held.write(&mut file).unwrap();
        assert_eq!(Codeword::bytes(held.dimensions()), Some(file.metadata().unwrap().len()));
        let filed: Codeword = postcard::from_bytes(&postcard::to_allocvec(&held).unwrap()).unwrap();
        // Before it has its file it has zeros, and nothing to write.
        assert_eq!(filed.row(1).unwrap().into_iter().collect::<Vec<_>>(), [F::ZERO; 3]);
        assert!(filed.write(&mut Vec::new()).is_err());
        filed.attach(file);
        for r in 0..8 {
            let expected: Vec<F> = matrix.row(r).unwrap().into_iter().collect();
            for codeword in [&held, &filed] {
                assert_eq!(codeword.row(r).unwrap().into_iter().collect::<Vec<_>>(), expected);
                assert_eq!(*codeword.row_slice(r).unwrap(), expected);
                assert_eq!(codeword.get(r, 2), Some(expected[2]));
            }
        }
        assert!(filed.row(8).is_none() && held.contiguous_rows(7..9).is_none() && filed.contiguous_rows(0..1).is_none());
        assert_eq!(&*held.contiguous_rows(2..4).unwrap(), &matrix.values[6..12]);
    }
}
