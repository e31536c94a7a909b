//! Asks Prometheus servers and HTTP plugins, beside the engine: a slow answer holds no look at a running batch up.
//!
//! What comes back is kept with its time, in memory: after a restart it is asked again. Bounded: one question at a time
//! per check and change, a timeout, a largest answer, and no redirects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Client, RequestBuilder, redirect};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use weir_model::check::{Ask, At, Http, Promql, Said};
use weir_model::{Change, CheckSpec};

use super::own::{Asked, Heard, Hearsay, no, number};
use super::{Answer, Facts, facts};
use crate::plan::later;

/// Largest answer that is read, in bytes.
pub const MAX_ANSWER: usize = 64 << 10;
/// Longest message of an answer that is kept, in characters.
const MAX_MESSAGE: usize = 500;
/// Most answers kept of one change: checks times stages.
const MAX_HEARD: usize = 500;

/// Answers by change, and who asks for them.
#[derive(Debug)]
pub struct Probes {
    client: Client,
    book: Arc<Mutex<Book>>,
}

#[derive(Debug, Default)]
struct Book {
    heard: BTreeMap<String, Hearsay>,
    asking: BTreeSet<(String, Asked)>,
}

impl Default for Probes {
    fn default() -> Probes {
        Probes::new()
    }
}

impl Probes {
    /// Asks without redirects and through no proxy.
    pub fn new() -> Probes {
        let client = Client::builder().redirect(redirect::Policy::none()).no_proxy().build();
        let client = client.expect("a client without TLS needs nothing of the system");
        Probes { client, book: Arc::default() }
    }

    /// Everything that was heard for the change of this uid.
    pub fn heard(&self, uid: &str) -> Hearsay {
        self.lock().heard.get(uid).cloned().unwrap_or_default()
    }

    /// Forgets a change that has ended.
    pub fn forget(&self, uid: &str) {
        self.lock().heard.remove(uid);
    }

    /// Puts an answer down, as if it had been asked.
    pub fn put(&self, uid: &str, asked: Asked, heard: Heard) {
        put(&self.book, uid, asked, heard);
    }

    /// Asks whatever is due at this stage and not being asked already: who is waiting for what. Dropped, they ask on.
    /// Needs a tokio runtime where there is such a check.
    pub fn ask(&self, facts: &Facts, at: At) -> Vec<JoinHandle<()>> {
        let remote = |spec: &CheckSpec| !matches!(spec.ask, Ask::Cel(_));
        let now_due = |spec: &CheckSpec| spec.at.contains(&at) || at == At::Change && spec.at.contains(&At::Batch);
        let due: Vec<&(String, CheckSpec)> =
            facts.world.checks.iter().filter(|(_, spec)| remote(spec) && now_due(spec)).collect();
        let batch = number(&facts.stage);
        let mut asking = Vec::new();
        for (name, spec) in due {
            let asked = Asked { check: name.clone(), at, batch };
            if self.begin(&facts.change.metadata.uid, &asked, spec, facts.now) {
                asking.push(self.spawn(facts, asked, spec.clone()));
            }
        }
        asking
    }

    /// True if it is to be asked now; it is then being asked.
    fn begin(&self, uid: &str, asked: &Asked, spec: &CheckSpec, now: Timestamp) -> bool {
        let mut book = self.lock();
        let last = book.heard.get(uid).and_then(|heard| heard.get(asked)).map(|h| h.time);
        let early = last.is_some_and(|last| later(last, spec.interval_seconds) > now);
        !early && book.asking.insert((uid.to_owned(), asked.clone()))
    }

