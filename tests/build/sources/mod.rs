//! Every downloader against a mirror in its distribution's real layout.

mod architectures;
mod archives;
mod compiled;
mod distributions;
mod hostile;
mod images;
mod minisign;
mod pkgtools;
mod registry;
mod rpm;
mod server;
mod table;
