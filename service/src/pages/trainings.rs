//! Pages about training: what it will take, how it goes, what came of it.

use super::{PageError, Shared, Token, moment, page};
use crate::datanets;
use crate::error::ApiError;
use crate::jobs::Job;
use crate::keys::Session;
use crate::server::Service;
use crate::trainings::{self, Order, Settings, Training};
use askama::Template;
use axum::Router;
use axum::extract::{Form, Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use model_runtime::train::{Epoch, Phase};
use serde::Deserialize;
use std::sync::Arc;
use steps::texts::Windows;

/// The routes.
pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/trainings", get(list).post(start))
        .route("/trainings/estimate", post(estimate))
        .route("/trainings/compare", get(compare))
        .route("/trainings/{id}", get(one))
        .route("/trainings/{id}/cancel", post(cancel))
        .route("/trainings/{id}/resume", post(resume))
}

/// A datanet's newest version, or an older one, as an option of a form.
struct Source {
    value: String,
    text: String,
}

struct Listed {
    training: Training,
    state: String,
    when: String,
    held_out: String,
    trained: String,
}

#[derive(Template)]
#[template(path = "trainings.html")]
struct ListPage {
    session: Session,
    bases: Vec<String>,
    sources: Vec<Source>,
    settings: Settings,
    trainings: Vec<Listed>,
}

fn loss(value: Option<f32>) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.3}"))
}

fn listed(service: &Service, training: Training) -> Result<Listed, PageError> {
    let epochs = trainings::epochs(&service.database, &training.id)?;
    let best = epochs.iter().filter_map(|e| e.held_out).min_by(f32::total_cmp);
    let last = epochs.iter().rfind(|e| e.phase == Phase::Last).map(|e| e.trained);
    let state = training.job.as_ref().map_or("–", |job| &job.state).to_owned();
    Ok(Listed { state, when: moment(training.created), held_out: loss(best), trained: loss(last), training })
}

async fn list(State(service): Shared, session: Session) -> Result<Response, PageError> {
    let mut sources = Vec::new();
    for of in datanets::list(&service.database)?.into_iter().filter(|of| of.is_read_by(session.caller)) {
        for version in datanets::versions(&service.database, &of)? {
            let text = format!("{}, version {} ({} samples by {})", of.name, version.version, version.samples, version.contributors);
            sources.push(Source { value: format!("{}@{}", of.name, version.version), text });
        }
    }
    let trainings = trainings::list(&service.database, session.caller)?;
    let trainings = trainings.into_iter().map(|t| listed(&service, t)).collect::<Result<_, _>>()?;
    Ok(page(&ListPage { session, bases: service.catalog.bases(), sources, settings: Settings::default(), trainings }))
}

/// An order as a form says it; numbers as texts, so that what is wrong with them is said by name.
#[derive(Clone, Deserialize)]
struct Ordered {
    form_token: String,
    base: String,
    name: String,
    source: String,
    rank: String,
    epochs: String,
    max_epochs: String,
    hold_out: String,
    batch: String,
    learning_rate: String,
    max_tokens: String,
    windows: String,
    seed: String,
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, ApiError> {
    text.trim().parse().map_err(|_| ApiError::parameter(name, format!("{name}: expected a number, found {text:?}")))
}

fn optional<T: std::str::FromStr>(name: &str, text: &str) -> Result<Option<T>, ApiError> {
    if text.trim().is_empty() { Ok(None) } else { number(name, text).map(Some) }
}

impl Ordered {
    fn order(&self) -> Result<Order, ApiError> {
        let (datanet, version) = self.source.rsplit_once('@').ok_or_else(|| ApiError::parameter("source", "no datanet's version is chosen"))?;
        let windows = Windows::named(&self.windows).ok_or_else(|| ApiError::parameter("windows", "windows: expected cut or split"))?;
        let settings = Settings {
            rank: number("rank", &self.rank)?,
            alpha: None,
            epochs: optional("epochs", &self.epochs)?,
            max_epochs: number("max_epochs", &self.max_epochs)?,
            hold_out: number("hold_out", &self.hold_out)?,
            batch: number("batch", &self.batch)?,
            learning_rate: number("learning_rate", &self.learning_rate)?,
            max_tokens: optional("max_tokens", &self.max_tokens)?,
            windows,
            seed: number("seed", &self.seed)?,
        };
        let (base, name) = (self.base.clone(), self.name.trim().to_owned());
        Ok(Order { base, name, datanet: datanet.to_owned(), version: number("source", version)?, settings })
    }
}

#[derive(Template)]
#[template(path = "estimate.html")]
struct EstimatePage {
    session: Session,
    ordered: Ordered,
    time: String,
    memory: String,
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1.5 => "a second".into(),
        s if s < 100.0 => format!("{s:.0} seconds"),
        s if s < 6_000.0 => format!("{:.0} minutes", s / 60.0),
        s => format!("{:.1} hours", s / 3_600.0),
    }
}

