//! Small halo2 circuits with every feature that the outer circuit may use, proven with snark-verifier's EVM transcript.

use halo2_axiom::circuit::{Layouter, SimpleFloorPlanner, Value};
use halo2_axiom::halo2curves::bn256::{Bn256, Fr, G1Affine};
use halo2_axiom::plonk::{
    Advice, Challenge, Circuit, Column, ConstraintSystem, Error, Expression, FirstPhase, Fixed, Instance, ProvingKey, SecondPhase, Selector,
    create_proof, keygen_pk, keygen_vk_custom, verify_proof,
};
use halo2_axiom::poly::Rotation;
use halo2_axiom::poly::kzg::commitment::{KZGCommitmentScheme, ParamsKZG};
use halo2_axiom::poly::kzg::multiopen::{ProverSHPLONK, VerifierSHPLONK};
use halo2_axiom::poly::kzg::strategy::SingleStrategy;
use rand_core::RngCore;
use snark_verifier::loader::native::NativeLoader;
use snark_verifier::system::halo2::transcript::evm::EvmTranscript;

/// Public inputs of [`Wide`].
pub const INPUTS: usize = 10;

/// Randomness for blinding that is good enough for tests.
pub struct TestRng(pub u64);

impl RngCore for TestRng {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.next_u64() as u8);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

/// Degree 6: a fifth power, rotations both ways, a tagged lookup in a fixed table, copies between advice, fixed and instance columns.
#[derive(Clone, Default)]
pub struct Wide {
    /// Copied to the public inputs.
    pub inputs: [Fr; INPUTS],
}

#[derive(Clone)]
pub struct WideConfig {
    a: [Column<Advice>; 4],
    power: Column<Fixed>,
    shift: Selector,
    tag: Column<Fixed>,
    constant: Column<Fixed>,
    table: [Column<Fixed>; 2],
    instance: Column<Instance>,
}

impl Circuit<Fr> for Wide {
    type Config = WideConfig;
    type FloorPlanner = SimpleFloorPlanner;
    type Params = ();

    fn without_witnesses(&self) -> Self {
        Self::default()
    }

    fn configure(meta: &mut ConstraintSystem<Fr>) -> WideConfig {
        meta.set_minimum_degree(6);
        let a = [(); 4].map(|()| meta.advice_column());
        let [power, tag, constant] = [(); 3].map(|()| meta.fixed_column());
        let table = [(); 2].map(|()| meta.fixed_column());
        let shift = meta.selector();
        let instance = meta.instance_column();
        a.iter().for_each(|column| meta.enable_equality(*column));
        meta.enable_equality(constant);
        meta.enable_equality(instance);
        meta.create_gate("power", |cells| {
            let x = cells.query_advice(a[0], Rotation::cur());
            let product = cells.query_advice(a[1], Rotation::cur()) * cells.query_advice(a[2], Rotation::next());
            let fifth = x.clone().square().square() * x;
            vec![cells.query_fixed(power, Rotation::cur()) * (fifth + product - cells.query_advice(a[3], Rotation::cur()))]
        });
        meta.create_gate("shift", |cells| {
            let [before, here, after] = [-1, 0, 2].map(|r| cells.query_advice(a[2], Rotation(r)));
            let three = Expression::Constant(Fr::from(3));
            vec![cells.query_selector(shift) * (after - (before * Fr::from(7) + here.square() + three))]
        });
        meta.lookup_any("tagged", |cells| {
            let tag = cells.query_fixed(tag, Rotation::cur());
            let value = cells.query_advice(a[1], Rotation::cur());
            let table = table.map(|column| cells.query_fixed(column, Rotation::cur()));
            let [tags, values] = table;
            vec![(tag.clone(), tags), (tag * value, values)]
        });
        WideConfig { a, power, shift, tag, constant, table, instance }
    }

    fn synthesize(&self, config: WideConfig, mut layouter: impl Layouter<Fr>) -> Result<(), Error> {
        layouter.assign_region(
            || "table",
            |mut region| {
                for i in 0..16u64 {
                    region.assign_fixed(config.table[0], i as usize + 1, Fr::from(1));
                    region.assign_fixed(config.table[1], i as usize + 1, Fr::from(i));
                }
                Ok(())
            },
        )?;
        let cells = layouter.assign_region(|| "rows", |mut region| self.rows(&config, &mut region))?;
        for (row, cell) in cells.into_iter().enumerate() {
            layouter.constrain_instance(cell, config.instance, row);
        }
        Ok(())
    }
}

impl Wide {
    fn rows(&self, config: &WideConfig, region: &mut halo2_axiom::circuit::Region<'_, Fr>) -> Result<Vec<halo2_axiom::circuit::Cell>, Error> {
        let mut third: Vec<Fr> = vec![Fr::from(2), Fr::from(5), Fr::from(11)];
        for i in 1..INPUTS + 1 {
            let next = third[i - 1] * Fr::from(7) + third[i].square() + Fr::from(3);
            third.push(next);
        }
        let mut cells = Vec::new();
        for (i, value) in third.iter().enumerate() {
            region.assign_advice(config.a[2], i, Value::known(*value));
            if (1..=INPUTS).contains(&i) {
                config.shift.enable(region, i)?;
            }
        }
        for (i, x) in self.inputs.iter().enumerate() {
            let small = Fr::from(i as u64 + 4);
            region.assign_fixed(config.power, i, Fr::from(1));
            region.assign_fixed(config.tag, i, Fr::from(1));
            cells.push(region.assign_advice(config.a[0], i, Value::known(*x)).cell());
            let factor = region.assign_advice(config.a[1], i, Value::known(small)).cell();
            region.assign_advice(config.a[3], i, Value::known(x.square().square() * x + small * third[i + 1]));
            let constant = region.assign_fixed(config.constant, i, small);
            region.constrain_equal(factor, constant);
        }
        Ok(cells)
    }
}

