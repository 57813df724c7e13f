//! Stream trees and the HTTPS service that serves them.
