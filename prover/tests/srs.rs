//! The reference string: round trips, imports, and everything that must be refused.

use halo2_axiom::SerdeFormat;
use halo2_axiom::arithmetic::{Field, g_to_lagrange};
use halo2_axiom::halo2curves::bn256::{Bn256, Fq, Fq2, Fr, G1, G1Affine, G2Affine};
use halo2_axiom::halo2curves::ff::PrimeField;
use halo2_axiom::halo2curves::group::{Curve, prime::PrimeCurveAffine};
use halo2_axiom::halo2curves::serde::SerdeObject;
use halo2_axiom::poly::commitment::ParamsProver;
use halo2_axiom::poly::kzg::commitment::ParamsKZG;
use prover::srs::{Srs, SrsError, Trust, import, lagrange_path, powers_path};
use std::path::{Path, PathBuf};

const K: u32 = 5;

fn quiet() -> impl FnMut(&str) {
    |_: &str| {}
}

fn load(directory: &Path, k: u32) -> Result<Srs, SrsError> {
    Srs::load(directory, k, &mut quiet())
}

fn raw(params: &ParamsKZG<Bn256>) -> Vec<u8> {
    let mut bytes = Vec::new();
    params.write_custom(&mut bytes, SerdeFormat::RawBytes).unwrap();
    bytes
}

/// A ceremony's points, from a secret of our own.
#[derive(Clone)]
struct Ceremony {
    power: u32,
    g1: Vec<G1Affine>,
    g2: Vec<G2Affine>,
    lagrange: Option<Vec<G1Affine>>,
}

fn multiples<T>(count: usize, s: Fr, point: impl Fn(Fr) -> T) -> Vec<T> {
    std::iter::successors(Some(Fr::ONE), |power| Some(power * s)).take(count).map(point).collect()
}

impl Ceremony {
    fn new(power: u32, s: Fr) -> Self {
        let g1 = multiples((2 << power) - 1, s, |x| (G1Affine::generator() * x).to_affine());
        let g2 = multiples(1 << power, s, |x| (G2Affine::generator() * x).to_affine());
        Self { power, g1, g2, lagrange: None }
    }

    /// With Lagrange bases of all sizes, over snarkjs's roots of unity, which are powers of 5.
    fn prepared(power: u32, s: Fr) -> Self {
        let order_minus_one = num(-Fr::ONE);
        let mut all = Vec::new();
        for k in 0..=power {
            let root = Fr::from(5).pow_vartime(shift(order_minus_one, k));
            let n = 1u64 << k;
            let common = (s.pow_vartime([n]) - Fr::ONE) * Fr::from(n).invert().unwrap();
            all.extend((0..n).map(|i| {
                let row = root.pow_vartime([i]);
                (G1Affine::generator() * (common * row * (s - row).invert().unwrap())).to_affine()
            }));
        }
        Self { lagrange: Some(all), ..Self::new(power, s) }
    }

    fn ptau(&self) -> Vec<u8> {
        let header = [&32u32.to_le_bytes()[..], &num_bytes_of_modulus(), &self.power.to_le_bytes(), &self.power.to_le_bytes()].concat();
        let g1 = |points: &[G1Affine]| points.iter().flat_map(SerdeObject::to_raw_bytes).collect::<Vec<u8>>();
        let g2: Vec<u8> = self.g2.iter().flat_map(SerdeObject::to_raw_bytes).collect();
        let mut sections = vec![(1, header), (2, g1(&self.g1)), (3, g2)];
        sections.extend(self.lagrange.as_ref().map(|lagrange| (12, g1(lagrange))));
        let mut bytes = [&b"ptau"[..], &1u32.to_le_bytes(), &(sections.len() as u32).to_le_bytes()].concat();
        for (number, content) in sections {
            bytes.extend(u32::to_le_bytes(number));
            bytes.extend((content.len() as u64).to_le_bytes());
            bytes.extend(content);
        }
        bytes
    }
}

fn num(value: Fr) -> [u64; 4] {
    let bytes = value.to_repr();
    std::array::from_fn(|i| u64::from_le_bytes(bytes[8 * i..8 * i + 8].try_into().unwrap()))
}

