//! People of a real server: `auscult user reset`, with the server running and without.

use serde_json::{Value, json};

use crate::process::{Place, Server, refuse, succeed};

async fn post(server: &Server, path: &str, body: Value) -> (u16, Value) {
    let url = format!("{}/api/v1{path}", server.address("address"));
    let answer = reqwest::Client::new().post(url).header("x-auscult", "1").json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn reset(place: &Place, name: &str, base: &str) -> String {
    let place = place.arguments();
    let mut arguments = vec!["user", "reset", name];
    arguments.extend(place.iter().map(String::as_str));
    let printed = succeed(&arguments);
    assert!(printed.starts_with(base), "{printed}");
    let token = printed.trim().split("/invite#token=").nth(1);
    token.unwrap_or_else(|| panic!("no link: {printed}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_everything_gets_a_link_with_the_server_running_or_not() {
    let place = Place::new();
    let server = Server::serve(&place, &[]);
    let token = server.address("setup_link").split('=').next_back().unwrap().to_owned();
    let password = "correct horse battery";
    let setup = json!({"token": token, "name": "admin", "display": "A", "password": password});
    assert_eq!(post(&server, "/setup", setup).await.1["state"], "enrolment-needed");

    // The address is the one that the first start printed.
    let base = server.address("setup_link").split("/setup#").next().unwrap().to_owned();
    let first = reset(&place, "ADMIN", &format!("{base}/invite#"));
    let lost = json!({"name": "admin", "password": password});
    assert_eq!(post(&server, "/sign-in", lost.clone()).await.0, 401, "the old password is gone");
    let (status, said) = post(&server, "/sign-in/link", json!({"token": first})).await;
    assert_eq!((status, &said["state"]), (200, &json!("enrolment-needed")), "{said}");
    assert_eq!(post(&server, "/sign-in/link", json!({"token": first})).await.0, 403, "it works once");
    assert!(server.stop().0.success());

    let second = reset(&place, "admin", "http://localhost:8080/invite#");
    let place_arguments = place.arguments();
    let mut arguments = vec!["user", "reset", "nobody"];
    arguments.extend(place_arguments.iter().map(String::as_str));
    assert!(refuse(&arguments).contains("nobody here is called"));
    let server = Server::serve(&place, &[]);
    assert_eq!(server.ready["setup_link"], Value::Null, "somebody is about to have a way in");
    let (_, said) = post(&server, "/sign-in/link", json!({"token": second})).await;
    assert_eq!(said["state"], "enrolment-needed", "{said}");
}
