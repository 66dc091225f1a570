//! Where a story plays: everything is up and deliveries flow; what happens is told as it happens; the
//! story waits for what it expects, and takes stock at the end.

use std::{fs, time::Duration};

use countersign_proto::v1;
use countersign_shared::{digest::hex, random, time::Timestamp};
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval},
};

use super::{
    outcome::{Outcome, Phase},
    stock,
    tally::Tally,
    traffic::{Submitted, Traffic},
    view::{self, View},
};
use crate::{
    demo_pki::ReceiverAuthority,
    dev::{
        failure::Failure,
        receiver::{door::Door, record::Event},
        steps::{
            account, agent,
            control_plane::{self, ControlPlane},
            destination::{self, Receiving},
        },
        story,
        system::System,
        timeline::Entry,
    },
    local::{provision::Administrator, trust_anchor},
    mutual_tls::{Demand, TlsError},
};

/// How often the API is asked what is new.
const LOOK: Duration = Duration::from_millis(100);
/// How long everything accepted may take to be delivered at the end.
const LAST: Duration = Duration::from_secs(30);

/// How a story is set.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Whole seconds that client certificates live.
    pub(crate) life: u64,
    /// Whole seconds that one is kept after it was replaced.
    pub(crate) grace: u64,
    /// Deliveries per second.
    pub(crate) rate: u32,
    /// How long the receiver takes for each.
    pub(crate) takes: Duration,
    /// Who signs the client certificates.
    pub(crate) trust_model: v1::TrustModel,
    /// How long the receiver's server certificate lives.
    pub(crate) server_life: Duration,
}

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By the API.
    pub(crate) view: View,
    /// By the receiver.
    pub(crate) tally: Tally,
}

/// Where a story plays.
pub(crate) struct Stage<'a> {
    /// What is running.
    pub(crate) system: &'a mut System,
    /// The control plane.
    pub(crate) plane: ControlPlane,
    /// The account's resource name.
    pub(crate) account: String,
    /// The destination's resource name.
    pub(crate) destination: String,
    /// What the receiver demands.
    pub(crate) door: Door,
    /// The receiver's own authority.
    pub(crate) authority: ReceiverAuthority,
    /// What is known.
    pub(crate) seen: Seen,
    events: mpsc::Receiver<Event>,
    traffic: Traffic,
    looks: Interval,
    began: Timestamp,
    phases: Vec<Phase>,
    untold: Vec<(Timestamp, Entry)>,
    /// Deliveries accepted in these times may have been refused with one certificate and taken with
    /// another.
    doubted: Vec<(Timestamp, Timestamp)>,
}

impl<'a> Stage<'a> {
    /// Starts everything and lets deliveries flow.
    ///
    /// # Errors
    /// The first [`Failure`]; what was started until then is in `system`.
    pub(crate) async fn set(
        system: &'a mut System,
        name: &str,
        setting: Setting,
    ) -> Result<Self, Failure> {
        let settings = system.directory.root().join("story.toml");
        let text = format!(
            "[certificates]\nclient_life_seconds = {}\ngrace_seconds = {}\n",
            setting.life, setting.grace
        );
        fs::write(&settings, text).map_err(Failure::io("can't write to the data directory"))?;
        system.settings = Some(settings);
        let plane = control_plane::start(system).await?;
        // An account of its own: an earlier run's story is over.
        let id = format!("{name}-{}", hex(&random::bytes::<3>()));
        let account = account::prepare(system, &plane, &id).await?;
        let now = system.clock.now();
        let authority = ReceiverAuthority::new(now)?;
        let anchors = match setting.trust_model {
            v1::TrustModel::Customer => vec![authority.anchor()],
            _ => account.anchors.clone(),
        };
        let receiving = Receiving {
            identity: authority.server_for_loopback(setting.server_life, now)?,
            demand: Demand::signed_by(&anchors),
            takes: setting.takes,
            trust_model: setting.trust_model,
        };
        let made = destination::prepare(system, &plane, &account, receiving).await?;
        agent::start(system, &plane).await?;
        let administrator = &plane.administrator;
        let traffic = Traffic::start(administrator, &made.name, setting.rate, &system.tasks);
        system.tell(&story::flowing(setting.rate));
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let began = system.clock.now();
        Ok(Self {
            system,
            plane,
            account: account.name,
            destination: made.name,
            door: made.door,
            authority,
            seen: Seen::default(),
            events: made.events,
            traffic,
            looks,
            began,
            phases: Vec::new(),
            untold: Vec::new(),
            doubted: Vec::new(),
        })
    }

    /// The API.
    pub(crate) fn api(&self) -> &Administrator {
        &self.plane.administrator
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        self.system.clock.now()
    }

    /// Begins a part of the story.
    pub(crate) fn chapter(&mut self, title: &str) {
        self.catch_up();
        self.system.say(&format!("\n── {title}\n"));
    }

    /// Tells, after what happened before: the API is asked soon, and may know of something earlier.
    pub(crate) fn tell(&mut self, entry: Entry) {
        self.tell_of(self.now(), entry);
    }

    /// Tells what happened at `at`.
    pub(crate) fn tell_of(&mut self, at: Timestamp, entry: Entry) {
        self.untold.push((at, entry));
    }

