//! Readable output: summaries, bars, figures.

use crate::store::{IndexDir, Row};
use crate::words::Because;
use crate::work::ProofFigures;
use circuits::statement::{RequestStatement, Statement};
use model_runtime::int::attribute::Attribution;
use model_runtime::int::fidelity::Fidelity;
use serde_json::{Value, json};

/// A bar of up to 30 cells.
fn bar(share: f64) -> String {
    let eighths = (share.clamp(0.0, 1.0) * 240.0).round() as usize;
    let partial = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    format!("{}{partial}", "█".repeat(eighths / 8))
}

/// The first characters of a text, on one line.
pub fn shortened(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = crate::terminal::line(&line).into_owned();
    if line.chars().count() <= most { line } else { line.chars().take(most - 1).chain(['…']).collect() }
}

/// Rows by falling score.
fn ranked(scores: &[i32], rows: &[Row]) -> Vec<(usize, i32)> {
    let mut order: Vec<(usize, i32)> = scores.iter().copied().take(rows.len()).enumerate().collect();
    order.sort_by_key(|&(i, s)| (std::cmp::Reverse(s), i));
    order
}

/// The best rows that earn, `most` of them.
pub fn earning(attribution: &Attribution, index: &IndexDir, most: usize) -> Vec<usize> {
    let best = ranked(&attribution.scores, &index.info.rows).into_iter().map(|(i, _)| i);
    best.take_while(|&i| attribution.rel[i] > 0).take(most).collect()
}

/// Contributors' shares in basis points, largest first.
pub fn shares(weights: &[u64], contributors: &[String]) -> Vec<(String, u32)> {
    let total = weights.iter().map(|&w| u128::from(w)).sum::<u128>().max(1);
    let mut list: Vec<(String, u32)> = contributors.iter().zip(weights).map(|(c, &w)| (c.clone(), (u128::from(w) * 10_000 / total) as u32)).collect();
    list.sort_by_key(|(c, bps)| (std::cmp::Reverse(*bps), c.clone()));
    list
}

/// Contributors' shares of an attribution.
pub fn attribution_shares(attribution: &Attribution, index: &IndexDir) -> Vec<(String, u32)> {
    shares(&contributor_weights(attribution, index), &index.info.contributors)
}

/// Contributors' weights in the order of their numbers.
fn contributor_weights(attribution: &Attribution, index: &IndexDir) -> Vec<u64> {
    let weight = |i: usize| attribution.weights.get(&(i as u32)).copied().unwrap_or(0);
    (0..index.info.contributors.len()).map(weight).collect()
}

/// Shares as JSON.
pub fn shares_json(shares: &[(String, u32)]) -> Value {
    shares.iter().map(|(c, bps)| json!({ "contributor": c, "bps": bps })).collect()
}

/// The `top` samples as JSON, with words where `because` has them.
pub fn scores_json(attribution: &Attribution, index: &IndexDir, because: &Because, top: usize) -> Value {
    let rows = &index.info.rows;
    ranked(&attribution.scores, rows)
        .into_iter()
        .take(top)
        .map(|(i, score)| {
            let sample = index.info.sample_of_row.get(i).copied().unwrap_or(i);
            let mut entry =
                json!({ "sample": sample, "contributor": rows[i].contributor, "score": score, "relevance": attribution.rel[i], "text": rows[i].text });
            if let Some(words) = because.samples.get(&i) {
                entry["words"] = json!(words);
            }
            entry
        })
        .collect()
}