    fn spawn(&self, facts: &Facts, asked: Asked, spec: CheckSpec) -> JoinHandle<()> {
        let known = facts::json(facts, asked.at);
        let request = request(&self.client, facts.change, &spec, &known);
        let (uid, now, book) = (facts.change.metadata.uid.clone(), facts.now, self.book.clone());
        tokio::spawn(async move {
            let timeout = Duration::from_secs(spec.timeout_seconds);
            let late = || Err(format!("no answer within {} s", spec.timeout_seconds));
            let begun = tokio::time::Instant::now();
            let body = tokio::time::timeout(timeout, fetch(request)).await.unwrap_or_else(|_| late());
            let answer = body.and_then(|body| read(&spec, &body));
            // On the engine's own clock, which a test may hold still.
            let time = now.checked_add(begun.elapsed()).unwrap_or(now);
            put(&book, &uid, asked, Heard { time, answer });
        })
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(book: &Mutex<Book>, uid: &str, asked: Asked, heard: Heard) {
    let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
    book.asking.remove(&(uid.to_owned(), asked.clone()));
    let known = Arc::make_mut(book.heard.entry(uid.to_owned()).or_default());
    while known.len() >= MAX_HEARD && !known.contains_key(&asked) {
        let oldest = known.iter().min_by_key(|(_, heard)| heard.time).map(|(asked, _)| asked.clone());
        oldest.map(|asked| known.remove(&asked));
    }
    known.insert(asked, heard);
}

fn request(client: &Client, change: &Change, spec: &CheckSpec, known: &Value) -> RequestBuilder {
    match &spec.ask {
        Ask::Http(Http { url, headers }) => {
            let request = client.post(url).json(&json!({"apiVersion": weir_model::API_VERSION, "facts": known}));
            headers.iter().fold(request, |request, (name, value)| request.header(name, value))
        }
        Ask::Promql(promql) => {
            let url = format!("{}/api/v1/query", promql.server.trim_end_matches('/'));
            client.get(url).query(&[("query", query(promql, change))])
        }
        // Expressions are evaluated, never sent.
        Ask::Cel(_) => client.get(""),
    }
}

/// The query with what it asks about filled in, escaped as in a quoted string.
fn query(promql: &Promql, change: &Change) -> String {
    let escaped =
        |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\'', "\\'").replace('\n', "\\n");
    let known = [
        ("$change", escaped(change.name())),
        ("$version", escaped(change.spec.target())),
        ("$action", escaped(&change.spec.action.to_string())),
    ];
    known.iter().fold(promql.query.clone(), |query, (name, value)| query.replace(name, value))
}

/// The body of a good answer, within the bound.
async fn fetch(request: RequestBuilder) -> Result<Vec<u8>, String> {
    let mut response = request.send().await.map_err(|error| words(&error))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| words(&error))? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(format!("the answer has more than {MAX_ANSWER} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    if !status.is_success() {
        return Err(format!("answered {status}: {}", cut(&String::from_utf8_lossy(&body))));
    }
    Ok(body)
}

/// An error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    cut(&text)
}

fn cut(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect()
}

fn read(spec: &CheckSpec, body: &[u8]) -> Result<Answer, String> {
    match &spec.ask {
        Ask::Promql(promql) => samples(spec, promql, body),
        _ => plugin(spec, body),
    }
}

