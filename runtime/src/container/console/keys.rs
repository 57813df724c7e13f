//! What is typed while connected to a console: all of it is the container's, but for the keys that
//! disconnect.

/// Ctrl-a.
const ESCAPE: u8 = 1;

/// Looks for Ctrl-a q, also when it comes in two pieces. Ctrl-a twice is one Ctrl-a for the container.
#[derive(Default)]
pub struct Keys {
    escaped: bool,
}

impl Keys {
    /// What of `typed` is the container's, and whether the user wants to leave.
    pub fn take(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut meant = Vec::with_capacity(typed.len() + 1);
        for &key in typed {
            if !self.escaped {
                self.escaped = key == ESCAPE;
                if !self.escaped {
                    meant.push(key);
                }
                continue;
            }
            self.escaped = false;
            match key {
                b'q' => return (meant, true),
                ESCAPE => meant.push(ESCAPE),
                other => meant.extend([ESCAPE, other]),
            }
        }
        (meant, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ctrl_a_q_leaves() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"ls\r"), (b"ls\r".to_vec(), false));
        assert_eq!(keys.take(b"q\x01"), (b"q".to_vec(), false));
        assert_eq!(keys.take(b"b\x01\x01q"), (b"\x01b\x01q".to_vec(), false));
        assert_eq!(keys.take(b"x\x01"), (b"x".to_vec(), false));
        assert_eq!(keys.take(b"qrest"), (Vec::new(), true));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(typed: Vec<u8>, at: prop::sample::Index) {
            let whole = Keys::default().take(&typed);
            let (first, second) = typed.split_at(at.index(typed.len() + 1));
            let mut keys = Keys::default();
            let (mut meant, mut left) = keys.take(first);
            if !left {
                let (more, then) = keys.take(second);
                meant.extend(more);
                left = then;
            }
            prop_assert_eq!((meant, left), whole);
        }
    }
}
