//! Topics and partitions that come, go and are made again.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_are_read_from_their_beginning_in_a_new_generation() {
    let broker = broker();
    broker.create_topic("grows", 1, &[]).await;
    produce(broker, "grows", 0, 0..5);
    let log = Arc::new(Log::default());
    let mut config = settings(broker, &["grows"]);
    config.start = Start::Latest;
    let mut member = Member::open(&config, "grows", &log).await;
    // Given up before it was committed: where it begins is said again.
    assert!(matches!(member.next().await.unwrap(), Polled::Batch(batch) if batch.records.is_empty()));
    member.kafka.rewind(&log.progress()).await.unwrap();
    assert_eq!(member.catch_up().await.count(), 0, "latest");
    assert_eq!(log.progress().iter().next().unwrap().1.position.0, "5");
    produce(broker, "grows", 0, 5..10);
    member.read(5).await;
    broker.add_partitions("grows", 2).await;
    produce(broker, "grows", 1, 10..15);
    assert_eq!(member.read(10).await.all(), pairs(5..15));
    let generation = |member: &Member, number: &str| {
        let of = |b: &&RawBatch| b.partition.name.ends_with(number);
        member.batches.iter().rfind(of).map(|b| b.generation).unwrap()
    };
    assert_eq!((generation(&member, "/0"), generation(&member, "/1")), (0, 1));
    // The old partition is cut where it stood when that was noticed.
    let mut n = 15;
    while generation(&member, "/0") == 0 {
        produce(broker, "grows", 0, n..n + 1);
        n += 1;
        let enough = member.count() + 1;
        member.read(enough).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(n < 60, "the growth is not noticed");
    }
    // Another process comes to the same generation.
    drop(member);
    produce(broker, "grows", 0, 100..101);
    let mut other = Member::open(&config, "grows", &log).await;
    other.read(1).await;
    assert_eq!(generation(&other, "/0"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_is_another_partition_also_while_it_is_read() {
    let broker = broker();
    broker.create_topic("again", 1, &[]).await;
    produce(broker, "again", 0, 0..5);
    let log = Arc::new(Log::default());
    let config = settings(broker, &["again"]);
    let mut member = Member::open(&config, "again", &log).await;
    member.catch_up().await;
    broker.delete_topic("again").await;
    broker.create_topic("again", 1, &[]).await;
    // More than before, so that the old position would be inside.
    produce(broker, "again", 0, 10..20);
    member.read(15).await;
    assert_eq!(member.seen.len(), 2, "{:?}", member.seen);
    let last = member.batches.last().unwrap();
    assert_eq!(member.seen[&last.partition], pairs(10..20));
    assert_eq!(member.count(), 15, "nothing of the new topic came under the old name");
    assert_eq!(last.generation, 1);
    drop(member);

    // And when nobody was looking.
    broker.delete_topic("again").await;
    broker.create_topic("again", 1, &[]).await;
    produce(broker, "again", 0, 30..33);
    let mut member = Member::open(&config, "again", &log).await;
    member.catch_up().await;
    assert_eq!(member.all(), pairs(30..33));
    assert_eq!(member.batches.last().unwrap().generation, 2);
}

/// GIVEN a partition whose leader has changed, WHEN its topic is made again while it is read, and the first leader of the
/// new one has a lower epoch than the client knows of the old one, THEN the new one is read.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_is_read_also_where_its_leader_epoch_is_lower() {
    let mut broker = Broker::start();
    broker.create_topic("led", 1, &[]).await;
    broker.create_topic("beside", 1, &[]).await;
    produce(&broker, "led", 0, 0..5);
    let log = Arc::new(Log::default());
    let config = settings(&broker, &["led", "beside"]);
    let mut member = Member::open(&config, "led", &log).await;
    member.catch_up().await;
    broker.restart();
    // Fetched from the later leader.
    produce(&broker, "led", 0, 5..6);
    member.read(6).await;
    broker.delete_topic("led").await;
    broker.create_topic("led", 1, &[]).await;
    produce(&broker, "led", 0, 10..12);
    produce(&broker, "beside", 0, 20..21);
    member.read(9).await;
    let of = |name: &str| {
        let found = member.seen.iter().filter(|(partition, _)| partition.name.starts_with(name));
        found.map(|(_, records)| records.clone()).collect::<Vec<_>>()
    };
    let mut led = of("led#");
    led.sort();
    assert_eq!(led, [pairs(0..6), pairs(10..12)]);
    assert_eq!(of("beside#"), [pairs(20..21)]);
    let last = member.batches.iter().rfind(|batch| batch.partition.name.starts_with("led#")).unwrap();
    assert_eq!(last.generation, 1);
}

/// A log that says how often it was asked.
#[cfg(feature = "failpoints")]
struct Asked(Arc<Log>, tokio::sync::watch::Sender<u32>);

#[cfg(feature = "failpoints")]
#[async_trait::async_trait]
impl dataflow::progress::Standings for Asked {
    async fn latest(&self) -> Result<Progress> {
        self.1.send_modify(|asked| *asked += 1);
        Ok(self.0.progress())
    }
}

/// GIVEN a member that has just learned which topic it reads, WHEN the topic is made again before it has asked where that
/// begins and ends, or is gone for a while, THEN it asks again, and reads the new one.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_while_its_partitions_are_placed_is_another_one() {
    let broker = broker();
    for (topic, gone_for_a_while) in [("placed", false), ("replaced", true)] {
        broker.create_topic(topic, 1, &[]).await;
        produce(broker, topic, 0, 0..5);
        let log = Arc::new(Log::default());
        let config = settings(broker, &[topic]);
        Member::open(&config, topic, &log).await.catch_up().await;
        let (here, mut arrived) = tokio::sync::mpsc::unbounded_channel();
        let (go, told) = std::sync::mpsc::channel::<()>();
        let told = std::sync::Mutex::new(told);
        let waits = move || {
            let _nobody_listens = here.send(());
            let _told_or_nobody_tells = told.lock().unwrap().recv();
        };
        fail::cfg_callback(format!("kafka.place.{topic}"), waits).unwrap();
        let (asking, mut asked) = tokio::sync::watch::channel(0);
        let standings = Arc::new(Asked(log.clone(), asking));
        let kafka = Kafka::open("k", &config, topic, &[], INFLIGHT, standings).await.unwrap();
        let mut member = Member { kafka, log, seen: BTreeMap::new(), batches: Vec::new() };
        tokio::time::timeout(PATIENCE, arrived.recv()).await.expect("partitions are placed").unwrap();
        broker.delete_topic(topic).await;
        if gone_for_a_while {
            go.send(()).unwrap();
            let again = asked.wait_for(|asked| *asked > 1);
            tokio::time::timeout(PATIENCE, again).await.expect("it asks again").unwrap();
        }
        broker.create_topic(topic, 1, &[]).await;
        // Fewer than before: the old position is beyond them.
        produce(broker, topic, 0, 10..12);
        drop(go);
        member.read(2).await;
        assert_eq!(member.all(), pairs(10..12));
        assert_eq!(member.batches.last().unwrap().generation, 1);
        fail::remove(format!("kafka.place.{topic}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_find_topics_that_come_later_and_a_time_is_a_start() {
    let broker = broker();
    broker.create_topic("pat.one", 1, &[]).await;
    produce(broker, "pat.one", 0, 0..3);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let now = chrono::Utc::now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    produce(broker, "pat.one", 0, 3..5);
    let log = Arc::new(Log::default());
    let mut config = settings(broker, &["pat.*"]);
    config.start = Start::Timestamp(now);
    let mut member = Member::open(&config, "pat", &log).await;
    assert_eq!(member.catch_up().await.all(), pairs(3..5));
    broker.create_topic("pat.two", 1, &[]).await;
    broker.create_topic("patXthree", 1, &[]).await;
    produce(broker, "patXthree", 0, 7..8);
    let time = chrono::Utc::now();
    produce(broker, "pat.two", 0, 8..9);
    assert!(time > now);
    assert_eq!(member.read(3).await.all(), [pairs(3..5), pairs(8..9)].concat());
}
