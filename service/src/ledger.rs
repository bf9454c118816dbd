//! The chain of a service without a node: the EVM in this process, whose transactions are rows of the database.
//!
//! A transaction is carried out in memory, then written with a digest of what it came to; it has happened once it is written. What was carried out
//! and couldn't be written is forgotten, and the chain is made again from the rows: so it is at every start, killed or not. Rows that come to another
//! state than they did are refused. Transactions of a job are written only while the job is still its worker's.

use crate::database::{Database, now};
use crate::jobs::{self, Claim};
use alloy::primitives::{Address, B256, Bytes, U256, keccak256};
use chain::evm::Evm;
use chain::{Call, Chain, ChainError, Found, Receipt, Search, devnet};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::sync::{Mutex, PoisonError};
use steps::error::{Failure, While};

/// What the development payer begins with.
const ALLOCATION: u128 = 1_000_000_000 * devnet::ETHER;

/// A transaction as it's kept.
struct Entry {
    time: u64,
    call: Call,
    state: B256,
}

fn bytes<const N: usize>(row: &Row<'_>, name: &str) -> rusqlite::Result<[u8; N]> {
    let blob: Vec<u8> = row.get(name)?;
    blob.try_into().map_err(|_| rusqlite::Error::InvalidColumnName(name.to_owned()))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let to: Option<Vec<u8>> = row.get("recipient")?;
    let to = to.map(|to| Address::try_from(to.as_slice()).map_err(|_| rusqlite::Error::InvalidColumnName("recipient".into()))).transpose()?;
    let call = Call {
        from: Address::from(bytes::<20>(row, "sender")?),
        to,
        value: U256::from_be_bytes(bytes::<32>(row, "value")?),
        data: row.get::<_, Vec<u8>>("data")?.into(),
        gas: row.get::<_, Option<i64>>("gas")?.map(|gas| gas as u64),
    };
    Ok(Entry { time: row.get::<_, i64>("time")? as u64, call, state: B256::from(bytes::<32>(row, "state")?) })
}

/// The chain, and how much of it is written.
struct Made {
    evm: Evm,
    transactions: i64,
    state: B256,
}

/// What one transaction came to, and everything before it.
fn next_state(before: B256, outcome: &Result<Receipt, ChainError>, evm: &Evm) -> B256 {
    let mut bytes = before.to_vec();
    match outcome {
        Ok(receipt) => {
            bytes.push(1);
            bytes.extend(receipt.gas_used.to_be_bytes());
            for log in &receipt.logs {
                bytes.extend(log.address);
                log.topics().iter().for_each(|topic| bytes.extend(topic));
                bytes.extend(keccak256(&log.data.data));
            }
        }
        Err(error) => {
            bytes.push(0);
            bytes.extend(keccak256(error.to_string()));
        }
    }
    bytes.extend(evm.state_digest());
    keccak256(bytes)
}

fn differs(number: i64) -> Failure {
    let message = format!("the chain in the database is another one than this program makes of it, from transaction {number} on");
    Failure::input(message).hint("use the version of poa that wrote it, or restore a backup (`poa backup`)")
}

impl Made {
    fn genesis(chain_id: u64, started: u64) -> Self {
        let mut evm = Evm::new(chain_id, started);
        evm.give(devnet::payer().address(), U256::from(ALLOCATION));
        let state = evm.state_digest();
        Self { evm, transactions: 0, state }
    }

    fn carry_out(&mut self, call: &Call, time: u64) -> Result<Result<Receipt, ChainError>, ChainError> {
        let outcome = self.evm.carry_out(call, time)?;
        self.state = next_state(self.state, &outcome, &self.evm);
        self.transactions += 1;
        Ok(outcome)
    }

