//! The gradient of `loss = -Σ_s log p(target)` with respect to every site's output, each token's part brought to one length (`super::unit`).

use super::engine::{Run, RunError, constant};
use super::forward::{Field, ForwardState, LayerState, LiveSlot, Normed, columns, rotate};
use super::gemm::{gemm, gemm_slices, narrow, transpose16};
use super::unit::{REMAINDER_LIMB, UnitLength, UnitRow};
use crate::semantics::{OUT_PROB_BITS, Semantics};
use crate::shape::Site;

/// Gradient through a norm: `dn` to `v` (the factor `1/rms` is applied by the caller).
fn norm_backward(run: &mut Run, name: &str, l: Option<usize>, lead: usize, dn: &[i32], normed: &Normed) -> Result<Vec<i32>, RunError> {
    let width = run.d.d;
    let op_dot = format!("{name}.dot");
    let coef = run.coef(&op_dot, 0)? as i32;
    let sums = dn
        .chunks_exact(width)
        .zip(normed.n.chunks_exact(width))
        .map(|(dn, n)| dn.iter().zip(n).fold(0i32, |s, (&a, &b)| s.wrapping_add(a * i32::from(b))).wrapping_mul(coef));
    let sums = sums.collect();
    let dot = run.rq(&op_dot, l, &[lead], sums)?;
    let op_v = format!("{name}.v");
    let (c, m) = (run.coef(&op_v, 0)? as i32, run.coef(&op_v, 1)? as i32);
    let mut acc = vec![0; dn.len()];
    let rows = acc.chunks_exact_mut(width).zip(dn.chunks_exact(width)).zip(normed.n.chunks_exact(width));
    for (((acc, dn), n), &dot) in rows.zip(&dot) {
        let factor = dot * m;
        for ((a, &dn), &n) in acc.iter_mut().zip(dn).zip(n) {
            *a = (c * dn).wrapping_sub(i32::from(n).wrapping_mul(factor));
        }
    }
    run.rq(&op_v, l, &[lead, width], acc)
}

/// `acc += v·fb`, `fb` one factor a row.
fn scale_rows(acc: &mut [i32], coef: i64, v: &[i32], fb: &[i32], width: usize) {
    let rows = acc.chunks_exact_mut(width).zip(v.chunks_exact(width)).zip(fb);
    for ((acc, v), &fb) in rows {
        acc.iter_mut().zip(v).for_each(|(a, &v)| *a = a.wrapping_add((v * fb).wrapping_mul(coef as i32)));
    }
}

/// `RQ(2^s·g + v·fb)`: the residual branch joined by the normed one.
fn join(run: &mut Run, name: &str, l: usize, g: &[i32], v: &[i32], fb: &[i32]) -> Result<Vec<i32>, RunError> {
    let coef = run.coef(name, 0)? as i32;
    let mut acc: Vec<i32> = g.iter().map(|&g| g.wrapping_mul(coef)).collect();
    scale_rows(&mut acc, run.coef(name, 1)?, v, fb, run.d.d);
    run.rq(name, Some(l), &[run.d.t, run.d.d], acc)
}

/// Keeps the witnesses of rows brought to one length, except for their outputs.
pub(crate) fn unit_witnesses(name: &str, rows: &[UnitRow], mut keep: impl FnMut(String, Vec<i32>)) {
    let fields: [Field<UnitRow>; 5] = [("e", |x| x.e), ("p2", |x| 1 << x.e), ("f", |x| x.f), ("g", |x| x.f << x.e), ("live", |x| i32::from(x.live))];
    for (field, get) in fields {
        keep(format!("{name}.{field}"), rows.iter().map(get).collect());
    }
}

/// A remainder's limbs.
pub(crate) fn remainder_limbs(r: &[i32]) -> [Vec<i32>; 2] {
    [r.iter().map(|r| r & ((1 << REMAINDER_LIMB) - 1)).collect(), r.iter().map(|r| r >> REMAINDER_LIMB).collect()]
}

