//! Inits are asked to shut down in the way they understand. Those of distributions are in the tests of
//! the boot test.

mod support;

use std::time::Duration;

use millstream_runtime::container::{HALT_SIGNAL, Init, Stopped};
use support::{Recipe, World, eventually, traces};

/// An init that ends at this signal alone.
fn script(signal: &str) -> String {
    format!(
        "#!/bin/sh\ntrap 'echo asked; exit 0' {signal}\ntouch /tmp/ready\nwhile true; do sleep 0.1; done\n"
    )
}

#[test]
fn by_the_signal_that_the_image_names_or_the_init_handles() {
    let world = World::new();
    for (signal, property) in [
        ("PWR", None),
        ("TERM", None),
        ("USR1", Some((HALT_SIGNAL, "SIGUSR1"))),
        ("RTMIN+4", Some((HALT_SIGNAL, "SIGRTMIN+4"))),
        // Nonsense is as nothing.
        ("PWR", Some((HALT_SIGNAL, "SIGNONSENSE"))),
    ] {
        // busybox' shell knows real-time signals by number alone.
        let number = signal.replace("RTMIN+4", &(libc::SIGRTMIN() + 4).to_string());
        let image = world.image(&Recipe { init: Some(&script(&number)), property, ..Recipe::default() });
        let container = world.launch_from("sig", &image);
        let pid = container.info().pid.unwrap();
        assert_eq!(Init::of(pid), Init::Other, "a shell is no init of busybox");
        let listens = || container.dir().join("changes/upper/tmp/ready").exists();
        eventually("it listens", listens);
        let stopped = world.runtime.stop(&container.name, Duration::from_secs(20)).unwrap();
        assert_eq!(stopped, Stopped::Cleanly, "{signal} {property:?}");
        assert!(container.console().contains("asked"), "{signal} {property:?}");
        assert_eq!(traces(&container.name, &world), Vec::<String>::new());
    }
}

#[test]
fn busybox_powers_off_when_the_host_goes_down() {
    let world = World::new();
    let container = world.launch("host");
    eventually("busybox listens", || {
        let pid = container.info().pid.unwrap();
        Init::of(pid) == Init::Busybox && container.sh("ps | grep -q '[s]leep 100000'") == 0
    });
    // As systemd ends what is left: the supervisor is asked.
    let supervisor = rustix::process::Pid::from_raw(container.supervisor()).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::TERM).unwrap();
    eventually("it is off", || container.info().last_exit.is_some());
    assert_eq!(container.info().last_exit.unwrap().code, 0);
    assert_eq!(traces(&container.name, &world), Vec::<String>::new());
}