    /// Makes the chain that the rows are.
    fn replayed(database: &Database) -> Result<Self, Failure> {
        let reading = "reading the chain";
        let (chain_id, started, state) = database.write(genesis).during(reading)?;
        let mut made = Self::genesis(chain_id, started);
        if made.state != state {
            return Err(differs(0));
        }
        let rows: Vec<Entry> = database
            .read(|c| c.prepare("SELECT * FROM transactions ORDER BY number")?.query_map([], entry)?.collect::<Result<_, _>>())
            .during(reading)?;
        for row in rows {
            let number = made.transactions + 1;
            made.carry_out(&row.call, row.time).map_err(|_| differs(number))?.ok();
            if made.state != row.state {
                return Err(differs(number));
            }
        }
        Ok(made)
    }
}

/// The chain's id, first time and first state; begins one where there is none.
fn genesis(t: &Transaction<'_>) -> rusqlite::Result<(u64, u64, B256)> {
    let found = |c: &Connection| {
        let row = |r: &Row<'_>| Ok((r.get::<_, i64>("chain_id")? as u64, r.get::<_, i64>("started")? as u64, B256::from(bytes::<32>(r, "state")?)));
        c.query_row("SELECT * FROM chain", [], row).optional()
    };
    if let Some(found) = found(t)? {
        return Ok(found);
    }
    let (chain_id, started) = (devnet::CHAIN_ID, now() as u64);
    let state = Made::genesis(chain_id, started).state;
    t.execute(
        "INSERT INTO chain (one, chain_id, started, state) VALUES (1, ?1, ?2, ?3)",
        params![chain_id as i64, started as i64, state.as_slice()],
    )?;
    Ok((chain_id, started, state))
}

/// The chain; one at a time works with it.
pub struct Ledger(Mutex<Option<Made>>);

impl Ledger {
    /// Makes the chain of a database.
    ///
    /// # Errors
    ///
    /// When it comes to another state than it did.
    pub fn load(database: &Database) -> Result<Self, Failure> {
        Ok(Self(Mutex::new(Some(Made::replayed(database)?))))
    }

