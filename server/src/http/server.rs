//! The listener and its connections.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use axum::middleware;
use axum::routing::{any, get};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::access::{Areas, CurrentAreas};
use super::answer::answer;
use super::api;
use super::certificate::{Certificate, Tls};
use super::clients;
use super::control::{Control, Order, Settings};
use super::daily;
use super::direct;
use super::gate::{self, Gate, Peer};
use super::listen::Listeners;
use super::log::{AccessLog, Pending};
use super::metrics::{self, Connected, Metrics};
use super::offer::Offers;
use super::push;
use super::rates::Rates;
use super::site::{Served, Site};
use super::stall::{Progress, Watched};
use super::status;
use super::zipped::Zipped;
use crate::Result;
use crate::daily::History;
use crate::pull::Pull;
use crate::push::{self as uploads, Push};
use crate::shared::Reader;

/// How often certificates are looked at, when nobody says otherwise: renewed, or read again when the
/// operator changed them.
const CERTIFICATE_CHECK: Duration = Duration::from_mins(1);
/// How often uploads that nobody goes on with are looked for.
const EXPIRY_CHECK: Duration = Duration::from_mins(10);
/// How long a connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// What to serve, and where.
pub struct Options {
    /// The tree.
    pub root: PathBuf,
    /// What is served in its place, where the stream is in a shared storage.
    pub shared: Option<Arc<Reader>>,
    /// Address and port, as `127.0.0.1:8443`; port 0 lets the system choose.
    pub listen: String,
    /// Encryption.
    pub tls: Tls,
    /// Bounds on what clients may cost.
    pub limits: Limits,
    /// Who may come in, and how often.
    pub gate: Gate,
    /// Told of every request.
    pub access_log: Option<AccessLog>,
    /// Shows what was built, where this server builds.
    pub history: Option<Arc<History>>,
    /// Takes what those push who may; of the same root.
    pub push: Option<Arc<Push>>,
}

/// Bounds on what clients may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; further ones wait. Each may cost two file descriptors.
    pub connections: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the head of a request.
    pub head: Duration,
    /// Without a byte either way, idle or in a response.
    pub stall: Duration,
    /// For requests under way when the server is asked to stop.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(15),
            stall: Duration::from_mins(1),
            shutdown: Duration::from_secs(30),
        }
    }
}

/// A server that has its port.
pub struct Server {
    root: PathBuf,
    listeners: Listeners,
    addresses: Vec<SocketAddr>,
    app: Router,
    served: Arc<Served>,
    certificate: Certificate,
    certificate_check: Duration,
    limits: Limits,
    access_log: Option<AccessLog>,
    say: Arc<dyn Fn(&str) + Send + Sync>,
    orders: (mpsc::Sender<Order>, mpsc::Receiver<Order>),
}

impl Server {
    /// Takes the port and reads, or makes, the certificate.
    ///
    /// # Errors
    /// [`Error::Listen`] when the port is not to be had, [`Error::Tree`] when the root is no stream,
    /// [`Error::Tls`].
    pub async fn bind(options: Options) -> Result<Self> {
        Self::bind_with(options, None).await
    }

    /// The same; what is not in the tree yet comes through `pull`, which is of the same root.
    pub async fn bind_with(options: Options, pull: Option<Arc<Pull>>) -> Result<Self> {
        Self::bind_or_adopt(options, pull, Vec::new()).await
    }

    /// The same on sockets that somebody else listens on, if there are any.
    pub async fn bind_or_adopt(
        options: Options,
        pull: Option<Arc<Pull>>,
        sockets: Vec<std::net::TcpListener>,
    ) -> Result<Self> {
        let site = match options.shared {
            None => Site::new(&options.root)?,
            Some(reader) => {
                reader.check().await?;
                Site::shared(reader)
            }
        };
        let served = Arc::new(Served {
            site,
            offers: Offers::default(),
            zipped: Zipped::default(),
            metrics: Metrics::default(),
            history: options.history,
            areas: CurrentAreas::new(options.gate.areas),
            rates: Arc::new(Rates::new(options.gate.limits)),
            pull,
            push: options.push,
        });
        let listeners = match sockets.len() {
            0 => Listeners::bind(&options.listen).await?,
            _ => Listeners::adopt(sockets)?,
        };
        let addresses = listeners.addresses()?;
        let ask = served.areas.now().want_certificates();
        Ok(Self {
            listeners,
            certificate: Certificate::new(options.tls, addresses.clone(), ask)?,
            addresses,
            app: application(&served),
            served,
            certificate_check: CERTIFICATE_CHECK,
            root: options.root,
            limits: options.limits,
            access_log: options.access_log,
            say: Arc::new(|_| ()),
            orders: mpsc::channel(4),
        })
    }

    /// Where it listens, first.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Everywhere it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What becomes of changed certificates is told to `say`; they are looked at so often.
    #[must_use]
    pub fn telling(self, say: Arc<dyn Fn(&str) + Send + Sync>, certificate_check: Duration) -> Self {
        Self { certificate_check, say, ..self }
    }

    /// Speaks to it while it runs.
    pub fn control(&self) -> Control {
        Control(self.orders.0.clone())
    }

