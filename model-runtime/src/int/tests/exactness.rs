//! Bit-for-bit properties.

use super::*;
use crate::int::trace::{Keep, Mode, Span, Trace};
use crate::semantics::{Dims, Rounding};
use crate::tensor::Tensor;

fn full(case: &Case, tokens: &[u32], t: usize, s: usize) -> Trace {
    let d = Dims::new(&case.adapter.semantics, t, s);
    case.runtime.run(tokens, 1, d, Mode::Sample, Keep::All, Span::Exchange).unwrap()
}

/// Checks `acc + 2^(s-1) = z·2^s + r`, `y = clamp(z)` for every entry.
fn check(case: &Case, trace: &Trace, op: &str, acc: impl Fn(usize) -> i64) {
    let params = &case.adapter.semantics.ops[op];
    let y_name = if ["n1", "n2", "nf"].contains(&op) { format!("{op}.n") } else { op.to_owned() };
    let (y, r) = (&trace.tensors[&y_name].data, &trace.tensors[&format!("{op}.r")].data);
    // The first layer's `gin` is read by nothing and stored as zero.
    let first = if op == "gin" { y.len() / trace.dims.l } else { 0 };
    for i in first..y.len() {
        let sum = acc(i) + (1 << (params.shift - 1));
        assert!((0..1i64 << params.shift).contains(&i64::from(r[i])), "{op}[{i}]");
        assert_eq!((sum - i64::from(r[i])) % (1 << params.shift), 0, "{op}[{i}]");
        let z = (sum - i64::from(r[i])) >> params.shift;
        let expected = match params.rounding {
            Rounding::Clamp => z.clamp(-(1 << (params.bits - 1)), (1 << (params.bits - 1)) - 1),
            Rounding::Exact => z,
        };
        assert_eq!(i64::from(y[i]), expected, "{op}[{i}]");
    }
}

fn at(t: &Tensor, i: usize) -> i64 {
    i64::from(t.data[i])
}

#[test]
fn identities_hold_from_stored_tensors() {
    let case = odd_case();
    let trace = full(&case, &case.sequences[7], 20, 19);
    let (d, t) = (trace.dims, &trace.tensors);
    let (w, a) = (&case.model.tensors, &case.adapter.tensors);
    let coef = |op: &str, i: usize| case.adapter.semantics.ops[op].coefs[i];
    check(&case, &trace, "n1", |i| at(&t["hin"], i) * (at(&t["n1.f1"], i / d.d) * 4096 + at(&t["n1.f0"], i / d.d)));
    let heads = d.g * d.j * d.c;
    check(&case, &trace, "q", |i| {
        let (row, o, l) = (i / heads, i % heads, i / heads / d.t);
        let base: i64 = (0..d.d).map(|x| at(&w["wq"], (l * heads + o) * d.d + x) * at(&t["n1.n"], row * d.d + x)).sum();
        let low: i64 = (0..d.r).map(|r| at(&a["bq"], (l * heads + o) * d.r + r) * at(&t["uq"], row * d.r + r)).sum();
        coef("q", 0) * base + coef("q", 1) * low
    });
    check(&case, &trace, "hout", |i| {
        let (row, o, l) = (i / d.d, i % d.d, i / d.d / d.t);
        let base: i64 = (0..d.f).map(|x| at(&w["wdown"], (l * d.d + o) * d.f + x) * at(&t["act"], row * d.f + x)).sum();
        let low: i64 = (0..d.r).map(|r| at(&a["bdown"], (l * d.d + o) * d.r + r) * at(&t["udown"], row * d.r + r)).sum();
        coef("hout", 0) * at(&t["m"], i) + coef("hout", 1) * base + coef("hout", 2) * low
    });
    check(&case, &trace, "p", |i| at(&t["att.w"], i) * (at(&t["att.f1"], i / d.t) * 4096 + at(&t["att.f0"], i / d.t)));
    check(&case, &trace, "ds", |i| at(&t["p"], i) * (coef("ds", 0) * at(&t["dp"], i) - coef("ds", 1) * at(&t["att.dot"], i / d.t)));
    check(&case, &trace, "gin", |i| coef("gin", 0) * at(&t["gm"], i) + coef("gin", 1) * at(&t["n1.v"], i) * at(&t["n1.fb"], i / d.d));
    check(&case, &trace, "n2.v", |i| coef("n2.v", 0) * at(&t["n2.dn"], i) - coef("n2.v", 1) * at(&t["n2.n"], i) * at(&t["n2.dot"], i / d.d));
    check(&case, &trace, "dv", |i| {
        let (l, u, g, c) = (i / (d.t * d.g * d.c), i / (d.g * d.c) % d.t, i / d.c % d.g, i % d.c);
        let term = |j: usize, x: usize| {
            let head = (l * d.g + g) * d.j + j;
            at(&t["p"], (head * d.t + x) * d.t + u) * at(&t["do"], (((l * d.t + x) * d.g + g) * d.j + j) * d.c + c)
        };
        coef("dv", 0) * (0..d.j).flat_map(|j| (0..d.t).map(move |x| term(j, x))).sum::<i64>()
    });
}

