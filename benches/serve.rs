//! How the service serves: many adapters of one base, many clients at once, over HTTP against the built program; a row of JSON for each figure.
//!
//! ```text
//! cargo bench --bench serve -- --adapters 1,100,1000 --clients 1,8,64 --seconds 10
//! cargo bench --bench serve -- --model DIR --adapter DIR --against OTHER_POA
//! cargo bench --bench serve -- load --seconds 60
//! ```
//!
//! Adapters are one adapter with other integers: each entry that isn't zero is moved by one, up or down, by a seed.

use clap::Parser;
use model_runtime::int::synthetic::Generator;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use steps::progress::Unwatched;
use steps::store::{AdapterDir, ModelDir};

/// What the base is called.
const BASE: &str = "base";
/// Clock ticks in a second, as Linux counts a process' time.
const TICKS: f64 = 100.0;

#[derive(Parser)]
struct Args {
    /// Which figures: `throughput`, `cold` (adapters read when asked for), `crowd` (one busy adapter beside others) or `load`.
    #[arg(default_value = "throughput")]
    what: String,
    /// A model directory, as `poa import` writes it; the bundled one without.
    #[arg(long, requires = "adapter")]
    model: Option<PathBuf>,
    /// An adapter of it, as `poa train` writes it.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// Another build of the program, measured in turn with this one.
    #[arg(long)]
    against: Option<PathBuf>,
    /// How many adapters are served.
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    adapters: Vec<usize>,
    /// How many clients ask at once.
    #[arg(long, value_delimiter = ',', default_value = "1,8,64")]
    clients: Vec<usize>,
    /// Seconds that each figure is measured for.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Most tokens of an answer.
    #[arg(long, default_value_t = 24)]
    max_tokens: usize,
    /// Where models are made, and kept for the next time.
    #[arg(long, default_value = "target/bench-serve")]
    dir: PathBuf,
    /// Cargo says so to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A base with adapters, made where it isn't there.
fn prepare(args: &Args) -> PathBuf {
    let models = args.dir.join("models");
    let base = models.join(BASE);
    let (model, first) = (base.join("model"), args.dir.join("first"));
    if !model.exists() {
        fs::create_dir_all(&base).unwrap();
        match (&args.model, &args.adapter) {
            (Some(from), Some(adapter)) => {
                copy(from, &model);
                copy(adapter, &first);
            }
            _ => {
                let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo");
                steps::demo::prepare(&[model.clone(), first.clone(), args.dir.join("index")], &assets, &Unwatched).unwrap();
            }
        }
    }
    let model = ModelDir::load(&model).unwrap();
    let adapter = AdapterDir::load(&first, &model).unwrap();
    for i in 0..args.adapters.iter().copied().max().unwrap_or(0) {
        let dir = args.dir.join("adapters").join(format!("a{i:04}"));
        if !dir.exists() {
            let (mut rng, mut int) = (Generator::new(i as u64), adapter.int.clone());
            for (name, tensor) in &mut int.tensors {
                let limit = 1 << (int.semantics.weight_bits[name] - 1);
                let move_by_one = |x: &mut i32| *x = (*x + if rng.bits() & 1 == 0 { 1 } else { -1 }).clamp(-limit, limit - 1);
                tensor.data.iter_mut().filter(|x| **x != 0).for_each(move_by_one);
            }
            AdapterDir { int, float: adapter.float.clone() }.save(&dir.join("adapter"), &model.float, BASE).unwrap();
        }
    }
    fs::canonicalize(&args.dir).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &to) } else { fs::copy(entry.path(), to).map(drop).unwrap() }
    }
}

/// A running service with its first adapters.
struct Server {
    child: Child,
    address: String,
    key: String,
    models: Vec<String>,
}

