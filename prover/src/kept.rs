//! Commitments in files: made once, opened by every later proof.
//!
//! ```text
//! codeword, row by row │ format, what it is of, root, tree │ BLAKE3 of these │ their length
//! ```
//!
//! The codeword is read a row at a time, when a query asks for it, and checked against the root then; all else is read and checked at once.

use crate::codeword::Codeword;
use crate::trees::Kept;
use circuits::ir::{F, Group};
use circuits::statement::PROTOCOL_VERSION;
use model_runtime::import::write_atomic_with;
use p3_commit::Mmcs;
use p3_field::PrimeField32;
use p3_matrix::{Dimensions, Matrix};
use p3_sumcheck::layout::Table;
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use verifier::pcs::{self, Commitment, encode};
use verifier::profile::{HashProfile, NativeProfile};

/// Format of the files.
const FORMAT: u32 = 2;
/// Bytes of the hash and the length at a file's end.
const SEAL: u64 = 32 + 8;
/// Values hashed at a time.
const HASHED: usize = 1 << 18;

/// Profiles whose trees can be stored: all of them.
pub trait KeptProfile: NativeProfile<Mmcs: Mmcs<F, ProverData<Codeword>: Serialize + DeserializeOwned>> {}

impl<C: NativeProfile<Mmcs: Mmcs<F, ProverData<Codeword>: Serialize + DeserializeOwned>>> KeptProfile for C {}

/// What became of a commitment that is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// The file holds it.
    Taken,
    /// It was made, and written to the file: so many bytes.
    Written(u64),
    /// It was made, but the file can't be written.
    Failed(String),
}

/// What is stored beside the codeword.
#[derive(Serialize, Deserialize)]
struct Stored<R, T> {
    format: u32,
    /// Digest of the values and of how they are committed.
    of: [u8; 32],
    root: R,
    tree: T,
}

/// [`Stored`] of a profile.
type StoredOf<C> = Stored<Commitment<C>, <<C as HashProfile>::Mmcs as Mmcs<F>>::ProverData<Codeword>>;

/// Takes what a file holds of a polynomial's codeword and tree, or makes them and writes the file where that is missing, damaged, of other values or of
/// another form.
pub fn take_or_make<C: KeptProfile>(group: Group, table: &Table<F>, path: &Path) -> (Arc<Kept<C::Mmcs>>, Keeping) {
    let values = table.poly(0).into_slice();
    let of = fingerprint::<C>(group, values);
    let dimensions = dimensions::<C>(group, values.len());
    if let Some(kept) = taken::<C>(&of, dimensions, path) {
        return (Arc::new(kept), Keeping::Taken);
    }
    let (_, codeword) = encode::<C>(group, table);
    let (root, tree) = C::mmcs().commit_matrix(Codeword::from(codeword));
    let made = StoredOf::<C> { format: FORMAT, of, root, tree };
    let written = write::<C>(&made, path);
    // Taken from the file again, it is without its codeword; where that can't be, all of it stays in memory.
    match written.map(|bytes| (bytes, taken::<C>(&of, dimensions, path))) {
        Ok((bytes, Some(kept))) => (Arc::new(kept), Keeping::Written(bytes)),
        Ok((_, None)) => (Arc::new(Kept::new(made.root, made.tree, None)), Keeping::Failed("what was written can't be read".into())),
        Err(error) => (Arc::new(Kept::new(made.root, made.tree, None)), Keeping::Failed(error)),
    }
}

/// Writes a file, whole or not at all; its length.
fn write<C: KeptProfile>(made: &StoredOf<C>, path: &Path) -> Result<u64, String> {
    let stored = postcard::to_allocvec(made).map_err(|e| e.to_string())?;
    let mut len = 0;
    let content = |file: &mut File| {
        let mut out = BufWriter::new(&mut *file);
        C::mmcs().get_matrices(&made.tree).iter().try_for_each(|codeword| codeword.write(&mut out))?;
        out.write_all(&stored)?;
        out.write_all(blake3::hash(&stored).as_bytes())?;
        out.write_all(&(stored.len() as u64).to_le_bytes())?;
        out.flush()?;
        drop(out);
        len = file.metadata()?.len();
        Ok(())
    };
    write_atomic_with(path, content).map_err(|e| e.to_string())?;
    Ok(len)
}