    /// Works with the chain; it is made again next time if something was carried out that isn't written.
    fn with<T>(&self, database: &Database, f: impl FnOnce(&mut Made) -> (T, bool)) -> Result<T, Failure> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = match made.take() {
            Some(made) => made,
            None => Made::replayed(database)?,
        };
        let (done, lost) = f(&mut taken);
        *made = (!lost).then_some(taken);
        Ok(done)
    }

    /// Reads the chain; what is sent is refused.
    pub fn read<T>(&self, database: &Database, f: impl FnOnce(&mut Account<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        self.with(database, |made| (f(&mut Account { made, database, writes: Writes::Nothing, unwritten: vec![], lost: false }), false))?
    }

    /// Works with the chain; every transaction is written by itself, if the job is still the claim's.
    pub fn work<T>(&self, database: &Database, claim: &Claim, f: impl FnOnce(&mut Account<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        self.with(database, |made| {
            let mut account = Account { made, database, writes: Writes::Each(claim), unwritten: vec![], lost: false };
            let done = f(&mut account);
            (done, account.lost)
        })?
    }

    /// Works with the chain; all transactions are written together, with what `keep` writes, or none.
    pub fn together<T>(
        &self,
        database: &Database,
        claim: &Claim,
        f: impl FnOnce(&mut Account<'_>) -> Result<T, Failure>,
        keep: impl FnOnce(&Transaction<'_>, &T) -> rusqlite::Result<()>,
    ) -> Result<T, Failure> {
        self.with(database, |made| {
            let mut account = Account { made, database, writes: Writes::Together, unwritten: vec![], lost: false };
            let done = f(&mut account);
            let unwritten = std::mem::take(&mut account.unwritten);
            let Ok(done) = done else { return (done, !unwritten.is_empty()) };
            let written = database.write(|t| {
                let owned = jobs::is_owned(t, claim)?;
                if owned {
                    unwritten.iter().try_for_each(|(number, entry)| write(t, *number, entry))?;
                    keep(t, &done)?;
                }
                Ok(owned)
            });
            match written.during("writing transactions") {
                Ok(true) => (Ok(done), false),
                Ok(false) => (Err(Failure::stopped()), true),
                Err(failure) => (Err(failure), true),
            }
        })?
    }
}

fn write(t: &Transaction<'_>, number: i64, entry: &Entry) -> rusqlite::Result<()> {
    let insert = "INSERT INTO transactions (number, time, sender, recipient, value, data, gas, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let Entry { time, call, state } = entry;
    let (recipient, gas) = (call.to.map(|to| to.to_vec()), call.gas.map(|gas| gas as i64));
    let value = call.value.to_be_bytes::<32>();
    let values = params![number, *time as i64, call.from.as_slice(), recipient, value, &call.data[..], gas, state.as_slice()];
    t.execute(insert, values).map(|_| ())
}

/// When transactions are written.
enum Writes<'a> {
    Nothing,
    Each(&'a Claim),
    Together,
}

/// The chain as those see it who work with it.
pub struct Account<'a> {
    made: &'a mut Made,
    database: &'a Database,
    writes: Writes<'a>,
    unwritten: Vec<(i64, Entry)>,
    /// Whether something was carried out and couldn't be written.
    lost: bool,
}

impl Account<'_> {
    fn keep(&mut self, number: i64, entry: Entry) -> Result<(), ChainError> {
        let Writes::Each(claim) = self.writes else {
            self.unwritten.push((number, entry));
            return Ok(());
        };
        let written = self.database.write(|t| {
            let owned = jobs::is_owned(t, claim)?;
            if owned {
                write(t, number, &entry)?;
            }
            Ok(owned)
        });
        let problem = match written {
            Ok(true) => return Ok(()),
            Ok(false) => "the job is no longer this worker's".to_owned(),
            Err(error) => format!("the transaction can't be kept: {error}"),
        };
        self.lost = true;
        Err(ChainError::Journal { problem })
    }
}

impl Chain for Account<'_> {
    fn chain_id(&self) -> u64 {
        self.made.evm.chain_id()
    }

    fn newest(&mut self) -> Result<(u64, u64), ChainError> {
        self.made.evm.newest()
    }

    fn code(&mut self, account: Address) -> Result<Bytes, ChainError> {
        self.made.evm.code(account)
    }

    fn nonce(&mut self, account: Address) -> Result<u64, ChainError> {
        self.made.evm.nonce(account)
    }

    fn balance(&mut self, account: Address) -> Result<U256, ChainError> {
        self.made.evm.balance(account)
    }

    fn call(&mut self, call: &Call) -> Result<Bytes, ChainError> {
        self.made.evm.call(call)
    }

    fn send(&mut self, call: Call) -> Result<Receipt, ChainError> {
        if self.lost || matches!(self.writes, Writes::Nothing) {
            return Err(ChainError::Journal { problem: "nothing can be sent".into() });
        }
        let time = self.made.evm.next_time().max(now() as u64);
        let outcome = self.made.carry_out(&call, time)?;
        let (number, state) = (self.made.transactions, self.made.state);
        self.keep(number, Entry { time, call, state })?;
        outcome
    }

    fn logs(&mut self, search: &Search) -> Result<Vec<Found>, ChainError> {
        self.made.evm.logs(search)
    }

    fn receipt(&mut self, transaction: B256) -> Result<Option<Receipt>, ChainError> {
        self.made.evm.receipt(transaction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn opened(directory: &Path) -> (Database, Ledger) {
        let database = Database::open(&directory.join("poa.db")).unwrap();
        let ledger = Ledger::load(&database).unwrap();
        (database, ledger)
    }

    fn claimed(database: &Database) -> Claim {
        jobs::enqueue(database, "settle", "a").unwrap();
        jobs::claim(database, "settle").unwrap().unwrap()
    }

    fn pay(chain: &mut Account<'_>, wei: u64) -> Result<Receipt, ChainError> {
        chain.send(Call { from: devnet::payer().address(), to: Some(Address::repeat_byte(7)), value: U256::from(wei), ..Call::default() })
    }

    fn balance(database: &Database, ledger: &Ledger) -> U256 {
        ledger.read(database, |chain| Ok(chain.balance(Address::repeat_byte(7))?)).unwrap()
    }

    fn rows(database: &Database) -> i64 {
        database.read(|c| c.query_row("SELECT count(*) FROM transactions", [], |r| r.get(0))).unwrap()
    }

    #[test]
    fn what_is_written_has_happened_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (database, ledger) = opened(directory.path());
        let claim = claimed(&database);
        ledger.work(&database, &claim, |chain| Ok(pay(chain, 3)?)).unwrap();
        // A transaction without effect is one, too: its sender's nonce has changed.
        let creation = Call { from: devnet::payer().address(), data: vec![0xfe].into(), ..Call::default() };
        assert!(ledger.work(&database, &claim, |chain| Ok(chain.send(creation)?)).is_err());
        let broken = ledger.together(&database, &claim, |chain| Ok(pay(chain, 5)?), |_, _| Err(rusqlite::Error::InvalidQuery));
        assert!(broken.is_err());
        let given_up =
            ledger.together(&database, &claim, |chain| pay(chain, 7).map_err(Failure::from).and(Err::<(), _>(Failure::stopped())), |_, _| Ok(()));
        assert!(given_up.is_err());
        assert_eq!((balance(&database, &ledger), rows(&database)), (U256::from(3), 2));
        assert!(ledger.read(&database, |chain| Ok(pay(chain, 1)?)).is_err(), "who reads sends nothing");
        let kept = ledger.together(
            &database,
            &claim,
            |chain| Ok((pay(chain, 1)?, pay(chain, 1)?)),
            |t, _| t.execute("DELETE FROM policies", []).map(|_| ()),
        );
        assert!(kept.is_ok());
        let told = ledger.read(&database, |chain| Ok((chain.newest()?, chain.nonce(devnet::payer().address())?))).unwrap();
        let (again, replayed) = opened(directory.path());
        assert_eq!((balance(&again, &replayed), rows(&again)), (U256::from(5), 4));
        assert_eq!(replayed.read(&again, |chain| Ok((chain.newest()?, chain.nonce(devnet::payer().address())?))).unwrap(), told);
    }

    #[test]
    fn who_lost_the_job_pays_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (database, ledger) = opened(directory.path());
        let claim = claimed(&database);
        jobs::cancel(&database, "settle", "a").unwrap();
        let refused = ledger.work(&database, &claim, |chain| Ok(pay(chain, 3)?)).unwrap_err();
        assert!(refused.message.contains("no longer this worker's"), "{refused:?}");
        assert!(ledger.together(&database, &claim, |chain| Ok(pay(chain, 3)?), |_, _| Ok(())).is_err());
        assert_eq!((balance(&database, &ledger), rows(&database)), (U256::ZERO, 0));
    }

    #[test]
    fn another_chain_than_it_was_is_refused() {
        for change in [
            "UPDATE transactions SET value = zeroblob(32) WHERE number = 2",
            "UPDATE transactions SET time = time + 1 WHERE number = 2",
            "DELETE FROM transactions WHERE number = 1",
            "UPDATE chain SET started = started + 1, state = zeroblob(32)",
        ] {
            let directory = tempfile::tempdir().unwrap();
            let (database, ledger) = opened(directory.path());
            let claim = claimed(&database);
            (1..4).for_each(|wei| drop(ledger.work(&database, &claim, |chain| Ok(pay(chain, wei)?)).unwrap()));
            assert!(Ledger::load(&database).is_ok());
            database.write(|t| t.execute(change, [])).unwrap();
            let refused = Ledger::load(&database).err().unwrap();
            assert!(refused.message.contains("another one than this program makes of it"), "{change}: {refused:?}");
        }
    }
}