    /// Tells what is not yet told, in order of time.
    pub(crate) fn catch_up(&mut self) {
        self.untold.sort_by_key(|(at, _)| *at);
        for (at, entry) in self.untold.drain(..) {
            self.system.tell_of(at, &entry);
        }
    }

    /// Changes what the receiver demands, and tells so.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn receiver(
        &mut self,
        entry: Entry,
        change: impl FnOnce(&mut Demand),
    ) -> Result<(), TlsError> {
        self.door.change(change)?;
        self.seen.tally.tell_again();
        self.tell(entry);
        Ok(())
    }

    /// Notes how long a part took.
    pub(crate) fn took(&mut self, what: impl Into<String>, from: Timestamp, to: Timestamp) {
        self.phases.push(Phase {
            what: what.into(),
            seconds: to.since(from).as_secs_f64(),
        });
    }

    /// Deliveries accepted from a second before `from` until now are looked at one by one.
    pub(crate) fn doubt(&mut self, from: Timestamp) {
        let until = self.now();
        self.doubted
            .push((from.minus(Duration::from_secs(1)), until));
    }

    /// What was submitted until now.
    pub(crate) fn submitted(&self) -> Submitted {
        self.traffic.submitted()
    }

    /// Goes on, telling what happens, until `done`.
    ///
    /// # Errors
    /// [`Failure::Deadline`] when `limit` passes before, or what was met.
    pub(crate) async fn until(
        &mut self,
        what: &'static str,
        limit: Duration,
        mut done: impl FnMut(&Seen) -> bool,
    ) -> Result<(), Failure> {
        self.system.wait_for(what);
        let end = Instant::now() + limit;
        while !done(&self.seen) {
            if Instant::now() >= end {
                return Err(self.system.deadline_passed(limit));
            }
            tokio::select! {
                event = self.events.recv() => self.take(&event.ok_or(Failure::ReceiverEnded)?),
                _ = self.looks.tick() => self.look().await?,
            }
        }
        self.system.idle();
        Ok(())
    }

    /// Goes on for a while.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn linger(&mut self, time: Duration) -> Result<(), Failure> {
        let end = Instant::now() + time;
        self.until("what comes next", time * 2, |_| Instant::now() >= end)
            .await
    }

    /// Goes on until `count` webhooks more came over connections that presented `serial`.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn carried(
        &mut self,
        serial: &str,
        count: u64,
        limit: Duration,
    ) -> Result<(), Failure> {
        let wanted = self.seen.tally.webhooks(serial) + count;
        let waiting = "deliveries over connections with the certificate";
        self.until(waiting, limit, |seen| seen.tally.webhooks(serial) >= wanted)
            .await
    }

    fn take(&mut self, event: &Event) {
        let now = self.now();
        if let Some(entry) = self.seen.tally.take(event, now) {
            let at = match event {
                Event::Received(reception) => reception.at,
                Event::Refused(_) => now,
            };
            self.tell_of(at, entry);
        }
    }

    async fn look(&mut self) -> Result<(), Failure> {
        self.system.check_children()?;
        let api = &self.plane.administrator;
        let name = &self.destination;
        let asked = self.now();
        let view = View {
            certificates: api.client_certificates(name).await?,
            alerts: api.alerts(name).await?,
        };
        for news in view::news(&self.seen.view, &view) {
            let at = news.at.map_or(asked, |at| at.max(self.began));
            self.untold.push((at, news.entry));
        }
        self.seen.view = view;
        self.catch_up();
        Ok(())
    }

    /// The trust anchors that receivers of the account are to install now.
    ///
    /// # Errors
    /// [`Failure::TrustAnchor`].
    pub(crate) async fn anchors(
        &self,
    ) -> Result<Vec<rustls_pki_types::CertificateDer<'static>>, Failure> {
        let url = trust_anchor::url(self.plane.addresses.http, &self.account);
        Ok(trust_anchor::fetch(&url).await?)
    }

    /// Stops the deliveries, waits for the last, and takes stock.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn end(mut self, name: &str) -> Result<Outcome, Failure> {
        self.system.wait_for("the last deliveries");
        let stopped = self.now();
        let submitted = self.traffic.stop().await;
        let accepted = submitted.accepted;
        // Not in time is lost: the outcome says so.
        let all = |seen: &Seen| seen.tally.received() >= accepted;
        match self.until("the last deliveries", LAST, all).await {
            Ok(()) | Err(Failure::Deadline { .. }) => {}
            Err(other) => return Err(other),
        }
        self.catch_up();
        self.system.wait_for("the store's record of all deliveries");
        let api = &self.plane.administrator;
        let mut stock = stock::take(api, &self.account, &self.doubted, LAST).await?;
        stock.accepted = accepted;
        stock.refused = submitted.refused;
        let mut outcome = Outcome {
            story: name.to_owned(),
            seconds: stopped.since(self.began).as_secs_f64(),
            deliveries: stock,
            phases: self.phases,
            ..Outcome::default()
        };
        if let Some(why) = submitted.why {
            outcome
                .broken
                .push(format!("a delivery was refused: {why}"));
        }
        let seen = &self.seen;
        outcome.received = stock::received(&seen.tally);
        let start = self.system.started();
        outcome.certificates = stock::certificates(&seen.tally, &seen.view, start);
        self.system.idle();
        Ok(outcome)
    }
}
