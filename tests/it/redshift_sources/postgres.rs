//! PostgreSQL, read directly, into Redshift.

use super::world::{By, World};
use super::{lake, login, rows, tables};

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_or_waits_with_the_reason() {
    rows::every_type(By::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_change_move_and_go() {
    rows::change_move_and_go(By::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_widen_and_change() {
    tables::columns_come_widen_and_change(By::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_and_after_every_step_of_a_load() {
    rows::killed_at_every_step(By::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_away_for_thirty_epochs() {
    rows::away_for_thirty_epochs(By::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_fail_or_whose_answer_is_lost() {
    rows::commits_that_fail(By::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_and_loses_answers() {
    rows::a_store_that_fails(By::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_end_while_it_runs() {
    login::logins_end_while_it_runs(By::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_whose_ddl_is_refused_is_parked_while_the_others_go_on() {
    tables::one_of_two_hundred_is_refused(By::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_loader_does_no_harm() {
    tables::a_second_loader(By::Postgres, redshift_sim::Isolation::Serializable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_is_loaded_again_and_gives_the_same() {
    lake::loaded_again(By::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_is_built_anew_by_other_rules() {
    lake::built_anew(By::Postgres).await;
}

/// GIVEN binary values as long as any that load, which as text are twice as long as one may be, THEN they arrive, and `verify`
/// reads them.
#[tokio::test(flavor = "multi_thread")]
async fn long_binary_values_are_verified() {
    let setup = "CREATE TABLE items (id int PRIMARY KEY, raw bytea)";
    let Some(mut world) = World::new(By::Postgres, setup).await else { return };
    let launch = world.launch(rows::ITEMS);
    let of = |bytes: usize| format!("decode(repeat('5c', {bytes}), 'hex')");
    let [short, long, longest] = [32_766, 32_767, 64_000].map(of);
    world
        .run(&format!(
            "INSERT INTO items VALUES (1, {short}), (2, {long}), (3, {longest}), (4, ''), (5, NULL), (6, '\\x78')"
        ))
        .await;
    launch.run_until_caught_up().await;
    world.assert_same(&launch, rows::ITEMS).await;
}