/// What a file holds, if it's of these values.
fn taken<C: KeptProfile>(of: &[u8; 32], dimensions: Dimensions, path: &Path) -> Option<Kept<C::Mmcs>> {
    // A file that can't be read is like none: what is in it can be made again.
    let mut file = File::open(path).ok()?;
    let stored = sealed(&mut file, Codeword::bytes(dimensions)?).ok()?;
    let Stored { format, of: stored_of, root, tree } = postcard::from_bytes::<StoredOf<C>>(&stored).ok()?;
    let trees = C::mmcs();
    let fits = matches!(trees.get_matrices(&tree).as_slice(), [codeword] if codeword.dimensions() == dimensions);
    if format != FORMAT || stored_of != *of || !fits {
        return None;
    }
    trees.get_matrices(&tree).first()?.attach(file);
    // It doesn't if the tree was made with another hash.
    let opening = trees.open_batch(0, &tree);
    let leads_to_root = trees.verify_batch(&root, &[dimensions], 0, (&opening).into()).is_ok();
    leads_to_root.then(|| Kept::new(root, tree, Some(path.to_path_buf())))
}

/// What follows a codeword of so many bytes, if nobody has changed it.
fn sealed(file: &mut File, codeword: u64) -> io::Result<Vec<u8>> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let stored = file.metadata()?.len().checked_sub(codeword).and_then(|rest| rest.checked_sub(SEAL)).ok_or_else(damaged)?;
    file.seek(SeekFrom::Start(codeword))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let content = usize::try_from(stored).ok().and_then(|len| bytes.split_at_checked(len));
    let (content, seal) = content.ok_or_else(damaged)?;
    let expected = [blake3::hash(content).as_bytes().as_slice(), &stored.to_le_bytes()].concat();
    if seal != expected {
        return Err(damaged());
    }
    bytes.truncate(bytes.len() - SEAL as usize);
    Ok(bytes)
}

/// Dimensions of a codeword.
fn dimensions<C: HashProfile>(group: Group, len: usize) -> Dimensions {
    let (rate, fold) = pcs::rate_and_fold(C::PROFILE, group, len.trailing_zeros() as usize);
    Dimensions { width: 1 << fold, height: (len << rate) >> fold }
}