fn shift(value: [u64; 4], bits: u32) -> [u64; 4] {
    std::array::from_fn(|i| {
        let above = value.get(i + 1).copied().unwrap_or(0);
        if bits == 0 { value[i] } else { value[i] >> bits | above << (64 - bits) }
    })
}

fn num_bytes_of_modulus() -> [u8; 32] {
    let mut bytes = (-Fq::ONE).to_repr();
    bytes[0] += 1;
    bytes
}

fn secret() -> Fr {
    Fr::from(0x1234_5678_9abc_def1).square().square()
}

fn file(directory: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn import_bytes(bytes: &[u8], k: u32) -> Result<Srs, SrsError> {
    let directory = tempfile::tempdir().unwrap();
    import(&file(&directory, "input", bytes), k, &mut quiet())
}

#[test]
fn insecure_is_what_halo2_would_make() {
    let srs = Srs::insecure(K).unwrap();
    let params = srs.params();
    assert_eq!((srs.k(), srs.trust()), (K, Trust::Insecure));
    assert!(srs.info().insecure);
    let powers: Vec<G1> = params.get_g().iter().map(PrimeCurveAffine::to_curve).collect();
    let basis: Vec<G1Affine> = g_to_lagrange(powers, K);
    let expected = params.from_parts(K, params.get_g().to_vec(), Some(basis), params.g2(), params.s_g2());
    assert_eq!(raw(params), raw(&expected));
    assert_eq!(raw(params), raw(Srs::insecure(K).unwrap().params()));
    assert_eq!(params.get_g()[..16], *Srs::insecure(K - 1).unwrap().params().get_g());
}

#[test]
fn what_is_saved_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let srs = Srs::insecure(K).unwrap();
    srs.save(&directory.path().join("deep/srs")).unwrap();
    let again = load(&directory.path().join("deep/srs"), K).unwrap();
    assert_eq!(raw(again.params()), raw(srs.params()));
    assert_eq!(again.info(), srs.info());
    let left: Vec<_> = std::fs::read_dir(directory.path().join("deep/srs")).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_lost_lagrange_basis_is_made_again() {
    for bytes in [Ceremony::new(K, secret()).ptau(), raw(Srs::insecure(K).unwrap().params())] {
        let directory = tempfile::tempdir().unwrap();
        let srs = import_bytes(&bytes, K).unwrap();
        srs.save(directory.path()).unwrap();
        std::fs::remove_file(lagrange_path(directory.path(), K)).unwrap();
        assert_eq!(raw(load(directory.path(), K).unwrap().params()), raw(srs.params()));
        assert!(lagrange_path(directory.path(), K).exists());
        // One that belongs to other powers counts as lost.
        let other = tempfile::tempdir().unwrap();
        import_bytes(&Ceremony::new(K, secret() + Fr::ONE).ptau(), K).unwrap().save(other.path()).unwrap();
        std::fs::copy(lagrange_path(other.path(), K), lagrange_path(directory.path(), K)).unwrap();
        let trust = srs.trust();
        match load(directory.path(), K) {
            Ok(again) => assert_eq!(raw(again.params()), raw(srs.params())),
            Err(e) => panic!("{trust:?}: {e}"),
        }
    }
}

#[test]
fn ptau_files_are_imported() {
    let plain = Ceremony::new(K, secret());
    let srs = import_bytes(&plain.ptau(), K).unwrap();
    assert_eq!(srs.trust(), Trust::Imported);
    assert_eq!(srs.params().get_g(), &plain.g1[..1 << K]);
    assert_eq!(srs.params().s_g2(), plain.g2[1]);
    let powers: Vec<G1> = plain.g1[..1 << K].iter().map(PrimeCurveAffine::to_curve).collect();
    let basis: Vec<G1Affine> = g_to_lagrange(powers, K);
    let expected = srs.params().from_parts(K, plain.g1[..1 << K].to_vec(), Some(basis), plain.g2[0], plain.g2[1]);
    assert_eq!(raw(srs.params()), raw(&expected));
    // A larger file gives its first powers; a prepared one its own Lagrange basis.
    for larger in [Ceremony::new(K + 1, secret()), Ceremony::prepared(K + 1, secret()), Ceremony::prepared(K, secret())] {
        let again = import_bytes(&larger.ptau(), K).unwrap();
        assert_eq!(raw(again.params()), raw(srs.params()));
        assert_eq!(again.digest(), srs.digest());
    }
}

#[test]
fn raw_parameters_are_imported() {
    let srs = import_bytes(&Ceremony::new(K, secret()).ptau(), K).unwrap();
    let again = import_bytes(&raw(srs.params()), K).unwrap();
    assert_eq!((raw(again.params()), again.trust()), (raw(srs.params()), Trust::Imported));
    let smaller = import_bytes(&raw(srs.params()), K - 1).unwrap();
    assert_eq!(raw(smaller.params()), raw(import_bytes(&Ceremony::new(K - 1, secret()).ptau(), K - 1).unwrap().params()));
}

/// The published secret is recognised whatever a file calls itself.
#[test]
fn insecurity_propagates() {
    let insecure = Srs::insecure(K).unwrap();
    let imported = import_bytes(&raw(insecure.params()), K).unwrap();
    assert_eq!(imported.trust(), Trust::Insecure);
    assert_eq!(imported.digest(), insecure.digest());

    let directory = tempfile::tempdir().unwrap();
    imported.save(directory.path()).unwrap();
    assert_eq!(load(directory.path(), K).unwrap().trust(), Trust::Insecure);

    let path = powers_path(directory.path(), K);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[16] = 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(load(directory.path(), K), Err(SrsError::Digest { .. })));
    // Even with a digest that fits.
    let digest = *blake3::Hasher::new().update(&bytes[..24]).update(&bytes[56..]).finalize().as_bytes();
    bytes[24..56].copy_from_slice(&digest);
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(load(directory.path(), K), Err(SrsError::Disguised { .. })));
}