impl Server {
    /// Starts a program on a fresh database with the first adapters; commitments are kept with the adapters.
    fn start(poa: &Path, dir: &Path, adapters: usize, more: &[&str]) -> Self {
        let data = dir.join("data");
        let _ = fs::remove_dir_all(&data);
        let base = data.join("models").join(BASE);
        fs::create_dir_all(base.join("adapters")).unwrap();
        std::os::unix::fs::symlink(dir.join("models").join(BASE).join("model"), base.join("model")).unwrap();
        let names = (0..adapters).map(|i| format!("a{i:04}"));
        names.clone().for_each(|name| std::os::unix::fs::symlink(dir.join("adapters").join(&name), base.join("adapters").join(name)).unwrap());
        let arguments = ["serve", "--json", "--listen", "127.0.0.1:0", "--data"];
        let mut child = Command::new(poa).args(arguments).arg(&data).args(more).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        let models = names.map(|name| format!("{BASE}+{name}")).collect();
        Self { child, address: text("address"), key: text("admin_key"), models }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { reader: BufReader::new(stream), address: self.address.clone(), key: self.key.clone() }
    }

    /// Seconds of CPU, and MiB of memory.
    fn spent(&self) -> (f64, f64) {
        let proc = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap();
        let stat = proc("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        let status = proc("status");
        let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        (ticks / TICKS, rss.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that is kept.
struct Client {
    reader: BufReader<TcpStream>,
    address: String,
    key: String,
}

/// What one answer took.
struct Took {
    first: Duration,
    whole: Duration,
    tokens: usize,
}

impl Client {
    /// Asks, and hears the answer as it grows; the status where it isn't one.
    fn ask(&mut self, model: &str, prompt: &str, max_tokens: usize) -> Result<Took, u16> {
        let body = json!({ "model": model, "prompt": prompt, "max_tokens": max_tokens, "stream": true, "stream_options": { "include_usage": true } });
        let body = body.to_string();
        let head = format!("POST /v1/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n", self.address, self.key);
        let start = Instant::now();
        self.reader.get_mut().write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).map_err(|_| 0u16)?;
        let mut line = String::new();
        let (mut status, mut length) = (0, None);
        while !self.line(&mut line)?.is_empty() {
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok(),
                None => status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0),
                Some(_) => {}
            }
        }
        if let Some(length) = length {
            let mut refused = vec![0; length];
            self.reader.read_exact(&mut refused).map_err(|_| 0u16)?;
            return Err(status);
        }
        let (mut first, mut tokens) = (None, 0);
        loop {
            let size = usize::from_str_radix(self.line(&mut line)?, 16).map_err(|_| 0u16)?;
            let mut chunk = vec![0; size + 2];
            self.reader.read_exact(&mut chunk).map_err(|_| 0u16)?;
            first.get_or_insert_with(|| start.elapsed());
            let text = String::from_utf8_lossy(&chunk);
            for event in text.lines().filter_map(|l| l.strip_prefix("data: ")).filter_map(|data| serde_json::from_str::<Value>(data).ok()) {
                tokens = event["usage"]["completion_tokens"].as_u64().map_or(tokens, |n| n as usize);
                if event["error"].is_object() {
                    status = 500;
                }
            }
            if size == 0 {
                break;
            }
        }
        if status != 200 || tokens == 0 {
            return Err(status);
        }
        Ok(Took { first: first.unwrap_or_default(), whole: start.elapsed(), tokens })
    }

    fn line<'a>(&mut self, line: &'a mut String) -> Result<&'a str, u16> {
        line.clear();
        self.reader.read_line(line).map_err(|_| 0u16)?;
        Ok(line.trim_end())
    }
}

/// Beginnings of prompts; a number follows, so that few are the same.
const PROMPTS: [&str; 4] = ["The keeper of Velm light is", "Once upon a time", "In the harbour of", "Tell me about"];

fn prompt(i: usize) -> String {
    format!("{} {}", PROMPTS[i % PROMPTS.len()], i / PROMPTS.len() % 97)
}

/// What clients got in a while.
#[derive(Default)]
struct Measured {
    tokens: usize,
    answers: usize,
    errors: Vec<u16>,
    first: Vec<f64>,
    whole: Vec<f64>,
}

impl Measured {
    fn add(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.answers += other.answers;
        self.errors.extend(other.errors);
        self.first.extend(other.first);
        self.whole.extend(other.whole);
    }
}

/// Milliseconds that a share of the answers took at most.
fn quantile(sorted: &mut [f64], share: f64) -> f64 {
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len().saturating_sub(1) as f64 * share) as usize).map_or(f64::NAN, |x| (x * 10.0).round() / 10.0)
}

