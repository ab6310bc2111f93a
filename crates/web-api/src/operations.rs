//! The table of operations: method, path, permission, sentence, handler. The router, the OpenAPI description and the
//! coverage tests are made from it, so that none of them can forget one.

use std::sync::Arc;

use ::access::May;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::handler::Handler;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use pipeline::audited::Act;
use store::{Actor, AuditAction, AuditOutcome};

use crate::access::{Access, Permission, Taken, may};
use crate::encoded::refuse_packed;
use crate::people::User;
use crate::problem::{Code, Problem};
use crate::serve::BODY_LIMIT_BYTES;
use crate::session::{self, Caller, Current, Stage};
use crate::state::Web;
use crate::{app, json, live, oauth, oidc};

/// Header that a page of another site cannot send without asking first.
pub const FORGERY_HEADER: &str = "x-auscult";

/// Header by which a page says that nobody has touched it for a while: what it asks by itself keeps no session alive.
pub const UNATTENDED_HEADER: &str = "x-auscult-unattended";

/// One operation.
pub struct Operation {
    /// HTTP method.
    pub method: Method,
    /// Path with its parameters in braces.
    pub path: &'static str,
    /// What it needs.
    pub permission: Permission,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Whether the second factor must have been used within the last minutes (step-up).
    pub is_fresh: bool,
    /// Whether a session may do it whose person has still to make their way in complete.
    pub is_enrolling: bool,
    router: MethodRouter<Arc<Web>>,
}

impl Operation {
    /// The same, for people who have just used their second factor only.
    #[must_use]
    pub fn fresh(self) -> Self {
        Operation { is_fresh: true, ..self }
    }

    /// The same, also for sessions that have still to make the way in complete.
    #[must_use]
    pub fn enrolling(self) -> Self {
        Operation { is_enrolling: true, ..self }
    }
}

/// An operation of the table: its handler takes the permit of `P`, and no other.
pub fn operation<P, H, T>(method: Method, path: &'static str, summary: &'static str, handler: H) -> Operation
where
    P: May,
    H: Handler<T, Arc<Web>>,
    T: Taken<P> + 'static,
{
    row(method, path, P::PERMISSION, summary, handler)
}

/// An operation for everybody: its handler gets no permit.
pub fn open<H, T>(method: Method, path: &'static str, summary: &'static str, handler: H) -> Operation
where
    H: Handler<T, Arc<Web>>,
    T: 'static,
{
    row(method, path, Permission::Open, summary, handler)
}

fn row<H, T>(
    method: Method,
    path: &'static str,
    permission: Permission,
    summary: &'static str,
    handler: H,
) -> Operation
where
    H: Handler<T, Arc<Web>>,
    T: 'static,
{
    let filter = match method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    };
    let router = on(filter, handler);
    Operation { method, path, permission, summary, is_fresh: false, is_enrolling: false, router }
}