#[test]
fn damaged_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    Srs::insecure(K).unwrap().save(directory.path()).unwrap();
    for path in [powers_path(directory.path(), K), lagrange_path(directory.path(), K)] {
        let honest = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = load(directory.path(), K).unwrap_err();
            std::fs::write(&path, &honest).unwrap();
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            error
        };
        for at in (0..honest.len()).step_by(37).chain([honest.len() - 1]) {
            let mut bytes = honest.clone();
            bytes[at] ^= 1;
            refused(&bytes);
        }
        for at in [8, 12, 16, 20, 24] {
            let mut bytes = honest.clone();
            bytes[at] ^= 1;
            refused(&bytes);
        }
        let mut other = honest.clone();
        other[8] ^= 3;
        assert!(matches!(refused(&other), SrsError::Unexpected { .. }));
        other[7] = 2;
        assert!(matches!(refused(&other), SrsError::NotOurs { .. }));
        assert!(matches!(refused(&honest[..honest.len() - 1]), SrsError::Length { .. }));
        assert!(matches!(refused(&[honest.as_slice(), &[0]].concat()), SrsError::Length { .. }));
        assert!(matches!(refused(b""), SrsError::NotOurs { .. }));
        assert!(matches!(refused(&honest[..40]), SrsError::NotOurs { .. }));
    }
    assert!(load(directory.path(), K).is_ok());
    let error = load(directory.path(), K + 1).unwrap_err();
    assert!(matches!(error, SrsError::Missing { .. }) && error.to_string().contains("poa srs import"), "{error}");
    assert!(matches!(load(directory.path(), 0), Err(SrsError::Size { .. })));
    assert!(matches!(load(directory.path(), 60), Err(SrsError::Size { .. })));
}

#[test]
fn wrong_sizes_are_refused() {
    let bytes = Ceremony::new(3, secret()).ptau();
    assert!(matches!(import_bytes(&bytes, 4), Err(SrsError::TooSmall { has: 3, wanted: 4, .. })));
    assert!(matches!(import_bytes(&raw(Srs::insecure(3).unwrap().params()), 4), Err(SrsError::TooSmall { has: 3, wanted: 4, .. })));
    assert!(matches!(Srs::insecure(0), Err(SrsError::Size { .. })));
    assert!(matches!(Srs::insecure(25), Err(SrsError::Size { .. })));
}