/// Lets clients ask for a while, each with the model that `pick` gives for its number and the question's.
fn clients(server: &Server, count: usize, args: &Args, pick: &(dyn Fn(usize, usize) -> usize + Sync)) -> Measured {
    let (end, asked) = (Instant::now() + Duration::from_secs(args.seconds), AtomicUsize::new(0));
    let one = |number: usize| {
        let (mut client, mut got) = (server.connect(), Measured::default());
        while Instant::now() < end {
            let i = asked.fetch_add(1, Ordering::Relaxed);
            match client.ask(&server.models[pick(number, i)], &prompt(i), args.max_tokens) {
                Ok(took) => {
                    got.tokens += took.tokens;
                    got.answers += 1;
                    got.first.push(took.first.as_secs_f64() * 1e3);
                    got.whole.push(took.whole.as_secs_f64() * 1e3);
                }
                Err(status) => {
                    got.errors.push(status);
                    std::thread::sleep(Duration::from_millis(50));
                    client = server.connect();
                }
            }
        }
        got
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..count).map(|number| scope.spawn(move || one(number))).collect();
        let mut measured = Measured::default();
        all.into_iter().for_each(|client| measured.add(client.join().unwrap()));
        measured
    })
}

/// A figure as a row.
fn row(what: &str, build: &str, server: &Server, clients: usize, before: (f64, f64), start: Instant, mut got: Measured) {
    let (cpu, memory) = server.spent();
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu - before.0);
    println!(
        "{}",
        json!({
            "what": what, "build": build, "adapters": server.models.len(), "clients": clients, "answers": got.answers, "tokens": got.tokens,
            "tokens_per_second": (got.tokens as f64 / seconds).round(), "tokens_per_cpu_second": (got.tokens as f64 / cpu).round(),
            "first_token_ms": [quantile(&mut got.first, 0.5), quantile(&mut got.first, 0.95)],
            "answer_ms": [quantile(&mut got.whole, 0.5), quantile(&mut got.whole, 0.95)],
            "errors": got.errors, "mib_before": before.1.round(), "mib": memory.round(),
        })
    );
}

fn measure(what: &str, build: &str, server: &Server, count: usize, args: &Args, pick: &(dyn Fn(usize, usize) -> usize + Sync)) {
    let (before, start) = (server.spent(), Instant::now());
    let got = clients(server, count, args, pick);
    row(what, build, server, count, before, start, got);
}

fn main() {
    let args = Args::parse();
    let dir = prepare(&args);
    let here = PathBuf::from(env!("CARGO_BIN_EXE_poa"));
    let builds: Vec<(&str, &Path)> = std::iter::once(("this", here.as_path())).chain(args.against.as_deref().map(|p| ("against", p))).collect();
    for &adapters in &args.adapters {
        for &(build, poa) in &builds {
            match args.what.as_str() {
                "throughput" => {
                    let server = Server::start(poa, &dir, adapters, &[]);
                    for &count in &args.clients {
                        measure("throughput", build, &server, count, &args, &|_, i| i % adapters);
                    }
                }
                // Memory for none but the one that was read last.
                "cold" => {
                    let server = Server::start(poa, &dir, adapters, &["--adapter-memory", "0"]);
                    measure("cold, another adapter each time", build, &server, 1, &args, &|_, i| i % adapters);
                    measure("warm, one adapter", build, &server, 1, &args, &|_, _| 0);
                    for &count in &args.clients {
                        measure("past the cache's size", build, &server, count, &args, &|_, i| i % adapters);
                    }
                }
                // All but one client ask one adapter; the last asks another.
                "crowd" => {
                    let server = Server::start(poa, &dir, adapters.max(2), &[]);
                    for &count in &args.clients {
                        measure("everyone asks one adapter, but for one", build, &server, count, &args, &|number, _| usize::from(number == 0));
                    }
                }
                "load" => {
                    let server = Server::start(poa, &dir, adapters, &[]);
                    measure("load", build, &server, args.clients.iter().copied().max().unwrap_or(64), &args, &|_, i| i % adapters);
                }
                other => panic!("{other}: expected throughput, cold, crowd or load"),
            }
        }
    }
}