/// Two instance columns that gates query, two lookups, a challenge between two phases, an unqueried column, no copies.
#[derive(Clone, Default)]
pub struct Phased {
    /// Public inputs of the first column.
    pub first: [Fr; 3],
    /// Public inputs of the second column.
    pub second: [Fr; 2],
}

#[derive(Clone)]
pub struct PhasedConfig {
    a: Column<Advice>,
    unqueried: Column<Advice>,
    b: Column<Advice>,
    on: Column<Fixed>,
    table: Column<Fixed>,
    challenge: Challenge,
}

impl Circuit<Fr> for Phased {
    type Config = PhasedConfig;
    type FloorPlanner = SimpleFloorPlanner;
    type Params = ();

    fn without_witnesses(&self) -> Self {
        Self::default()
    }

    fn configure(meta: &mut ConstraintSystem<Fr>) -> PhasedConfig {
        let a = meta.advice_column_in(FirstPhase);
        let unqueried = meta.advice_column_in(FirstPhase);
        let challenge = meta.challenge_usable_after(FirstPhase);
        let b = meta.advice_column_in(SecondPhase);
        let [on, table] = [(); 2].map(|()| meta.fixed_column());
        let instance = [(); 2].map(|()| meta.instance_column());
        meta.create_gate("inputs", |cells| {
            let on = cells.query_fixed(on, Rotation::cur());
            let a = cells.query_advice(a, Rotation::cur());
            let first = cells.query_instance(instance[0], Rotation::cur());
            let [before, second] = [-1, 1].map(|r| cells.query_instance(instance[1], Rotation(r)));
            vec![on * (a - first - before * second)]
        });
        meta.create_gate("challenge", |cells| {
            let a = cells.query_advice(a, Rotation::cur());
            let b = cells.query_advice(b, Rotation::cur());
            vec![cells.query_fixed(on, Rotation::cur()) * (b - a * cells.query_challenge(challenge))]
        });
        for column in [on, table] {
            meta.lookup_any("in the table", |cells| vec![(cells.query_fixed(column, Rotation::cur()), cells.query_fixed(table, Rotation::cur()))]);
        }
        PhasedConfig { a, unqueried, b, on, table, challenge }
    }

    fn synthesize(&self, config: PhasedConfig, mut layouter: impl Layouter<Fr>) -> Result<(), Error> {
        layouter.assign_region(
            || "all",
            |mut region| {
                let second = |row: usize| self.second.get(row).copied().unwrap_or(Fr::from(0));
                let value = |i: usize| self.first[i] + second(i.wrapping_sub(1)) * second(i + 1);
                for i in 0..4u64 {
                    region.assign_fixed(config.table, i as usize, Fr::from(i));
                }
                for i in 0..3 {
                    region.assign_fixed(config.on, i, Fr::from(1));
                    region.assign_advice(config.a, i, Value::known(value(i)));
                    region.assign_advice(config.unqueried, i, Value::known(Fr::from(8)));
                }
                region.next_phase();
                let challenge = region.get_challenge(config.challenge);
                for i in 0..3 {
                    region.assign_advice(config.b, i, challenge.map(|c| c * value(i)));
                }
                Ok(())
            },
        )
    }
}

/// A proving key. `compress`: whether selectors share fixed columns.
pub fn keys<C: Circuit<Fr>>(params: &ParamsKZG<Bn256>, circuit: &C, compress: bool) -> ProvingKey<G1Affine> {
    let vk = keygen_vk_custom(params, circuit, compress).unwrap();
    keygen_pk(params, vk, circuit).unwrap()
}

/// A proof.
pub fn prove<C: Circuit<Fr>>(params: &ParamsKZG<Bn256>, pk: &ProvingKey<G1Affine>, circuit: C, inputs: &[&[Fr]], seed: u64) -> Vec<u8> {
    let mut transcript = EvmTranscript::<G1Affine, NativeLoader, _, _>::new(Vec::new());
    create_proof::<KZGCommitmentScheme<Bn256>, ProverSHPLONK<'_, Bn256>, _, _, _, _>(
        params,
        pk,
        &[circuit],
        &[inputs],
        TestRng(seed),
        &mut transcript,
    )
    .unwrap();
    transcript.finalize()
}

/// Does halo2's own verifier accept? It ignores bytes that follow.
pub fn halo2_accepts(params: &ParamsKZG<Bn256>, pk: &ProvingKey<G1Affine>, inputs: &[&[Fr]], proof: &[u8]) -> bool {
    let mut transcript = EvmTranscript::<G1Affine, NativeLoader, _, _>::new(proof);
    let strategy = SingleStrategy::new(params);
    verify_proof::<KZGCommitmentScheme<Bn256>, VerifierSHPLONK<'_, Bn256>, _, _, _>(params, pk.get_vk(), strategy, &[inputs], &mut transcript).is_ok()
}
