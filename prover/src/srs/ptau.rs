//! snarkjs's `.ptau` files: numbered sections, of which four are read.
//!
//! | section | content |
//! |---|---|
//! | 1 | bytes of a coordinate, the base field's order, log2 of the number of powers |
//! | 2 | `[s^i]₁`, `2^(power+1) - 1` of them |
//! | 3 | `[s^i]₂`, `2^power` of them |
//! | 12, if prepared | Lagrange bases of sizes 1, 2, 4, …, one after the other |
//!
//! Points are raw ([`super::raw`]). snarkjs's roots of unity are powers of 5, halo2's of 7: its Lagrange basis holds the same points in
//! another order.

use super::import::{Found, Source};
use super::insecure::omega;
use super::raw::{G1_BYTES, G2_BYTES};
use super::{MAX_K, Powers, SrsError, Trust, check, count, raw};
use halo2_axiom::arithmetic::Field;
use halo2_axiom::halo2curves::bn256::{Fr, G1Affine};
use halo2_axiom::halo2curves::ff::PrimeField;

const HEADER: u64 = 1;
const POWERS_G1: u64 = 2;
const POWERS_G2: u64 = 3;
const LAGRANGE: u64 = 12;
/// Most sections of a file; snarkjs writes eleven or so.
const MAX_SECTIONS: u64 = 64;

/// BN254's base field's order, little-endian.
const ORDER: [u8; 32] = [
    0x47, 0xfd, 0x7c, 0xd8, 0x16, 0x8c, 0x20, 0x3c, 0x8d, 0xca, 0x71, 0x68, 0x91, 0x6a, 0x81, 0x97, 0x5d, 0x58, 0x81, 0x81, 0xb6, 0x45, 0x50, 0xb8,
    0x29, 0xa0, 0x31, 0xe1, 0x72, 0x4e, 0x64, 0x30,
];

/// Where a section is.
struct Section {
    number: u64,
    at: u64,
    length: u64,
}

fn sections(source: &mut Source<'_>) -> Result<Vec<Section>, SrsError> {
    let count = source.integer::<4>(8)?;
    if count > MAX_SECTIONS {
        return Err(source.format(format!("{count} sections")));
    }
    let mut list = Vec::new();
    let mut at = 12;
    for _ in 0..count {
        let (number, length) = (source.integer::<4>(at)?, source.integer::<8>(at + 4)?);
        at += 12;
        list.push(Section { number, at, length });
        at = at.checked_add(length).filter(|end| *end <= source.length).ok_or_else(|| source.format(format!("section {number} is cut")))?;
    }
    Ok(list)
}

/// The one section of a number, at least so long.
fn find(source: &Source<'_>, sections: &[Section], number: u64, least: u64) -> Result<u64, SrsError> {
    let mut matching = sections.iter().filter(|section| section.number == number);
    match (matching.next(), matching.next()) {
        (Some(section), None) if section.length >= least => Ok(section.at),
        (Some(section), None) => Err(source.format(format!("section {number} has {} bytes, expected at least {least}", section.length))),
        (None, _) => Err(source.format(format!("it has no section {number}"))),
        (Some(_), Some(_)) => Err(source.format(format!("it has section {number} twice"))),
    }
}

/// The powers, unchecked but for each point's own sake.
pub(super) fn read(source: &mut Source<'_>, k: u32) -> Result<Found, SrsError> {
    let path = source.path;
    let sections = sections(source)?;
    let header = find(source, &sections, HEADER, 40)?;
    if source.integer::<4>(header)? != 32 || source.bytes(header + 4, 32)? != ORDER {
        return Err(SrsError::Curve { path: path.to_owned() });
    }
    let power = source.integer::<4>(header + 36)?;
    let power = u32::try_from(power).ok().filter(|power| (1..=28).contains(power)).ok_or_else(|| source.format(format!("power {power}")))?;
    if power < k {
        return Err(SrsError::TooSmall { path: path.to_owned(), has: power, wanted: k });
    }
    let at = find(source, &sections, POWERS_G1, (G1_BYTES * count(k)) as u64)?;
    let g1 = check::named(path, "G1", raw::g1_list(&source.bytes(at, G1_BYTES * count(k))?))?;
    let at = find(source, &sections, POWERS_G2, 2 * G2_BYTES as u64)?;
    let points = source.bytes(at, 2 * G2_BYTES)?;
    let (g2, s_g2) = points.split_at(G2_BYTES);
    let g2 = check::single(path, "the generator of G2", raw::g2(g2))?;
    let s_g2 = check::single(path, "the secret's point", raw::g2(s_g2))?;
    let lagrange = lagrange(source, &sections, k)?;
    Ok(Found { powers: Powers { k, trust: Trust::Imported, g1, g2, s_g2 }, lagrange })
}

/// The Lagrange basis in halo2's order, if the file is prepared.
fn lagrange(source: &mut Source<'_>, sections: &[Section], k: u32) -> Result<Option<Vec<G1Affine>>, SrsError> {
    if !sections.iter().any(|section| section.number == LAGRANGE) {
        return Ok(None);
    }
    let before = (G1_BYTES * (count(k) - 1)) as u64;
    let at = find(source, sections, LAGRANGE, before + (G1_BYTES * count(k)) as u64)?;
    let bytes = source.bytes(at + before, G1_BYTES * count(k))?;
    let points = check::named(source.path, "the Lagrange basis", raw::g1_list(&bytes))?;
    let step = exponent(omega(k), snarkjs_root(k), k);
    Ok(Some((0..points.len()).map(|i| points[i.wrapping_mul(step) & (points.len() - 1)]).collect()))
}

/// The root of unity of size `2^k` that snarkjs uses.
fn snarkjs_root(k: u32) -> Fr {
    let root = odd_power(Fr::from(5));
    (k..Fr::S).fold(root, |root, _| root.square())
}

/// To the odd part of the group's order.
fn odd_power(base: Fr) -> Fr {
    // r - 1 = ODD·2^28; shift the canonical bytes of -1 right by 28 bits.
    let bytes = (-Fr::ONE).to_repr();
    let mut limbs = [0u64; 4];
    for (limb, chunk) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
        *limb = chunk.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    }
    let above = |i: usize| limbs.get(i + 1).copied().unwrap_or(0);
    let shifted: [u64; 4] = std::array::from_fn(|i| limbs[i] >> Fr::S | above(i) << (64 - Fr::S));
    base.pow_vartime(shifted)
}

/// The `e` with `base^e = target`, both of order `2^k`: bit by bit from the lowest.
fn exponent(target: Fr, base: Fr, k: u32) -> usize {
    debug_assert!(k <= MAX_K);
    let mut exponent = 0;
    let mut rest = target;
    let mut power = base;
    for bit in 0..k {
        // rest is a 2^(k - bit)-th root of unity; this is its sign there.
        if (bit + 1..k).fold(rest, |value, _| value.square()) != Fr::ONE {
            exponent |= 1 << bit;
            rest *= power.invert().expect("roots of unity aren't zero");
        }
        power = power.square();
    }
    exponent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_found() {
        for k in [1, 5, 12] {
            let e = exponent(omega(k), snarkjs_root(k), k);
            assert_eq!(snarkjs_root(k).pow_vartime([e as u64]), omega(k));
        }
    }
}