/// What tells values and their encoding apart from others.
fn fingerprint<C: HashProfile>(group: Group, values: &[F]) -> [u8; 32] {
    let (rate, fold) = pcs::rate_and_fold(C::PROFILE, group, values.len().trailing_zeros() as usize);
    let hash = |chunk: &[F]| {
        let bytes: Vec<u8> = chunk.iter().flat_map(|x| x.as_canonical_u32().to_le_bytes()).collect();
        *blake3::hash(&bytes).as_bytes()
    };
    let parts: Vec<[u8; 32]> = values.par_chunks(HASHED).map(hash).collect();
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{PROTOCOL_VERSION} {:?} {group:?} {rate} {fold}\n", C::PROFILE).as_bytes());
    for part in &parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Committed;
    use circuits::ir::EF;
    use circuits::layout::{Layout, MIN_LOG as LOG};
    use circuits::statement::Digest;
    use p3_challenger::CanObserve;
    use p3_field::PrimeCharacteristicRing;
    use p3_matrix::dense::RowMajorMatrix;
    use p3_multilinear_util::point::Point;
    use p3_multilinear_util::poly::Poly;
    use verifier::profile::{Evm, Native};

    fn values(seed: u32) -> Vec<F> {
        (0..1 << LOG).map(|i: u32| F::from_u32(i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8)).collect()
    }

    fn kept<C: KeptProfile>(group: Group, values: Vec<F>, path: &Path) -> (Committed<C>, Keeping) {
        Committed::kept(group, Layout { slots: vec![], log: LOG }, values, path).unwrap()
    }

    /// Opened at a point, it verifies.
    fn opens<C: NativeProfile>(committed: &Committed<C>) {
        let transcript = || {
            let mut challenger = C::challenger(&Digest::default());
            challenger.observe(committed.root.clone());
            challenger
        };
        let point: Vec<EF> = (0..LOG as u32).map(|i| EF::from_u32(i * i + 5)).collect();
        let opening = committed.open(&point, &mut transcript()).unwrap();
        let value = Poly::new(committed.values()).eval_base(&Point::new(point.clone()));
        let pcs = pcs::scheme::<C>(committed.group, LOG).unwrap();
        pcs::verify::<C>(&pcs, &committed.root, &opening, &[(&point, value)], &mut transcript()).unwrap();
    }

    fn is_taken_up_again<C: KeptProfile>() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base.commitment");
        let fresh = Committed::<C>::new(Group::Base, Layout { slots: vec![], log: LOG }, values(1)).unwrap();
        let (made, keeping) = kept::<C>(Group::Base, values(1), &path);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(keeping, Keeping::Written(bytes.len() as u64));
        assert!(made.root == fresh.root);
        opens(&made);
        let (taken, keeping) = kept::<C>(Group::Base, values(1), &path);
        assert!(keeping == Keeping::Taken && taken.root == fresh.root);
        opens(&taken);

        // Of other values, of another group, damaged, cut or with something after its end: made anew, and written over what was there.
        let mut damaged = bytes.clone();
        let stored = Codeword::bytes(dimensions::<C>(Group::Base, 1 << LOG)).unwrap() as usize;
        damaged[stored + 50] ^= 4;
        let cases = [
            (Group::Base, values(2), bytes.clone()),
            (Group::Trace, values(1), bytes.clone()),
            (Group::Base, values(1), damaged),
            (Group::Base, values(1), bytes[1..].to_vec()),
            (Group::Base, values(1), bytes[..bytes.len() - 1].to_vec()),
            (Group::Base, values(1), [bytes.as_slice(), &[0]].concat()),
            (Group::Base, values(1), vec![]),
            (Group::Base, values(1), vec![0; 40]),
        ];
        for (group, values, bytes) in cases {
            std::fs::write(&path, &bytes).unwrap();
            let expected = Committed::<C>::new(group, Layout { slots: vec![], log: LOG }, values.clone()).unwrap();
            let (made, keeping) = kept::<C>(group, values.clone(), &path);
            assert!(matches!(keeping, Keeping::Written(_)) && made.root == expected.root);
            assert_eq!(kept::<C>(group, values, &path).1, Keeping::Taken);
        }
        // With a root that isn't the tree's, though all else agrees.
        let (_, codeword) = encode::<C>(Group::Base, &table(1));
        let (_, tree) = C::mmcs().commit_matrix(Codeword::from(codeword));
        let root = kept::<C>(Group::Base, values(2), &path).0.root;
        write::<C>(&Stored { format: FORMAT, of: fingerprint::<C>(Group::Base, &values(1)), root, tree }, &path).unwrap();
        let (made, keeping) = kept::<C>(Group::Base, values(1), &path);
        assert!(matches!(keeping, Keeping::Written(_)) && made.root == fresh.root);

        // A codeword that somebody changed but for its first row, and one that went away under its reader: what is opened verifies all the
        // same, and the file is made again by the next.
        let mut rows = bytes.clone();
        let row = stored / dimensions::<C>(Group::Base, 1 << LOG).height;
        rows[row..stored].iter_mut().step_by(4).for_each(|b| *b ^= 1);
        std::fs::write(&path, &rows).unwrap();
        let (taken, keeping) = kept::<C>(Group::Base, values(1), &path);
        assert_eq!(keeping, Keeping::Taken);
        opens(&taken);
        assert!(!path.exists());
        let (made, _) = kept::<C>(Group::Base, values(1), &path);
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        opens(&made);

        // Where nothing can be written it is in memory.
        let (made, keeping) = kept::<C>(Group::Base, values(1), &dir.path().join("missing").join("base.commitment"));
        assert!(matches!(keeping, Keeping::Failed(_)) && made.root == fresh.root);
        opens(&made);
    }

    fn table(seed: u32) -> Table<F> {
        Table::new(RowMajorMatrix::new(values(seed), 1 << LOG))
    }

    #[test]
    fn kept_commitments_are_taken_up_again() {
        is_taken_up_again::<Native>();
        is_taken_up_again::<Evm>();
    }
}