/// Every operation of the JSON API and the live streams.
#[expect(clippy::too_many_lines, reason = "a table: one line an operation")]
pub fn operations() -> Vec<Operation> {
    let get = Method::GET;
    let post = Method::POST;
    let put = Method::PUT;
    let delete = Method::DELETE;
    macro_rules! table {
        // Behind the permission: `fresh` for acts that need a step-up, `enrolling` for those of the way in.
        (@row Open $method:ident $path:literal $summary:literal $handler:path) => {
            open($method.clone(), $path, $summary, $handler)
        };
        (@row $permission:ident $method:ident $path:literal $summary:literal $handler:path) => {
            operation::<may::$permission, _, _>($method.clone(), $path, $summary, $handler)
        };
        ($($method:ident $path:literal $permission:ident $($flag:ident)* $summary:literal $handler:path;)*) => {
            vec![$(table!(@row $permission $method $path $summary $handler)$(.$flag())*),*]
        };
    }
    table! {
        get "/api/v1/session" Open "Who is signed in" json::session::show;
        post "/api/v1/setup" Open "Add the first administrator with the printed token" json::session::set_up;
        post "/api/v1/sign-in" Open "Sign in with a password, and a code" json::sign_in::sign_in;
        post "/api/v1/sign-in/totp" Open "Give the code that a right password asks for" json::sign_in::by_totp;
        post "/api/v1/sign-in/recovery" Open "Give a recovery code instead" json::sign_in::by_recovery_code;
        post "/api/v1/sign-in/passkey/begin" Open "A challenge for a passkey" json::sign_in::passkey_begin;
        post "/api/v1/sign-in/passkey" Open "Sign in with a passkey" json::sign_in::by_passkey;
        post "/api/v1/sign-in/link" Open "Sign in with a one-time link" json::sign_in::by_link;
        post "/api/v1/sign-out" Open "Sign out" json::session::sign_out;
        get "/api/v1/account" SignedIn enrolling "One's own account" json::account::show;
        post "/api/v1/account/passkeys/begin" SignedIn enrolling fresh "A challenge for a new passkey" json::account::passkey_begin;
        post "/api/v1/account/passkeys" SignedIn enrolling fresh "Add a passkey" json::account::add_passkey;
        put "/api/v1/account/passkeys/{id}" SignedIn "Name a passkey" json::account::rename_passkey;
        delete "/api/v1/account/passkeys/{id}" SignedIn fresh "Remove a passkey" json::account::remove_passkey;
        put "/api/v1/account/password" SignedIn enrolling fresh "Set one's password" json::account::set_password;
        post "/api/v1/account/totp/begin" SignedIn enrolling fresh "A secret for an authenticator app" json::account::totp_begin;
        post "/api/v1/account/totp" SignedIn enrolling fresh "Add the authenticator app with its first code" json::account::add_totp;
        delete "/api/v1/account/totp" SignedIn fresh "Remove the authenticator app" json::account::remove_totp;
        post "/api/v1/account/recovery-codes" SignedIn fresh "Draw ten recovery codes" json::account::recovery_codes;
        get "/api/v1/account/sessions" SignedIn "One's own sessions" json::account::sessions;
        delete "/api/v1/account/sessions/{id}" SignedIn "End one of one's sessions" json::account::end_session;
        post "/api/v1/account/sessions/end-others" SignedIn "End all one's other sessions" json::account::end_other_sessions;
        post "/api/v1/step-up/passkey/begin" SignedIn "A challenge for proving oneself again" json::account::step_up_passkey_begin;
        post "/api/v1/step-up/passkey" SignedIn "Prove oneself again with a passkey" json::account::step_up_passkey;
        post "/api/v1/step-up/totp" SignedIn "Prove oneself again with a code" json::account::step_up_totp;
        get "/api/v1/step-up/providers" SignedIn "At which identity providers to prove oneself again" oidc::again;
        post "/api/v1/step-up/link" SignedIn "Prove oneself again in the demonstration" json::account::step_up_link;
        get "/api/v1/wards" SeePlaces "The wards that are theirs" json::wards::list;
        get "/api/v1/wards/{id}/board" ReadChart "All beds of a ward on one screen" json::wards::board;
        get "/api/v1/places" SeePlaces "Wards, beds, homes and rooms" json::wards::places;
        post "/api/v1/places" ManagePeople "Add a place" json::wards::add_place;
        get "/api/v1/patients" ReadChart "Find patients" json::patients::find;
        post "/api/v1/patients" AdmitPatients "Admit a patient" json::patients::admit;
        get "/api/v1/patients/{id}" ReadChart "One patient with the latest values" json::patients::show;
        get "/api/v1/patients/{id}/trend" ReadChart "Minimum, mean and maximum a bucket" json::curves::trend;
        get "/api/v1/patients/{id}/readings" ReadChart "Readings of one measure" json::curves::readings;
        get "/api/v1/patients/{id}/waveform" ReadChart "Samples of one waveform" json::curves::waveform;
        put "/api/v1/patients/{id}/limits" ActOnAlerts "Set the alert limits of a patient" json::patients::set_limits;
        get "/api/v1/observations/{id}/provenance" ReadChart "Everything behind one value" json::curves::provenance;
        get "/api/v1/alerts" ReadChart "Alerts" json::alerts::list;
        post "/api/v1/alerts/{id}/acknowledge" ActOnAlerts "Take an alert" json::alerts::acknowledge;
        post "/api/v1/alerts/{id}/resolve" ActOnAlerts "Close an alert" json::alerts::resolve;
        get "/api/v1/devices" ReadDevices "The devices" json::devices::list;
        post "/api/v1/devices" ManageDevices "Register a device" json::devices::register;
        get "/api/v1/devices/{id}" ReadDevices "One device with its assignments" json::devices::show;
        put "/api/v1/devices/{id}" ManageDevices "Change a device" json::devices::update;
        post "/api/v1/devices/{id}/assignments" AssignDevices "Assign a device" json::devices::assign;
        post "/api/v1/assignments/{id}/end" AssignDevices "End an assignment" json::devices::end_assignment;
        get "/api/v1/enrolment" EnrolDevices "Devices with their certificates, and the authority" json::enrolment::list;
        post "/api/v1/enrolment/import" EnrolDevices fresh "Expect many devices, from a table" json::enrolment::import;
        get "/api/v1/devices/{id}/enrolment" EnrolDevices "The certificates of a device" json::enrolment::show;
        post "/api/v1/devices/{id}/claim" EnrolDevices fresh "Make a claim code for a device" json::enrolment::open_claim;
        delete "/api/v1/devices/{id}/claim" EnrolDevices "Take back a claim code" json::enrolment::withdraw_claim;
        post "/api/v1/devices/{id}/certificate/revoke" EnrolDevices fresh "Revoke the certificates of a device" json::enrolment::revoke;
        post "/api/v1/devices/{id}/decommission" EnrolDevices fresh "Take a device out of service for good" json::enrolment::decommission;
        post "/api/v1/devices/{id}/late-renewal" EnrolDevices fresh "Decide on a late renewal" json::enrolment::late_renewal;
        get "/api/v1/programs" ManageApps "Programs that have certificates, and what they may" json::programs::list;
        put "/api/v1/programs/{name}/scopes" ManageApps fresh "Say what a program may" json::programs::set_scopes;
        post "/api/v1/programs/{name}/revoke" ManageApps fresh "Revoke the certificates of a program" json::programs::revoke;
        get "/api/v1/quarantine" MendQuarantine "What could not be read or placed" json::quarantine::list;
        get "/api/v1/quarantine/{id}" MendQuarantine "One item with its bytes" json::quarantine::show;
        post "/api/v1/quarantine/rerun" MendQuarantine "Run many items again" json::quarantine::rerun_many;
        post "/api/v1/quarantine/{id}/rerun" MendQuarantine "Run an item again" json::quarantine::rerun;
        post "/api/v1/quarantine/{id}/discard" MendQuarantine "Set an item aside" json::quarantine::discard;
        get "/api/v1/audit" ReadAudit "The audit log" json::audit::rows;
        get "/api/v1/audit/groups" ReadAudit "What each committed group carried" json::audit::groups;
        get "/api/v1/audit/log" ReadAudit "The trees of the log, its keys, checkpoints and witnesses" json::audit_proof::state;
        get "/api/v1/audit/export" ReadAudit "The audit log as FHIR or as a table" json::audit_export::export;
        get "/api/v1/audit/{sequence}/proof" ReadAudit "What proves one row" json::audit_proof::proof;
        get "/api/v1/me/audit" SignedIn "Who looked at one's own record" json::audit::mine;
        get "/audit/checkpoint" Open "The last signed checkpoint of the log of acts" json::audit_proof::checkpoint;
        get "/audit/groups/checkpoint" Open "The last signed checkpoint of the log of groups" json::audit_proof::groups_checkpoint;
        get "/audit/tile/{level}/{number}" ReadAudit "Hashes of the log's tree" json::audit_proof::tile;
        get "/api/v1/keys" ManageKeys "The keys, and turns that are under way" json::keys::show;
        post "/api/v1/keys/turn" ManageKeys fresh "Turn the key-encryption key over" json::keys::turn;
        post "/api/v1/patients/{id}/key/turn" ManageKeys fresh "Turn a patient's key over" json::keys::turn_of_patient;
        get "/api/v1/retention" ManageRetention "For how long each class is kept" json::retention::show;
        put "/api/v1/retention" ManageRetention fresh "Set for how long each class is kept" json::retention::set;
        get "/api/v1/retention/dry-run" ManageRetention "What a run would remove" json::retention::dry_run;
        post "/api/v1/retention/run" ManageRetention fresh "Remove what is kept no longer" json::retention::run;
        get "/api/v1/holds" ManageRetention "Legal holds" json::retention::list_holds;
        put "/api/v1/patients/{id}/hold" ManageRetention fresh "Put a legal hold on a record" json::retention::hold;
        delete "/api/v1/patients/{id}/hold" ManageRetention fresh "End a legal hold" json::retention::end_hold;
        post "/api/v1/patients/{id}/erasure/dry-run" EraseData "What an erasure would remove" json::erasure::preview;
        post "/api/v1/patients/{id}/erasure" EraseData fresh "Erase a patient" json::erasure::erase;
        get "/api/v1/patients/{id}/export" ExportPatient fresh "Whether a record may be taken out, and in which forms" json::record::show;
        get "/api/v1/patients/{id}/export/record.ndjson" ExportPatient fresh "A record as FHIR NDJSON" json::record::ndjson;
        get "/api/v1/patients/{id}/export/record.html" ExportPatient fresh "A record as pages to read" json::record::html;
        get "/api/v1/erasures" EraseData "Erasures and their state" json::erasure::list;
        get "/api/v1/erasures/signer.pem" EraseData "Who signs certificates of erasure" json::erasure::signer;
        get "/api/v1/erasures/{id}/{file}" EraseData "A certificate of erasure, and its signature" json::erasure::certificate;
        get "/api/v1/users" ManagePeople "People who may sign in" json::users::list;
        post "/api/v1/users" ManagePeople fresh "Add a person, with an invitation" json::users::add;
        put "/api/v1/users/{id}" ManagePeople fresh "Change a person's rights" json::users::update;
        post "/api/v1/users/{id}/reset" ManagePeople fresh "Forget a person's ways in, with a new invitation" json::users::reset;
        put "/api/v1/users/{id}/awaited-provider" ManagePeople fresh "Let a person come by an identity provider, by name" json::users::await_provider;
        delete "/api/v1/users/{id}/provider-links/{link}" ManagePeople fresh "Remove a person's link to an identity provider" json::users::unlink_provider;
        get "/api/v1/users/{id}/sessions" ManagePeople "The sessions of a person" json::users::sessions;
        delete "/api/v1/users/{id}/sessions" ManagePeople fresh "End the sessions of a person" json::users::end_sessions;
        get "/api/v1/identity-providers" Open "From where people may come to sign in" oidc::buttons;
        get "/api/v1/sign-in/oidc/callback" Open "Back from an identity provider" oidc::callback;
        get "/api/v1/sign-in/oidc/{id}" Open "To an identity provider, to sign in there" oidc::start;
        get "/api/v1/identity-providers/settings" ManageIdentityProvider "The identity providers" oidc::list;
        put "/api/v1/identity-providers/settings/{id}" ManageIdentityProvider fresh "Change an identity provider" oidc::change;
        delete "/api/v1/identity-providers/settings/{id}" ManageIdentityProvider fresh "Remove an identity provider" oidc::remove;
        get "/api/v1/authorize" SignedIn "What a program asks to be let in for" oauth::describe;
        post "/api/v1/authorize" SignedIn "Let a program in, or not" oauth::decide;
        get "/api/v1/grants" SignedIn "The programs that one let in" oauth::list_grants;
        delete "/api/v1/grants/{id}" SignedIn "Let a program in no longer" oauth::remove_grant;
        get "/api/v1/clients" ManageApps "The registered programs" oauth::list_clients;
        post "/api/v1/clients" ManageApps fresh "Register a program" oauth::add_client;
        get "/api/v1/clients/{id}" ManageApps "One registered program" oauth::show_client;
        put "/api/v1/clients/{id}" ManageApps fresh "Change the registration of a program" oauth::change_client;
        delete "/api/v1/clients/{id}" ManageApps fresh "Remove the registration of a program" oauth::remove_client;
        get "/api/v1/my-people" ReadChart "Oneself, and those whom one looks after" json::consents::my_people;
        get "/api/v1/consents/choices" ReadConsents "What a consent can name" json::consents::choices;
        get "/api/v1/consents/defaults" ReadConsents "What holds where a patient has said nothing" json::consents::defaults;
        put "/api/v1/consents/defaults" ManageDefaults fresh "Say what holds where a patient has said nothing" json::consents::set_defaults;
        get "/api/v1/patients/{id}/consents" ReadConsents "What a patient allows" json::consents::list;
        post "/api/v1/patients/{id}/consents" ManageConsents "Write down what a patient allows" json::consents::add;
        put "/api/v1/consents/{id}" ManageConsents "Change a consent" json::consents::change;
        post "/api/v1/consents/{id}/withdraw" ManageConsents "Withdraw a consent" json::consents::withdraw;
        get "/api/v1/break-glass/reasons" BreakGlass "Why a glass can be broken" json::break_glass::reasons;
        get "/api/v1/break-glass/mine" SignedIn "The glasses that one broke and that stand" json::break_glass::mine;
        get "/api/v1/break-glass" ReviewBreakGlass "The glasses that wait for a review" json::break_glass::list;
        post "/api/v1/break-glass" BreakGlass fresh "Break the glass for one patient" json::break_glass::open;
        post "/api/v1/break-glass/{id}/end" SignedIn "End a broken glass before its time" json::break_glass::end;
        post "/api/v1/break-glass/{id}/review" ReviewBreakGlass "Close the review of a broken glass" json::break_glass::review;
        get "/api/v1/live" SignedIn "Live events" live::events::stream;
        get "/api/v1/live/waveforms" ReadChart "Live waveforms" live::waveforms::upgrade;
        get "/api/v1/policies" ManagePolicies "The policies in force" json::policies::list;
        post "/api/v1/policies/explain" ManagePolicies "Say what is decided for somebody, and why" json::policies::explain;
        post "/api/v1/policies/reload" ManagePolicies fresh "Load the policies again" json::policies::reload;
        get "/api/v1/status" SignedIn "What waits for the disk, and what had to give way" json::status::show;
        get "/health" Open "Whether this node can serve, for a balancer" json::health::show;
        get "/api/v1/openapi.json" Open "This description" openapi_document;
    }
}

