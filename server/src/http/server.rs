//! The listener and its connections.

use std::future::Future;
use std::io;
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
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::access::Areas;
use super::answer::answer;
use super::api;
use super::clients;
use super::daily;
use super::direct;
use super::gate::{self, Gate, Peer};
use super::log::{AccessLog, Pending};
use super::metrics::{self, Connected, Metrics};
use super::offer::Offers;
use super::push;
use super::rates::Rates;
use super::site::{Served, Site};
use super::stall::{Progress, Watched};
use super::status;
use crate::daily::History;
use crate::pull::Pull;
use crate::push::{self as uploads, Push};
use crate::tls::{self, LocalAuthority};
use crate::{Error, Result};

/// How often certificates are looked at: renewed, or read again when the operator changed them.
const CERTIFICATE_CHECK: Duration = Duration::from_hours(12);
/// How often uploads that nobody goes on with are looked for.
const EXPIRY_CHECK: Duration = Duration::from_mins(10);
/// How long a connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// What to serve, and where.
pub struct Options {
    /// The tree.
    pub root: PathBuf,
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

/// Encryption.
#[derive(Clone, Debug)]
pub enum Tls {
    /// None: for tests, and behind a proxy that has it.
    Off,
    /// By a certificate of one's own authority; further names the server is called.
    Local(LocalAuthority, Vec<String>),
    /// By a certificate chain and key in PEM files.
    Files(PathBuf, PathBuf),
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
    listener: TcpListener,
    address: SocketAddr,
    app: Router,
    served: Arc<Served>,
    tls: Option<Arc<ServerConfig>>,
    options: Options,
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
        let site = Site::new(&options.root)?;
        let served = Arc::new(Served {
            site,
            offers: Offers::default(),
            metrics: Metrics::default(),
            history: options.history.clone(),
            areas: Areas::new(options.gate.areas.clone()),
            rates: Arc::new(Rates::new(options.gate.limits)),
            pull,
            push: options.push.clone(),
        });
        let listen = &options.listen;
        let listener = TcpListener::bind(listen).await.map_err(|error| unavailable(listen, &error))?;
        let address = listener.local_addr().map_err(|error| unavailable(listen, &error))?;
        let tls = certificate(&options.tls, address, served.areas.want_certificates())?;
        let api = get(api::answer).fallback(api::answer);
        let direct = get(direct::answer).fallback(direct::answer);
        let app = Router::new()
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
            .layer(middleware::from_fn_with_state(Arc::clone(&served), gate::guard))
            .with_state(Arc::clone(&served));
        Ok(Self { listener, address, app, served, tls, options })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is done; then requests under way may finish, within the limit.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let limits = self.options.limits;
        let permits = Arc::new(Semaphore::new(limits.connections));
        let (stopping, stopped) = watch::channel(false);
        let (served, operator) = (Arc::clone(&self.served), self.options.access_log.take());
        let log: AccessLog = Arc::new(move |access| {
            served.metrics.observe(access);
            if let Some(log) = &operator {
                log(access);
            }
        });
        let mut check = interval(CERTIFICATE_CHECK);
        let expiring = tokio::spawn(expire(self.options.root.clone()));
        loop {
            let accepted = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, self.listener.accept().await)
            };
            let accepted = tokio::select! {
                () = &mut stop => break,
                _ = check.tick() => {
                    // A certificate that cannot be read now is no reason to drop the one in use.
                    if let Ok(config) = certificate(&self.options.tls, self.address, self.served.areas.want_certificates()) {
                        self.tls = config;
                    }
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
            let tls = self.tls.clone().map(TlsAcceptor::from);
            let connected = Connected::new(Arc::clone(&self.served));
            tokio::spawn(async move {
                connection.accept(stream, tls).await;
                drop((permit, connected, counted));
            });
        }
        expiring.abort();
        drop(self.listener);
        let _ = stopping.send(true);
        // All permits back means all connections gone.
        let _ = timeout(limits.shutdown, permits.acquire_many(limits.connections as u32)).await;
    }
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

fn certificate(tls: &Tls, address: SocketAddr, ask: bool) -> Result<Option<Arc<ServerConfig>>> {
    match tls {
        Tls::Off => Ok(None),
        Tls::Local(authority, extra) => {
            let config = authority.server_config(&tls::names(address, extra), SystemTime::now())?;
            let (cert, key) = authority.server_paths();
            if ask { tls::from_files_asking(&cert, &key).map(Some) } else { Ok(Some(config)) }
        }
        Tls::Files(cert, key) if ask => tls::from_files_asking(cert, key).map(Some),
        Tls::Files(cert, key) => tls::from_files(cert, key).map(Some),
    }
}

fn unavailable(listen: &str, error: &io::Error) -> Error {
    let reason = match error.kind() {
        io::ErrorKind::AddrInUse => "another program has this port; choose another with --listen".into(),
        io::ErrorKind::PermissionDenied => "ports below 1024 are root's; choose another with --listen".into(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".into(),
        _ => error.to_string(),
    };
    Error::Listen { address: listen.to_owned(), reason }
}

struct Connection {
    service: Service,
    limits: Limits,
    stopped: watch::Receiver<bool>,
}

impl Connection {
    async fn accept(mut self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let _ = stream.set_nodelay(true);
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