/// `ghf`: the rows of `v`, each brought to the length of the semantics.
fn unit_gradients(run: &mut Run, v: &[i32]) -> Result<Vec<i32>, RunError> {
    let d = run.d;
    let unit = gradient_length(&run.rt.sem)?;
    let scale = |x: &[i32]| unit.scale(x, d.d).map_err(|bad| RunError::Length { what: "ghf".to_owned(), target: unit.target(), found: bad.nearest });
    let rows: Vec<UnitRow> = v.chunks_exact(d.d).map(scale).collect::<Result<_, _>>()?;
    unit_witnesses("ghf", &rows, |name, data| run.keep(&name, None, &[d.s], &data));
    let [low, high] = remainder_limbs(&rows.iter().flat_map(|x| &x.r).copied().collect::<Vec<i32>>());
    let ghf: Vec<i32> = rows.into_iter().flat_map(|x| x.y).collect();
    for (name, data) in [("ghf", &ghf), ("ghf.r0", &low), ("ghf.r1", &high)] {
        run.keep(name, None, &[d.s, d.d], data);
    }
    Ok(ghf)
}

/// The length of token gradients.
pub fn gradient_length(sem: &Semantics) -> Result<UnitLength, RunError> {
    let log = constant(sem, "ghf.length")?;
    let unit = u32::try_from(log).ok().and_then(|log| UnitLength::with_log(sem.shape.width, log));
    unit.ok_or_else(|| RunError::MissingEntry { name: format!("ghf.length within bounds (found {log})") })
}

/// Gradient at the final residual stream's live rows, `[s, d]`.
fn output_gradient(run: &mut Run, state: &ForwardState, slots: &[LiveSlot]) -> Result<Vec<i32>, RunError> {
    let d = run.d;
    let mut dz = state.pr.clone();
    slots.iter().for_each(|x| dz[x.slot * d.v + x.target] -= 1 << OUT_PROB_BITS);
    let mut acc = vec![0; d.s * d.d];
    gemm(&mut acc, run.coef("nf.dn", 0)?, &narrow(&dz), &run.rt.head_t);
    let dn = run.rq("nf.dn", None, &[d.s, d.d], acc)?;
    let v = norm_backward(run, "nf", None, d.s, &dn, &state.nf)?;
    unit_gradients(run, &v)
}

/// `acc += coef_w·Wᵀ g + coef_lora·Aᵀ e`, with `e = RQ(Bᵀ g)` kept as `eS`.
fn project_back(
    run: &mut Run,
    (l, site): (usize, Site),
    (op, w_term, lora_term): (&str, usize, usize),
    gradient: &[i32],
    acc: &mut [i32],
) -> Result<(), RunError> {
    let linear = run.rt.layers.get(l).map(|layer| &layer[site as usize]);
    let gradient = narrow(gradient);
    if let Some(linear) = linear {
        gemm(acc, run.coef(op, w_term)?, &gradient, &linear.w_t);
    }
    if run.rt.sem.sites().contains(&site) {
        let name = format!("e{}", site.name());
        let mut low = vec![0; run.d.t * run.d.r];
        let lora = linear.and_then(|linear| linear.lora.as_ref());
        if let Some(lora) = lora {
            gemm(&mut low, run.coef(&name, 0)?, &gradient, &lora.b_t);
        }
        let e = run.rq(&name, Some(l), &[run.d.t, run.d.r], low)?;
        if let Some(lora) = lora {
            gemm(acc, run.coef(op, lora_term)?, &narrow(&e), &lora.a_t);
        }
    }
    Ok(())
}

fn product(run: &mut Run, name: &str, l: usize, dims: &[usize], a: &[i32], b: &[i32]) -> Result<Vec<i32>, RunError> {
    let coef = run.coef(name, 0)? as i32;
    let acc = a.iter().zip(b).map(|(&a, &b)| (a * b).wrapping_mul(coef)).collect();
    run.rq(name, Some(l), dims, acc)
}

