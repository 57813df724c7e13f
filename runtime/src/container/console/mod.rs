//! A container's console: the log its supervisor keeps, and the terminals connected to it.

mod attach;
mod keys;
mod log;
mod screen;

pub use attach::Detached;
pub use log::{ConsoleLog, last_lines, path};
pub use screen::Screen;
