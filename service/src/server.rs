//! The server: what it is started with, what every call shares, how it ends.

use crate::catalog::{Catalog, Place};
use crate::connections::HEAD_BYTES;
use crate::database::{Database, hex, random};
use crate::decoder::TOGETHER;
use crate::error::{ApiError, in_form};
use crate::events::Readers;
use crate::files::Files;
use crate::ledger::Ledger;
use crate::making::Keys;
use crate::proofs::Batches;
use crate::settlements::Fee;
use crate::{connections, datanets, idempotency, keys, openapi, pages, worker};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use model_runtime::demo::DATANET_FILE;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use steps::error::{Failure, While};
use steps::progress::Observer;
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Most bytes of a body.
pub(crate) const BODY: usize = 1 << 20;
/// Calls that may wait for a core, and answers that may wait to be decoded; more are told to come again.
const WAITING: usize = 64;
/// How long a call may take until its answer begins, a slow sender's body included.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long calls under way may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// The bundled datanet's name and licence, which are the project's.
const DEMO: &str = "facts";
const DEMO_LICENCE: &str = "MIT OR Apache-2.0";

/// How the service is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where everything is.
    pub data: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The bundled assets, to make the demo's model from where it isn't there.
    pub demo: Option<PathBuf>,
    /// Whether everyone with a key may read samples' texts.
    pub show_samples: bool,
    /// Bytes that adapters may take in memory.
    pub adapter_memory: u64,
    /// Bytes that prompts which were read may take in memory, for each base.
    pub prefix_memory: usize,
    /// Whether webhooks may be of this machine or a private network.
    pub private_webhooks: bool,
    /// How many requests are proven together.
    pub batches: Batches,
    /// What is paid for an answer that is settled.
    pub fee: Fee,
    /// Where keys of outer proofs are; beneath the data directory unless said.
    pub keys: Option<PathBuf>,
    /// Their reference string; one for trials unless said.
    pub srs: Option<PathBuf>,
}

/// What every call shares.
pub struct Service {
    pub(crate) data: PathBuf,
    pub(crate) database: Database,
    pub(crate) files: Files,
    pub(crate) catalog: Catalog,
    pub(crate) ledger: Ledger,
    pub(crate) batches: Batches,
    pub(crate) fee: Fee,
    pub(crate) keys: Keys,
    pub(crate) show_samples: bool,
    pub(crate) private_webhooks: bool,
    /// Tells this run of the service from others.
    pub(crate) process: String,
    pub(crate) readers: Readers,
    pub(crate) ending: AtomicBool,
    pub(crate) on: Arc<dyn Observer>,
    /// Cores, for what takes one: attribution.
    cores: Arc<Semaphore>,
    /// Cores, for reading prompts: answers don't wait for attributions.
    prompts: Arc<Semaphore>,
    /// Places for answers, under way and waiting.
    answers: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A place in the queue of those who wait, given up when dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service {
    /// A place for an answer.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.answers.clone().try_acquire_owned().map_err(|_| ApiError::busy())
    }

    /// A core to work on.
    pub(crate) async fn permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(ApiError::busy());
        }
        let _waiting = Waiting(&self.waiting);
        self.cores.clone().acquire_owned().await.map_err(|_| ApiError::from(Failure::stopped()))
    }

    /// A core to read a prompt on; who asks waits for it.
    pub(crate) async fn prompt_permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.prompts.clone().acquire_owned().await.map_err(|_| ApiError::from(Failure::stopped()))
    }

    /// Does slow work on samples on a thread of its own, one at a time: answers don't wait for it.
    pub(crate) async fn reading<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = self.reading.clone().acquire_owned().await.map_err(|_| ApiError::from(Failure::stopped()))?;
        let service = self.clone();
        let work = move || {
            let _permit = permit;
            work(&service)
        };
        tokio::task::spawn_blocking(work).await?
    }

    /// Calls that wait for a core.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether calls go on.
    pub(crate) fn goes_on(&self) -> bool {
        !self.ending.load(Ordering::Relaxed)
    }
}

/// What pages may do: the scripts and styles of this service, and nothing from elsewhere.
const POLICY: &str =
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// How long a call's head is: its line and its headers.
fn head_bytes(request: &Request) -> usize {
    let line = request.method().as_str().len() + request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    request.headers().iter().fold(line, |bytes, (name, value)| bytes + name.as_str().len() + value.len())
}

/// Nothing comes from elsewhere, runs in a page unless it's this service's, or is framed by others; nothing takes for ever.
async fn guarded(request: Request, next: Next) -> Response {
    if head_bytes(&request) > HEAD_BYTES {
        return ApiError::head_too_large(HEAD_BYTES).into_response();
    }
    // Other sites' pages may not make a browser post here, signing in included.
    let from_elsewhere = request.headers().get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    if from_elsewhere && !request.method().is_safe() {
        return ApiError::forbidden("this comes from another site's page").into_response();
    }
    let is_api = request.uri().path().starts_with("/v1/");
    let mut response = match tokio::time::timeout(PATIENCE, next.run(request)).await {
        Ok(response) if is_api => in_form(response).await,
        Ok(response) => response,
        Err(_) => ApiError::slow().into_response(),
    };
    let headers = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff"), (header::REFERRER_POLICY, "no-referrer")];
    headers.into_iter().for_each(|(name, value)| {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    });
    response.headers_mut().entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(POLICY));
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn router(service: Arc<Service>) -> Router {
    Router::new()
        .merge(openapi::router())
        .merge(pages::routes())
        .layer(middleware::from_fn_with_state(service.clone(), idempotency::once))
        .layer(middleware::from_fn(guarded))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(service)
}