async fn estimate(State(service): Shared, session: Session, Form(ordered): Form<Ordered>) -> Result<Response, PageError> {
    session.check(&ordered.form_token)?;
    let estimate = crate::training_api::estimated(&service, session.caller, ordered.order()?).await?;
    let (least, most) = (seconds(estimate.seconds.0), seconds(estimate.seconds.1));
    let time = if least == most { least } else { format!("{least} to {most}") };
    Ok(page(&EstimatePage { session, ordered, time, memory: format!("{:.1}", estimate.memory as f64 / (1 << 20) as f64) }))
}

async fn start(State(service): Shared, session: Session, Form(ordered): Form<Ordered>) -> Result<Response, PageError> {
    session.check(&ordered.form_token)?;
    let training = trainings::start(&service, session.caller, &ordered.order()?)?;
    Ok(Redirect::to(&format!("/trainings/{}", training.id)).into_response())
}

/// A curve's points in a drawing of 600 by 200.
struct Curve {
    name: String,
    class: &'static str,
    points: String,
    last: String,
}

struct Plot {
    curves: Vec<Curve>,
    top: String,
    bottom: String,
    epochs: usize,
}

const WIDTH: f32 = 600.0;
const HEIGHT: f32 = 200.0;

/// Losses with their epochs.
type Points = Vec<(usize, f32)>;

/// Losses of a phase.
fn losses(epochs: &[Epoch], phase: Phase, value: fn(&Epoch) -> Option<f32>) -> Points {
    epochs.iter().filter(|e| e.phase == phase).filter_map(|e| Some((e.epoch, value(e)?))).collect()
}

/// One training's losses.
fn plot(epochs: &[Epoch]) -> Option<Plot> {
    let of = |phase, value| losses(epochs, phase, value);
    drawn(vec![
        ("held out".into(), "held", of(Phase::Choosing, |e| e.held_out)),
        ("trained, while choosing".into(), "chosen", of(Phase::Choosing, |e| Some(e.trained))),
        ("trained on all samples".into(), "all", of(Phase::Last, |e| Some(e.trained))),
    ])
}

