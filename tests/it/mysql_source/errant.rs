//! Transactions that only one server of MariaDB has: its positions keep one number for each domain, and do not show them.

use crate::mysql_source::lost::{AGAIN, halts, promote, replicate, until_replicated};
use crate::mysql_source::{ITEMS, ROWS, World, families, items, run};
use crate::support::mysql::{Family, Server};
use crate::support::proxy::Proxy;

async fn write(server: &Server, world: &World, ids: std::ops::Range<u32>) {
    let mut conn = server.connect(&world.database).await;
    for id in ids {
        run(&mut conn, &format!("INSERT INTO items VALUES ({id}, 1, 'server {}')", server.port())).await;
    }
}

async fn rotate(server: &Server) {
    run(&mut server.connect("").await, "FLUSH BINARY LOGS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_a_replica_of_mariadb_made_halt_once_it_is_the_primary() {
    if !families().contains(&Family::MariaDb) {
        return;
    }
    // How many it makes before the primary goes on, and whether its log has gone on to another file meanwhile.
    for (errant, rotates, writes_on) in [(1, false, false), (1, true, true), (9, false, true)] {
        let (old, new) = (Server::start(Family::MariaDb, &[]), Server::start(Family::MariaDb, &[]));
        let mut world = World::on(&old, &items(20)).await;
        replicate(&old, &new).await;
        let proxy = Proxy::to(old.port()).await;
        world.port = proxy.port();
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        write(&new, &world, 7000..7000 + errant).await;
        if rotates {
            rotate(&new).await;
        }
        // The primary's next transactions have their numbers.
        write(&old, &world, 5000..5003).await;
        launch.run_until_caught_up().await;
        until_replicated(&old, &new).await;
        promote(&new).await;
        old.kill();
        if writes_on {
            // What the server says of itself is beyond our number then.
            write(&new, &world, 8000..8002).await;
        }
        proxy.aim(new.port());
        world.connect_again(&new).await;
        halts(&launch, &["transactions that only it has", "snapshot_again"]).await;
        halts(&launch, &["transactions that only it has"]).await;
        world.launch(ITEMS, AGAIN).run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        assert_eq!(world.held("SELECT CAST(count(*) AS text) FROM items WHERE id = 7000").await, ["1"]);
        // They are known from now on.
        write(&new, &world, 9000..9001).await;
        launch.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_mariadb_that_take_turns_as_the_primary_are_followed() {
    if !families().contains(&Family::MariaDb) {
        return;
    }
    let (one, other) = (Server::start(Family::MariaDb, &[]), Server::start(Family::MariaDb, &[]));
    let mut world = World::on(&one, &items(20)).await;
    replicate(&one, &other).await;
    // Older than all that is read: nobody can tell it from what the first server has forgotten of its past.
    run(&mut other.connect("").await, "CREATE DATABASE older").await;
    world.run("CREATE DATABASE newer").await;
    let proxy = Proxy::to(one.port()).await;
    world.port = proxy.port();
    let launch = world.launch(ITEMS, "");
    launch.run_until_caught_up().await;
    let (mut primary, mut replica) = (&one, &other);
    let mut id = 5000;
    for turn in 0..3 {
        write(primary, &world, id..id + 3).await;
        if turn == 1 {
            rotate(primary).await;
            write(primary, &world, id + 3..id + 4).await;
        }
        launch.run_until_caught_up().await;
        until_replicated(primary, replica).await;
        promote(replica).await;
        // It writes before anybody has noticed.
        write(replica, &world, id + 4..id + 6).await;
        let follow = format!(
            "SET GLOBAL gtid_slave_pos = @@global.gtid_binlog_pos; CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, \
             MASTER_USER = 'repl', MASTER_PASSWORD = 'secret', MASTER_USE_GTID = slave_pos; START SLAVE",
            replica.port()
        );
        run(&mut primary.connect("").await, &follow).await;
        until_replicated(replica, primary).await;
        proxy.aim(replica.port());
        world.connect_again(replica).await;
        launch.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        (primary, replica) = (replica, primary);
        id += 10;
    }
    let said = launch.whole_log().matches("older than what was read").count();
    assert_eq!(said, 1, "{}", launch.whole_log());
}