/// The feed-forward half: `gout` to `gm`.
fn feed_forward(run: &mut Run, l: usize, state: &LayerState, gout: &[i32]) -> Result<Vec<i32>, RunError> {
    let d = run.d;
    let hidden = [d.t, d.f];
    let mut acc = vec![0; d.t * d.f];
    project_back(run, (l, Site::Down), ("dact", 0, 1), gout, &mut acc)?;
    let dact = run.rq("dact", Some(l), &hidden, acc)?;
    let dup = product(run, "dup", l, &hidden, &dact, &state.silu)?;
    let dgw = product(run, "dgw", l, &hidden, &dact, &state.up)?;
    let dgate = product(run, "dgate", l, &hidden, &dgw, &state.dsilu)?;
    let mut acc = vec![0; d.t * d.d];
    project_back(run, (l, Site::Gate), ("n2.dn", 0, 2), &dgate, &mut acc)?;
    project_back(run, (l, Site::Up), ("n2.dn", 1, 3), &dup, &mut acc)?;
    let dn = run.rq("n2.dn", Some(l), &[d.t, d.d], acc)?;
    let v = norm_backward(run, "n2", Some(l), d.t, &dn, &state.n2)?;
    join(run, "gm", l, gout, &v, &state.n2.fb)
}

/// Gradients of one attention layer's heads.
struct HeadGradients {
    dq: Vec<i32>,
    dk: Vec<i32>,
    dv: Vec<i32>,
}

/// `ds[g, j, t, u]`: gradient at the attention scores.
fn score_gradient(run: &mut Run, l: usize, state: &LayerState, grad_o: &[i16]) -> Result<Vec<i16>, RunError> {
    let d = run.d;
    let (heads, square) = (d.g * d.j, d.t * d.t);
    let mut acc = vec![0; heads * square];
    for (h, acc) in acc.chunks_exact_mut(square).enumerate() {
        let o = columns(grad_o, heads * d.c, h * d.c, d.c);
        let v = columns(&state.kv.v, d.g * d.c, h / d.j * d.c, d.c);
        gemm_slices(acc, run.coef("dp", 0)?, &o, &v, d.t, d.c);
    }
    let dims = [d.g, d.j, d.t, d.t];
    let dp = run.rq("dp", Some(l), &dims, acc)?;
    let coef = run.coef("att.dot", 0)? as i32;
    let rows = state.p.chunks_exact(d.t).zip(dp.chunks_exact(d.t));
    let sums = rows.map(|(p, dp)| p.iter().zip(dp).fold(0i32, |s, (&p, &dp)| s.wrapping_add(i32::from(p) * dp)).wrapping_mul(coef));
    let sums = sums.collect();
    let dot = run.rq("att.dot", Some(l), &dims[..3], sums)?;
    let (c0, c1) = (run.coef("ds", 0)? as i32, run.coef("ds", 1)? as i32);
    let mut acc = vec![0; dp.len()];
    let rows = acc.chunks_exact_mut(d.t).zip(state.p.chunks_exact(d.t)).zip(dp.chunks_exact(d.t)).zip(&dot);
    for (((acc, p), dp), &dot) in rows {
        for ((a, &p), &dp) in acc.iter_mut().zip(p).zip(dp) {
            let p = i32::from(p);
            *a = (p * dp).wrapping_mul(c0).wrapping_sub((p * dot).wrapping_mul(c1));
        }
    }
    Ok(narrow(&run.rq("ds", Some(l), &dims, acc)?))
}

/// Adds head columns `part[t, c]` into columns `start..` of `acc[t, width]`.
fn add_columns(acc: &mut [i32], width: usize, start: usize, part: &[i32], len: usize) {
    for (acc, part) in acc.chunks_exact_mut(width).zip(part.chunks_exact(len)) {
        acc[start..start + len].iter_mut().zip(part).for_each(|(a, &b)| *a = a.wrapping_add(b));
    }
}

