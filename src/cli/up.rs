//! `up`.

use std::path::PathBuf;

use clap::Args;

#[derive(Args)]
#[command(after_help = "\
Everything made on the way is kept and used again: the signing key, the certificate authority,
and the image as long as recipe and packages are the same.

    millstream up                                   Debian, in the release this host runs
    millstream up -o image.release=trixie           another release
    millstream up my.yaml --root /srv/images        another recipe, another place")]
pub struct Up {
    /// Recipe file [default: Debian, which comes with the program]
    pub recipe: Option<PathBuf>,
    /// Override a recipe value, as in -o image.release=trixie
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    pub options: Vec<String>,
    /// The stream to publish into
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Address and port to serve on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    pub listen: String,
}