/// A curve's name and class, and what it goes through.
type Named = (String, &'static str, Points);

/// Curves in one drawing.
fn drawn(curves: Vec<Named>) -> Option<Plot> {
    let points = || curves.iter().flat_map(|(_, _, points)| points);
    let most = points().map(|(epoch, _)| *epoch).max()?;
    let (low, high) = points().fold((f32::INFINITY, 0f32), |(low, high), (_, loss)| (low.min(*loss), high.max(*loss)));
    let x = |epoch: usize| WIDTH * (epoch as f32 - 0.5) / most as f32;
    let y = |loss: f32| HEIGHT * (1.0 - (loss - low) / (high - low).max(1e-6));
    let curve = |(name, class, points): Named| {
        let last = points.last().map(|(_, loss)| format!("{loss:.3}"))?;
        let mut drawn: Vec<String> = points.iter().map(|&(epoch, loss)| format!("{:.1},{:.1}", x(epoch), y(loss))).collect();
        if let [only] = &drawn[..] {
            // A line has two ends.
            drawn = vec![only.clone(), only.clone()];
        }
        Some(Curve { name, class, points: drawn.join(" "), last })
    };
    Some(Plot { top: format!("{high:.2}"), bottom: format!("{low:.2}"), epochs: most, curves: curves.into_iter().filter_map(curve).collect() })
}

/// Trainings that a page compares: a colour and a stroke for each.
const COMPARED: [&str; 6] = ["c1", "c2", "c3", "c4", "c5", "c6"];

/// What is said of each of the compared trainings.
struct Compared {
    name: &'static str,
    values: Vec<String>,
    /// Whether they aren't all the same.
    differs: bool,
}

impl Compared {
    fn new(name: &'static str, values: Vec<String>) -> Self {
        let differs = values.windows(2).any(|pair| pair[0] != pair[1]);
        Self { name, values, differs }
    }
}

#[derive(Template)]
#[template(path = "compare.html")]
struct ComparePage {
    session: Session,
    trainings: Vec<(&'static str, Training)>,
    rows: Vec<Compared>,
    plot: Option<Plot>,
}

/// The share of places where a trained adapter's integers choose the floats' token, in percent.
fn agreement(job: Option<&Job>) -> Option<String> {
    let share = job?.result.as_ref()?["fidelity"]["greedy_agreement"].as_f64()?;
    Some(format!("{:.1}", 100.0 * share))
}

/// What trainings were made with, and came to, setting by setting.
fn compared(trainings: &[Training], epochs: &[Vec<Epoch>]) -> Vec<Compared> {
    type Said = fn(&Training) -> String;
    let chosen = |value: Option<usize>, otherwise: String| value.map_or(otherwise, |value| value.to_string());
    let settings: [(&str, Said); 10] = [
        ("Datanet", |t| format!("{} version {}", t.datanet, t.version)),
        ("Base model", |t| t.base.clone()),
        ("LoRA rank", |t| t.settings.rank.to_string()),
        ("LoRA alpha", |t| t.settings.alpha.unwrap_or(2.0 * t.settings.rank as f32).to_string()),
        ("Held out", |t| t.settings.hold_out.to_string()),
        ("Samples in a batch", |t| t.settings.batch.to_string()),
        ("Learning rate", |t| t.settings.learning_rate.to_string()),
        ("Most tokens of a sample", |t| t.settings.max_tokens.map_or("64".into(), |most| most.to_string())),
        ("Longer samples are", |t| t.settings.windows.name().into()),
        ("Seed", |t| t.settings.seed.to_string()),
    ];
    let mut rows: Vec<Compared> = settings.into_iter().map(|(name, said)| Compared::new(name, trainings.iter().map(said).collect())).collect();
    let asked = |t: &Training| chosen(t.settings.epochs, format!("chosen, up to {}", t.settings.max_epochs));
    rows.push(Compared::new("Passes asked for", trainings.iter().map(asked).collect()));
    let of_epochs = |name, value: fn(&[Epoch]) -> String| Compared::new(name, epochs.iter().map(|e| value(e)).collect());
    rows.push(of_epochs("Passes made", |e| losses(e, Phase::Last, |e| Some(e.trained)).len().to_string()));
    rows.push(of_epochs("Lowest held-out loss", |e| {
        loss(losses(e, Phase::Choosing, |e| e.held_out).into_iter().map(|(_, x)| x).min_by(f32::total_cmp))
    }));
    rows.push(of_epochs("Last loss, all samples", |e| loss(losses(e, Phase::Last, |e| Some(e.trained)).last().map(|(_, x)| *x))));
    let agrees = |t: &Training| agreement(t.job.as_ref()).map_or("–".into(), |percent| format!("{percent} %"));
    rows.push(Compared::new("Integers choose the floats' token", trainings.iter().map(agrees).collect()));
    rows.push(Compared::new("State", trainings.iter().map(|t| t.job.as_ref().map_or("–".into(), |job| job.state.clone())).collect()));
    rows
}

async fn compare(State(service): Shared, session: Session, query: Query<Vec<(String, String)>>) -> Result<Response, PageError> {
    let Query(asked) = query;
    if let Some((other, _)) = asked.iter().find(|(name, _)| name != "run") {
        return Err(ApiError::parameter(other, format!("{other} isn't supported")).into());
    }
    let mut runs: Vec<String> = Vec::new();
    asked.into_iter().for_each(|(_, run)| {
        if !runs.contains(&run) {
            runs.push(run)
        }
    });
    if !(2..=COMPARED.len()).contains(&runs.len()) {
        let message = format!("{} trainings are chosen: two to {} can be compared", runs.len(), COMPARED.len());
        return Err(ApiError::parameter("run", message).into());
    }
    let trainings = runs.iter().map(|id| trainings::find(&service.database, session.caller, id)).collect::<Result<Vec<_>, _>>()?;
    let epochs = runs.iter().map(|id| trainings::epochs(&service.database, id)).collect::<rusqlite::Result<Vec<_>>>().map_err(ApiError::from)?;
    let rows = compared(&trainings, &epochs);
    // Held-out losses can be compared; where a training held nothing out, its last phase's stand in.
    let curve = |((training, epochs), class): ((&Training, &Vec<Epoch>), &&'static str)| {
        let held = losses(epochs, Phase::Choosing, |e| e.held_out);
        match held.is_empty() {
            true => (format!("{}, all samples", training.model()), *class, losses(epochs, Phase::Last, |e| Some(e.trained))),
            false => (format!("{}, held out", training.model()), *class, held),
        }
    };
    let plot = drawn(trainings.iter().zip(&epochs).zip(&COMPARED).map(curve).collect());
    Ok(page(&ComparePage { session, rows, plot, trainings: COMPARED.into_iter().zip(trainings).collect() }))
}

#[derive(Template)]
#[template(path = "training.html")]
struct TrainingPage {
    session: Session,
    training: Training,
    job: Option<Job>,
    waits: bool,
    stopped: bool,
    plot: Option<Plot>,
    fidelity: Option<String>,
}

async fn one(State(service): Shared, session: Session, Path(id): Path<String>) -> Result<Response, PageError> {
    let training = trainings::find(&service.database, session.caller, &id)?;
    let plot = plot(&trainings::epochs(&service.database, &id)?);
    let job = training.job.clone();
    let waits = job.as_ref().is_some_and(|job| !job.is_over());
    let stopped = job.as_ref().is_none_or(|job| job.state == "failed" || job.state == "cancelled");
    let fidelity = agreement(job.as_ref());
    Ok(page(&TrainingPage { session, training, job, waits, stopped, plot, fidelity }))
}

async fn cancel(State(service): Shared, session: Session, Path(id): Path<String>, Form(form): Form<Token>) -> Result<Response, PageError> {
    session.check(&form.form_token)?;
    trainings::cancel(&service, session.caller, &id)?;
    Ok(Redirect::to(&format!("/trainings/{id}")).into_response())
}

async fn resume(State(service): Shared, session: Session, Path(id): Path<String>, Form(form): Form<Token>) -> Result<Response, PageError> {
    session.check(&form.form_token)?;
    trainings::resume(&service, session.caller, &id)?;
    Ok(Redirect::to(&format!("/trainings/{id}")).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_fill_their_drawing() {
        assert!(plot(&[]).is_none());
        let epoch = |phase, epoch, trained, held_out| Epoch { phase, epoch, trained, held_out };
        let epochs = [epoch(Phase::Choosing, 1, 4.0, Some(3.0)), epoch(Phase::Choosing, 2, 2.0, Some(2.5)), epoch(Phase::Last, 1, 3.0, None)];
        let plot = plot(&epochs).unwrap();
        assert_eq!((plot.top.as_str(), plot.bottom.as_str(), plot.epochs), ("4.00", "2.00", 2));
        assert_eq!(plot.curves[1].points, "150.0,0.0 450.0,200.0");
        assert_eq!(plot.curves[2].points, "150.0,100.0 150.0,100.0");
    }

    #[test]
    fn trainings_are_compared_by_what_differs() {
        let settings = |rank, epochs| Settings { rank, epochs, ..Settings::default() };
        let training = |id: &str, settings| Training {
            id: id.into(),
            key: 1,
            created: 0,
            base: "demo".into(),
            name: id.into(),
            datanet_id: 1,
            datanet: "facts".into(),
            version: 1,
            settings,
            job: None,
        };
        let epoch = |phase, epoch, trained, held_out| Epoch { phase, epoch, trained, held_out };
        let epochs = [vec![epoch(Phase::Choosing, 1, 4.0, Some(3.0)), epoch(Phase::Last, 1, 2.0, None)], vec![]];
        let rows = compared(&[training("a", settings(8, None)), training("b", settings(4, Some(2)))], &epochs);
        let row = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
        assert_eq!(row("LoRA rank").values, ["8", "4"]);
        assert!(row("LoRA rank").differs && row("LoRA alpha").differs && !row("Seed").differs && !row("Datanet").differs);
        assert_eq!(row("Passes asked for").values[1], "2");
        assert_eq!(row("Lowest held-out loss").values, ["3.000", "–"]);
        assert_eq!(row("Last loss, all samples").values, ["2.000", "–"]);
    }

    #[test]
    fn times_are_told_in_units_that_fit() {
        assert_eq!([0.2, 30.0, 600.0, 9_000.0].map(seconds), ["a second", "30 seconds", "10 minutes", "2.5 hours"]);
    }
}