/// The router of the web port: every operation behind its gate, FHIR, and the web app.
pub fn router(web: &Arc<Web>) -> Router {
    let mut router = Router::new();
    for operation in operations() {
        let Operation { permission, is_fresh, is_enrolling, .. } = operation;
        let gate = Gate { permission, is_fresh, is_enrolling, web: Arc::clone(web) };
        let guarded = operation.router.layer(middleware::from_fn_with_state(gate, pass_gate));
        router = router.route(operation.path, guarded);
    }
    router
        .with_state(Arc::clone(web))
        .merge(crate::fhir::web_router(web).layer(middleware::from_fn(oauth::cors)))
        .merge(oauth::router(web))
        .merge(crate::enrol::web_router(web))
        .fallback(app::serve)
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .layer(middleware::from_fn(refuse_packed))
        .layer(middleware::from_fn(secure_headers))
}

#[derive(Clone)]
struct Gate {
    permission: Permission,
    is_fresh: bool,
    is_enrolling: bool,
    web: Arc<Web>,
}

/// Lets a request pass that its session and role permit, and puts [`Access`] where the handler finds it.
async fn pass_gate(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    if request.method() != Method::GET
        && let Err(problem) = not_forged(request.headers())
    {
        return problem.into_response();
    }
    if gate.permission == Permission::Open {
        return next.run(request).await;
    }
    let attended = !request.headers().contains_key(UNATTENDED_HEADER);
    let caller = Caller::of(request.headers(), request.extensions());
    let (access, current) = match let_in(&gate, &caller, request.headers(), attended).await {
        Ok(let_in) => let_in,
        Err(problem) => return problem.into_response(),
    };
    if !access.holds(gate.permission) {
        let what = format!("{} {}", request.method(), request.uri().path());
        let act = access.refused_act(gate.permission, "operation", &what);
        return refuse(&gate.web, act).await.into_response();
    }
    request.extensions_mut().insert(access);
    request.extensions_mut().insert(current);
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whose request it is, as far as sessions decide: how far they have come, and when the second factor was used.
async fn let_in(
    gate: &Gate,
    caller: &Caller,
    headers: &HeaderMap,
    touch: bool,
) -> Result<(Access, Current), Problem> {
    let web = &gate.web;
    if gate.is_enrolling {
        let (user, current) = has_session(web, caller, headers, touch).await?;
        if current.stage == Stage::Enrolling {
            if web.people.kept(user.id).is_some_and(|kept| kept.record.is_complete()) {
                // Somebody else was faster: whoever is left has proven nothing by it.
                let act = caller
                    .by(Actor::User(user.id))
                    .act(AuditAction::SignOut, "session")
                    .detail("ended, for the way in was made complete in another one");
                let (hash, now) = (current.hash, web.site.clock().now());
                web.blocking(move |web| web.sessions.end(&hash, act, AuditOutcome::Refused, now)).await??;
                let detail = "your way in was made complete in another session; sign in with it";
                return Err(Problem::new(Code::SignedOut, detail));
            }
            return Ok((Access::of_person(web, user).asked_from(caller), current));
        }
    }
    let (access, current) = signed_in(web, caller, headers, touch).await?;
    let now = web.site.clock().now();
    if !gate.is_fresh || current.is_fresh(now) {
        return Ok((access, current));
    }
    // Another node may have seen the second factor a moment ago.
    let hash = current.hash;
    let looked = web.blocking(move |web| web.sessions.look(&hash, now, false)).await??;
    let current = looked.unwrap_or(current);
    current.require_fresh(now)?;
    Ok((access, current))
}

/// Records a refusal and answers with it. The refusal stands even where the record cannot be written.
pub(crate) async fn refuse(web: &Arc<Web>, act: Act) -> Problem {
    let recorded = web.blocking(move |web| web.site.record(act, AuditOutcome::Refused)).await;
    if let Ok(Err(error)) = recorded {
        tracing::error!(error = &error as &dyn std::error::Error, "a refusal could not be recorded");
    }
    Problem::new(Code::Forbidden, "your role does not permit this")
}

/// Who is signed in by the request's cookie, wholly: nothing is outstanding of their way in. `touch` counts the request
/// as activity.
pub(crate) async fn signed_in(
    web: &Arc<Web>,
    caller: &Caller,
    headers: &HeaderMap,
    touch: bool,
) -> Result<(Access, Current), Problem> {
    let (user, current) = has_session(web, caller, headers, touch).await?;
    match current.stage {
        Stage::Whole => {}
        Stage::Linking => {
            let detail = "sign in here as you always do; what the identity provider says proves nothing yet";
            return Err(Problem::new(Code::SignedOut, detail));
        }
        Stage::Enrolling => {
            let detail = "set up a passkey, or a password with an authenticator app, before anything else";
            return Err(Problem::new(Code::EnrolmentNeeded, detail));
        }
        Stage::SecondFactor => {
            return Err(Problem::new(
                Code::SecondFactorNeeded,
                "the password alone lets nobody in; give the code",
            ));
        }
    }
    let now = web.site.clock().now();
    let age_s = current.second_factor_at.map(|at| u32::try_from(now.duration_since(at).as_secs()));
    let access = Access::of_person(web, user)
        .asked_from(caller)
        .with_mfa_age(age_s.map(|age| age.unwrap_or(u32::MAX)));
    Ok((access, current))
}

/// Whose session the request's cookie is of, however far they have come.
pub(crate) async fn has_session(
    web: &Arc<Web>,
    caller: &Caller,
    headers: &HeaderMap,
    touch: bool,
) -> Result<(User, Current), Problem> {
    let signed_out =
        || Problem::new(Code::SignedOut, "nobody is signed in, or the session has ended; sign in again");
    let hash = session::token_of(headers).ok_or_else(signed_out)?.hash();
    let now = web.site.clock().now();
    // A session that is not whole may have become so on another node a moment ago.
    let glance = web.sessions.glance(&hash, now, touch).filter(|current| current.stage == Stage::Whole);
    let current = match glance {
        Some(current) => Some(current),
        None => web.blocking(move |web| web.sessions.look(&hash, now, touch)).await??,
    };
    let current = current.ok_or_else(signed_out)?;
    if !current.caller.fits(caller, web.options.binding) {
        // Whoever has the token is not where it was given out: nobody goes on with it.
        let act = caller.by(Actor::User(current.user)).act(AuditAction::SignOut, "session").detail(format!(
            "ended, for it began{} and was shown{}",
            current.caller.words(),
            caller.words()
        ));
        web.blocking(move |web| web.sessions.end(&hash, act, AuditOutcome::Refused, now)).await??;
        return Err(signed_out());
    }
    let user = web.people.by_id(current.user).filter(|user| !user.disabled).ok_or_else(signed_out)?;
    Ok((user, current))
}

fn not_forged(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(FORGERY_HEADER) {
        return Ok(());
    }
    let detail = format!("a changing request needs the header \"{FORGERY_HEADER}: 1\"");
    Err(Problem::new(Code::Forged, detail))
}

/// What every answer tells the browser: nothing from elsewhere, no frames, no guessing of types.
async fn secure_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let policy = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
                  form-action 'self'; frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The OpenAPI 3.1 description of the table.
pub fn openapi() -> serde_json::Value {
    let mut paths = serde_json::Map::new();
    for operation in operations() {
        let parameters: Vec<_> = operation
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')))
            .map(|name| serde_json::json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        let described = serde_json::json!({
            "summary": operation.summary,
            "x-permission": format!("{:?}", operation.permission),
            "parameters": parameters,
            "responses": {
                "200": {"description": "see docs/reference/json-api.md"},
                "default": {"description": "application/problem+json"},
            },
        });
        let path = paths.entry(operation.path).or_insert_with(|| serde_json::json!({}));
        path[operation.method.as_str().to_lowercase()] = described;
    }
    serde_json::json!({
        "openapi": "3.1.0",
        "info": {"title": "Auscult JSON API", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
    })
}

async fn openapi_document() -> axum::Json<serde_json::Value> {
    axum::Json(openapi())
}
