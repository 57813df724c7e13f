//! Every downloader against a mirror in its distribution's real layout.

mod distributions;
mod hostile;
mod images;
mod server;
mod table;