#[test]
fn forged_powers_are_refused() {
    let honest = Ceremony::new(3, secret());
    let forge = |change: &dyn Fn(&mut Ceremony)| {
        let mut forged = honest.clone();
        change(&mut forged);
        import_bytes(&forged.ptau(), 3).unwrap_err()
    };
    let other = Ceremony::new(3, secret() + Fr::ONE);
    for i in 1..8 {
        assert!(matches!(forge(&|c| c.g1[i] = other.g1[i]), SrsError::Inconsistent { .. }));
        assert!(matches!(forge(&|c| c.g1[i] = -honest.g1[i]), SrsError::Inconsistent { .. }));
        assert!(matches!(forge(&|c| c.g1[i] = G1Affine::identity()), SrsError::Point { .. }));
        assert!(matches!(forge(&|c| c.g1[i].x += Fq::ONE), SrsError::Point { .. }));
    }
    assert!(matches!(forge(&|c| c.g1[0] = honest.g1[1]), SrsError::Point { .. }));
    assert!(matches!(forge(&|c| c.g2[0] = honest.g2[1]), SrsError::Point { .. }));
    assert!(matches!(forge(&|c| c.g2[1] = other.g2[1]), SrsError::Inconsistent { .. }));
    assert!(matches!(forge(&|c| c.g2[1] = G2Affine::identity()), SrsError::Point { .. }));
    assert!(matches!(forge(&|c| c.g2[1].x += Fq2::ONE), SrsError::Point { .. }));
    assert!(matches!(forge(&|c| c.g2[1] = outside_the_group()), SrsError::Point { why: "isn't in the group of prime order", .. }));
    assert!(matches!(import_bytes(&Ceremony::new(3, Fr::ONE).ptau(), 3), Err(SrsError::Point { .. })));
}

/// A point of the twist that isn't of prime order.
fn outside_the_group() -> G2Affine {
    use halo2_axiom::halo2curves::CurveAffine;
    use halo2_axiom::halo2curves::group::cofactor::CofactorGroup;
    for i in 0.. {
        let x = Fq2 { c0: Fq::from(i), c1: Fq::ONE };
        let y: Option<Fq2> = (x.square() * x + G2Affine::b()).sqrt().into();
        let Some(y) = y else { continue };
        let point = G2Affine { x, y };
        if !bool::from(point.to_curve().is_torsion_free()) {
            return point;
        }
    }
    unreachable!()
}

#[test]
fn forged_lagrange_bases_are_refused() {
    let honest = Ceremony::prepared(3, secret());
    for i in 7..15 {
        let mut forged = honest.clone();
        let basis = forged.lagrange.as_mut().unwrap();
        basis[i] = -basis[i];
        assert!(matches!(import_bytes(&forged.ptau(), 3), Err(SrsError::Basis { .. })));
    }
    let mut bytes = raw(Srs::insecure(3).unwrap().params());
    let at = 4 + 64 * 8;
    let (one, two) = (bytes[at..at + 64].to_vec(), bytes[at + 64..at + 128].to_vec());
    bytes[at..at + 64].copy_from_slice(&two);
    bytes[at + 64..at + 128].copy_from_slice(&one);
    assert!(matches!(import_bytes(&bytes, 3), Err(SrsError::Basis { .. })));
}

#[test]
fn malformed_imports_are_refused() {
    let honest = Ceremony::prepared(2, secret()).ptau();
    for length in 0..honest.len() {
        assert!(import_bytes(&honest[..length], 2).is_err(), "{length} bytes");
    }
    for at in 0..72 {
        for change in [1, 0x80, 0xff] {
            let mut bytes = honest.clone();
            bytes[at] ^= change;
            // The ceremony's own power isn't read, nor the format's version.
            if !(4..8).contains(&at) && !(64..68).contains(&at) {
                let _ = import_bytes(&bytes, 2);
            }
        }
    }
    let mut other_curve = honest.clone();
    other_curve[28] ^= 1;
    assert!(matches!(import_bytes(&other_curve, 2), Err(SrsError::Curve { .. })));
    for text in [&b""[..], b"p", b"hello, world", &[0; 1000]] {
        assert!(matches!(import_bytes(text, 2), Err(SrsError::Format { .. })));
    }
    assert!(matches!(import(Path::new("no/such/file"), 2, &mut quiet()), Err(SrsError::Io { .. })));
}
