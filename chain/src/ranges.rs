//! Logs in ranges that a node takes. Nodes limit them, each in its own way: by blocks, by results, by bytes; some say what they would take.
//!
//! And what comes back is checked: a log of another contract, another event or another block is not what was asked for.

use crate::{ChainError, Found};
use alloy::primitives::{Address, B256};
use alloy::rpc::types::Log;

/// Logs that are asked for: of one contract, of any of some events, perhaps about one value, in a range of blocks.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// Who logged.
    pub address: Address,
    /// Any of these events.
    pub events: &'a [B256],
    /// Their first indexed value; none for any.
    pub first: Option<B256>,
    /// First block.
    pub from: u64,
    /// Last block.
    pub to: u64,
}

/// How many blocks to ask for after `asked` blocks were refused: what the node proposes, or half.
pub fn narrower(problem: &str, asked: u64) -> (u64, bool) {
    match proposed(problem).into_iter().filter(|n| (1..asked).contains(n)).max() {
        Some(proposed) => (proposed, true),
        None => ((asked / 2).max(1), false),
    }
}

/// Numbers of blocks that an error may propose: the length of a pair of block numbers in brackets, else every number that it names.
fn proposed(problem: &str) -> Vec<u64> {
    let pair = problem.split('[').skip(1).find_map(|rest| {
        let (first, last) = rest.split_once(']')?.0.split_once([',', '-'])?;
        let [first, last] = [first, last].map(|word| block_number(word.trim()));
        last?.checked_sub(first?)?.checked_add(1)
    });
    pair.map_or_else(|| problem.split(|c: char| !c.is_ascii_alphanumeric() && c != ',').filter_map(count).collect(), |length| vec![length])
}

fn block_number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

/// A number as people write it: 2000, 10,000, 2K.
fn count(word: &str) -> Option<u64> {
    let word = word.trim_matches(',').replace(',', "");
    match word.strip_suffix(['k', 'K']) {
        Some(thousands) => thousands.parse::<u64>().ok()?.checked_mul(1000),
        None => word.parse().ok(),
    }
}

/// What was asked for of a node's answer, oldest first. Logs that were removed or aren't in a block yet are left out, repeated ones are taken
/// once.
///
/// # Errors
///
/// When there is a log that wasn't asked for, or two differ that have one place.
pub fn checked(logs: Vec<Log>, query: &Query<'_>) -> Result<Vec<Found>, ChainError> {
    let wrong = |problem: String| ChainError::Answer { what: "eth_getLogs", problem };
    let mut placed = vec![];
    for log in logs.into_iter().filter(|log| !log.removed) {
        let (Some(block), Some(index), Some(transaction)) = (log.block_number, log.log_index, log.transaction_hash) else { continue };
        let topics = log.inner.topics();
        if log.inner.address != query.address {
            return Err(wrong(format!("a log of {}, asked for those of {}", log.inner.address, query.address)));
        }
        if !topics.first().is_some_and(|t| query.events.contains(t)) || query.first.is_some_and(|f| topics.get(1) != Some(&f)) {
            return Err(wrong(format!("a log of another event than was asked for, in transaction {transaction}")));
        }
        if !(query.from..=query.to).contains(&block) {
            return Err(wrong(format!("a log of block {block}, asked for blocks {} to {}", query.from, query.to)));
        }
        placed.push(((block, index), log.block_hash, Found { log: log.inner, transaction, block, index }));
    }
    placed.sort_by_key(|(place, ..)| *place);
    placed.dedup_by(|b, a| a.0 == b.0 && a.1 == b.1 && a.2.transaction == b.2.transaction && a.2.log == b.2.log);
    if let Some(pair) = placed.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(wrong(format!("two different logs with number {} in block {}", pair[0].0.1, pair[0].0.0)));
    }
    Ok(placed.into_iter().map(|(.., found)| found).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::primitives::LogData;

    #[test]
    fn errors_propose_ranges() {
        for (problem, expected) in [
            ("query returned more than 10000 results. Try with this block range [0x9B9F, 0x9BA5].", 7),
            ("You can make eth_getLogs requests with up to a 10 block range. this block range should work: [0x64, 0x6d]", 10),
            ("eth_getLogs is limited to a 10,000 range", 10_000),
            ("with up to a 2K block range and no limit on the response size", 2_000),
            ("exceed maximum block range: 5000", 5_000),
            ("ranges over 1 blocks are not supported on freetier", 1),
            ("block range too large", 50_000),
            ("response too big: [nonsense, 0xzz]", 50_000),
            ("limit is 18446744073709551616 blocks, 200000 asked", 50_000),
            ("at most 0 blocks", 50_000),
        ] {
            assert_eq!(narrower(problem, 100_000).0, expected, "{problem}");
        }
        assert_eq!(narrower("no", 1), (1, false));
    }

    fn log(block: u64, index: u64) -> Log {
        let data = LogData::new_unchecked(vec![B256::repeat_byte(1), B256::repeat_byte(2)], vec![7].into());
        let inner = alloy::primitives::Log { address: Address::repeat_byte(9), data };
        let transaction_hash = Some(B256::repeat_byte(5));
        Log { inner, block_number: Some(block), log_index: Some(index), block_hash: Some(B256::repeat_byte(4)), transaction_hash, ..Log::default() }
    }

    #[test]
    fn only_what_was_asked_for_is_taken() {
        let events = [B256::repeat_byte(1)];
        let query = Query { address: Address::repeat_byte(9), events: &events, first: Some(B256::repeat_byte(2)), from: 10, to: 20 };
        let found = checked(vec![log(12, 1), log(11, 5), log(12, 0), log(11, 5)], &query).unwrap();
        assert_eq!(found.iter().map(|f| f.block).collect::<Vec<_>>(), [11, 12, 12]);
        let removed = Log { removed: true, ..log(11, 0) };
        let pending = Log { block_number: None, ..log(11, 0) };
        assert!(checked(vec![removed, pending], &query).unwrap().is_empty());
        let refused = |change: &dyn Fn(&mut Log), words: &str| {
            let mut changed = log(11, 0);
            change(&mut changed);
            let problem = checked(vec![log(11, 0), changed], &query).unwrap_err().to_string();
            assert!(problem.contains(words), "{problem}");
        };
        refused(&|l| l.inner.address = Address::ZERO, "a log of 0x0000");
        refused(&|l| l.block_number = Some(9), "a log of block 9");
        refused(&|l| l.block_number = Some(21), "a log of block 21");
        refused(&|l| l.inner.data.topics_mut_unchecked()[0] = B256::ZERO, "another event");
        refused(&|l| l.inner.data.topics_mut_unchecked()[1] = B256::ZERO, "another event");
        refused(&|l| l.inner.data.data = vec![8].into(), "two different logs");
        refused(&|l| l.transaction_hash = Some(B256::ZERO), "two different logs");
    }
}
