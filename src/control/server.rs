//! The daemon's end of the control socket. It survives whatever a client does: garbage, endless
//! lines, silence, or many of them at once.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Answer, MAX_TEXT, Request};

/// A request is one short word: longer lines are garbage. Bytes.
const MAX_REQUEST: u64 = 4096;
/// Characters of a request that is not understood that the answer repeats: enough to know it again.
const MOST_REPEATED: usize = 40;
/// Clients served at once; more wait in the kernel's queue.
const MAX_CLIENTS: usize = 8;
/// A client that neither asks nor takes its answer for so long is dropped.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to pause when the process has no descriptor left for a client.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

/// The listening socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Listens at `path` and hands requests on. Call only while holding the tunnel's lock: a file
    /// that is there is then a dead instance's, and is replaced.
    pub fn start(path: &Path, asked: mpsc::Sender<Asked>) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self {
            path: path.to_owned(),
            task: tokio::spawn(serve(listener, asked)),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        // Gone already is what was asked for.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(listener: UnixListener, asked: mpsc::Sender<Asked>) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    // Nobody closes the semaphore.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let asked = asked.clone();
        tokio::spawn(async move {
            // A client that hangs up or dawdles harms only itself.
            let _ = tokio::time::timeout(PATIENCE, converse(stream, asked)).await;
            drop(place);
        });
    }
}

/// Answers one line after the other until the client is done.
async fn converse(stream: UnixStream, asked: mpsc::Sender<Asked>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let length = (&mut reader)
            .take(MAX_REQUEST)
            .read_until(b'\n', &mut line)
            .await?;
        if length == 0 {
            return Ok(());
        }
        let too_long = !line.ends_with(b"\n") && length as u64 == MAX_REQUEST;
        let line = String::from_utf8_lossy(&line);
        let answer = match Request::read(&line) {
            _ if too_long => Answer::Error("the request is too long".to_owned()),
            Some(request) => hand_on(request, &asked).await,
            None => {
                let words: String = line.trim_end().chars().take(MOST_REPEATED).collect();
                Answer::Error(format!("not a request: {}", words.escape_debug()))
            }
        };
        debug_assert!(!matches!(&answer, Answer::Text(text) if text.len() > MAX_TEXT));
        writer.write_all(answer.write().as_bytes()).await?;
        if too_long {
            return Ok(());
        }
    }
}

async fn hand_on(request: Request, asked: &mpsc::Sender<Asked>) -> Answer {
    let (answer, answered) = oneshot::channel();
    let stopping = || Answer::Error("the tunnel is stopping".to_owned());
    if asked.send(Asked { request, answer }).await.is_err() {
        return stopping();
    }
    answered.await.unwrap_or_else(|_| stopping())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream as Client;

    use super::super::status::tests::local_example;
    use super::super::{AskError, Form, ask};
    use super::*;

    /// A server that answers `show`, on its own thread, and a place of its own.
    struct Fixture {
        folder: PathBuf,
        socket: PathBuf,
        stop: Option<oneshot::Sender<()>>,
        thread: Option<std::thread::JoinHandle<()>>,
    }

    impl Fixture {
        fn new(test: &str) -> Self {
            let folder =
                std::env::temp_dir().join(format!("netcombiner-{}-{test}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let socket = folder.join("nc0.sock");
            let (stop, stopped) = oneshot::channel();
            let (ready, is_ready) = std::sync::mpsc::channel();
            let path = socket.clone();
            let thread = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async move {
                    let (sender, mut asked) = mpsc::channel(4);
                    // A dead instance's file is in the way.
                    std::fs::write(&path, "").unwrap();
                    let _server = Server::start(&path, sender).unwrap();
                    ready.send(()).unwrap();
                    tokio::spawn(async move {
                        while let Some(Asked { request, answer }) = asked.recv().await {
                            let _ = answer.send(match request {
                                Request::Show(form) => {
                                    Answer::Text(local_example().text(form).unwrap())
                                }
                                Request::Down => Answer::Stopping,
                            });
                        }
                    });
                    let _ = stopped.await;
                });
            });
            is_ready.recv().unwrap();
            Self {
                folder,
                socket,
                stop: Some(stop),
                thread: Some(thread),
            }
        }

        fn client(&self) -> Client {
            let client = Client::connect(&self.socket).unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            client
        }

        /// The server still works.
        fn assert_alive(&self) {
            let answer = ask(&self.socket, Request::Show(Form::Json)).unwrap();
            let text = local_example().text(Form::Json).unwrap();
            assert_eq!(answer, Answer::Text(text));
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = self.stop.take().unwrap().send(());
            self.thread.take().unwrap().join().unwrap();
            assert!(!self.socket.exists(), "the socket's file stays behind");
            std::fs::remove_dir_all(&self.folder).unwrap();
        }
    }

    #[test]
    fn it_answers_and_only_root_may_ask() {
        let fixture = Fixture::new("answers");
        fixture.assert_alive();
        assert_eq!(
            ask(&fixture.socket, Request::Down).unwrap(),
            Answer::Stopping
        );
        let mode = std::fs::metadata(&fixture.socket)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn garbage_is_answered_and_the_line_goes_on() {
        let fixture = Fixture::new("garbage");
        let mut client = fixture.client();
        client
            .write_all(b"\x00\xff{\nshow 1\n\nshow dump\n")
            .unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = io::BufReader::new(client);
        for _ in 0..3 {
            assert!(matches!(
                Answer::read(&mut answers).unwrap(),
                Answer::Error(_)
            ));
        }
        assert!(matches!(
            Answer::read(&mut answers).unwrap(),
            Answer::Text(_)
        ));
        assert!(Answer::read(&mut answers).is_err());
    }

    #[test]
    fn a_huge_line_is_cut_off() {
        let fixture = Fixture::new("huge");
        let mut client = fixture.client();
        // The server stops reading: the write may fail half way, and that is right.
        let _ = client.write_all(&vec![b'x'; 4 << 20]);
        let mut bytes = Vec::new();
        let _ = client.read_to_end(&mut bytes);
        assert!(bytes.len() < 200, "{}", bytes.len());
        fixture.assert_alive();
    }

    #[test]
    fn silent_clients_block_nobody_for_long() {
        let fixture = Fixture::new("silent");
        let silent: Vec<Client> = (0..MAX_CLIENTS + 4).map(|_| fixture.client()).collect();
        std::thread::sleep(PATIENCE + Duration::from_millis(500));
        fixture.assert_alive();
        drop(silent);
    }

    #[test]
    fn nobody_there_is_no_riddle() {
        let nowhere = std::env::temp_dir().join("netcombiner-no-such.sock");
        assert!(matches!(
            ask(&nowhere, Request::Show(Form::Pretty)),
            Err(AskError::NotRunning)
        ));
    }
}
