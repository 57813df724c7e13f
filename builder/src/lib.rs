//! Recipe to root file system to image artefacts.
