//! A person at a browser: signs in over the web port of any node, acts, and watches a screen.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use trust::totp::TotpSecret;

pub const PASSWORD: &str = "correct horse battery";
/// Longest wait for something to show on a screen.
const SHOWN_LIMIT: Duration = Duration::from_secs(30);

/// A cookie, and a client that carries it anywhere.
#[derive(Clone)]
pub struct Person {
    client: Client,
    /// What the browser holds.
    pub cookie: String,
    /// The secret of the authenticator app, as it was shown.
    pub app_secret: String,
}

/// Asks one node without being signed in.
pub async fn as_nobody(node: &str, path: &str, body: Value) -> (StatusCode, Value) {
    let (status, _, said) = ask(&Client::new(), Method::POST, format!("{node}{path}"), "", Some(body)).await;
    (status, said)
}

/// The code that an authenticator app shows so many steps of 30 seconds from now on.
pub fn code_of(app_secret: &str, steps_ahead: u64) -> String {
    let secret = TotpSecret::parse_base32(app_secret).unwrap();
    secret.code_at(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 30 * steps_ahead)
}

/// Asks one node; the answer's status, cookie and body.
async fn ask(
    client: &Client,
    method: Method,
    url: String,
    cookie: &str,
    body: Option<Value>,
) -> (StatusCode, Option<String>, Value) {
    let mut request = client.request(method, url).header("x-auscult", "1").header("cookie", cookie);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let status = response.status();
    let set = response.headers().get("set-cookie").and_then(|value| value.to_str().ok());
    let set = set.and_then(|line| line.split(';').next()).map(str::to_owned);
    (status, set, response.json().await.unwrap_or(Value::Null))
}

impl Person {
    /// The first administrator, made with the link that one node printed, at another node.
    pub async fn first(link: &str, node: &str) -> Self {
        let token = link.split("#token=").nth(1).unwrap();
        let body = json!({"token": token, "name": "admin", "display": "Admin", "password": PASSWORD});
        let mut person = Self::with_cookie_of(format!("{node}/api/v1/setup"), body).await;
        person.add_authenticator_app(node).await;
        person
    }

    /// Somebody whom an administrator invites, at one node and then at another.
    pub async fn invited(&self, node: &str, new: Value, other: &str) -> Self {
        let (status, said) = self.post(node, "/api/v1/users", new).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        let path = said["invitation"]["path"].as_str().unwrap();
        let token = path.split("#token=").nth(1).unwrap();
        let body = json!({"token": token});
        let mut person = Self::with_cookie_of(format!("{other}/api/v1/sign-in/link"), body).await;
        let url = format!("{other}/api/v1/account/password");
        let body = json!({"password": PASSWORD});
        let (status, _, said) = ask(&person.client, Method::PUT, url, &person.cookie, Some(body)).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        person.add_authenticator_app(other).await;
        person
    }

    /// Makes the way in complete, after which the session is a whole one.
    async fn add_authenticator_app(&mut self, node: &str) {
        let (status, begun) = self.post(node, "/api/v1/account/totp/begin", json!({})).await;
        assert_eq!(status, StatusCode::OK, "{begun}");
        begun["secret"].as_str().unwrap().clone_into(&mut self.app_secret);
        let url = format!("{node}/api/v1/account/totp");
        let body = json!({"code": code_of(&self.app_secret, 0)});
        let (status, cookie, said) = ask(&self.client, Method::POST, url, &self.cookie, Some(body)).await;
        assert_eq!((status, &said["state"]), (StatusCode::OK, &json!("signed-in")), "{said}");
        self.cookie = cookie.unwrap();
    }

    async fn with_cookie_of(url: String, body: Value) -> Self {
        let client = Client::new();
        let (status, cookie, said) = ask(&client, Method::POST, url, "", Some(body)).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        Person { client, cookie: cookie.unwrap(), app_secret: String::new() }
    }

    /// The same person at another browser, with a password alone so far.
    pub async fn begins_to_sign_in(name: &str, node: &str) -> Self {
        let body = json!({"name": name, "password": PASSWORD});
        Self::with_cookie_of(format!("{node}/api/v1/sign-in"), body).await
    }

    /// Gives the code that was asked for, which must be right; the session is a whole one then.
    pub async fn gives_code(mut self, node: &str, code: &str) -> Self {
        let (url, body) = (format!("{node}/api/v1/sign-in/totp"), json!({"code": code}));
        let (status, cookie, said) = ask(&self.client, Method::POST, url, &self.cookie, Some(body)).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        self.cookie = cookie.unwrap();
        self
    }

    pub async fn call(
        &self,
        method: Method,
        node: &str,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let (status, _, body) = ask(&self.client, method, format!("{node}{path}"), &self.cookie, body).await;
        (status, body)
    }

    pub async fn get(&self, node: &str, path: &str) -> (StatusCode, Value) {
        self.call(Method::GET, node, path, None).await
    }

    pub async fn post(&self, node: &str, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, node, path, Some(body)).await
    }

    /// The same, which must be done.
    pub async fn does(&self, node: &str, path: &str, body: Value) -> Value {
        let (status, said) = self.post(node, path, body).await;
        assert!(status.is_success(), "{path}: {status} {said}");
        said
    }

    /// Watches the live events of a node from now on.
    pub async fn watch(&self, node: &str) -> Screen {
        let request = self.client.get(format!("{node}/api/v1/live")).header("cookie", &self.cookie);
        let mut response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let seen: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let events = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut text = String::new();
            while let Ok(Some(bytes)) = response.chunk().await {
                text.push_str(&String::from_utf8_lossy(&bytes));
                while let Some(end) = text.find("\n\n") {
                    let event: String = text.drain(..end + 2).collect();
                    let field = |name: &str| {
                        event
                            .lines()
                            .find_map(|line| line.strip_prefix(name))
                            .map(|rest| rest.trim().to_owned())
                    };
                    let data = field("data:").and_then(|data| serde_json::from_str(&data).ok());
                    events
                        .lock()
                        .unwrap()
                        .push((field("event:").unwrap_or_default(), data.unwrap_or(Value::Null)));
                }
            }
            events.lock().unwrap().push(("end".to_owned(), Value::Null));
        });
        let screen = Screen { seen, task };
        screen.until("it begins", |screen| !screen.events("hello").is_empty()).await;
        screen
    }
}

/// A screen with everything that it was sent.
pub struct Screen {
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Screen {
    /// Waits until what was seen is as wanted.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Screen) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            let seen = self.seen.lock().unwrap().len();
            assert!(began.elapsed() < SHOWN_LIMIT, "never: {what}, after {seen} events");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The values of one measure, in the order in which they were shown.
    pub fn values(&self, measure: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let vitals = seen.iter().filter(|(name, _)| name == "vitals");
        let vitals = vitals.flat_map(|(_, data)| data["vitals"].as_array().cloned().unwrap_or_default());
        let wanted = vitals.filter(|vital| vital.to_string().contains(measure));
        wanted.filter_map(|vital| vital["value"].as_str().map(str::to_owned)).collect()
    }

    /// The events of one name.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(event, _)| event == name).map(|(_, data)| data.clone()).collect()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.task.abort();
    }
}
