//! What the outer circuit of a proof takes, by part and by kind of operation: `outer_size statement.json inner.bin [k]`.

use circuits::outer::halo2::OuterCircuit;
use circuits::statement::Statement;
use p3_bn254::Bn254;
use p3_field::PrimeCharacteristicRing;
use verifier::recorded::record;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(statement), Some(proof)) = (args.next(), args.next()) else { return Err("usage: outer_size statement.json inner.bin [k]".into()) };
    let k = args.next().map_or(Ok(22), |k| k.parse())?;
    let statement: Statement = serde_json::from_slice(&std::fs::read(statement)?)?;
    let recording = record(&statement, &std::fs::read(proof)?, Bn254::TWO)?;
    let circuit = OuterCircuit::new(&recording.program, &recording.values, k)?;
    println!("{:?}", circuit.size());
    for (part, cost) in circuit.by_part(&recording.program) {
        println!("{part:>18}: {cost:?}");
    }
    for (kind, (count, cost)) in circuit.by_kind(&recording.program) {
        println!("{kind:>18}: {count:>7} operations, {cost:?}");
    }
    Ok(())
}