/// What a started service tells.
#[derive(Clone, Debug)]
pub struct Started {
    /// Where it listens.
    pub address: SocketAddr,
    /// The admin's key, on the first start only.
    pub admin_key: Option<String>,
}

/// Serves until it is told to end (SIGINT, SIGTERM); `started` is called once it listens.
///
/// # Errors
///
/// When the data can't be read, or the address is taken.
pub fn serve(settings: &Settings, on: Arc<dyn Observer>, started: impl FnOnce(&Started)) -> Result<(), Failure> {
    let data = &settings.data;
    create_private(data).during_path("creating", data)?;
    if let Some(assets) = &settings.demo {
        let place = Place::new(data, "demo");
        let parts = [place.model(), place.adapter("facts"), place.index("facts")];
        steps::demo::prepare(&parts, assets, &*on)?;
    }
    let catalog = Catalog::load(data, settings.adapter_memory, settings.prefix_memory, &*on)?;
    let database = Database::open(&data.join("poa.db"))?;
    let ledger = Ledger::load(&database)?;
    let admin_key = keys::make_first(&database)?;
    let files = Files::new(data.join("files"));
    if let Some(assets) = &settings.demo {
        demo(&database, &files, assets)?;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let service = Arc::new(Service {
        data: data.clone(),
        database,
        files,
        catalog,
        ledger,
        batches: settings.batches,
        fee: settings.fee,
        keys: Keys { keys: settings.keys.clone().unwrap_or_else(|| data.join("keys")), srs: settings.srs.clone() },
        show_samples: settings.show_samples || settings.demo.is_some(),
        private_webhooks: settings.private_webhooks,
        process: hex(&random()?[..8]),
        readers: Readers::default(),
        ending: AtomicBool::new(false),
        on,
        cores: Arc::new(Semaphore::new(cores)),
        prompts: Arc::new(Semaphore::new(cores)),
        answers: Arc::new(Semaphore::new(TOGETHER + WAITING)),
        reading: Arc::new(Semaphore::new(1)),
        waiting: AtomicUsize::new(0),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().during("starting")?;
    let listener = runtime.block_on(TcpListener::bind(settings.listen)).during(format!("listening on {}", settings.listen))?;
    let address = listener.local_addr().during("listening")?;
    let workers = worker::start(&service)?;
    started(&Started { address, admin_key });
    let ends = Arc::new(Notify::new());
    let ended = {
        let (service, ends) = (service.clone(), ends.clone());
        async move {
            signalled().await;
            service.on.note("ending: calls under way may finish, proofs and trainings under way are handed back …");
            service.ending.store(true, Ordering::Relaxed);
            ends.notify_one();
        }
    };
    runtime.block_on(async {
        let serving = connections::serve(listener, router(service.clone()), ended);
        // Who doesn't read what they asked for can't keep the service from ending.
        let cut_off = async {
            ends.notified().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            () = serving => {}
            () = cut_off => {}
        }
    });
    service.ending.store(true, Ordering::Relaxed);
    workers.into_iter().for_each(|worker| drop(worker.join()));
    runtime.shutdown_timeout(GRACE);
    Ok(())
}

/// Publishes the bundled datanet, where it isn't there yet and its first admin's key is.
fn demo(database: &Database, files: &Files, assets: &Path) -> Result<(), Failure> {
    let Some(admin) = keys::first_admin(database).during("reading the database")? else { return Ok(()) };
    let path = assets.join(DATANET_FILE);
    let bytes = std::fs::read(&path).during_path("reading", &path)?;
    let published = || -> Result<(), ApiError> {
        let of = match datanets::find(database, DEMO) {
            // Another owner's datanet of that name is theirs.
            Ok(of) if of.owner != admin.key => return Ok(()),
            Ok(of) => of,
            Err(_) => datanets::create(database, admin, DEMO, DEMO_LICENCE, true)?,
        };
        if datanets::versions(database, &of)?.is_empty() {
            let submitted = datanets::submit(database, files, admin, &of, DATANET_FILE, &bytes)?;
            datanets::decide(database, admin, &of, submitted.id, None)?;
            datanets::publish(database, files, admin, &of)?;
        }
        Ok(())
    };
    published().map_err(|e| Failure::input(format!("publishing the bundled datanet: {}", e.message)))
}

/// Creates a directory that its owner alone reads: prompts and answers lie in it.
pub(crate) fn create_private(directory: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Told to end.
async fn signalled() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        return;
    }
    let _ = tokio::signal::ctrl_c().await;
}
