//! Readable output: summaries, bars, figures.

use circuits::statement::{RequestStatement, Statement};
use model_runtime::int::attribute::Attribution;
use model_runtime::int::fidelity::Fidelity;
use serde_json::{Value, json};
use steps::prove::ProofFigures;
use steps::shares::{contributor_weights, ranked, shares};
use steps::store::IndexDir;
use steps::words::{Because, WordShare};

/// The least share that a readable line names, and how many words it names.
const LEAST_SHARE: f64 = 0.05;
const MOST_WORDS: usize = 4;

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
        words_line(because, i).iter().for_each(|words| println!("  {:>18}  because of: {words}", ""));
    }
    if let Some(words) = exchange_line(because) {
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
    if let Some(registration) = &statement.registration {
        println!("  {:<24} {registration}", "relies on registration");
    }
    if statement.relation.weight_ranges == circuits::relation::WeightRanges::AssumedInsecure {
        println!("  NOT A FULL PROOF: the weights' ranges are assumed (--assume-weight-ranges)");
    }
}

/// A line that names the words of a row's sample which carry most of its score.
fn words_line(because: &Because, row: usize) -> Option<String> {
    because.samples.get(&row).map(|words| named(words.iter().map(|w| (w, ""))))
}

/// The same of prompt and answer together.
fn exchange_line(because: &Because) -> Option<String> {
    let both = because.prompt.iter().map(|w| (w, " (prompt)")).chain(because.answer.iter().map(|w| (w, " (answer)")));
    (!because.answer.is_empty()).then(|| named(both))
}

/// The largest shares; a word that occurs several times has one.
fn named<'a>(words: impl Iterator<Item = (&'a WordShare, &'a str)>) -> String {
    let mut sums: Vec<(&str, &str, f64)> = Vec::new();
    for (word, part) in words {
        match sums.iter_mut().find(|(text, of, _)| (*text, *of) == (&word.text, part)) {
            Some((.., share)) => *share += word.share,
            None => sums.push((&word.text, part, word.share)),
        }
    }
    sums.retain(|(.., share)| *share >= LEAST_SHARE);
    sums.sort_by(|a, b| b.2.total_cmp(&a.2));
    let name = |&(text, part, share): &(&str, &str, f64)| {
        let text = match text {
            "" => "(start)".to_owned(),
            mark if !mark.chars().any(char::is_alphanumeric) => format!("\"{}\"", shortened(mark, 30)),
            word => shortened(word, 30),
        };
        format!("{text}{part} {:.0} %", 100.0 * share)
    };
    if sums.is_empty() { "no word above the others".to_owned() } else { sums.iter().take(MOST_WORDS).map(name).collect::<Vec<_>>().join(", ") }
}

/// Says that something isn't valid, as `poa verify` does; other failures stay failures.
pub fn not_valid(failure: steps::error::Failure, json: bool) -> Result<u8, steps::error::Failure> {
    if failure.kind != steps::error::Kind::Invalid {
        return Err(failure);
    }
    if json {
        println!("{}", json!({ "valid": false, "reason": failure.message }));
    } else {
        println!("NOT VALID: {}", crate::terminal::line(&failure.message));
        failure.hint.iter().for_each(|hint| println!("  try: {}", crate::terminal::line(hint)));
    }
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str, share: f64) -> WordShare {
        WordShare { text: text.to_owned(), share }
    }

    #[test]
    fn the_largest_shares_are_named_and_nothing_in_them_acts_on_a_terminal() {
        let words = [
            word("", 0.06),
            word("Skarn", 0.2),
            word("of", 0.01),
            word("Ottar", 0.5),
            word("Skarn", 0.1),
            word("no\u{1b}[2A\n", 0.07),
            word(".", -0.2),
        ];
        let because = Because {
            samples: [(3, words.to_vec()), (4, vec![])].into(),
            prompt: vec![word("Skarn", 0.25)],
            answer: vec![word("Ottar", 0.45), word(".", 0.3)],
        };
        assert_eq!(words_line(&because, 3).as_deref(), Some("Ottar 50 %, Skarn 30 %, no\\u001b[2A 7 %, (start) 6 %"));
        assert_eq!(words_line(&because, 4).as_deref(), Some("no word above the others"));
        assert_eq!(words_line(&because, 5), None);
        assert_eq!(exchange_line(&because).as_deref(), Some("Ottar (answer) 45 %, \".\" (answer) 30 %, Skarn (prompt) 25 %"));
        assert_eq!(exchange_line(&Because::default()), None);
    }
}
