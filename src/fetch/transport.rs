//! Our HTTP client under gix's Git protocol.
//!
//! gix writes a request's body after it has asked for the request, and reads the answer's headers and body through two handles:
//! the request is therefore sent when the first of them is read. Bodies are small (wants and haves), so they are kept whole and
//! sent with their length.

use std::any::Any;
use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use gix_transport::client::blocking_io::http;

use super::attempt::Attempt;
use super::http::{Http, Response, ResponseBody};

/// The largest request gix may make: wants and haves are 50 bytes each, and negotiation sends them in rounds.
const MAX_REQUEST_BYTES: usize = 16 << 20;

/// How much of an unread answer is read away to keep its connection.
const MAX_DRAINED_BYTES: u64 = 64 << 10;

/// gix's idea of an HTTP client, for the requests of one attempt.
pub struct GitHttp {
    http: Arc<Http>,
    attempt: Rc<Attempt>,
}

impl GitHttp {
    /// Requests by `http`, within `attempt`.
    pub fn new(http: Arc<Http>, attempt: Rc<Attempt>) -> Self {
        GitHttp { http, attempt }
    }

    fn exchange(&self, url: &str, headers: &[String], body: Option<&[u8]>) -> io::Result<Response> {
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name, value.trim()))
            // Ours says who we are.
            .filter(|(name, _)| !name.eq_ignore_ascii_case("user-agent"))
            .collect();
        self.http
            .request(&self.attempt, url, &headers, body)
            .map_err(|trouble| io::Error::other(trouble.failure))
    }
}

impl http::Http for GitHttp {
    type Headers = Headers;
    type ResponseBody = Body;
    type PostBody = PostBody;

    fn get(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<http::GetResponse<Headers, Body>, gix::Error> {
        let headers = collect(headers);
        let response = self
            .exchange(url, &headers, None)
            .map_err(gix::Error::from_error)?;
        let state = Rc::new(RefCell::new(State::answered(response)));
        Ok(http::GetResponse {
            headers: Headers(Half::new(&state)),
            body: Body(Half::new(&state)),
        })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _body: http::PostBodyDataKind,
    ) -> Result<http::PostResponse<Headers, Body, PostBody>, gix::Error> {
        let state = Rc::new(RefCell::new(State::Pending {
            client: GitHttp::new(self.http.clone(), self.attempt.clone()),
            url: url.to_owned(),
            headers: collect(headers),
            body: Vec::new(),
        }));
        Ok(http::PostResponse {
            post_body: PostBody(state.clone()),
            headers: Headers(Half::new(&state)),
            body: Body(Half::new(&state)),
        })
    }

    /// gix offers options that an operator's Git configuration may hold; ours come from the host configuration alone.
    fn configure(&mut self, _config: &dyn Any) -> Result<(), gix::Error> {
        Ok(())
    }
}

fn collect(headers: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    headers
        .into_iter()
        .map(|line| line.as_ref().to_owned())
        .collect()
}

enum State {
    Pending {
        client: GitHttp,
        url: String,
        headers: Vec<String>,
        body: Vec<u8>,
    },
    Answered {
        headers: Option<Cursor<Vec<u8>>>,
        body: Option<BufReader<ResponseBody>>,
    },
}

impl State {
    fn answered(response: Response) -> Self {
        let mut lines = Vec::new();
        for (name, value) in &response.headers {
            lines.extend(name.as_str().as_bytes());
            lines.push(b':');
            lines.extend(value.as_bytes());
            lines.push(b'\n');
        }
        State::Answered {
            headers: Some(Cursor::new(lines)),
            body: Some(BufReader::with_capacity(64 << 10, response.body)),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if let State::Pending {
            client,
            url,
            headers,
            body,
        } = self
        {
            let response = client.exchange(url, headers, Some(body))?;
            *self = State::answered(response);
        }
        Ok(())
    }
}

/// Where gix writes the body of a POST.
pub struct PostBody(Rc<RefCell<State>>);

impl Write for PostBody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.borrow_mut() {
            State::Pending { body, .. } if body.len() + bytes.len() <= MAX_REQUEST_BYTES => {
                body.extend(bytes);
                Ok(bytes.len())
            }
            State::Pending { .. } => Err(io::Error::other("the request grew too large")),
            State::Answered { .. } => Err(io::Error::other("the request is already sent")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One of the two things an answer is made of, taken out of the shared state when it is first read.
struct Half<T> {
    state: Option<Rc<RefCell<State>>>,
    taken: Option<T>,
}

impl<T> Half<T> {
    fn new(state: &Rc<RefCell<State>>) -> Self {
        Half {
            state: Some(state.clone()),
            taken: None,
        }
    }

    fn taken(&mut self, take: impl Fn(&mut State) -> Option<T>) -> io::Result<&mut T> {
        if let Some(state) = self.state.take() {
            let mut state = state.borrow_mut();
            state.send()?;
            self.taken = take(&mut state);
        }
        self.taken
            .as_mut()
            .ok_or_else(|| io::Error::other("the request has failed"))
    }
}

/// An answer's headers, line by line.
pub struct Headers(Half<Cursor<Vec<u8>>>);

impl Headers {
    fn taken(&mut self) -> io::Result<&mut Cursor<Vec<u8>>> {
        self.0.taken(|state| match state {
            State::Answered { headers, .. } => headers.take(),
            State::Pending { .. } => None,
        })
    }
}

impl Read for Headers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.taken()?.read(buffer)
    }
}

impl BufRead for Headers {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.taken()?.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if let Some(headers) = &mut self.0.taken {
            headers.consume(amount);
        }
    }
}

/// An answer's body.
pub struct Body(Half<BufReader<ResponseBody>>);

impl Body {
    fn taken(&mut self) -> io::Result<&mut BufReader<ResponseBody>> {
        self.0.taken(|state| match state {
            State::Answered { body, .. } => body.take(),
            State::Pending { .. } => None,
        })
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.taken()?.read(buffer)
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.taken()?.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if let Some(body) = &mut self.0.taken {
            body.consume(amount);
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(body) = &mut self.0.taken {
            // Only for the connection's sake: an error has been reported where it mattered, or matters no more.
            let _ = io::copy(&mut body.take(MAX_DRAINED_BYTES), &mut io::sink());
        }
    }
}
