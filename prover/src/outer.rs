//! The outer proof: halo2 over KZG on BN254 (SHPLONK), with the Keccak transcript that the EVM verifier repeats.
//!
//! Keys belong to a program, a number of rows and an SRS; [`Keys::cached`] keeps them in a file. What is verified on chain or by the
//! light client is described by [`protocol`]; [`solidity`] is that description as a contract.

use circuits::outer::halo2::shape::Shape;
use circuits::outer::halo2::{OuterCircuit, OuterError, to_fr};
use circuits::outer::program::{Program, Values};
use halo2_axiom::SerdeFormat;
use halo2_axiom::halo2curves::bn256::{Bn256, Fq, Fr, G1Affine};
use halo2_axiom::plonk::{ProvingKey, VerifyingKey, create_proof_from_advice, keygen_pk2, verify_proof};
use halo2_axiom::poly::commitment::{Params, ParamsProver};
use halo2_axiom::poly::kzg::commitment::{KZGCommitmentScheme, ParamsKZG};
use halo2_axiom::poly::kzg::multiopen::{ProverSHPLONK, VerifierSHPLONK};
use halo2_axiom::poly::kzg::strategy::SingleStrategy;
use halo2_axiom::transcript::{TranscriptReadBuffer, TranscriptWriterBuffer};
use p3_bn254::Bn254;
use rand_core::OsRng;
use snark_verifier::loader::evm::EvmLoader;
use snark_verifier::pcs::kzg::{Bdfg21, KzgAs, KzgDecidingKey, LimbsEncoding};
use snark_verifier::system::halo2::transcript::evm::EvmTranscript;
use snark_verifier::system::halo2::{Config, compile};
use snark_verifier::verifier::SnarkVerifier;
use snark_verifier::verifier::plonk::{PlonkProtocol, PlonkVerifier};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use thiserror::Error;

/// The structured reference string.
pub type Srs = ParamsKZG<Bn256>;

/// Changes whenever the layout does: part of the key's digest, with the crate's version.
const LAYOUT: &str = "poa/outer/2";

/// Why there is no outer proof, or no key.
#[derive(Debug, Error)]
pub enum OuterProofError {
    /// The program has no circuit of this size, or the values don't satisfy it.
    #[error(transparent)]
    Circuit(#[from] OuterError),
    /// The SRS is of another size.
    #[error("the keys are for 2^{expected} rows, the SRS has 2^{found}")]
    Size {
        /// Of the keys.
        expected: u32,
        /// Of the SRS.
        found: u32,
    },
    /// The circuit's public inputs aren't the claimed ones.
    #[error("public input {at} of {count} differs from the program's")]
    Public {
        /// Its index.
        at: usize,
        /// How many the program has.
        count: usize,
    },
    /// halo2 refuses.
    #[error("halo2: {0}")]
    Halo2(#[from] halo2_axiom::plonk::Error),
    /// The verifier's checks can't be written as a contract.
    #[error("no contract: recording the verifier's checks failed ({problem})")]
    Contract {
        /// What the recorder says.
        problem: String,
    },
    /// The key file can't be read or written.
    #[error("key file {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The keys of a program.
pub struct Keys {
    proving: ProvingKey<G1Affine>,
    k: u32,
    public: usize,
}

fn public_count(program: &Program) -> usize {
    program.ops.iter().filter(|op| matches!(op, circuits::outer::program::Op::Public(_))).count()
}

/// Names the keys: layout, program, size, SRS.
pub fn digest(srs: &Srs, program: &Program) -> String {
    let mut hasher = blake3::Hasher::new();
    let write = |hasher: &mut blake3::Hasher| -> io::Result<()> {
        write!(hasher, "{LAYOUT} {} {} {:?} {:?}", env!("CARGO_PKG_VERSION"), srs.k(), srs.g2(), srs.s_g2())?;
        program.ops.iter().try_for_each(|op| write!(hasher, "{op:?};"))
    };
    // A hasher takes everything.
    write(&mut hasher).unwrap_or_default();
    hasher.finalize().to_hex().to_string()
}

impl Keys {
    /// Makes the keys of a program, for as many rows as the SRS has.
    ///
    /// # Errors
    ///
    /// When the program needs more rows.
    pub fn generate(srs: &Srs, program: &Program) -> Result<Self, OuterProofError> {
        let circuit = OuterCircuit::without_values(program, srs.k())?;
        let proving = keygen_pk2(srs, &circuit, false)?;
        Ok(Self { proving, k: srs.k(), public: public_count(program) })
    }

    /// The keys from `directory`, made and kept there if they aren't. Tells whether they were there.
    ///
    /// # Errors
    ///
    /// As [`Self::generate`], and when the file can't be written. A file that can't be read is replaced.
    pub fn cached(srs: &Srs, program: &Program, directory: &Path) -> Result<(Self, bool), OuterProofError> {
        let path = directory.join(format!("outer-{}.key", digest(srs, program)));
        if let Ok(keys) = Self::read(&path, srs.k(), public_count(program)) {
            return Ok((keys, true));
        }
        let keys = Self::generate(srs, program)?;
        keys.write(directory, &path).map_err(|source| OuterProofError::File { path, source })?;
        Ok((keys, false))
    }

    /// Reads a key file. Its contents are trusted: it is this machine's own cache, and a proof made with a wrong key doesn't verify.
    fn read(path: &Path, k: u32, public: usize) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
        let proving = ProvingKey::read::<_, OuterCircuit>(&mut reader, SerdeFormat::RawBytesUnchecked, Shape { k })?;
        Ok(Self { proving, k, public })
    }

    fn write(&self, directory: &Path, path: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut writer = BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
        self.proving.write(&mut writer, SerdeFormat::RawBytesUnchecked)?;
        writer.into_inner()?.sync_all()?;
        fs::rename(temporary, path)
    }

    /// The verifying key.
    pub fn verifying(&self) -> &VerifyingKey<G1Affine> {
        self.proving.get_vk()
    }

    /// Logarithm of the number of rows.
    pub fn k(&self) -> u32 {
        self.k
    }

    /// Number of public inputs.
    pub fn public(&self) -> usize {
        self.public
    }
}

/// Proves that the program ran on some inputs with these public inputs. The proof is verified before it is returned.
///
/// # Errors
///
/// When the values don't satisfy the program, yield other public inputs, or the SRS is of another size.
pub fn prove(srs: &Srs, keys: &Keys, program: &Program, values: &Values, public: &[Bn254]) -> Result<Vec<u8>, OuterProofError> {
    if srs.k() != keys.k {
        return Err(OuterProofError::Size { expected: keys.k, found: srs.k() });
    }
    let circuit = OuterCircuit::new(program, values, keys.k)?;
    let (own, claimed): (Vec<Fr>, Vec<Fr>) = (circuit.public(), public.iter().map(|&x| to_fr(x)).collect());
    if own != claimed {
        let at = own.iter().zip(&claimed).take_while(|(a, b)| a == b).count();
        return Err(OuterProofError::Public { at, count: own.len() });
    }
    let mut transcript = EvmTranscript::<G1Affine, _, Vec<u8>, Vec<u8>>::init(Vec::new());
    create_proof_from_advice::<KZGCommitmentScheme<Bn256>, ProverSHPLONK<'_, Bn256>, _, _, _>(
        srs,
        &keys.proving,
        &[&own],
        circuit.advice(),
        OsRng,
        &mut transcript,
    )?;
    let proof = transcript.finalize();
    verify(srs, keys, &proof, public)?;
    Ok(proof)
}

/// Verifies with halo2's own verifier.
///
/// # Errors
///
/// When the proof isn't valid.
pub fn verify(srs: &Srs, keys: &Keys, proof: &[u8], public: &[Bn254]) -> Result<(), OuterProofError> {
    let public: Vec<Fr> = public.iter().map(|&x| to_fr(x)).collect();
    let mut transcript = EvmTranscript::<G1Affine, _, &[u8], Vec<u8>>::init(proof);
    let strategy = SingleStrategy::new(srs.verifier_params());
    verify_proof::<KZGCommitmentScheme<Bn256>, VerifierSHPLONK<'_, Bn256>, _, _, _>(
        srs.verifier_params(),
        keys.verifying(),
        strategy,
        &[&[&public]],
        &mut transcript,
    )?;
    Ok(())
}

