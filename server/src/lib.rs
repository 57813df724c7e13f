//! Stream trees: add, verify, sign, and serve them over HTTPS.