/// Prints the top samples with the words behind their scores, and the contributors' bars.
pub fn print_attribution(attribution: &Attribution, index: &IndexDir, because: &Because, top: usize) {
    println!("\nMost influential samples\n  {:>7} {:>10}", "score", "relevance");
    for (i, score) in ranked(&attribution.scores, &index.info.rows).into_iter().take(top) {
        let row = &index.info.rows[i];
        println!("  {score:>7} {:>10}  {:<20} {}", attribution.rel[i], shortened(&row.contributor, 20), shortened(&row.text, 80));
        because.line(i).iter().for_each(|words| println!("  {:>18}  because of: {words}", ""));
    }
    if let Some(words) = because.exchange_line() {
        println!("\nWords of prompt and answer that carry what is relevant\n  {words}");
        println!("  (words are for reading: the scores are proven, their division among words isn't)");
    }
    print_weights(&contributor_weights(attribution, index), &index.info.contributors);
}

/// Prints contributors' shares of their weights, or that there are none.
pub fn print_weights(weights: &[u64], contributors: &[String]) {
    if weights.iter().all(|&w| w == 0) {
        println!("\nNo sample passed the noise floor: nothing in the index bears on this answer, and nobody is credited.");
    } else {
        print_shares(&shares(weights, contributors));
    }
}

/// Prints contributors' shares as bars.
fn print_shares(shares: &[(String, u32)]) {
    println!("\nContributors' weights");
    for (contributor, bps) in shares.iter().filter(|(_, bps)| *bps > 0).take(16) {
        println!("  {:<20} {:>6.2} %  {}", shortened(contributor, 20), f64::from(*bps) / 100.0, bar(f64::from(*bps) / 10_000.0));
    }
    let dust = 10_000 - shares.iter().map(|(_, b)| b).sum::<u32>();
    println!("  {:<20} {:>6.2} %", "(rounding)", f64::from(dust) / 100.0);
}

/// Digests of every request's tokens, as JSON.
pub fn digests_json(statement: &Statement) -> Value {
    let of = |r: &RequestStatement| {
        let digests = r.token_digests(statement.relation.tokens);
        json!({ "id": r.id, "prompt_digest": digests.prompt, "token_digest": digests.exchange })
    };
    statement.requests.iter().map(of).collect()
}

/// Prints the digests of every request's tokens.
pub fn print_digests(statement: &Statement) {
    for request in &statement.requests {
        let digests = request.token_digests(statement.relation.tokens);
        println!("  request   {}\n    prompt digest {}\n    token digest  {}", request.id, digests.prompt, digests.exchange);
    }
}

/// Fidelity as JSON.
pub fn fidelity_json(f: &Fidelity) -> Value {
    json!({
        "positions": f.positions,
        "token_agreement": f.greedy_agreement,
        "perplexity_ratio": f.perplexity_ratio(),
        "float_perplexity": f.float_perplexity,
        "largest_relative_error": f.worst_relative_error,
    })
}

/// Prints fidelity.
pub fn print_fidelity(f: &Fidelity) {
    println!("\nInteger against float, {} positions", f.positions);
    println!("  greedy tokens agree      {:>8.2} %", 100.0 * f.greedy_agreement);
    println!("  perplexity ratio         {:>8.4}   (float {:.3})", f.perplexity_ratio(), f.float_perplexity);
    println!("  largest relative error   {:>8.4}", f.worst_relative_error);
}

/// Prints a proof's figures.
pub fn print_proof(f: &ProofFigures, statement: &Statement) {
    println!("\nProof");
    println!("  {:<24} {:.1} s wall, {:.1} s CPU, {:.0} MB peak", "made in", f.seconds, f.cpu_seconds, f.peak_rss_mb);
    println!("  {:<24} {:.1} kB", "size", f.proof_bytes as f64 / 1000.0);
    println!("  {:<24} {} elements, {} lookups", "committed", f.committed_elements, f.lookups);
    println!("  {:<24} {:.1} bits, proven (Johnson bound)", "security", f.security_bits);
    println!("  {:<24} {}", "statement", statement.digest());
    if statement.relation.weight_ranges == circuits::relation::WeightRanges::AssumedInsecure {
        println!("  NOT A FULL PROOF: the weights' ranges are assumed (--assume-weight-ranges)");
    }
}
