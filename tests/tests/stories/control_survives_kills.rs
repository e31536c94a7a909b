//! The control plane is killed and started again: every acknowledged write is there, and it is ready by itself.

use serde_json::json;
use weir_testkit::{Weir, http};

const APPS: &str = "/apis/weir.dev/v1/apps";

#[test]
fn acknowledged_writes_are_there_again() {
    let mut weir = Weir::start();
    for round in 0..5 {
        for number in 0..10 {
            create(&weir, &format!("app-{round}-{number}"));
        }
        weir.kill();
        weir.start_again();
        assert_eq!(names(&weir).len(), 10 * (round + 1), "after kill {round}");
    }
}

#[test]
fn an_orderly_stop_ends_with_success() {
    let mut weir = Weir::start();
    create(&weir, "stock");
    weir.stop();
    weir.start_again();
    assert_eq!(names(&weir), ["stock"]);
}

#[test]
fn nothing_is_told_without_the_token() {
    let weir = Weir::start();
    let answer = http::get(weir.api(), APPS).expect("the API answers");
    assert_eq!(answer.status, 401, "{}", answer.text());
}

fn create(weir: &Weir, name: &str) {
    let app = json!({ "apiVersion": "weir.dev/v1", "kind": "App", "metadata": { "name": name }, "spec": {} });
    let bearer = format!("Bearer {}", weir.token());
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let answer = http::send(weir.api(), "POST", APPS, &headers, app.to_string().as_bytes());
    let answer = answer.expect("the API answers");
    assert_eq!(answer.status, 201, "{}", answer.text());
}

fn names(weir: &Weir) -> Vec<String> {
    let list = weir.get(APPS).expect("the API answers").json();
    let items = list["items"].as_array().expect("a list has items");
    items.iter().map(|item| item["metadata"]["name"].as_str().map(str::to_owned).expect("a name")).collect()
}