/// What a plugin answers.
#[derive(Debug, Deserialize)]
struct Told {
    answer: ToldAnswer,
    #[serde(default)]
    message: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ToldAnswer {
    Pass,
    Wait,
    Fail,
}

fn plugin(spec: &CheckSpec, body: &[u8]) -> Result<Answer, String> {
    let told: Told = serde_json::from_slice(body).map_err(|e| format!("the answer can't be read: {e}"))?;
    let said = match told.answer {
        ToldAnswer::Pass => Said::Pass,
        ToldAnswer::Wait => Said::Wait,
        ToldAnswer::Fail => Said::Fail,
    };
    let message = cut(&told.message);
    Ok(Answer { said, words: if message.is_empty() { spec.meaning.clone() } else { message } })
}

/// An instant query's answer: <https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries>.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Queried {
    data: QueriedData,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum QueriedData {
    Vector(Vec<Sample>),
    Scalar((f64, String)),
}

#[derive(Debug, Deserialize)]
struct Sample {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

fn samples(spec: &CheckSpec, promql: &Promql, body: &[u8]) -> Result<Answer, String> {
    let queried: Queried = serde_json::from_slice(body).map_err(|e| format!("the answer can't be read: {e}"))?;
    let samples = match queried.data {
        QueriedData::Vector(samples) => samples,
        QueriedData::Scalar(value) => vec![Sample { metric: BTreeMap::new(), value }],
    };
    let mut read = Vec::with_capacity(samples.len());
    for sample in &samples {
        let value: f64 = sample.value.1.parse().map_err(|_| format!("{:?} is no number", sample.value.1))?;
        read.push((value, &sample.metric));
    }
    let (sign, bound) = (promql.op.sign(), promql.value);
    if read.is_empty() {
        return Err("the query has no samples".to_owned());
    }
    match read.iter().find(|(value, _)| !promql.op.holds(*value, bound)) {
        None => Ok(Answer::pass(format!("{}: {} samples are {sign} {bound}", spec.meaning, read.len()))),
        Some((value, metric)) => {
            let labels: Vec<String> = metric.iter().map(|(k, v)| format!("{k}={v}")).collect();
            Ok(no(spec, cut(&format!("{}: {value} is not {sign} {bound} {{{}}}", spec.meaning, labels.join(",")))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::check::{OnError, Op, Otherwise, Severity};

    fn spec(ask: Ask) -> CheckSpec {
        CheckSpec {
            meaning: "few errors".into(),
            at: vec![At::Batch],
            apps: Vec::new(),
            severity: Severity::Required,
            ask,
            otherwise: Otherwise::Fail,
            on_error: OnError::Closed,
            interval_seconds: 10,
            timeout_seconds: 5,
        }
    }

    fn promql() -> Promql {
        Promql { server: "http://p".into(), query: "r{v=\"$version\"}".into(), op: Op::Less, value: 0.1 }
    }

    fn said(body: &str) -> Result<Answer, String> {
        let promql = promql();
        samples(&spec(Ask::Promql(promql.clone())), &promql, body.as_bytes())
    }

    #[test]
    fn every_sample_must_hold() {
        let vector = |values: &[&str]| {
            let sample = |v: &&str| format!(r#"{{"metric":{{"app":"a"}},"value":[1,"{v}"]}}"#);
            let all = values.iter().map(sample).collect::<Vec<_>>().join(",");
            format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{all}]}}}}"#)
        };
        assert_eq!(said(&vector(&["0.01", "0.02"])).unwrap().said, Said::Pass);
        let no = said(&vector(&["0.01", "0.2"])).unwrap();
        assert_eq!((no.said, no.words.as_str()), (Said::Fail, "few errors: 0.2 is not < 0.1 {app=a}"));
        assert_eq!(said(&vector(&["NaN"])).unwrap().said, Said::Fail);
        assert!(said(&vector(&[])).unwrap_err().contains("no samples"));
        assert_eq!(said(r#"{"data":{"resultType":"scalar","result":[1,"0"]}}"#).unwrap().said, Said::Pass);
        assert!(said(r#"{"data":{"resultType":"matrix","result":[]}}"#).is_err());
    }

    #[test]
    fn a_plugin_answers_in_three_words() {
        let spec = spec(Ask::Http(Http { url: "http://x".into(), headers: BTreeMap::new() }));
        let told = |body: &str| plugin(&spec, body.as_bytes());
        assert_eq!(told(r#"{"answer":"wait","message":"deploying"}"#).unwrap(), Answer::wait("deploying"));
        assert_eq!(told(r#"{"answer":"pass"}"#).unwrap(), Answer::pass("few errors"));
        assert!(told(r#"{"answer":"maybe"}"#).is_err() && told("no").is_err());
        let long = told(&format!(r#"{{"answer":"fail","message":"{}"}}"#, "x".repeat(9_000))).unwrap();
        assert_eq!(long.words.len(), MAX_MESSAGE);
    }

    #[test]
    fn what_is_filled_into_a_query_stays_within_its_quotes() {
        let change = Change::new("c", weir_model::ChangeSpec::proxy_upgrade("1\"} or vector(0) #"));
        assert_eq!(query(&promql(), &change), "r{v=\"1\\\"} or vector(0) #\"}");
    }

    /// Answers one request with `answer`, and gives the request.
    async fn serve(answer: String) -> (String, tokio::task::JoinHandle<String>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ask", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 8 << 10];
            let mut read = 0;
            while !String::from_utf8_lossy(&request[..read]).contains("}}") {
                match stream.read(&mut request[read..]).await.unwrap() {
                    0 => break,
                    n => read += n,
                }
            }
            // Who has read enough hangs up.
            let _either = stream.write_all(answer.as_bytes()).await;
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        (url, served)
    }

    fn http_answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    /// Asks a plugin once and gives what was heard.
    async fn hear(url: &str, seconds: u64) -> Heard {
        let (probes, now) = (Probes::new(), Timestamp::UNIX_EPOCH);
        let ask = Ask::Http(Http { url: url.to_owned(), headers: [("X-Key".to_owned(), "k".to_owned())].into() });
        let spec = CheckSpec { timeout_seconds: seconds, ..spec(ask) };
        let change = Change::new("up", weir_model::ChangeSpec::proxy_upgrade("b"));
        let world = crate::world::World { checks: vec![("c".to_owned(), spec)], ..Default::default() };
        let telemetry = weir_store::observed::Telemetry::default();
        let facts =
            Facts { change: &change, world: &world, telemetry: &telemetry, now, stage: super::super::Stage::Door };
        let asking = probes.ask(&facts, At::Batch);
        assert_eq!((asking.len(), probes.ask(&facts, At::Batch).len()), (1, 0), "one question at a time");
        futures::future::join_all(asking).await;
        assert_eq!(probes.ask(&facts, At::Batch).len(), 0, "not again before its interval");
        probes.heard("").values().next().expect("something was heard").clone()
    }

    #[tokio::test]
    async fn a_plugin_gets_the_facts_and_its_answer_is_heard() {
        let (url, served) = serve(http_answer("200 OK", r#"{"answer":"fail","message":"an incident"}"#)).await;
        assert_eq!(hear(&url, 60).await.answer, Ok(Answer::fail("an incident")));
        let request = served.await.unwrap().to_ascii_lowercase();
        assert!(request.starts_with("post /ask http/1.1") && request.contains("x-key: k"), "{request}");
        assert!(request.contains(r#""version":"b""#) && request.contains(r#""at":"batch""#), "{request}");
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told() {
        let (url, _) = serve(http_answer("302 Found", "elsewhere")).await;
        assert!(hear(&url, 60).await.answer.unwrap_err().starts_with("answered 302 Found: elsewhere"));
        let (url, _) = serve(http_answer("200 OK", &"x".repeat(MAX_ANSWER + 1))).await;
        assert!(hear(&url, 60).await.answer.unwrap_err().contains("more than 65536 bytes"));
        assert!(hear("http://127.0.0.1:1/", 60).await.answer.is_err(), "nobody listens there");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_not_waited_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let heard = hear(&format!("http://{}/", listener.local_addr().unwrap()), 3).await;
        assert_eq!(heard.answer, Err("no answer within 3 s".to_owned()));
    }
}