#[test]
fn every_operation_has_its_tensors() {
    let case = odd_case();
    let trace = full(&case, &case.sequences[7], 20, 19);
    for op in case.adapter.semantics.ops.keys() {
        assert!(trace.tensors.contains_key(&format!("{op}.r")), "{op}.r");
    }
    for (name, tensor) in &trace.tensors {
        assert!(tensor.dims.iter().all(|d| d.is_power_of_two()), "{name}");
        assert_eq!(tensor.data.len(), tensor.dims.iter().product::<usize>(), "{name}");
    }
    let names = "hin n1.sq n1.e n1.man n1.rem n1.big n1.p4 n1.p2 n1.g n1.frem n1.f1 n1.f0 n1.n n1.fb n1.fr n1.o1 n1.o0 uq uk uv \
        q k v qr kr att.max att.w att.flag att.e att.man att.rem att.big att.p2 att.g att.frem att.f1 att.f0 p o uo m \
        ugate uup silu dsilu up act udown hout hf nf.n out.max out.margin out.tie out.w out.e out.f0 pr nf.dn nf.dot nf.v ghf ghf.e ghf.p2 ghf.f ghf.g ghf.live ghf.r0 ghf.r1 gout edown dact dup dgw dgate \
        egate eup n2.dn n2.dot n2.v gm eo do dp att.dot ds dv dqr dkr dq dk eq ek ev n1.dn n1.dot n1.v gin";
    for name in names.split_whitespace() {
        assert!(trace.tensors.contains_key(name), "{name}");
    }
}

#[test]
fn lean_runs_agree_and_padding_changes_nothing() {
    let case = odd_case();
    let tokens = &case.sequences[8][..13];
    let (small, large) = (full(&case, tokens, 16, 16), full(&case, tokens, 32, 32));
    let d = Dims { t: 13, s: 12, ..Dims::new(&case.adapter.semantics, 1, 1) };
    let lean = case.runtime.run(tokens, 1, d, Mode::Sample, Keep::Sketch, Span::Exchange).unwrap();
    for name in ["uq", "udown", "dq", "dk", "dv", "gm", "dgate", "dup", "gout"] {
        let (a, b, c) = (&small.tensors[name], &large.tensors[name], &lean.tensors[name]);
        let width = a.data.len() / a.dims[0] / a.dims[1];
        for l in 0..small.dims.l {
            for t in 0..13 {
                let row = |x: &Tensor| x.data[(l * x.dims[1] + t) * width..][..width].to_vec();
                assert_eq!(row(a), row(b), "{name} layer {l} token {t}");
                if l < 3 || name.starts_with('d') {
                    assert_eq!(row(a), row(c), "{name} layer {l} token {t}");
                }
            }
        }
    }
    assert!(small.tensors["dq"].data[3 * small.tensors["dq"].data.len() / 4..].iter().all(|&x| x == 0));
    let live = 12 * small.dims.v;
    assert_eq!(small.tensors["pr"].data[..live], large.tensors["pr"].data[..live]);
}

fn decoding_agrees(runtime: &Runtime, prompt: &[u32], count: usize) {
    let answer = runtime.generate(prompt, count, None).unwrap();
    assert_eq!(answer.len(), count);
    let tokens: Vec<u32> = prompt.iter().chain(&answer).copied().collect();
    let d = Dims::new(runtime.semantics(), tokens.len(), tokens.len());
    let trace = runtime.run(&tokens, prompt.len(), d, Mode::Greedy, Keep::All, Span::Exchange).unwrap();
    let mut wrong = tokens.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let error = runtime.run(&wrong, prompt.len(), d, Mode::Greedy, Keep::All, Span::Answer).unwrap_err();
    assert!(matches!(error, crate::int::RunError::NotGreedy { slot, .. } if slot == count - 1));
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            assert_eq!(runtime.generate(prompt, count, None).unwrap(), answer);
            let again = runtime.run(&tokens, prompt.len(), d, Mode::Greedy, Keep::All, Span::Exchange).unwrap();
            assert_eq!(again.tensors, trace.tensors);
        });
    }
}

#[test]
fn cached_decoding_is_the_whole_sequence_pass() {
    let case = odd_case();
    decoding_agrees(&case.runtime, &case.sequences[9][..5], 20);
    let Some(float) = tinystories(256) else { return };
    let stories = float_stories(&Folded::new(&float, None), 3, 40);
    let model = quantise_base(&float, &stories).unwrap();
    let runtime = Runtime::new(model.semantics.clone(), &model.tensors, None).unwrap();
    decoding_agrees(&runtime, &stories[0][..6], 40);
}

#[test]
fn bad_requests_are_typed_errors() {
    let case = odd_case();
    let d = Dims::new(&case.adapter.semantics, 20, 19);
    let run = |tokens: &[u32], p, d| case.runtime.run(tokens, p, d, Mode::Sample, Keep::All, Span::Exchange).map(|_| ());
    assert!(run(&[1], 1, d).is_err());
    assert!(run(&[1, 2, 3], 2, d).is_err());
    assert!(run(&[1, 50], 1, d).is_err());
    assert!(run(&[1; 40], 1, d).is_err());
    assert!(run(&[1, 2], 1, Dims { f: 1, ..d }).is_err());
    assert!(case.runtime.generate(&[], 3, None).is_err());
    assert!(Runtime::new(case.adapter.semantics.clone(), &case.model.tensors, None).is_err());
}
