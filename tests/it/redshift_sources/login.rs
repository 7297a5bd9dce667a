//! Logins that AWS lends for a while.

use std::time::{Duration, Instant};

use redshift_sim::{Counters, Fault, Kind, Options, Rule, Sim};

use super::rows::{ITEMS, SETUP, changes, loaded_beyond};
use super::world::{By, World};
use crate::support::process::{LIMIT, Launch};
use crate::support::s3::{ACCESS_KEY, SECRET_KEY};

/// What becomes of logins while rows are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Lent for two minutes, and its end is known: no later session is opened with it.
    Short,
    /// The short one is about to end; another one is lent for an hour.
    Ends,
    /// It holds.
    Holds,
    /// It was taken back, and the cluster refuses it.
    TakenBack,
    /// The same, and AWS lends no other one for a while.
    NoOther,
}

impl Fate {
    const ALL: [Self; 5] = [Self::Short, Self::Ends, Self::Holds, Self::TakenBack, Self::NoOther];

    fn begin(self, sim: &Sim) {
        sim.lend_at_most(Duration::from_secs(if self == Self::Short { 120 } else { 3600 }));
        if matches!(self, Self::TakenBack | Self::NoOther) {
            sim.expire_credentials();
        }
        sim.refuse_to_lend((self == Self::NoOther).then_some("ExpiredToken"));
    }

    /// Whether a login was lent, how many the cluster refused, and whether one was asked for in vain.
    fn leads_to(self) -> (bool, u64, bool) {
        match self {
            Self::Short | Self::Ends => (true, 0, false),
            Self::Holds => (false, 0, false),
            Self::TakenBack => (true, 1, false),
            Self::NoOther => (true, 1, true),
        }
    }
}

fn launch(world: &World) -> Launch {
    let sim = &world.cluster.sim;
    let auth = format!(
        "auth: {{ cluster: acme, region: eu-west-3, access_key_id: {ACCESS_KEY}, secret_access_key: {SECRET_KEY}, endpoint: \
         \"{}\" }}, iam_role",
        sim.credentials_endpoint(),
    );
    let lent = format!("redshift://{}/dev", sim.address());
    let topology = world.topology(&world.name, &[("items", "")]).replace(&sim.url(), &lent).replace("iam_role", &auth);
    assert!(topology.contains(&lent) && !topology.contains("loader"), "{topology}");
    Launch::new(world.path(), &topology)
}

/// GIVEN logins that AWS lends, WHEN they are about to end, are taken back, and none is lent for a while, while sessions break, THEN others
/// are asked for, before they end where their end is known, once where they are refused, and everything is there once.
pub async fn logins_end_while_it_runs(by: By) {
    let short = |options: Options| Options { lends: Duration::from_secs(120), ..options };
    let Some(mut world) = World::on(by, SETUP, short).await else { return };
    let launch = launch(&world);
    let mut process = launch.run();
    let mut read = 0;
    for (round, fate) in (0..).zip(Fate::ALL) {
        let before = if round == 0 { Counters::default() } else { world.cluster.sim.counters() };
        fate.begin(&world.cluster.sim);
        if round > 0 {
            // As many as there are sessions at most: one of them is new.
            world.cluster.sim.fail(Rule::new(Fault::ResetBefore).on(Kind::Begin).times(4));
            world.run(&changes(round)).await;
        }
        let begun = Instant::now();
        while fate == Fate::NoOther && world.cluster.sim.counters().not_lent < 2 {
            assert!(begun.elapsed() < LIMIT, "nobody asks\n{}", process.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.cluster.sim.refuse_to_lend(None);
        read = loaded_beyond(&mut process, &format!("{fate:?}"), read).await;
        let after = world.cluster.sim.counters();
        let lent = after.lent > before.lent;
        let counted = (lent, after.refused_logins - before.refused_logins, after.not_lent > before.not_lent);
        assert_eq!(counted, fate.leads_to(), "{fate:?}: {before:?} {after:?}\n{}", process.log_tail());
    }
    process.stop().await;
    launch.run_until_caught_up().await;
    world.assert_same(&launch, ITEMS).await;
}
