//! The stub's server and its handle.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fault::{Fault, Moment, NextFault};
use super::service::Service;
use super::{http, routes};

/// A running stub. Its threads end with the process.
pub(crate) struct BatchStub {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    service: Mutex<Service>,
    script: Mutex<BatchScript>,
}

/// What the stub does besides answering.
#[derive(Default)]
struct BatchScript {
    faults: Vec<NextFault>,
    /// Requests so far, each as method and path.
    log: Vec<String>,
    kill: Option<(usize, Moment)>,
    /// Process to kill.
    process: Option<u32>,
    was_killed: bool,
}

impl BatchStub {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let shared = Arc::<Shared>::default();
        shared.service().polls = 1;
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&own);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { addr, shared }
    }

    /// Returns its address without a path.
    pub(crate) fn root_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Returns the state of the service.
    pub(crate) fn service(&self) -> MutexGuard<'_, Service> {
        self.shared.service()
    }

    /// Adds a fault for the next request whose method and path begin with `wanted`.
    pub(crate) fn fail(&self, wanted: &'static str, fault: Fault) {
        self.shared.script().faults.push(NextFault { wanted, fault });
    }

    /// Kills the process at its request with this number, from 1.
    pub(crate) fn kill_at(&self, number: usize, moment: Moment) {
        let mut script = self.shared.script();
        (script.kill, script.process, script.was_killed) = (Some((number, moment)), None, false);
        script.log.clear();
    }

    /// Sets the process that is killed.
    pub(crate) fn watch(&self, process: u32) {
        self.shared.script().process = Some(process);
    }

    /// Returns true if the process was killed.
    pub(crate) fn has_killed(&self) -> bool {
        self.shared.script().was_killed
    }

    /// Returns all requests so far, each as method and path.
    pub(crate) fn log(&self) -> Vec<String> {
        self.shared.script().log.clone()
    }

    /// Returns the number of requests whose method and path begin so.
    pub(crate) fn count(&self, wanted: &str) -> usize {
        self.log().iter().filter(|line| line.starts_with(wanted)).count()
    }

    /// Checks that no rule of the service was violated.
    pub(crate) fn is_content(&self) {
        assert_eq!(self.service().violations, Vec::<String>::new());
    }
}

impl Shared {
    fn service(&self) -> MutexGuard<'_, Service> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn script(&self) -> MutexGuard<'_, BatchScript> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: TcpStream) {
        let Some(request) = http::read(&mut stream) else { return };
        let (fault, kill) = {
            let mut script = self.script();
            script.log.push(format!("{} {}", request.method, request.path()));
            let number = script.log.len();
            let kill = script.kill.filter(|(wanted, _)| *wanted == number).map(|(_, moment)| moment);
            let fault = script.faults.iter().position(|next| next.concerns(&request));
            (fault.map(|place| script.faults.remove(place).fault), kill)
        };
        if kill == Some(Moment::Before) {
            return self.kill();
        }
        match fault {
            Some(Fault::Status(status, code)) => {
                let (status, body) = routes::refusal(status, code);
                return http::write(&mut stream, status, &body);
            }
            Some(Fault::DropBefore) => return,
            Some(Fault::Delay(time)) => std::thread::park_timeout(time),
            Some(Fault::DropAfter) | None => {}
        }
        let (status, body) = routes::answer(&mut self.service(), &request);
        if kill == Some(Moment::After) {
            return self.kill();
        }
        if fault != Some(Fault::DropAfter) {
            http::write(&mut stream, status, &body);
        }
    }

    fn kill(&self) {
        // The test names the process right after its start.
        let begun = Instant::now();
        let process = loop {
            if let Some(process) = self.script().process {
                break process;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "the test names the process");
            std::thread::yield_now();
        };
        // The test reads this once the process has ended.
        self.script().was_killed = true;
        let killed = Command::new("kill").args(["-9", &process.to_string()]).status().expect("kill must run");
        assert!(killed.success(), "process {process} must still run");
    }
}