/// What a verifier needs besides the SRS' first points: commitments, queries, the quotient's numerator, the transcript's initial state.
/// It serialises.
pub fn protocol(srs: &Srs, keys: &Keys) -> PlonkProtocol<G1Affine> {
    compile(srs, keys.verifying(), Config::kzg().with_num_instance(vec![keys.public]))
}

/// The verifier as a Solidity contract: calldata is the public inputs, big-endian, then the proof.
///
/// It takes public inputs modulo the field's order and ignores what follows the proof: its caller checks both.
///
/// # Errors
///
/// When its checks can't be recorded: a contract without them would accept everything.
pub fn solidity(srs: &Srs, keys: &Keys) -> Result<String, OuterProofError> {
    recorded_verifier(srs, keys, keys.public)
}

/// [`solidity`], reading `inputs` public inputs.
fn recorded_verifier(srs: &Srs, keys: &Keys, inputs: usize) -> Result<String, OuterProofError> {
    type Scheme = KzgAs<Bn256, Bdfg21>;
    type Verifier = PlonkVerifier<Scheme, LimbsEncoding<3, 88>>;
    let failed = |e: snark_verifier::Error| OuterProofError::Contract { problem: format!("{e:?}") };
    let deciding: KzgDecidingKey<Bn256> = (srs.get_g()[0], srs.g2(), srs.s_g2()).into();
    let loader = EvmLoader::new::<Fq, Fr>();
    let protocol = protocol(srs, keys).loaded(&loader);
    let mut transcript = EvmTranscript::<_, Rc<EvmLoader>, _, _>::new(&loader);
    let public = transcript.load_instances(vec![inputs]);
    let proof = Verifier::read_proof(&deciding, &protocol, &public, &mut transcript).map_err(failed)?;
    Verifier::verify(&deciding, &protocol, &public, &proof).map_err(failed)?;
    Ok(loader.solidity_code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use circuits::outer::program::{Op, Wide};

    #[test]
    fn no_contract_is_written_without_its_checks() {
        let srs = Srs::setup(11, OsRng);
        let program = Program { ops: vec![Op::WideInput, Op::Permute([Wide(0); 3]), Op::Public(Wide(1))], parts: vec![(0, "all")] };
        let keys = Keys::generate(&srs, &program).unwrap();
        assert!(solidity(&srs, &keys).unwrap().contains("staticcall"));
        // More public inputs than the protocol has: the recorder refuses to read the proof.
        let refused = recorded_verifier(&srs, &keys, keys.public + 1);
        assert!(matches!(refused, Err(OuterProofError::Contract { .. })), "{refused:?}");
    }
}