    /// Serves until `stop` is done; then requests under way may finish, within the limit.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let limits = self.limits;
        let permits = Arc::new(Semaphore::new(limits.connections));
        let (stopping, stopped) = watch::channel(false);
        let log = self.log();
        let mut check = interval(self.certificate_check);
        let expiring = tokio::spawn(expire(self.root.clone()));
        loop {
            let accepted = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, self.listeners.accept().await)
            };
            let accepted = tokio::select! {
                () = &mut stop => break,
                _ = check.tick() => {
                    self.check_certificate();
                    continue;
                }
                Some(order) = self.orders.1.recv() => {
                    self.obey(order);
                    continue;
                }
                accepted = accepted => accepted,
            };
            let (Ok(permit), Ok((stream, peer))) = accepted else {
                // Most often the process has no file descriptor left; some will come back.
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            // One address too often: it learns by the closed connection.
            let Some(counted) = self.served.rates.connection(peer.ip()) else { continue };
            let connection = Connection {
                service: Service {
                    peer: Peer { address: peer, certificate: None },
                    app: TowerToHyperService::new(self.app.clone()),
                    log: Arc::clone(&log),
                },
                limits,
                stopped: stopped.clone(),
            };
            let tls = self.certificate.acceptor();
            let connected = Connected::new(Arc::clone(&self.served));
            tokio::spawn(async move {
                connection.accept(stream, tls).await;
                drop((permit, connected, counted));
            });
        }
        expiring.abort();
        drop((self.listeners, self.orders));
        let _ = stopping.send(true);
        // All permits back means all connections gone.
        let _ = timeout(limits.shutdown, permits.acquire_many(limits.connections as u32)).await;
    }

    /// Told of every request: the metrics, then the operator.
    fn log(&mut self) -> AccessLog {
        let (served, operator) = (Arc::clone(&self.served), self.access_log.take());
        Arc::new(move |access| {
            served.metrics.observe(access);
            if let Some(log) = &operator {
                log(access);
            }
        })
    }

    fn check_certificate(&mut self) {
        match self.certificate.check() {
            Ok(true) => (self.say)("the certificate changed; new connections get the new one"),
            Ok(false) => {}
            Err(error) => (self.say)(&format!("{error}; the certificate from before stays in use")),
        }
    }

    /// Who asked may have gone; that changes nothing.
    fn obey(&mut self, order: Order) {
        match order {
            Order::Answer(answer) => drop(answer.send(())),
            Order::Reload(settings, answer) => drop(answer.send(self.reload(settings))),
        }
    }

    fn reload(&mut self, settings: Settings) -> Result<()> {
        let areas = Areas::new(settings.gate.areas);
        self.certificate.replace(&settings.tls, areas.want_certificates())?;
        self.served.areas.replace(areas);
        self.served.rates.set_limits(settings.gate.limits);
        Ok(())
    }
}

fn application(served: &Arc<Served>) -> Router {
    let api = get(api::answer).fallback(api::answer);
    let direct = get(direct::answer).fallback(direct::answer);
    Router::new()
        .route(api::ROOT, api.clone())
        .route(&format!("{}/{{*rest}}", api::ROOT), api)
        .route(&format!("{}/{{*alias}}", direct::ROOT), direct)
        .route("/daily", get(daily::page))
        .route("/daily.json", get(daily::json))
        .route("/healthz", get(metrics::health))
        .route("/metrics", get(metrics::answer))
        .route("/status.json", get(status::answer))
        .route(uploads::PATH, any(push::answer))
        .route(&format!("{}/{{*rest}}", uploads::PATH), any(push::answer))
        .fallback(answer)
        .layer(middleware::from_fn_with_state(Arc::clone(served), gate::guard))
        .with_state(Arc::clone(served))
}

/// Clears away uploads that nobody goes on with. What cannot be removed here is left to the tree's owner.
async fn expire(root: PathBuf) {
    let mut check = interval(EXPIRY_CHECK);
    loop {
        check.tick().await;
        let root = root.clone();
        drop(tokio::task::spawn_blocking(move || uploads::expire(&root, SystemTime::now())).await);
    }
}

/// Lets this process open as many files as it may: a connection can need two. What the system then
/// allows is found out at use.
pub fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// So many bytes at most wait in the kernel for a client that is slow to take them; without a bound they are
/// megabytes, and a thousand such clients use up all the memory the kernel has for TCP.
const UNSENT: u32 = 256 << 10;

struct Connection {
    service: Service,
    limits: Limits,
    stopped: watch::Receiver<bool>,
}

impl Connection {
    async fn accept(mut self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        let progress = Progress::new();
        let stream = Watched::new(stream, progress.clone());
        match tls {
            None => self.serve(stream, &progress).await,
            // A client that does not get through its handshake is not worth a word.
            Some(tls) => {
                if let Ok(Ok(stream)) = timeout(self.limits.handshake, tls.accept(stream)).await {
                    self.service.peer.certificate =
                        clients::fingerprint(stream.get_ref().1.peer_certificates());
                    self.serve(stream, &progress).await;
                }
            }
        }
    }

    async fn serve(mut self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static, progress: &Progress) {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.limits.head).max_buf_size(64 << 10);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64).max_header_list_size(32 << 10);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), self.service));
        let stopped = async { drop(self.stopped.wait_for(|stopped| *stopped).await) };
        let stalled = tokio::select! {
            _ = connection.as_mut() => return,
            () = progress.stalled(self.limits.stall) => true,
            () = stopped => false,
        };
        connection.as_mut().graceful_shutdown();
        if stalled {
            let _ = timeout(GOODBYE, connection).await;
            return;
        }
        tokio::select! {
            _ = connection => {}
            () = progress.stalled(self.limits.stall) => {}
        }
    }
}

/// The application for one peer, with its log.
struct Service {
    peer: Peer,
    app: TowerToHyperService<Router>,
    log: AccessLog,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let pending = Pending::new(self.peer.address, &request, self.log.clone());
        request.extensions_mut().insert(self.peer);
        let answer = self.app.call(request);
        Box::pin(async move { Ok(pending.follow(answer.await?)) })
    }
}