/// Attention backward: the gradient at `o` to those at `q`, `k`, `v`.
fn heads_backward(run: &mut Run, l: usize, state: &LayerState, grad_o: &[i32]) -> Result<HeadGradients, RunError> {
    let d = run.d;
    let (heads, square) = (d.g * d.j, d.t * d.t);
    let grad_o = narrow(grad_o);
    let ds = score_gradient(run, l, state, &grad_o)?;
    let (q_width, k_width) = (heads * d.c, d.g * d.c);
    let (mut dqr, mut dkr, mut dv) = (vec![0; d.t * q_width], vec![0; d.t * k_width], vec![0; d.t * k_width]);
    // `part[x, c] = Σ_y m[x, y]·cols[y, c]`.
    let contract = |coef: i64, m: &[i16], cols: &[i16]| {
        let mut part = vec![0; d.t * d.c];
        gemm_slices(&mut part, coef, m, &transpose16(cols, d.t, d.c), d.c, d.t);
        part
    };
    for h in 0..heads {
        let (p, ds) = (&state.p[h * square..(h + 1) * square], &ds[h * square..(h + 1) * square]);
        let (q_at, k_at) = (h * d.c, h / d.j * d.c);
        let o = columns(&grad_o, q_width, q_at, d.c);
        add_columns(&mut dv, k_width, k_at, &contract(run.coef("dv", 0)?, &transpose16(p, d.t, d.t), &o), d.c);
        let k = columns(&state.kv.kr, k_width, k_at, d.c);
        add_columns(&mut dqr, q_width, q_at, &contract(run.coef("dqr", 0)?, ds, &k), d.c);
        let q = columns(&state.qr, q_width, q_at, d.c);
        add_columns(&mut dkr, k_width, k_at, &contract(run.coef("dkr", 0)?, &transpose16(ds, d.t, d.t), &q), d.c);
    }
    let (q_dims, k_dims) = ([d.t, d.g, d.j, d.c], [d.t, d.g, d.c]);
    let dv = run.rq("dv", Some(l), &k_dims, dv)?;
    let dqr = run.rq("dqr", Some(l), &q_dims, dqr)?;
    let dkr = run.rq("dkr", Some(l), &k_dims, dkr)?;
    let (dq, dk) = (rotate(run, &dqr, 0, true), rotate(run, &dkr, 0, true));
    Ok(HeadGradients { dq: run.rq("dq", Some(l), &q_dims, dq)?, dk: run.rq("dk", Some(l), &k_dims, dk)?, dv })
}

/// The attention half: `gm` to `gin`.
fn attention(run: &mut Run, l: usize, state: &LayerState, gm: &[i32]) -> Result<Vec<i32>, RunError> {
    let d = run.d;
    let mut acc = vec![0; d.t * d.g * d.j * d.c];
    project_back(run, (l, Site::O), ("do", 0, 1), gm, &mut acc)?;
    let grad_o = run.rq("do", Some(l), &[d.t, d.g, d.j, d.c], acc)?;
    let HeadGradients { dq, dk, dv } = heads_backward(run, l, state, &grad_o)?;
    let mut acc = vec![0; d.t * d.d];
    for (i, (site, gradient)) in [(Site::Q, &dq), (Site::K, &dk), (Site::V, &dv)].into_iter().enumerate() {
        project_back(run, (l, site), ("n1.dn", i, i + 3), gradient, &mut acc)?;
    }
    let dn = run.rq("n1.dn", Some(l), &[d.t, d.d], acc)?;
    let v = norm_backward(run, "n1", Some(l), d.t, &dn, &state.n1)?;
    if l == 0 {
        // Nothing reads the gradient of the embedding: it is left out, and zero in the trace.
        let none = vec![0; d.t * d.d];
        run.keep("gin", Some(l), &[d.t, d.d], &none);
        run.keep("gin.r", Some(l), &[d.t, d.d], &none);
        return Ok(none);
    }
    join(run, "gin", l, gm, &v, &state.n1.fb)
}

/// Runs the whole backward pass; everything it computes is kept by the run's store.
pub(crate) fn backward(run: &mut Run, state: &ForwardState, slots: &[LiveSlot]) -> Result<(), RunError> {
    let d = run.d;
    let ghf = output_gradient(run, state, slots)?;
    let lift = constant(&run.rt.sem, "ghf.lift")?;
    let mut g = vec![0; d.t * d.d];
    for x in slots {
        let row = &ghf[x.slot * d.d..][..d.d];
        g[x.position * d.d..][..d.d].iter_mut().zip(row).for_each(|(g, y)| *g = y << lift);
    }
    for (l, layer) in state.layers.iter().enumerate().rev() {
        run.keep("gout", Some(l), &[d.t, d.d], &g);
        let gm = feed_forward(run, l, layer, &g)?;
        g = attention(run, l, layer, &gm)?;
    }
    Ok(())
}
