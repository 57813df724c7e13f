//! Every downloader against a mirror in its distribution's real layout.

mod architectures;
mod archives;
mod distributions;
mod hostile;
mod images;
mod registry;
mod server;
mod table;
